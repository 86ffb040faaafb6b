//! Reads of everything: first what is not a client, then the clients in ranges of their ids, each as of one moment.
//!
//! No range waits for another, so a registry of any size is read in statements that take milliseconds, and changes are
//! read in between.

use std::sync::Arc;

use sqlx::Connection as _;

use super::changes::{ChangeReader, Changes, Position, exchange};
use super::client_certs::CertificateRow;
use super::client_keys::KeyRow;
use super::client_rows::{ClientRow, ClientRows, ResourceLink, SecretRow, SharedTexts};
use super::delta::RevocationRow;
use super::link::LinkConnection;
use super::statement::args;
use super::{StoreError, on};
use crate::model::client::Client;
use crate::model::time::UnixTime;

/// All clients of a range of ids.
#[derive(Debug)]
pub struct ClientRange {
    /// The database's position at the moment of reading.
    pub position: Position,
    /// The id before the range; `None` for the first range.
    pub after: Option<String>,
    /// The last id of the range; `None` for the last range, which has no end.
    pub through: Option<String>,
    /// The clients, in the order of their ids. A client whose rows cannot be read is an error of its own.
    pub clients: Vec<(String, Result<Arc<Client>, StoreError>)>,
}

/// Reader of one range after another. Clients that it reads share equal texts.
#[derive(Debug, Default)]
pub struct RangeReader {
    after: Option<String>,
    shared: SharedTexts,
}

impl RangeReader {
    /// Reads the next range.
    ///
    /// # Errors
    /// [`StoreError`]; the same range is then read again.
    pub async fn next(&mut self, reader: &mut ChangeReader) -> Result<ClientRange, StoreError> {
        let (position, rows) = reader.range_rows(self.after.as_deref()).await?;
        let through = rows.clients.last().filter(|_| rows.clients.len() >= RANGE).map(|last| last.client_id.clone());
        let after = std::mem::replace(&mut self.after, through.clone());
        Ok(ClientRange { position, after, through, clients: rows.assemble(&mut self.shared) })
    }
}

impl ChangeReader {
    /// Reads everything but clients.
    ///
    /// # Errors
    /// [`StoreError`]. A row that cannot be read is an error inside [`Changes`].
    pub async fn all_but_clients(&mut self) -> Result<Changes, StoreError> {
        let mut changes = self.read_small_tables(&["resource", "key", "tag_key", "cutoff"]).await?;
        // Rows that are written while these are read come with a later revision.
        let mut after = String::new();
        loop {
            let sql = RevocationRow::select("", "where c.jti > $1 order by c.jti limit 20000");
            let rows: Vec<RevocationRow> = self.fetch(sql, &args![&after]).await?;
            let is_last = rows.len() < 20_000;
            changes.revoked.extend(rows.into_iter().map(|row| (row.jti, UnixTime(row.expires_at))));
            match changes.revoked.last() {
                Some((jti, _)) if !is_last => after.clone_from(jti),
                _ => return Ok(changes),
            }
        }
    }

    /// Reads the rows of the clients that follow an id, as of one moment.
    async fn range_rows(&mut self, after: Option<&str>) -> Result<(Position, ClientRows), StoreError> {
        let (after, queries) = (after.unwrap_or_default(), self.queries.clone());
        let (named, begin) = (self.is_named(), self.begin());
        let sent = || {
            queries.inc();
            named
        };
        macro_rules! rows {
            ($at:ident, $row:ty, $through:expr) => {
                sqlx::query_as(<$row>::select("", "where c.client_id > $1 and c.client_id <= $2"))
                    .bind(after)
                    .bind($through)
                    .persistent(sent())
                    .fetch_all(&mut *$at)
                    .await?
            };
        }
        exchange!(self, connection => {
            let mut at = connection.begin_with(begin).await?;
            let sql = "select revision, history from registry_revision";
            let (revision, history): (i64, String) =
                sqlx::query_as(sql).persistent(sent()).fetch_one(&mut *at).await?;
            let mut rows = ClientRows {
                clients: sqlx::query_as(ClientRow::select("", "where c.client_id > $1 order by c.client_id limit 4096"))
                    .bind(after)
                    .persistent(sent())
                    .fetch_all(&mut *at)
                    .await?,
                ..ClientRows::default()
            };
            if let Some(last) = rows.clients.last() {
                let through = last.client_id.clone();
                rows.resources = rows!(at, ResourceLink, through.as_str());
                rows.secrets = rows!(at, SecretRow, through.as_str());
                rows.keys = rows!(at, KeyRow, through.as_str());
                rows.certificates = rows!(at, CertificateRow, through.as_str());
            }
            at.rollback().await?;
            Ok((Position { revision, history: history.into() }, rows))
        })
    }
}

/// Clients of one range.
pub const RANGE: usize = 4096;

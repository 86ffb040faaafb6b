//! Reads of everything: first what is not a client, then the clients in ranges of their ids, each as of one moment.
//!
//! No range waits for another, so a registry of any size is read in statements that take milliseconds, and changes are
//! read in between.

use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Connection as _};

use super::changes::{ChangeReader, Changes, Position, exchange};
use super::client_certs::CertificateRow;
use super::client_keys::KeyRow;
use super::client_rows::{ClientAssembler, ClientRow, ReadClient, ResourceLink, SecretRow, SharedTexts};
use super::federation::RuleRow;
use super::link::LinkConnection;
use super::rows::{BorrowedRow as _, RowReader};
use super::statement::args;
use super::{StoreError, on};
use crate::model::status::{EndedEpochs, StatusIndex};
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
    pub clients: Vec<(String, ReadClient)>,
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
        let (position, clients) = reader.range(self.after.as_deref(), &mut self.shared).await?;
        let through = clients.last().filter(|_| clients.len() >= RANGE).map(|(id, _)| id.clone());
        let after = std::mem::replace(&mut self.after, through.clone());
        Ok(ClientRange { position, after, through, clients })
    }
}

impl ChangeReader {
    /// Reads everything but clients.
    ///
    /// # Errors
    /// [`StoreError`]. A row that cannot be read is an error inside [`Changes`].
    pub async fn all_but_clients(&mut self) -> Result<Changes, StoreError> {
        let mut changes = self.read_small_tables(&["resource", "key", "tag_key", "cutoff", "issuer"]).await?;
        // Rows that are written while these are read come with a later revision.
        let mut after = String::new();
        loop {
            let sql = "select jti, expires_at from revoked_token where jti > $1 order by jti limit $2";
            let rows: Vec<(String, i64)> = self.fetch(sql, &args![&after, REVOKED_AT_ONCE]).await?;
            let is_last = i64::try_from(rows.len()).is_ok_and(|rows| rows < REVOKED_AT_ONCE);
            changes.revoked.extend(rows.into_iter().map(|(jti, expires_at)| (jti, UnixTime(expires_at))));
            match changes.revoked.last() {
                Some((jti, _)) if !is_last => after.clone_from(jti),
                _ => break,
            }
        }
        let mut after = -1;
        loop {
            let sql = "select first_index, last_index, ended_at from ended_status where first_index > $1
                       order by first_index limit $2";
            let rows: Vec<(i64, i64, i64)> = self.fetch(sql, &args![after, REVOKED_AT_ONCE]).await?;
            let is_last = i64::try_from(rows.len()).is_ok_and(|rows| rows < REVOKED_AT_ONCE);
            changes.ended.extend(rows.into_iter().map(|(first, last, at)| EndedEpochs {
                first: StatusIndex(first),
                last: StatusIndex(last),
                ended_at: UnixTime(at),
            }));
            match changes.ended.last() {
                Some(epochs) if !is_last => after = epochs.first.0,
                _ => return Ok(changes),
            }
        }
    }

    /// Reads the clients that follow an id, as of one moment.
    async fn range(
        &mut self,
        after: Option<&str>,
        shared: &mut SharedTexts,
    ) -> Result<(Position, Vec<(String, ReadClient)>), StoreError> {
        let (after, queries) = (after.unwrap_or_default(), self.queries.clone());
        let (named, begin) = (self.is_named(), self.begin());
        let sent = || {
            queries.inc();
            named
        };
        let mut assembler = ClientAssembler::new(shared);
        /// Reads the rows of a table up to the last client, and passes them on one by one.
        macro_rules! each {
            ($at:ident, $row:ident, $add:ident) => {
                if let Some(through) = assembler.last_id().map(str::to_owned) {
                    let select = $row::select("where c.client_id > $1 and c.client_id <= $2");
                    let query = sqlx::query(select).bind(after).bind(through.as_str()).persistent(sent());
                    let (mut rows, mut reader) = (query.fetch(&mut *$at), RowReader::default());
                    while let Some(row) = rows.try_next().await? {
                        assembler.$add(&reader.read::<$row<'_>, _>(&row)?);
                    }
                }
            };
        }
        let position = exchange!(self, connection => {
            let mut at = connection.begin_with(begin).await?;
            let sql = "select revision, history from registry_revision";
            let (revision, history): (i64, String) =
                sqlx::query_as(sql).persistent(sent()).fetch_one(&mut *at).await?;
            {
                let select = format!("{} limit {RANGE}", ClientRow::select("where c.client_id > $1").0);
                let query = sqlx::query(AssertSqlSafe(select)).bind(after).persistent(sent());
                let (mut rows, mut reader) = (query.fetch(&mut *at), RowReader::default());
                while let Some(row) = rows.try_next().await? {
                    assembler.add_client(&reader.read::<ClientRow<'_>, _>(&row)?);
                }
            }
            each!(at, ResourceLink, add_resource);
            each!(at, SecretRow, add_secret);
            each!(at, KeyRow, add_key);
            each!(at, CertificateRow, add_certificate);
            each!(at, RuleRow, add_rule);
            at.rollback().await?;
            Ok(Position { revision, history: history.into() })
        })?;
        Ok((position, assembler.finish()))
    }
}

/// Revoked tokens, or ended epochs, that are read at once.
const REVOKED_AT_ONCE: i64 = 20_000;
/// Clients that are read at once: eight ranges of the registry.
pub const RANGE: usize = 3584;

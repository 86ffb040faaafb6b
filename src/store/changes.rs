//! Reads of the change feed: the revision to poll, and the changes after a revision.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use prometheus_client::metrics::counter::Counter;
use sqlx::{Connection as _, FromRow};

use super::client_certs::CertificateRow;
use super::client_keys::KeyRow as ClientKeyRow;
use super::clients::{ClientAssembler, ClientRow, ResourceLink, SecretRow};
use super::keys::{KeyRow, SealedKey};
use super::pooling::Pooling;
use super::resources::{IntrospectorRow, ResourceRow, assemble_resources};
use super::revoked::RevokedRow;
use super::session::{Session, within};
use super::tag_keys::{SealedTagKey, TagKeyRow};
use super::{Store, StoreError, on};
use crate::model::client::Client;
use crate::model::resource::Resource;
use crate::model::time::UnixTime;

/// Connection of the change feed. It is dropped at the first error.
#[derive(Debug)]
pub struct ChangeReader {
    session: Session,
    pooling: Pooling,
    queries: Counter,
}

/// Revision of the database with its random id. A database with another history has another id at that revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// The revision; 0 before the first load.
    pub revision: i64,
    /// The revision's random id.
    pub history: Arc<str>,
}

/// Changes after a position, or the whole registry.
#[derive(Debug)]
pub struct Changes {
    /// The position after these changes.
    pub position: Position,
    /// Whether the requested position is not in this database's history.
    pub other_history: bool,
    /// Whether this is the whole registry, so that anything absent was deleted.
    pub complete: bool,
    /// Changed clients by id; `None` for a deleted one.
    pub clients: HashMap<String, Option<Result<Arc<Client>, StoreError>>>,
    /// All resources, when any changed.
    pub resources: Option<Vec<Result<Resource, StoreError>>>,
    /// All signing keys, when any changed.
    pub keys: Option<Vec<SealedKey>>,
    /// All tag keys, when any changed.
    pub tag_keys: Option<Vec<SealedTagKey>>,
    /// Revoked tokens by id, with their expiry: the new ones, or all.
    pub revoked: Vec<(String, UnixTime)>,
    /// Cut-off of the tokens of all clients, when it changed.
    pub not_before: Option<UnixTime>,
}

/// Result of a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    /// The database's position.
    pub position: Position,
    /// Whether the database refuses writes. Its data may then be those of a former primary.
    pub read_only: bool,
    /// Whether the server is a standby.
    pub standby: bool,
    /// Time by the database's clock, in milliseconds since 1970.
    pub now: i64,
}

impl Store {
    /// Opens a connection for the change feed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn change_reader(&self) -> Result<ChangeReader, StoreError> {
        Ok(ChangeReader { session: self.session().await?, pooling: self.pooling(), queries: self.queries.clone() })
    }
}

/// Reads the rows of a table for all clients or for the changed ones, and passes them on one by one: a hundred thousand
/// rows at once would take more memory than the clients made of them.
macro_rules! each {
    ($at:ident, $sent:ident, $since:expr, $row:ty => $take:expr) => {{
        let query = match $since {
            None => sqlx::query_as(<$row>::select("", "")),
            Some(since) => sqlx::query_as(<$row>::select(
                "registry_change r join ",
                "on c.client_id = r.id where r.kind = 'client' and r.revision > $1",
            ))
            .bind(since),
        };
        let mut rows = query.persistent($sent()).fetch(&mut *$at);
        let mut take = $take;
        while let Some(row) = rows.try_next().await? {
            let row: $row = row;
            take(row);
        }
    }};
}

impl ChangeReader {
    /// Reads the revision. While nothing changes this is the only statement.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn poll(&mut self) -> Result<Poll, StoreError> {
        self.queries.inc();
        match &mut self.session {
            Session::Postgres(connection) => {
                // True on a standby too. Connections to a demoted primary stay open and would answer for ever.
                let sql = "select revision, history, current_setting('transaction_read_only') = 'on',
                                  coalesce(current_setting('in_hot_standby', true), 'off') = 'on',
                                  floor(extract(epoch from clock_timestamp()) * 1000)::bigint from registry_revision";
                let polled = async {
                    if self.pooling == Pooling::Session {
                        return sqlx::query_as(sql).fetch_one(connection).await;
                    }
                    // A statement without parameters is one exchange, so it needs no transaction of its own.
                    FromRow::from_row(&sqlx::raw_sql(sql).fetch_one(connection).await?)
                };
                let (revision, history, read_only, standby, now): (_, String, _, _, _) = within(polled).await?;
                Ok(Poll { position: Position { revision, history: history.into() }, read_only, standby, now })
            }
            Session::Sqlite(connection) => {
                let sql =
                    "select revision, history, cast(unixepoch('subsec') * 1000 as integer) from registry_revision";
                let (revision, history, now): (_, String, _) =
                    within(sqlx::query_as(sql).fetch_one(connection)).await?;
                Ok(Poll {
                    position: Position { revision, history: history.into() },
                    read_only: false,
                    standby: false,
                    now,
                })
            }
        }
    }

    /// Reads the changes after `since`, as of one moment. Reads everything when `since` is `None` or not in this
    /// database's history, or when `whole` is set.
    ///
    /// # Errors
    /// [`StoreError`]. A row that cannot be read is an error inside [`Changes`].
    pub async fn changes(&mut self, since: Option<&Position>, whole: bool) -> Result<Changes, StoreError> {
        let (queries, asked_since) = (self.queries.clone(), since.is_some());
        let named = self.pooling == Pooling::Session;
        let one_moment = match &self.session {
            Session::Postgres(_) => BEGIN_LOADING,
            Session::Sqlite(_) => "begin",
        };
        // Called once for each statement: counts the statement, and returns whether it may have a name.
        let sent = || {
            queries.inc();
            named
        };
        let read = async {
            on!(Session, &mut self.session, connection => {
                let mut at = connection.begin_with(one_moment).await?;
                let (revision, history): (i64, String) =
                    sqlx::query_as("select revision, history from registry_revision").persistent(sent()).fetch_one(&mut *at).await?;
                let position = Position { revision, history: history.into() };
                let mut past = None;
                if let Some(since) = since.filter(|since| since.revision <= position.revision) {
                    let sql = "select revision from registry_history where revision = $1 and history = $2";
                    past = sqlx::query_as(sql).bind(since.revision).bind(&*since.history).persistent(sent()).fetch_optional(&mut *at).await?;
                }
                let past: Option<i64> = past.map(|(revision,): (i64,)| revision);
                let other_history = asked_since && past.is_none();
                let since = past.filter(|_| !whole);
                let touched: Vec<(String, String)> = match since {
                    None => vec![("all".into(), String::new())],
                    Some(since) => {
                        sqlx::query_as("select kind, id from registry_change where revision > $1").bind(since).persistent(sent()).fetch_all(&mut *at).await?
                    }
                };
                let complete = touched.iter().any(|(kind, _)| kind == "all");
                let includes = |what: &str| complete || touched.iter().any(|(kind, _)| kind == what);

                let mut clients = HashMap::new();
                if includes("client") {
                    clients.extend(touched.iter().filter(|(kind, _)| kind == "client").map(|(_, id)| (id.clone(), None)));
                    let mut assembler = ClientAssembler::default();
                    let since = since.filter(|_| !complete);
                    each!(at, sent, since, ResourceLink => |row: ResourceLink| assembler.add_resource(&row));
                    each!(at, sent, since, SecretRow => |row| assembler.add_secret(row));
                    each!(at, sent, since, ClientKeyRow => |row| assembler.add_key(row));
                    each!(at, sent, since, CertificateRow => |row| assembler.add_certificate(row));
                    each!(at, sent, since, ClientRow => |row| {
                        let (id, client) = assembler.client(row);
                        clients.insert(id, Some(client));
                    });
                }

                let mut resources = None;
                if includes("resource") {
                    let rows: Vec<ResourceRow> =
                        sqlx::query_as(ResourceRow::select("", "")).persistent(sent()).fetch_all(&mut *at).await?;
                    let introspectors: Vec<IntrospectorRow> =
                        sqlx::query_as(IntrospectorRow::select("", "")).persistent(sent()).fetch_all(&mut *at).await?;
                    resources = Some(assemble_resources(rows, introspectors));
                }

                let mut keys = None;
                if includes("key") {
                    let rows: Vec<KeyRow> =
                        sqlx::query_as(KeyRow::select("", "")).persistent(sent()).fetch_all(&mut *at).await?;
                    keys = Some(rows.into_iter().map(SealedKey::from).collect());
                }
                let mut tag_keys = None;
                if includes("tag_key") {
                    let rows: Vec<TagKeyRow> = sqlx::query_as(TagKeyRow::select("", "")).persistent(sent()).fetch_all(&mut *at).await?;
                    tag_keys = Some(rows.into_iter().map(SealedTagKey::from).collect());
                }
                let mut revoked = Vec::new();
                if includes("revoked") {
                    let sql = "select jti, expires_at from revoked_token where revision > $1";
                    let since = if complete { -1 } else { since.unwrap_or(-1) };
                    let rows: Vec<RevokedRow> = sqlx::query_as(sql).bind(since).persistent(sent()).fetch_all(&mut *at).await?;
                    revoked.extend(rows.into_iter().map(|(jti, expires_at)| (jti, UnixTime(expires_at))));
                }
                let mut not_before = None;
                if includes("cutoff") {
                    let (latest,): (Option<i64>,) = sqlx::query_as("select max(not_before) from token_cutoff").persistent(sent()).fetch_one(&mut *at).await?;
                    not_before = Some(UnixTime(latest.unwrap_or(0)));
                }
                at.rollback().await?;
                Ok(Changes { position, other_history, complete, clients, resources, keys, tag_keys, revoked, not_before })
            })
        };
        match tokio::time::timeout(LOAD_DEADLINE, read).await {
            Ok(read) => read.map_err(|error: sqlx::Error| StoreError::from(error)),
            Err(_) => Err(StoreError::Late(LOAD_DEADLINE)),
        }
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.session.close().await;
    }
}

/// Begins a snapshot of one moment, with the settings that sessions of grantd need, which a transaction pooler does not
/// keep.
const BEGIN_LOADING: &str = "begin isolation level repeatable read read only; set local statement_timeout = '30s';
     set local row_security = off; set local lock_timeout = '2s'";
/// Deadline of a load: a hundred thousand clients over a slow link take longer than one statement.
pub(crate) const LOAD_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);

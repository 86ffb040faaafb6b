//! Reads of the change feed: the revision to poll, and the changes after a revision.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use sqlx::{AssertSqlSafe, Connection as _, FromRow, SqlSafeStr};

use super::client_rows::SharedTexts;
use super::delta::{self, Delta, DeltaRow, NOTES_MAX, PositionRow};
use super::federation::{IssuerRow, read_issuer};
use super::keys::{KeyRow, SealedKey};
use super::link::{Link, LinkConnection};
use super::pooling::Pooling;
use super::resources::{IntrospectorRow, ResourceRow, assemble_resources};
use super::session::{Row, Session, within};
use super::statement::{Value, args, query_as};
use super::tag_keys::{SealedTagKey, TagKeyRow};
use super::{ReadClient, Store, StoreError, on};
use crate::model::federation::trusted_issuer::TrustedIssuer;
use crate::model::resource::Resource;
use crate::model::status::EndedEpochs;
use crate::model::time::UnixTime;

/// Connection of the change feed. It is dropped at the first error.
#[derive(Debug)]
pub struct ChangeReader {
    pub(super) link: Link,
    pooling: Pooling,
    pub(super) queries: Counter,
}

/// Revision of the database with its random id. A database with another history has another id at that revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// The revision; 0 before the first load.
    pub revision: i64,
    /// The revision's random id.
    pub history: Arc<str>,
}

/// Changes after a position.
#[derive(Debug, Default)]
pub struct Changes {
    /// The position after these changes.
    pub position: Position,
    /// Changed clients by id; `None` for a deleted one.
    pub clients: Vec<(String, Option<ReadClient>)>,
    /// All resources, when any changed.
    pub resources: Option<Vec<Result<Resource, StoreError>>>,
    /// All trusted issuers, when any changed.
    pub issuers: Option<Vec<Result<TrustedIssuer, StoreError>>>,
    /// All signing keys, when any changed.
    pub keys: Option<Vec<SealedKey>>,
    /// All tag keys, when any changed.
    pub tag_keys: Option<Vec<SealedTagKey>>,
    /// New revoked tokens by id, with their expiry.
    pub revoked: Vec<(String, UnixTime)>,
    /// Cut-off of the tokens of all clients, when it changed.
    pub not_before: Option<UnixTime>,
    /// Position of the status list from which the numbers of clients are counted, when it changed.
    pub status_list: Option<i64>,
    /// Status indices whose epoch has newly ended.
    pub ended: Vec<EndedEpochs>,
}

/// The way from a position to the database's present one.
#[derive(Debug)]
pub enum Since {
    /// The changes after the position.
    Changes(Changes),
    /// Everything has to be read: too much has changed for single notes, or the notes are forgotten.
    Everything(Position),
    /// The position is not in this database's history.
    OtherHistory,
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
    /// Time that the exchange took.
    pub exchange: Duration,
}

impl Store {
    /// Opens a connection for the change feed, which receives notifications where the server sends them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn change_reader(&self) -> Result<ChangeReader, StoreError> {
        Ok(self.reader_on(self.listening_link().await?))
    }

    /// Opens a connection without notifications. It finds a server that answers sooner.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reader(&self) -> Result<ChangeReader, StoreError> {
        Ok(self.reader_on(self.plain_link().await?))
    }

    fn reader_on(&self, link: Link) -> ChangeReader {
        ChangeReader { link, pooling: self.pooling(), queries: self.queries.clone() }
    }
}

/// Runs an exchange on the connection within the deadline of loading: `exchange!(reader, connection => …)`. A macro,
/// because an async closure that borrows would make the future not `Send`.
macro_rules! exchange {
    ($reader:expr, $connection:ident => $body:expr) => {{
        let exchanged = async {
            on!(LinkConnection, $reader.link.connection().await?, $connection => $body)
        };
        match tokio::time::timeout($crate::store::changes::LOAD_DEADLINE, exchanged).await {
            Ok(exchanged) => exchanged.map_err(|error: sqlx::Error| StoreError::from(error)),
            Err(_) => Err(StoreError::Late($crate::store::changes::LOAD_DEADLINE)),
        }
    }};
}
pub(super) use exchange;

impl ChangeReader {
    /// Reads the revision. While nothing changes this is the only statement.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn poll(&mut self) -> Result<Poll, StoreError> {
        self.queries.inc();
        let (named, asked_at) = (self.is_named(), Instant::now());
        within(async {
            match self.link.connection().await? {
                LinkConnection::Postgres(connection) => {
                    // True on a standby too. Connections to a demoted primary stay open and would answer for ever.
                    let sql = "select revision, history, current_setting('transaction_read_only') = 'on',
                                      coalesce(current_setting('in_hot_standby', true), 'off') = 'on',
                                      floor(extract(epoch from clock_timestamp()) * 1000)::bigint from registry_revision";
                    let (revision, history, read_only, standby, now): (_, String, _, _, _) = if named {
                        sqlx::query_as(sql).fetch_one(connection).await?
                    } else {
                        // A statement without parameters is one exchange, so it needs no transaction of its own.
                        FromRow::from_row(&sqlx::raw_sql(sql).fetch_one(connection).await?)?
                    };
                    let (position, exchange) = (Position { revision, history: history.into() }, asked_at.elapsed());
                    Ok(Poll { position, read_only, standby, now, exchange })
                }
                LinkConnection::Sqlite(connection) => {
                    let sql =
                        "select revision, history, cast(unixepoch('subsec') * 1000 as integer) from registry_revision";
                    let (revision, history, now): (_, String, _) = sqlx::query_as(sql).fetch_one(connection).await?;
                    let position = Position { revision, history: history.into() };
                    let (read_only, standby, exchange) = (false, false, asked_at.elapsed());
                    Ok::<_, sqlx::Error>(Poll { position, read_only, standby, now, exchange })
                }
            }
        })
        .await
    }

    /// Reads the changes after a position, with what a poll returns, in one statement. Behind a transaction pooler, where it
    /// runs in a transaction that only reads, every database looks read-only.
    ///
    /// # Errors
    /// [`StoreError`]. A row that cannot be read is an error inside [`Changes`].
    pub async fn poll_since(&mut self, held: &Position) -> Result<(Poll, Since), StoreError> {
        let asked_at = Instant::now();
        let delta = within(self.delta(held)).await?;
        let exchange = asked_at.elapsed();
        let row = delta.position()?.ok_or_else(no_revision)?;
        let poll = Poll {
            position: Position { revision: row.revision, history: row.history.as_str().into() },
            read_only: row.read_only != 0,
            standby: row.standby != 0,
            now: row.now,
            exchange,
        };
        Ok((poll, self.changes(held, &delta, row).await?))
    }

    /// Reads the changes after a position.
    ///
    /// # Errors
    /// [`StoreError`]. A row that cannot be read is an error inside [`Changes`].
    pub async fn since(&mut self, held: &Position) -> Result<Since, StoreError> {
        let delta = self.delta(held).await?;
        let row = delta.position()?.ok_or_else(no_revision)?;
        self.changes(held, &delta, row).await
    }

    async fn delta(&mut self, held: &Position) -> Result<Delta, StoreError> {
        let sql = match &self.link {
            Link::Plain(Session::Sqlite(_)) => &delta::SQLITE,
            _ => &delta::POSTGRES,
        };
        Ok(Delta::of(self.fetch::<DeltaRow>(AssertSqlSafe(sql.as_str()), &args![held.revision]).await?))
    }

    async fn changes(&mut self, held: &Position, delta: &Delta, row: PositionRow) -> Result<Since, StoreError> {
        let PositionRow { revision, history, asked_history, oldest, .. } = row;
        let position = Position { revision, history: history.into() };
        // The ids of the last ten thousand revisions are kept, so nothing tells whether an older one was another's.
        if oldest.is_some_and(|oldest| held.revision < oldest && revision - oldest >= KEPT_IDS - 1) {
            return Ok(Since::Everything(position));
        }
        if held.revision > revision || asked_history.as_deref() != Some(&*held.history) {
            return Ok(Since::OtherHistory);
        }
        let noted = |what: &str| delta.notes().any(|(kind, _)| kind == what);
        if noted("all") || delta.notes().count() > NOTES_MAX {
            return Ok(Since::Everything(position));
        }
        let small: Vec<&str> =
            ["resource", "key", "tag_key", "cutoff", "issuer"].into_iter().filter(|kind| noted(kind)).collect();
        // Read after the clients, so they are as new at least; what they are newer by is read again.
        let mut changes = if small.is_empty() { Changes::default() } else { self.read_small_tables(&small).await? };
        changes.position = position;
        changes.revoked = delta.revoked()?;
        changes.ended = delta.ended()?;
        let mut present = delta.clients(&mut SharedTexts::default())?.into_iter().peekable();
        let mut ids: Vec<String> =
            delta.notes().filter(|(kind, _)| *kind == "client").map(|(_, id)| id.to_owned()).collect();
        ids.sort_unstable();
        changes.clients = ids
            .into_iter()
            .map(|id| {
                let client =
                    present.next_if(|(present, _): &(String, ReadClient)| *present == id).map(|(_, client)| client);
                (id, client)
            })
            .collect();
        Ok(Since::Changes(changes))
    }

    /// Reads tables that are small, as of one moment.
    pub(super) async fn read_small_tables(&mut self, kinds: &[&str]) -> Result<Changes, StoreError> {
        let (queries, named, begin) = (self.queries.clone(), self.is_named(), self.begin());
        // Called once for each statement: counts the statement, and returns whether it may have a name.
        let sent = || {
            queries.inc();
            named
        };
        exchange!(self, connection => {
            let mut at = connection.begin_with(begin).await?;
            let (revision, history): (i64, String) =
                sqlx::query_as("select revision, history from registry_revision").persistent(sent()).fetch_one(&mut *at).await?;
            let position = Position { revision, history: history.into() };
            let mut changes = Changes { position, ..Changes::default() };
            if kinds.contains(&"resource") {
                let rows: Vec<ResourceRow> =
                    sqlx::query_as(ResourceRow::select("")).persistent(sent()).fetch_all(&mut *at).await?;
                let introspectors: Vec<IntrospectorRow> =
                    sqlx::query_as(IntrospectorRow::select("")).persistent(sent()).fetch_all(&mut *at).await?;
                changes.resources = Some(assemble_resources(rows, introspectors));
            }
            if kinds.contains(&"issuer") {
                let rows: Vec<IssuerRow> =
                    sqlx::query_as(IssuerRow::select("")).persistent(sent()).fetch_all(&mut *at).await?;
                changes.issuers = Some(rows.iter().map(read_issuer).collect());
            }
            if kinds.contains(&"key") {
                let rows: Vec<KeyRow> =
                    sqlx::query_as(KeyRow::select("")).persistent(sent()).fetch_all(&mut *at).await?;
                changes.keys = Some(rows.into_iter().map(SealedKey::from).collect());
            }
            if kinds.contains(&"tag_key") {
                let rows: Vec<TagKeyRow> =
                    sqlx::query_as(TagKeyRow::select("")).persistent(sent()).fetch_all(&mut *at).await?;
                changes.tag_keys = Some(rows.into_iter().map(SealedTagKey::from).collect());
            }
            if kinds.contains(&"cutoff") {
                let sql = "select max(not_before), max(status_list) from token_cutoff";
                let (latest, list): (Option<i64>, Option<i64>) =
                    sqlx::query_as(sql).persistent(sent()).fetch_one(&mut *at).await?;
                changes.not_before = Some(UnixTime(latest.unwrap_or(0)));
                changes.status_list = Some(list.unwrap_or(0));
            }
            at.rollback().await?;
            Ok(changes)
        })
    }

    /// Runs a query and returns its rows.
    pub(super) async fn fetch<R: Row>(&mut self, sql: impl SqlSafeStr, values: &[Value]) -> Result<Vec<R>, StoreError> {
        self.queries.inc();
        let (named, begin) = (self.is_named(), self.begin());
        exchange!(self, connection => {
            if named {
                return query_as(sql, values)?.fetch_all(connection).await;
            }
            let mut at = connection.begin_with(begin).await?;
            let rows = query_as(sql, values)?.persistent(false).fetch_all(&mut *at).await?;
            at.rollback().await?;
            Ok(rows)
        })
    }

    /// Returns the revision of the next notification, or when the connection breaks. Without notifications, never
    /// returns.
    ///
    /// # Errors
    /// [`StoreError`] of the connection.
    pub async fn notified(&mut self) -> Result<i64, StoreError> {
        Ok(self.link.notified().await?)
    }

    /// Waits until the server has sent the notifications of every change that was committed before this call, and returns
    /// their revisions. Takes less of the server's time than a statement.
    ///
    /// # Errors
    /// [`StoreError`] of the connection.
    pub async fn await_notifications(&mut self) -> Result<Vec<i64>, StoreError> {
        // A server sends the notifications that it holds for a session before it reports that it is ready.
        within(async { on!(LinkConnection, self.link.connection().await?, connection => connection.ping().await) })
            .await?;
        Ok(self.take_notifications())
    }

    /// Takes the notifications that have arrived, and returns their revisions.
    pub fn take_notifications(&mut self) -> Vec<i64> {
        self.link.take_notifications()
    }

    /// Whether this connection receives notifications.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        matches!(self.link, Link::Listening(_))
    }

    /// Closes the connection.
    pub async fn close(self) {
        match self.link {
            // A listener closes its connection when it is dropped.
            Link::Listening(_) => {}
            Link::Plain(session) => session.close().await,
        }
    }

    /// Whether statements may have names on this connection.
    pub(super) fn is_named(&self) -> bool {
        self.pooling == Pooling::Session
    }

    /// Begins a snapshot of one moment.
    pub(super) fn begin(&self) -> &'static str {
        match &self.link {
            Link::Plain(Session::Sqlite(_)) => "begin",
            _ => BEGIN_LOADING,
        }
    }
}

fn no_revision() -> StoreError {
    StoreError::Schema("the table registry_revision is empty: restore its one row".into())
}

/// Number of revisions whose ids the triggers of the schema keep.
const KEPT_IDS: i64 = 10_000;
/// Begins a snapshot of one moment, with the settings that sessions of grantd need, which a transaction pooler does not
/// keep.
pub(super) const BEGIN_LOADING: &str =
    "begin isolation level repeatable read read only; set local statement_timeout = '10s';
     set local row_security = off; set local lock_timeout = '2s';
     select set_config(name, 'off', true)
         from (values ('jit'), ('enable_seqscan'), ('enable_hashjoin'), ('enable_mergejoin')) as settings (name)
         where current_setting(name, true) is not null";
/// Deadline of one exchange while loading. A load takes as long as it needs; each of its parts is read within this time.
pub(crate) const LOAD_DEADLINE: Duration = Duration::from_secs(10);

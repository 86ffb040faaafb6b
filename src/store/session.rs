//! Connections of our own, transactions on them, and what every session of ours asks of the database.

use crate::model::event::Event;
use std::future::Future;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, FromRow, Row as _, SqlSafeStr};

use super::pooling::Pooling;
use super::statement::{Value, query, query_as};
use super::{DEADLINE, StoreError, on};

/// A row that both databases can return.
pub(crate) trait Row: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}
impl<R> Row for R where R: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}

/// A connection of its own for more than one statement. No pool ever sees it: when something goes wrong halfway, it is
/// closed, and no later borrower inherits an open transaction. It lives for a few statements, so none of them gets a name.
#[derive(Debug)]
pub(crate) enum Session {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Session {
    pub(super) async fn execute(&mut self, sql: &'static str, values: &[Value]) -> Result<u64, sqlx::Error> {
        Ok(
            on!(Session, self, connection => query(sql, values)?.persistent(false).execute(connection).await?.rows_affected()),
        )
    }

    pub(super) async fn fetch<R: Row>(
        &mut self,
        sql: impl SqlSafeStr,
        values: &[Value],
    ) -> Result<Vec<R>, sqlx::Error> {
        on!(Session, self, connection => query_as(sql, values)?.persistent(false).fetch_all(connection).await)
    }

    pub(super) async fn count(&mut self, sql: &'static str, values: &[Value]) -> Result<i64, sqlx::Error> {
        let counts: Vec<(i64,)> = self.fetch(sql, values).await?;
        Ok(counts.first().map_or(0, |(count,)| *count))
    }

    /// Runs statements that take no values and return nothing.
    async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        on!(Session, self, connection => connection.execute(sqlx::raw_sql(sql)).await.map(drop))
    }

    /// Says goodbye, so that the server need not notice by itself. Nothing depends on it.
    pub(crate) async fn close(self) {
        let closed = within(async { on!(Session, self, connection => connection.close().await) }).await;
        if let Err(error) = closed {
            tracing::debug!(%error, "a database connection did not close cleanly");
        }
    }
}

/// A transaction that writes. Dropped without [`commit`](Self::commit), it takes its connection along.
#[derive(Debug)]
pub(crate) struct Transaction {
    session: Session,
    queries: Counter,
}

impl Transaction {
    /// Begins on a fresh session. SQLite takes its write lock at once, since upgrading later can fail.
    pub(super) async fn begin(mut session: Session, pooling: Pooling, queries: Counter) -> Result<Self, StoreError> {
        let sql = match (&session, pooling) {
            (Session::Postgres(_), Pooling::Session) => "begin isolation level read committed",
            (Session::Postgres(_), Pooling::Transaction) => BEGIN_PREPARED,
            (Session::Sqlite(_), _) => "begin immediate",
        };
        session.run(sql).await?;
        Ok(Self { session, queries })
    }

    /// Begins on a fresh session, to read as of one moment.
    pub(super) async fn begin_reading(mut session: Session, queries: Counter) -> Result<Self, StoreError> {
        let sql = match session {
            Session::Postgres(_) => BEGIN_READING,
            Session::Sqlite(_) => "begin",
        };
        session.run(sql).await?;
        Ok(Self { session, queries })
    }

    /// Runs a query and returns its rows.
    pub(super) async fn fetch<R: Row>(&mut self, sql: impl SqlSafeStr, values: &[Value]) -> Result<Vec<R>, StoreError> {
        self.queries.inc();
        Ok(self.session.fetch(sql, values).await?)
    }

    /// Runs a statement and returns the number of rows that it touched.
    pub(crate) async fn execute(&mut self, sql: &'static str, values: &[Value]) -> Result<u64, StoreError> {
        self.queries.inc();
        Ok(self.session.execute(sql, values).await?)
    }

    /// Returns the count that a `select count(*)` finds.
    pub(crate) async fn count(&mut self, sql: &'static str, values: &[Value]) -> Result<i64, StoreError> {
        self.queries.inc();
        Ok(self.session.count(sql, values).await?)
    }

    /// Makes every other transaction that takes this turn, and every change of the registry, wait until this one ends.
    pub(crate) async fn take_turn(&mut self) -> Result<(), StoreError> {
        self.execute("update registry_revision set revision = revision", &[]).await.map(drop)
    }

    /// The session, for statements that only read.
    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Makes what was written last, and gives the session back.
    pub(super) async fn commit(mut self) -> Result<Session, StoreError> {
        self.session.run("commit").await?;
        Ok(self.session)
    }

    /// Undoes what was written, and gives the session back.
    pub(super) async fn rollback(mut self) -> Result<Session, StoreError> {
        self.session.run("rollback").await?;
        Ok(self.session)
    }
}

/// What a new PostgreSQL session leads to.
#[derive(Debug)]
pub(super) struct ServerInfo {
    /// Whether the server refuses writes.
    pub(super) read_only: bool,
    /// System identifier and timeline. Databases that only speak PostgreSQL's protocol have none, and behind a pooler of
    /// transactions it says nothing of the next statement.
    pub(super) lineage: Option<String>,
}

/// Asks of a new PostgreSQL session what ours need, whatever role, database or server are set to.
///
/// - `row_security = off`: a policy that would hide rows becomes an error; an empty registry would refuse every client.
/// - `read committed`: each statement of ours decides by itself, or locks what it decides on.
/// - Timeouts below our own deadline: the error says what the database waited for, and no lock outlives its owner.
/// - `synchronous_commit`: a single-use id is on disk before it counts.
pub(super) async fn prepare(connection: &mut PgConnection, pooling: Pooling) -> Result<ServerInfo, sqlx::Error> {
    if pooling == Pooling::Session {
        sqlx::raw_sql(
            "set statement_timeout = '5s';
             set row_security = off;
             set default_transaction_isolation = 'read committed';
             set lock_timeout = '2s';
             set idle_in_transaction_session_timeout = '10s';
             select set_config('transaction_timeout', '0', false)
                 where current_setting('server_version_num')::bigint >= 170000;
             select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'",
        )
        .execute(&mut *connection)
        .await?;
    }
    let read_only = sqlx::raw_sql("select current_setting('transaction_read_only') = 'on'");
    let read_only = read_only.fetch_one(&mut *connection).await?.try_get(0)?;
    let lineage = if pooling == Pooling::Session { lineage(connection).await? } else { None };
    Ok(ServerInfo { read_only, lineage })
}

/// The same settings for one transaction, where the next one may reach another session.
pub(super) const BEGIN_PREPARED: &str = "begin isolation level read committed;
     set local statement_timeout = '5s'; set local row_security = off; set local lock_timeout = '2s';
     set local idle_in_transaction_session_timeout = '10s';
     select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') = 'off'";

/// The same for a transaction that reads as of one moment.
const BEGIN_READING: &str = "begin isolation level repeatable read read only;
     set local statement_timeout = '5s'; set local row_security = off; set local lock_timeout = '2s'";

/// System identifier and timeline. Each failover begins another timeline, each `initdb` another system.
async fn lineage(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    let asked = sqlx::raw_sql(
        "select system_identifier::text || '/' || case when pg_is_in_recovery() then 'standby'
                else substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) end
         from pg_control_system()",
    );
    match asked.fetch_one(connection).await {
        Ok(row) => Ok(Some(row.try_get(0)?)),
        // Databases that speak PostgreSQL's protocol and are something else, and servers that keep it to their own roles.
        Err(sqlx::Error::Database(error)) => {
            tracing::debug!(event = Event::DatabaseNoLineage.as_str(), reason = %error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Lets the statements of a session take as long as they need, and wait for a lock as long as `patience`.
pub(super) async fn set_lock_timeout(connection: &mut PgConnection, patience: Duration) -> Result<(), sqlx::Error> {
    let milliseconds = patience.as_millis();
    let sql = format!(
        "set lock_timeout = {milliseconds}; set statement_timeout = 0; set idle_in_transaction_session_timeout = 0"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
}

/// Whether a connection that has rested is still there; with an error the pool makes another.
pub(super) async fn is_alive(connection: &mut PgConnection, rested: Duration) -> Result<bool, sqlx::Error> {
    if rested >= PING_AFTER_IDLE {
        connection.ping().await?;
    }
    Ok(true)
}

/// Runs one exchange with the database under the deadline.
pub(crate) async fn within<T, E: Into<StoreError>>(
    exchange: impl Future<Output = Result<T, E>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(DEADLINE, exchange).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(StoreError::Late(DEADLINE)),
    }
}

/// After so long a connection may have been lost without our noticing.
const PING_AFTER_IDLE: Duration = Duration::from_millis(100);

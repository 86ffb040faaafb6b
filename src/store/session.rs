//! Connections outside the pool, transactions on them, and the settings that every session needs.

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

/// Row that both databases can return.
pub(crate) trait Row: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}
impl<R> Row for R where R: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}

/// Connection outside the pool, for several statements. When something fails halfway it is closed, so no later user
/// inherits an open transaction. It lives for a few statements, so none of them gets a name.
#[derive(Debug)]
pub(crate) enum Session {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Session {
    pub(super) async fn execute(&mut self, sql: impl SqlSafeStr, values: &[Value]) -> Result<u64, sqlx::Error> {
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

    /// Runs statements without values and results.
    async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        on!(Session, self, connection => connection.execute(sqlx::raw_sql(sql)).await.map(drop))
    }

    /// Closes the connection in order, so that the server notices at once. Nothing depends on it.
    pub(crate) async fn close(self) {
        let closed = within(async { on!(Session, self, connection => connection.close().await) }).await;
        if let Err(error) = closed {
            tracing::debug!(%error, "a database connection did not close cleanly");
        }
    }
}

/// Transaction. Dropping it without [`commit`](Self::commit) closes its connection.
#[derive(Debug)]
pub(crate) struct Transaction {
    session: Session,
    queries: Counter,
}

impl Transaction {
    /// Begins a transaction that writes. SQLite takes its write lock at once, since upgrading a lock later can fail.
    pub(super) async fn begin(mut session: Session, pooling: Pooling, queries: Counter) -> Result<Self, StoreError> {
        let sql = match (&session, pooling) {
            (Session::Postgres(_), Pooling::Session) => "begin isolation level read committed",
            (Session::Postgres(_), Pooling::Transaction) => BEGIN_PREPARED,
            (Session::Sqlite(_), _) => "begin immediate",
        };
        session.run(sql).await?;
        Ok(Self { session, queries })
    }

    /// Begins a transaction that reads a snapshot of one moment.
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

    /// Runs a statement and returns the number of rows that it changed.
    pub(crate) async fn execute(&mut self, sql: impl SqlSafeStr, values: &[Value]) -> Result<u64, StoreError> {
        self.queries.inc();
        Ok(self.session.execute(sql, values).await?)
    }

    /// Runs a `select count(*)` and returns the count.
    pub(crate) async fn count(&mut self, sql: &'static str, values: &[Value]) -> Result<i64, StoreError> {
        self.queries.inc();
        Ok(self.session.count(sql, values).await?)
    }

    /// Locks the row of `sql`, a `select … for no key update`, until this transaction ends. A transaction that reads a row
    /// and then changes it calls this before [`take_turn`](Self::take_turn): a single `update` takes these locks in the
    /// same order. SQLite has locked the database already.
    pub(super) async fn lock_row(&mut self, sql: &'static str, values: &[Value]) -> Result<(), StoreError> {
        if let Session::Postgres(_) = self.session {
            self.execute(sql, values).await?;
        }
        Ok(())
    }

    /// Takes the row lock of the revision: every other transaction that takes it, and every change of the registry,
    /// waits until this one ends.
    pub(crate) async fn take_turn(&mut self) -> Result<(), StoreError> {
        self.execute("update registry_revision set revision = revision", &[]).await.map(drop)
    }

    /// Returns the session, for a statement that only reads.
    pub(super) fn session(&mut self) -> &mut Session {
        self.queries.inc();
        &mut self.session
    }

    /// Commits, and returns the session.
    pub(super) async fn commit(mut self) -> Result<Session, StoreError> {
        self.session.run("commit").await?;
        Ok(self.session)
    }

    /// Rolls back, and returns the session.
    pub(super) async fn rollback(mut self) -> Result<Session, StoreError> {
        self.session.run("rollback").await?;
        Ok(self.session)
    }
}

/// Properties of the server behind a new PostgreSQL session.
#[derive(Debug)]
pub(super) struct ServerInfo {
    /// Whether the server refuses writes.
    pub(super) read_only: bool,
    /// The server and database. `None` for databases that only speak PostgreSQL's protocol, and behind a
    /// transaction pooler, where the next statement may reach another server.
    pub(super) lineage: Option<Lineage>,
}

/// Server and database that a session leads to.
#[derive(Debug)]
pub(super) struct Lineage {
    /// System identifier, timeline and name of the database.
    pub(super) identity: String,
    /// Time at which the server was started.
    pub(super) started_at: String,
}

/// Applies the settings that grantd needs to a new PostgreSQL session, whatever the role, database or server sets.
///
/// - `row_security = off`: a policy that would hide rows becomes an error. An empty registry would refuse every client.
/// - `read committed`: each statement decides by itself, or locks the rows that it decides on.
/// - Timeouts below grantd's deadline: the error names the lock, and no lock outlives its owner.
/// - `synchronous_commit`: a single-use id is on disk before it counts.
/// - `jit = off`: compiling a statement takes longer than any statement of grantd.
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
             select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off';
             select set_config('jit', 'off', false) where current_setting('jit', true) is not null",
        )
        .execute(&mut *connection)
        .await?;
    }
    let read_only = sqlx::raw_sql("select current_setting('transaction_read_only') = 'on'");
    let read_only = read_only.fetch_one(&mut *connection).await?.try_get(0)?;
    let lineage = if pooling == Pooling::Session { lineage(connection).await? } else { None };
    Ok(ServerInfo { read_only, lineage })
}

/// The same settings for one transaction, behind a transaction pooler.
pub(super) const BEGIN_PREPARED: &str = "begin isolation level read committed;
     set local statement_timeout = '5s'; set local row_security = off; set local lock_timeout = '2s';
     set local idle_in_transaction_session_timeout = '10s';
     select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') = 'off'";

/// The same settings for a transaction that reads a snapshot of one moment.
const BEGIN_READING: &str = "begin isolation level repeatable read read only;
     set local statement_timeout = '5s'; set local row_security = off; set local lock_timeout = '2s'";

/// Reads system identifier, timeline and database. Each failover begins a new timeline, each `initdb` a new system. Two servers
/// that were promoted from one, or are clones, differ in the time of their start.
async fn lineage(connection: &mut PgConnection) -> Result<Option<Lineage>, sqlx::Error> {
    let asked = sqlx::raw_sql(
        "select system_identifier::text || '/' || case when pg_is_in_recovery() then 'standby'
                else substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) end || '/' || current_database(),
                pg_postmaster_start_time()::text
         from pg_control_system()",
    );
    match asked.fetch_one(connection).await {
        Ok(row) => Ok(Some(Lineage { identity: row.try_get(0)?, started_at: row.try_get(1)? })),
        // Other databases with PostgreSQL's protocol, and servers that restrict the function to their own roles.
        Err(sqlx::Error::Database(error)) => {
            tracing::debug!(event = Event::DatabaseNoLineage.as_str(), reason = %error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Removes the statement timeout of a session, and sets its lock timeout.
pub(super) async fn set_lock_timeout(connection: &mut PgConnection, patience: Duration) -> Result<(), sqlx::Error> {
    let milliseconds = patience.as_millis();
    let sql = format!(
        "set lock_timeout = {milliseconds}; set statement_timeout = 0; set idle_in_transaction_session_timeout = 0"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
}

/// Tests a connection that was idle; with an error the pool makes another.
pub(super) async fn is_alive(connection: &mut PgConnection, rested: Duration) -> Result<bool, sqlx::Error> {
    if rested >= PING_AFTER_IDLE {
        connection.ping().await?;
    }
    Ok(true)
}

/// Runs an exchange with the database within the deadline.
pub(crate) async fn within<T, E: Into<StoreError>>(
    exchange: impl Future<Output = Result<T, E>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(DEADLINE, exchange).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(StoreError::Late(DEADLINE)),
    }
}

/// Idle time after which a connection is tested before its next use.
const PING_AFTER_IDLE: Duration = Duration::from_millis(100);

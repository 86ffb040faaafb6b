//! Floor 2, the only place with SQL: one enum over two connection pools. Each SQL text is true on both databases.
//!
//! Each method is one transaction or statement; no transaction leaves this module. Every exchange has a deadline in
//! this process, since neither a dead peer nor a locked table answers.

pub mod changes;
mod checkup;
pub mod client_certs;
pub mod client_ids;
pub mod client_keys;
mod client_rows;
pub mod clients;
mod clock;
mod columns;
pub mod copying;
mod database;
mod delta;
mod error;
pub mod export;
pub mod federation;
mod health;
pub mod keys;
pub mod last_used;
pub mod leases;
mod link;
mod locks;
mod migration_status;
pub mod migrations;
mod origin;
pub mod pooling;
pub mod ranges;
mod refusal;
pub mod replay_cache;
pub mod resources;
pub mod revoked;
mod rows;
mod schema;
pub mod secrets;
mod seeds;
mod server_requirements;
pub mod servers;
mod session;
mod spare;
pub mod spend_queue;
pub mod spent;
mod statement;
mod tables;
pub mod tag_keys;
mod write_queue;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqlSafeStr};

use crate::crypto::random;
use health::Health;
use origin::Origin;
use pooling::Pooling;
use revoked::RevocationQueue;
use servers::{ServerSelection, take_from_pool, with_defaults};
use session::{Row, Session, within};
use spare::SpareSession;
use spend_queue::SpendQueue;
use statement::{Value, query, query_as};

pub use client_rows::ReadClient;
pub use database::Database;
pub use error::StoreError;
pub use refusal::Refusal;

/// Evaluates a body with the PostgreSQL or the SQLite variant of an enum.
macro_rules! on {
    ($enum:ident, $it:expr, $database:ident => $body:expr) => {
        match $it {
            $enum::Postgres($database, ..) => $body,
            $enum::Sqlite($database, ..) => $body,
        }
    };
}
pub(crate) use on;

/// Runs a write within the deadline, and again when the database asks for another try.
macro_rules! retried {
    ($store:expr, $attempt:expr) => {{
        let mut tries = 0;
        let written = $crate::store::session::within(async {
            loop {
                tries += 1;
                match $attempt.await {
                    Err(StoreError::Conflict(_)) if tries < $crate::store::TRIES => $crate::store::pause(tries).await,
                    done => return done,
                }
            }
        });
        $store.finish_write(written.await).await
    }};
}
use retried;

/// Runs a transaction on a connection of its own: `transaction!(store, |tx| { … })`. The block returns a `Result<_,
/// StoreError>` and may `return` one. It may run more than once, so it has no effect but through `tx`.
///
/// A macro, because an async closure that borrows would make the future not `Send`.
macro_rules! transaction {
    ($store:expr, |$tx:ident| $body:block) => {
        $crate::store::retried!($store, async {
            let session = $store.connect().await?;
            let mut transaction =
                $crate::store::session::Transaction::begin(session, $store.pooling(), $store.queries.clone()).await?;
            let done: Result<_, StoreError> = async {
                let $tx = &mut transaction;
                $body
            }
            .await;
            match done {
                Ok(_) => $store.spare.put(transaction.commit().await?).await,
                Err(_) => $store.spare.put(transaction.rollback().await?).await,
            }
            done
        })
    };
}
pub(crate) use transaction;

/// Runs one statement on a connection of the pool: `pooled!(store, waits, |connection, named| …)`. With `waits`, the connection
/// is back in the pool before the result. Behind a transaction pooler the statement gets a transaction of its own and no name.
macro_rules! pooled {
    ($store:expr, $waits:expr, |$connection:ident, $named:ident| $statement:expr) => {{
        $store.queries.inc();
        on!(Pool, &$store.pool, pool => {
            let mut acquired = pool.acquire().await?;
            let done = match $store.pooling() {
                Pooling::Session => {
                    let ($connection, $named) = (&mut *acquired, true);
                    async { $statement }.await
                }
                // Boxed, so that the futures of statements without a pooler stay small.
                Pooling::Transaction => Box::pin(async {
                    let mut transaction = acquired.begin_with(session::BEGIN_PREPARED).await?;
                    let ($connection, $named) = (&mut *transaction, false);
                    let done = async { $statement }.await?;
                    transaction.commit().await?;
                    Ok(done)
                })
                .await,
            };
            release(acquired, done, $waits).await
        })
    }};
}

/// Pool of connections to the database. Opening it contacts no server; connections are made when they are used.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    origin: Arc<Origin>,
    spend_queue: Arc<SpendQueue>,
    revocation_queue: Arc<RevocationQueue>,
    spare: SpareSession,
    /// Number of statements sent, for `grantd_database_queries_total`.
    pub queries: Counter,
    /// Outcome of the last writes.
    pub health: Arc<Health>,
}

#[derive(Debug, Clone)]
enum Pool {
    Postgres(PgPool, Arc<ServerSelection>),
    Sqlite(SqlitePool, Arc<Path>),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.engine())
    }
}

impl Store {
    /// Makes the store without connecting.
    #[must_use]
    pub fn open(database: &Database, max_connections: u32) -> Self {
        let origin = Arc::new(Origin::default());
        let pool = match database {
            Database::Postgres(servers) => {
                let selection = Arc::new(ServerSelection::new(servers, Arc::clone(&origin)));
                let (checking, outdating) = (Arc::clone(&selection), Arc::clone(&origin));
                let pool = PgPoolOptions::new()
                    .max_connections(max_connections)
                    .acquire_timeout(DEADLINE)
                    .max_lifetime(WATCHED_LIFETIME)
                    .idle_timeout(IDLE)
                    // The pool's own test before each use is an exchange as long as an insert. A connection that was
                    // used just now is not tested.
                    .test_before_acquire(false)
                    .before_acquire(move |connection, about| {
                        let outdated = outdating.is_outdated(about.age) || about.age >= outdating.lifetime();
                        Box::pin(async move { Ok(!outdated && session::is_alive(connection, about.idle_for).await?) })
                    })
                    .after_connect(move |connection, _| {
                        let checking = Arc::clone(&checking);
                        Box::pin(async move { checking.prepare(connection).await.map(drop) })
                    })
                    .connect_lazy_with(with_defaults(&servers.first));
                Pool::Postgres(pool, selection)
            }
            Database::Sqlite(path) => {
                let path: Arc<Path> = path.as_path().into();
                let options = SqliteConnectOptions::new()
                    .filename(&path)
                    // A missing file was deleted or moved, or was never created: `make_database` creates it.
                    .create_if_missing(false)
                    .foreign_keys(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(BUSY)
                    .disable_statement_logging();
                let (looking, looked_at) = (Arc::clone(&origin), Arc::clone(&path));
                let pool = SqlitePoolOptions::new()
                    .max_connections(max_connections)
                    .acquire_timeout(DEADLINE)
                    .before_acquire(move |_, about| {
                        let looked = looking.check_file(&looked_at).map(|()| !looking.is_outdated(about.age));
                        Box::pin(async move { looked.map_err(|error| sqlx::Error::Io(std::io::Error::other(error))) })
                    })
                    .connect_lazy_with(options);
                Pool::Sqlite(pool, path)
            }
        };
        // SQLite allows one writer at a time.
        let turns = if matches!(pool, Pool::Postgres(..)) { 2 } else { 1 };
        let spend_queue = Arc::new(SpendQueue::new(turns));
        let revocation_queue = Arc::new(RevocationQueue::new(turns));
        let (spare, queries, health) = (SpareSession::default(), Counter::default(), Arc::default());
        Self { pool, origin, spend_queue, revocation_queue, spare, queries, health }
    }

    /// `PostgreSQL` or `SQLite`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        match self.pool {
            Pool::Postgres(..) => "PostgreSQL",
            Pool::Sqlite(..) => "SQLite",
        }
    }

    /// Closes every connection.
    pub async fn close(&self) {
        on!(Pool, &self.pool, pool => pool.close().await);
    }

    /// Opens a connection outside the pool.
    pub(crate) async fn session(&self) -> Result<Session, StoreError> {
        within(self.connect()).await
    }

    async fn connect(&self) -> Result<Session, StoreError> {
        if let Some(session) = self.spare.take() {
            return Ok(session);
        }
        match &self.pool {
            // Boxed: connecting is rare, and every future that may connect would grow by it.
            Pool::Postgres(pool, selection) => match Box::pin(selection.connect(pool)).await {
                Err(error) if error.is_out_of_connections() => take_from_pool(pool, error).await.map(Session::Postgres),
                selection => selection.map(Session::Postgres),
            },
            Pool::Sqlite(pool, path) => {
                self.origin.check_file(path)?;
                Ok(Session::Sqlite(pool.connect_options().connect().await?))
            }
        }
    }

    /// The kind of pooler between grantd and the database.
    #[must_use]
    pub fn pooling(&self) -> Pooling {
        match &self.pool {
            Pool::Postgres(_, selection) => selection.pooling,
            Pool::Sqlite(..) => Pooling::Session,
        }
    }

    /// Checks that the file of an embedded database is still the one in use.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub(crate) fn check_file(&self) -> Result<(), StoreError> {
        match &self.pool {
            Pool::Postgres(..) => Ok(()),
            Pool::Sqlite(_, path) => self.origin.check_file(path),
        }
    }

    /// Runs a query on a connection of the pool and returns its rows.
    pub(crate) async fn fetch<R: Row>(&self, sql: impl SqlSafeStr, values: &[Value]) -> Result<Vec<R>, StoreError> {
        within(async {
            pooled!(self, true, |connection, named| {
                query_as(sql, values)?.persistent(named).fetch_all(connection).await
            })
        })
        .await
    }

    /// Runs a write on a connection of the pool, and returns the number of rows that it changed.
    pub(crate) async fn execute(&self, sql: &'static str, values: &[Value]) -> Result<u64, StoreError> {
        retried!(self, async {
            pooled!(self, true, |connection, named| {
                let done = query(sql, values)?.persistent(named).execute(connection).await;
                done.map(|done| done.rows_affected())
            })
        })
    }

    /// Runs a write on a connection of the pool, and returns its rows. The text is made at run time from placeholders
    /// alone. Requests wait for it.
    pub(crate) async fn write_returning<R: Row>(
        &self,
        sql: impl SqlSafeStr,
        values: &[Value],
    ) -> Result<Vec<R>, StoreError> {
        let sql = sql.into_sql_str();
        retried!(self, async {
            pooled!(self, false, |connection, named| {
                query_as(sql.clone(), values)?.persistent(named).fetch_all(connection).await
            })
        })
    }

    /// Records the outcome of a write, and adds the holder of a lock that it waited for.
    async fn finish_write<T>(&self, written: Result<T, StoreError>) -> Result<T, StoreError> {
        let written = match written {
            Err(StoreError::Locked(said)) => Err(StoreError::Locked(self.lock_holders_or(said).await)),
            other => other,
        };
        let only_reads = matches!(written, Err(StoreError::ReadOnly));
        if only_reads && self.health.trouble().is_none() {
            // A demoted primary keeps its connections, and the feed may have one of them.
            self.origin.outdate_all();
        }
        self.health.record(written)
    }
}

/// Returns a connection to its pool, or closes it after an error that may come from a demoted primary. The pool tests a
/// connection first, with an exchange of its own, in a task where nothing waits for it. A task that `waits` for that opens
/// no other for its next statement; a request does not.
async fn release<DB: sqlx::Database, T>(
    mut connection: PoolConnection<DB>,
    done: Result<T, sqlx::Error>,
    waits: bool,
) -> Result<T, StoreError> {
    let done = done.map_err(StoreError::from);
    match &done {
        Err(error) if !error.spares_the_connection() => connection.close_on_drop(),
        // A connection that does not pass in time is closed. The result stands.
        _ if waits => drop(tokio::time::timeout(TESTED_WITHIN, connection.return_to_pool()).await),
        _ => {}
    }
    done
}

/// Waits before another try: longer each time, with a random part, so that the two sides of a conflict do not meet
/// again.
async fn pause(tries: u32) {
    let random = random::<1>().map_or(0, |[byte]| u64::from(byte % 16));
    tokio::time::sleep(Duration::from_millis(u64::from(tries) * 10 + random)).await;
}

/// Time in which the pool tests a connection that is given back.
const TESTED_WITHIN: Duration = Duration::from_secs(1);
/// Deadline of an exchange with the database.
pub const DEADLINE: Duration = Duration::from_secs(3);
/// Maximum age of a connection of the pool: those to a demoted primary stay open.
pub const LIFETIME: Duration = Duration::from_secs(30);
/// The same, while a server that takes over is noticed by a connection that is made for that.
const WATCHED_LIFETIME: Duration = Duration::from_mins(10);
/// Time after which a connection of the pool that nothing uses is closed. Dates of use are written twice as often.
const IDLE: Duration = Duration::from_mins(1);
/// Maximum number of tries of a transaction that the database refuses because of concurrent ones.
const TRIES: u32 = 5;
/// Time for which SQLite waits for another writer. It is shorter than the deadline, so that the error names the lock.
const BUSY: Duration = Duration::from_secs(2);

//! The database: one concrete enum over two pools, each SQL text written once and true on both.
//!
//! Methods are atomic facts; no transaction leaves this module. Everything has a deadline on our side of the wire,
//! since neither a dead peer nor a locked table would otherwise ever answer.

pub mod changes;
mod checkup;
pub mod client_certs;
pub mod client_keys;
pub mod clients;
mod columns;
mod database;
mod error;
mod health;
pub mod hints;
pub mod keys;
pub mod last_used;
mod locks;
mod migration_status;
pub mod migrations;
mod origin;
pub mod pooling;
mod refusal;
pub mod replay_cache;
pub mod resources;
pub mod revoked;
mod rows;
mod schema;
pub mod secrets;
mod seeds;
pub mod servers;
mod session;
pub mod spend_queue;
pub mod spent;
mod statement;
pub mod tag_keys;

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
use crate::model::time::UnixTime;
use health::Health;
use origin::Origin;
use pooling::Pooling;
use servers::{ServerSelection, take_from_pool, with_defaults};
use session::{Row, Session, within};
use spend_queue::SpendQueue;
use statement::{Value, query, query_as};

pub use database::Database;
pub use error::StoreError;
pub use refusal::Refusal;

/// Evaluates a body against whichever database we hold.
macro_rules! on {
    ($enum:ident, $it:expr, $database:ident => $body:expr) => {
        match $it {
            $enum::Postgres($database, ..) => $body,
            $enum::Sqlite($database, ..) => $body,
        }
    };
}
pub(crate) use on;

/// The present second, not that in which the transaction began.
macro_rules! postgres_clock {
    () => {
        "floor(extract(epoch from clock_timestamp()))::bigint"
    };
}

/// Runs something that writes under the deadline, again when the database asks for another try.
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

/// Runs a transaction on a connection of its own: `transaction!(store, |tx| { … })`, where the block returns a
/// `Result<_, StoreError>`, may `return` one, and has no effect but through `tx`, since it may run more than once.
///
/// A macro and no function, because what an async closure borrows keeps its future from being `Send`.
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
                Ok(_) => transaction.commit().await?.close().await,
                Err(_) => transaction.rollback().await?.close().await,
            }
            done
        })
    };
}
pub(crate) use transaction;

/// Runs one statement on a connection of the pool: `pooled!(store, |connection, named| …)`. Behind a pooler of transactions
/// the statement gets one of its own, and no name.
macro_rules! pooled {
    ($store:expr, |$connection:ident, $named:ident| $statement:expr) => {{
        $store.queries.inc();
        on!(Pool, &$store.pool, pool => {
            let mut acquired = pool.acquire().await?;
            let done = match $store.pooling() {
                Pooling::Session => {
                    let ($connection, $named) = (&mut *acquired, true);
                    async { $statement }.await
                }
                // Boxed, so that statements without a pooler have no room for it.
                Pooling::Transaction => Box::pin(async {
                    let mut transaction = acquired.begin_with(session::BEGIN_PREPARED).await?;
                    let ($connection, $named) = (&mut *transaction, false);
                    let done = async { $statement }.await?;
                    transaction.commit().await?;
                    Ok(done)
                })
                .await,
            };
            release(acquired, done)
        })
    }};
}

/// A pool of connections to the database. Opening one needs no server: connections are made when they are used.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    origin: Arc<Origin>,
    spend_queue: Arc<SpendQueue>,
    /// Statements sent, for `grantd_database_queries_total`.
    pub queries: Counter,
    /// Whether what should be written can be.
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
    /// Opens the store without connecting.
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
                    .max_lifetime(LIFETIME)
                    // By itself the pool asks each connection whether it is still there, which is an exchange as long as
                    // that of an insert. One that was in use just now is believed.
                    .test_before_acquire(false)
                    .before_acquire(move |connection, about| {
                        let outdated = outdating.is_outdated(about.age);
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
                    // A file that is not there was deleted, moved, or never made on purpose.
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
        // SQLite writes one after the other anyway.
        let turns = if matches!(pool, Pool::Postgres(..)) { 2 } else { 1 };
        let spend_queue = Arc::new(SpendQueue::new(turns));
        Self { pool, origin, spend_queue, queries: Counter::default(), health: Arc::default() }
    }

    /// The database's own clock, which decides what is over for all replicas.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn now(&self) -> Result<UnixTime, StoreError> {
        let sql = match &self.pool {
            Pool::Postgres(..) => concat!("select ", postgres_clock!()),
            Pool::Sqlite(..) => "select unixepoch()",
        };
        let rows: Vec<(i64,)> = self.fetch(sql, &[]).await?;
        Ok(UnixTime(rows.first().map_or(0, |(now,)| *now)))
    }

    /// The present second by the database's clock, as an expression inside a statement.
    pub(crate) fn clock_sql(&self) -> &'static str {
        match &self.pool {
            Pool::Postgres(..) => postgres_clock!(),
            Pool::Sqlite(..) => "unixepoch()",
        }
    }

    /// `PostgreSQL` or `SQLite`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        match self.pool {
            Pool::Postgres(..) => "PostgreSQL",
            Pool::Sqlite(..) => "SQLite",
        }
    }

    /// Closes every connection, so that nothing is left half written.
    pub async fn close(&self) {
        on!(Pool, &self.pool, pool => pool.close().await);
    }

    /// A connection outside the pool.
    pub(crate) async fn session(&self) -> Result<Session, StoreError> {
        within(self.connect()).await
    }

    async fn connect(&self) -> Result<Session, StoreError> {
        match &self.pool {
            // Boxed: it is rare, and everything that may connect would grow by it.
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

    /// What stands between grantd and the database.
    #[must_use]
    pub fn pooling(&self) -> Pooling {
        match &self.pool {
            Pool::Postgres(_, selection) => selection.pooling,
            Pool::Sqlite(..) => Pooling::Session,
        }
    }

    /// Compares the file of an embedded database with the one that is in use.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub(crate) fn check_file(&self) -> Result<(), StoreError> {
        match &self.pool {
            Pool::Postgres(..) => Ok(()),
            Pool::Sqlite(_, path) => self.origin.check_file(path),
        }
    }

    /// Whether a connection of this age may lead to a database that is no longer the one in use.
    pub(crate) fn is_outdated(&self, age: Duration) -> bool {
        self.origin.is_outdated(age)
    }

    /// Returns when connections are to be made anew.
    pub(crate) async fn moved(&self) {
        self.origin.moved().await;
    }

    /// Runs a query on a connection of the pool and returns its rows.
    pub(crate) async fn fetch<R: Row>(&self, sql: impl SqlSafeStr, values: &[Value]) -> Result<Vec<R>, StoreError> {
        within(async {
            pooled!(self, |connection, named| query_as(sql, values)?.persistent(named).fetch_all(connection).await)
        })
        .await
    }

    /// Runs a statement that writes on a connection of the pool, and returns the number of rows that it touched.
    pub(crate) async fn execute(&self, sql: &'static str, values: &[Value]) -> Result<u64, StoreError> {
        retried!(self, async {
            pooled!(self, |connection, named| {
                let done = query(sql, values)?.persistent(named).execute(connection).await;
                done.map(|done| done.rows_affected())
            })
        })
    }

    /// Runs a statement that writes, and returns rows, on a connection of the pool. The text is made at run time, out of
    /// nothing but placeholders.
    pub(crate) async fn write_returning<R: Row>(
        &self,
        sql: impl SqlSafeStr,
        values: &[Value],
    ) -> Result<Vec<R>, StoreError> {
        let sql = sql.into_sql_str();
        retried!(self, async {
            pooled!(self, |connection, named| {
                query_as(sql.clone(), values)?.persistent(named).fetch_all(connection).await
            })
        })
    }

    /// Names the holder of a lock that a write waited for, and notes what became of the write.
    async fn finish_write<T>(&self, written: Result<T, StoreError>) -> Result<T, StoreError> {
        let written = match written {
            Err(StoreError::Locked(said)) => Err(StoreError::Locked(self.lock_holders_or(said).await)),
            other => other,
        };
        let only_reads = matches!(written, Err(StoreError::ReadOnly));
        if only_reads && self.health.trouble().is_none() {
            // A primary that was demoted keeps its connections, and the feed may have one of them.
            self.origin.outdate_all();
        }
        self.health.record(written)
    }

    /// Whom a write waited for, or what the database said of it.
    async fn lock_holders_or(&self, said: String) -> String {
        match self.lock_holders().await {
            Ok(holders) if !holders.is_empty() => holders.join("; "),
            Ok(_) => said,
            Err(error) => format!("{said}; the holder is not known: {error}"),
        }
    }
}

/// Gives a connection back to its pool, or drops it when it may lead to a primary that was demoted.
fn release<DB: sqlx::Database, T>(
    mut connection: PoolConnection<DB>,
    done: Result<T, sqlx::Error>,
) -> Result<T, StoreError> {
    let done = done.map_err(StoreError::from);
    if done.as_ref().is_err_and(|error| !error.spares_the_connection()) {
        connection.close_on_drop();
    }
    done
}

/// Waits a little before another try, longer each time, and not as long as the other side of the conflict does.
async fn pause(tries: u32) {
    let random = random::<1>().map_or(0, |[byte]| u64::from(byte % 16));
    tokio::time::sleep(Duration::from_millis(u64::from(tries) * 10 + random)).await;
}

/// How long any exchange with the database may take.
pub const DEADLINE: Duration = Duration::from_secs(3);
/// Connections to a primary that was demoted live on; none is kept for long.
const LIFETIME: Duration = Duration::from_mins(1);
/// How often a transaction is tried that the database refuses because of concurrent ones.
const TRIES: u32 = 5;
/// How long SQLite waits for another writer: less than the deadline, so that the error says what it waited for.
const BUSY: Duration = Duration::from_secs(2);

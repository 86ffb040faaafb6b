//! The database: one concrete enum over two pools, each SQL text written once and true on both.
//!
//! Methods are atomic facts; no transaction leaves this module. Everything has a deadline on our side of the wire,
//! since neither a dead peer nor a locked table would otherwise ever answer.

mod applied;
pub mod changes;
mod checkup;
pub mod client_certs;
pub mod client_keys;
pub mod clients;
mod columns;
mod credentials;
mod error;
mod health;
pub mod hints;
pub mod keys;
mod locks;
pub mod migrations;
pub mod resources;
pub mod revoked;
pub mod secrets;
mod seeds;
mod session;
pub mod spending;
pub mod spent;
mod statement;
pub mod tag_keys;
pub mod uses;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, SqlSafeStr};

use crate::crypto::random;
use crate::model::time::UnixTime;
use health::Health;
use session::{Row, Session, within};
use spending::Spending;
use statement::{Value, query, query_as};

pub use error::StoreError;

/// Evaluates a body against whichever database we hold.
macro_rules! on {
    ($enum:ident, $it:expr, $database:ident => $body:expr) => {
        match $it {
            $enum::Postgres($database) => $body,
            $enum::Sqlite($database) => $body,
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
macro_rules! repeated {
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
        $store.concluded(written.await).await
    }};
}
use repeated;

/// Runs a transaction on a connection of its own: `transaction!(store, |tx| { … })`, where the block returns a
/// `Result<_, StoreError>`, may `return` one, and has no effect but through `tx`, since it may run more than once.
///
/// A macro and no function, because what an async closure borrows keeps its future from being `Send`.
macro_rules! transaction {
    ($store:expr, |$tx:ident| $body:block) => {
        $crate::store::repeated!($store, async {
            let session = $store.connect().await?;
            let mut transaction = $crate::store::session::Transaction::begin(session, $store.queries.clone()).await?;
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

/// Where the data is. The URL may hold a password, so `Debug` shows neither.
#[derive(Clone)]
pub enum Database {
    /// A PostgreSQL server, or one that speaks its protocol.
    Postgres(Box<PgConnectOptions>),
    /// A file of the embedded database.
    Sqlite(PathBuf),
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(options) => write!(f, "Postgres({}:{})", options.get_host(), options.get_port()),
            Self::Sqlite(path) => write!(f, "Sqlite({})", path.display()),
        }
    }
}

impl fmt::Display for Database {
    /// Where the data is, as operators know it: no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(options) => {
                let name = options.get_database().unwrap_or_else(|| options.get_username());
                let (host, port) = (options.get_host(), options.get_port());
                match options.get_socket() {
                    Some(socket) => write!(f, "postgres:///{name}?host={}&port={port}", socket.display()),
                    None if host.contains(':') => write!(f, "postgres://[{host}]:{port}/{name}"),
                    None => write!(f, "postgres://{host}:{port}/{name}"),
                }
            }
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

/// A pool of connections to the database. Opening one needs no server: connections are made when they are used.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    options: Options,
    spending: Arc<Spending>,
    /// Statements sent, for `grantd_database_queries_total`.
    pub queries: Counter,
    /// Whether what should be written can be.
    pub health: Arc<Health>,
}

#[derive(Debug, Clone)]
enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

#[derive(Clone)]
enum Options {
    Postgres(Box<PgConnectOptions>),
    Sqlite(Box<SqliteConnectOptions>),
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
        let options = match database {
            Database::Postgres(options) => Options::Postgres(Box::new(credentials::ours(options))),
            Database::Sqlite(path) => Options::Sqlite(Box::new(
                SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(true)
                    .foreign_keys(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(BUSY)
                    .disable_statement_logging(),
            )),
        };
        let pool = match &options {
            Options::Postgres(options) => {
                let pool = PgPoolOptions::new()
                    .max_connections(max_connections)
                    .acquire_timeout(DEADLINE)
                    .max_lifetime(LIFETIME)
                    // By itself the pool asks each connection whether it is still there, which is an exchange as long as
                    // that of an insert. One that was in use just now is believed.
                    .test_before_acquire(false)
                    .before_acquire(|connection, about| {
                        Box::pin(async move { session::is_there(connection, about.idle_for).await })
                    })
                    .after_connect(|connection, _| Box::pin(session::prepare(connection)));
                Pool::Postgres(pool.connect_lazy_with((**options).clone()))
            }
            Options::Sqlite(options) => {
                let pool = SqlitePoolOptions::new().max_connections(max_connections).acquire_timeout(DEADLINE);
                Pool::Sqlite(pool.connect_lazy_with((**options).clone()))
            }
        };
        // SQLite writes one after the other anyway.
        let turns = if matches!(pool, Pool::Postgres(_)) { 2 } else { 1 };
        let spending = Arc::new(Spending::new(turns));
        Self { pool, options, spending, queries: Counter::default(), health: Arc::default() }
    }

    /// The database's own clock, which decides what is over for all replicas.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn now(&self) -> Result<UnixTime, StoreError> {
        let sql = match &self.pool {
            Pool::Postgres(_) => concat!("select ", postgres_clock!()),
            Pool::Sqlite(_) => "select unixepoch()",
        };
        let rows: Vec<(i64,)> = self.fetch(sql, &[]).await?;
        Ok(UnixTime(rows.first().map_or(0, |(now,)| *now)))
    }

    /// The present second by the database's clock, as an expression inside a statement.
    pub(crate) fn clock_sql(&self) -> &'static str {
        match &self.pool {
            Pool::Postgres(_) => postgres_clock!(),
            Pool::Sqlite(_) => "unixepoch()",
        }
    }

    /// `PostgreSQL` or `SQLite`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        match self.pool {
            Pool::Postgres(_) => "PostgreSQL",
            Pool::Sqlite(_) => "SQLite",
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

    async fn connect(&self) -> Result<Session, sqlx::Error> {
        // The pool has the credentials that are in force.
        Ok(match &self.pool {
            Pool::Postgres(pool) => {
                let mut connection = pool.connect_options().connect().await?;
                session::prepare(&mut connection).await?;
                Session::Postgres(connection)
            }
            Pool::Sqlite(pool) => Session::Sqlite(pool.connect_options().connect().await?),
        })
    }

    /// Runs a query on a connection of the pool and returns its rows.
    pub(crate) async fn fetch<R: Row>(&self, sql: &'static str, values: &[Value]) -> Result<Vec<R>, StoreError> {
        self.queries.inc();
        on!(Pool, &self.pool, pool => within(async { query_as(sql, values)?.fetch_all(pool).await }).await)
    }

    /// Runs a statement that writes on a connection of the pool, and returns the number of rows that it touched.
    pub(crate) async fn execute(&self, sql: &'static str, values: &[Value]) -> Result<u64, StoreError> {
        repeated!(self, async {
            self.queries.inc();
            on!(Pool, &self.pool, pool => {
                let mut connection = pool.acquire().await?;
                let done = query(sql, values)?.execute(&mut *connection).await;
                settled(connection, done.map(|done| done.rows_affected()))
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
        repeated!(self, async {
            self.queries.inc();
            on!(Pool, &self.pool, pool => {
                let mut connection = pool.acquire().await?;
                let done = query_as(sql.clone(), values)?.fetch_all(&mut *connection).await;
                settled(connection, done)
            })
        })
    }

    /// Names the holder of a lock that a write waited for, and notes what became of the write.
    async fn concluded<T>(&self, written: Result<T, StoreError>) -> Result<T, StoreError> {
        let written = match written {
            Err(StoreError::Locked(said)) => Err(StoreError::Locked(self.who_holds(said).await)),
            other => other,
        };
        self.health.written(written)
    }

    /// Whom a write waited for, or what the database said of it.
    async fn who_holds(&self, said: String) -> String {
        match self.lock_holders().await {
            Ok(holders) if !holders.is_empty() => holders.join("; "),
            Ok(_) => said,
            Err(error) => format!("{said}; the holder is not known: {error}"),
        }
    }
}

/// Gives a connection back to its pool, or drops it when it may lead to a primary that was demoted.
fn settled<DB: sqlx::Database, T>(
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

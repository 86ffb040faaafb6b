//! The database: one concrete enum over two pools, each SQL text written once and true on both.
//!
//! Methods are atomic facts; no transaction leaves this module. Everything has a deadline on our side of the wire,
//! since neither a dead peer nor a locked table would otherwise ever answer.

pub mod changes;
pub mod client_certs;
pub mod client_keys;
pub mod clients;
pub mod hints;
pub mod keys;
pub mod migrations;
pub mod resources;
pub mod revoked;
pub mod secrets;
pub mod spending;
pub mod spent;
pub mod tag_keys;
pub mod uses;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::model::time::UnixTime;
use spending::Spending;

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

/// A pool of connections to the database. Opening one needs no server: connections are made when they are used.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    options: Options,
    spending: Arc<Spending>,
    /// Statements sent, for `grantd_database_queries_total`.
    pub queries: Counter,
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

/// A connection of its own for more than one statement. No pool ever sees it: when something goes wrong halfway, it is
/// closed, and no later borrower inherits an open transaction.
#[derive(Debug)]
pub(crate) enum Session {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

/// What the database did instead of answering.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be reached, or broke off. Says nothing about any credential.
    #[error("database unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// It did not answer in time.
    #[error("database unavailable: no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// It only reads: a standby, or a primary that was demoted.
    #[error("database is read-only: it is a standby, or default_transaction_read_only is on")]
    ReadOnly,
    /// It refused our user, our password or our database name, or lets us not do what we have to.
    #[error("database access denied: {0}")]
    Denied(String),
    /// A constraint was violated; its name says what to write instead.
    #[error("{0}")]
    Refused(String),
    /// A row that cannot be understood.
    #[error("{kind} {id}: {reason}")]
    Malformed {
        /// `client`, `resource` or `key`.
        kind: &'static str,
        /// Which one.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The schema is not the one this program works on.
    #[error("{0}")]
    Schema(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::ColumnDecode { index, source } = &error {
            return Self::Malformed { kind: "row", id: format!("column {index}"), reason: source.to_string() };
        }
        let Some(database) = error.as_database_error() else { return Self::Unavailable(error) };
        match database.code().as_deref() {
            Some("25006" | "8" | "1032") => Self::ReadOnly,
            Some("28000" | "28P01" | "3D000" | "42501") => Self::Denied(database.message().to_owned()),
            Some("42P01") => Self::Schema(OLD_SCHEMA.to_owned()),
            Some("1") if database.message().starts_with("no such table") => Self::Schema(OLD_SCHEMA.to_owned()),
            // PostgreSQL's unique_violation, SQLite's of a primary key and of another unique index.
            Some("23505" | "1555" | "2067") => {
                let message = database.message().rsplit(": ").next().unwrap_or_default();
                let table = database.table().or(message.split('.').next()).unwrap_or_default().replace('_', " ");
                Self::Refused(format!("there is a {table} of that id already"))
            }
            Some(code) if is_constraint(code) => {
                let named = database.constraint().map(str::to_owned);
                let message = database.message();
                Self::Refused(
                    named.unwrap_or_else(|| {
                        message.strip_prefix("CHECK constraint failed: ").unwrap_or(message).to_owned()
                    }),
                )
            }
            _ => Self::Unavailable(error),
        }
    }
}

/// PostgreSQL's class 23, and SQLite's 19 with its extended codes.
fn is_constraint(code: &str) -> bool {
    code.starts_with("23") && code.len() == 5 || code.parse::<u32>().is_ok_and(|code| code & 0xff == 19)
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
            Database::Postgres(options) => {
                Options::Postgres(Box::new((**options).clone().application_name("grantd").disable_statement_logging()))
            }
            Database::Sqlite(path) => Options::Sqlite(Box::new(
                SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(true)
                    .foreign_keys(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(DEADLINE)
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
                        Box::pin(async move { is_there(connection, about.idle_for).await })
                    })
                    .after_connect(|connection, _| Box::pin(async move { be_durable(connection).await }));
                Pool::Postgres(pool.connect_lazy_with((**options).clone()))
            }
            Options::Sqlite(options) => {
                let pool = SqlitePoolOptions::new().max_connections(max_connections).acquire_timeout(DEADLINE);
                Pool::Sqlite(pool.connect_lazy_with((**options).clone()))
            }
        };
        // SQLite writes one after the other anyway.
        let turns = if matches!(pool, Pool::Postgres(_)) { 2 } else { 1 };
        Self { pool, options, spending: Arc::new(Spending::new(turns)), queries: Counter::default() }
    }

    /// The database's own clock, to compare ours with.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn now(&self) -> Result<UnixTime, StoreError> {
        self.queries.inc();
        let (now,): (i64,) = match &self.pool {
            Pool::Postgres(pool) => {
                within(sqlx::query_as("select floor(extract(epoch from now()))::bigint").fetch_one(pool)).await?
            }
            Pool::Sqlite(pool) => within(sqlx::query_as("select unixepoch()").fetch_one(pool)).await?,
        };
        Ok(UnixTime(now))
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

    pub(crate) async fn session(&self) -> Result<Session, StoreError> {
        within(async {
            Ok(match &self.options {
                Options::Postgres(options) => Session::Postgres(options.connect().await?),
                Options::Sqlite(options) => Session::Sqlite(options.connect().await?),
            })
        })
        .await
    }
}

impl Session {
    /// Says goodbye, so that the server need not notice by itself. Nothing depends on it.
    pub(crate) async fn close(self) {
        let closed = within(async { on!(Session, self, connection => connection.close().await) }).await;
        if let Err(error) = closed {
            tracing::debug!(%error, "a database connection did not close cleanly");
        }
    }
}

/// What may be used once has to be on disk before it counts, whatever the server is set to.
async fn be_durable(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let sql =
        "select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'";
    sqlx::raw_sql(sql).execute(connection).await.map(drop)
}

/// Whether a connection that has rested is still there; with an error the pool makes another.
async fn is_there(connection: &mut PgConnection, rested: Duration) -> Result<bool, sqlx::Error> {
    if rested >= RESTED {
        connection.ping().await?;
    }
    Ok(true)
}

/// Runs one exchange with the database under the deadline.
pub(crate) async fn within<T>(exchange: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
    match tokio::time::timeout(DEADLINE, exchange).await {
        Ok(answer) => answer.map_err(StoreError::from),
        Err(_) => Err(StoreError::Late(DEADLINE)),
    }
}

/// Begins a transaction that will write. SQLite takes its write lock at once, since upgrading later can fail.
macro_rules! begin {
    ($connection:expr) => {{
        use sqlx::Connection as _;
        $connection.begin_with($crate::store::BeginWriting::sql(&*$connection))
    }};
}
pub(crate) use begin;

/// How each database begins a transaction that will write.
pub(crate) trait BeginWriting {
    fn sql(&self) -> &'static str;
}

impl BeginWriting for PgConnection {
    fn sql(&self) -> &'static str {
        "begin"
    }
}

impl BeginWriting for SqliteConnection {
    fn sql(&self) -> &'static str {
        "begin immediate"
    }
}

/// How long any exchange with the database may take.
pub const DEADLINE: Duration = Duration::from_secs(3);
/// Connections to a primary that was demoted live on; none is kept for long.
const LIFETIME: Duration = Duration::from_mins(1);
/// After so long a connection may have been lost without our noticing.
const RESTED: Duration = Duration::from_millis(100);
const OLD_SCHEMA: &str = "the database has no grantd schema yet: run `grantd migrate`";

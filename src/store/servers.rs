//! The PostgreSQL servers of a URL, tried in turn until one accepts writes.

use crate::model::event::Event;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};

use super::origin::Origin;
use super::pooling::Pooling;
use super::session::{Session, within};
use super::{DEADLINE, Pool, Refusal, Store, StoreError, session};

/// Servers of a database, as `database.url` names them.
#[derive(Debug, Clone)]
pub struct Servers {
    /// The server that is tried first.
    pub first: PgConnectOptions,
    /// The other servers, in order.
    pub others: Vec<PgConnectOptions>,
    /// Whether a read-only server is refused (`target_session_attrs` of `read-write` or `primary`). Otherwise it is
    /// used while no server accepts writes.
    pub writable_only: bool,
    /// Time limit for connecting to one server, when the URL sets one.
    pub connect_timeout: Option<Duration>,
    /// The kind of pooler between grantd and the servers.
    pub pooling: Pooling,
}

impl From<PgConnectOptions> for Servers {
    fn from(first: PgConnectOptions) -> Self {
        Self { first, others: Vec::new(), writable_only: false, connect_timeout: None, pooling: Pooling::default() }
    }
}

impl Servers {
    /// Returns all servers, in the order in which they are tried.
    pub fn all(&self) -> impl Iterator<Item = &PgConnectOptions> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Returns the location for messages, without the password.
    pub(super) fn places(&self) -> String {
        let name = self.first.get_database().unwrap_or_else(|| self.first.get_username());
        let place = |options: &PgConnectOptions| {
            let (host, port) = (options.get_host(), options.get_port());
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        };
        if let Some(socket) = self.first.get_socket() {
            return format!("postgres:///{name}?host={}&port={}", socket.display(), self.first.get_port());
        }
        format!("postgres://{}/{name}", self.all().map(place).collect::<Vec<_>>().join(","))
    }

    /// Returns the name of the database and the addresses of its servers, which identify it.
    fn addresses(&self) -> Vec<(String, u16, Option<std::path::PathBuf>, Option<String>)> {
        let place = |options: &PgConnectOptions| {
            let (host, database) = (options.get_host().to_owned(), options.get_database().map(str::to_owned));
            (host, options.get_port(), options.get_socket().cloned(), database)
        };
        self.all().map(place).collect()
    }
}

/// Chooses the server to connect to: the one that answered last, or the next that accepts writes.
#[derive(Debug)]
pub(super) struct ServerSelection {
    servers: RwLock<Servers>,
    /// Position of the server that answered last.
    current: AtomicUsize,
    origin: Arc<Origin>,
    pub(super) pooling: Pooling,
}

impl ServerSelection {
    pub(super) fn new(servers: &Servers, origin: Arc<Origin>) -> Self {
        let pooling = servers.pooling;
        Self { servers: RwLock::new(servers.clone()), current: AtomicUsize::new(0), origin, pooling }
    }

    fn servers(&self) -> Servers {
        self.servers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Prepares a new connection. Returns whether its server is read-only.
    pub(super) async fn prepare(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let info = session::prepare(connection, self.pooling).await?;
        match info.lineage {
            Some(lineage) => self.origin.note(&lineage.identity, &lineage.started_at),
            None => self.origin.note_unknown(),
        }
        Ok(info.read_only)
    }

    /// Connects to the server that answered last, or to the next one that accepts writes, and points the pool there.
    pub(super) async fn connect(&self, pool: &PgPool) -> Result<PgConnection, StoreError> {
        let servers = self.servers();
        let count = servers.others.len() + 1;
        let share = if count == 1 { DEADLINE } else { DEADLINE / u32::try_from(count).unwrap_or(u32::MAX) };
        let patience = servers.connect_timeout.map_or(share, |timeout| timeout.min(share));
        let first = self.current.load(Ordering::Relaxed);
        let (mut standby, mut faults) = (None, Vec::new());
        let all: Vec<&PgConnectOptions> = servers.all().collect();
        for (position, options) in all.iter().enumerate().cycle().skip(first).take(count) {
            let options = with_defaults(options);
            let connecting = async {
                let mut connection = options.connect().await?;
                let read_only = self.prepare(&mut connection).await?;
                Ok::<_, sqlx::Error>((connection, read_only))
            };
            let fault = match tokio::time::timeout(patience, connecting).await {
                Ok(Ok((connection, read_only))) => {
                    if !read_only || (count == 1 && !servers.writable_only) {
                        self.settle(position, options, pool);
                        return Ok(connection);
                    }
                    if !servers.writable_only && standby.is_none() {
                        standby = Some((position, options.clone(), connection));
                    }
                    StoreError::ReadOnly
                }
                Ok(Err(error)) => error.into(),
                Err(_) => StoreError::Late(patience),
            };
            faults.push((format!("{}:{}", options.get_host(), options.get_port()), fault));
        }
        if let Some((position, options, connection)) = standby {
            self.settle(position, options, pool);
            return Ok(connection);
        }
        Err(merged(faults))
    }

    fn settle(&self, position: usize, options: PgConnectOptions, pool: &PgPool) {
        if self.current.swap(position, Ordering::Relaxed) != position {
            tracing::warn!(
                event = Event::DatabaseServer.as_str(),
                host = options.get_host(),
                port = options.get_port(),
                "connected to another server of database.url, which is used from now on"
            );
            pool.set_connect_options(options);
        }
    }

    /// Uses the credentials of `servers` from now on, once the database has accepted them.
    pub(super) async fn replace(&self, servers: &Servers, pool: &PgPool) -> Result<(), StoreError> {
        if self.servers().addresses() != servers.addresses() {
            return Err(StoreError::Refused(Refusal::OtherDatabase));
        }
        let tried = Self::new(servers, Arc::clone(&self.origin));
        tried.current.store(self.current.load(Ordering::Relaxed), Ordering::Relaxed);
        drop(tried.connect(pool).await?);
        let position = tried.current.load(Ordering::Relaxed);
        *self.servers.write().unwrap_or_else(PoisonError::into_inner) = servers.clone();
        self.current.store(position, Ordering::Relaxed);
        if let Some(options) = servers.all().nth(position) {
            pool.set_connect_options(with_defaults(options));
        }
        Ok(())
    }
}

impl Store {
    /// Uses the credentials of `servers` for new connections, once the database has accepted them. Only credentials may
    /// change: another database would be another registry.
    ///
    /// # Errors
    /// [`StoreError`]; the former credentials then stay in use.
    pub async fn connect_as(&self, servers: &Servers) -> Result<(), StoreError> {
        let Pool::Postgres(pool, selection) = &self.pool else { return Ok(()) };
        within(selection.replace(servers, pool)).await
    }
}

impl Store {
    /// Makes a connection that tells to which server the URL leads now, and closes it. If that is another server than before, all
    /// older connections are outdated. A failure counts as one of a write. Does nothing where connections do not tell, or where the
    /// database refuses further ones.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn look_for_another_server(&self) -> Result<(), StoreError> {
        let Pool::Postgres(pool, selection) = &self.pool else { return Ok(()) };
        if !self.can_listen() || !self.knows_its_server() {
            return Ok(());
        }
        match within(selection.connect(pool)).await {
            Ok(connection) => {
                Session::Postgres(connection).close().await;
                self.note_watched();
                Ok(())
            }
            // A look comes after the connections that work is done on.
            Err(error) if error.is_out_of_connections() => Ok(()),
            Err(error) => self.health.record(Err(error)),
        }
    }
}

/// Adds the options that every connection of grantd has.
pub(super) fn with_defaults(options: &PgConnectOptions) -> PgConnectOptions {
    let name = options.get_application_name().unwrap_or("grantd");
    options.clone().application_name(name).disable_statement_logging()
}

/// Takes a connection out of the pool for good when the database refuses further ones. The change feed and transactions
/// come before the statements that run on the pool.
pub(super) async fn take_from_pool(pool: &PgPool, error: StoreError) -> Result<PgConnection, StoreError> {
    for _ in 0..TAKE_ATTEMPTS {
        if let Some(connection) = pool.try_acquire() {
            tracing::warn!(event = Event::DatabaseScarce.as_str(), reason = %error, "the database refuses further connections; one was taken from the pool");
            return Ok(connection.detach());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(error)
}

/// Merges the errors of all servers into one. A wrong password or name comes before an outage, since only the operator
/// can correct it.
fn merged(mut faults: Vec<(String, StoreError)>) -> StoreError {
    if faults.len() == 1
        && let Some((_, fault)) = faults.pop()
    {
        return fault;
    }
    if let Some(at) = faults.iter().position(|(_, fault)| !fault.is_outage()) {
        return faults.swap_remove(at).1;
    }
    if faults.iter().any(|(_, fault)| matches!(fault, StoreError::ReadOnly)) {
        return StoreError::ReadOnly;
    }
    let faults: Vec<String> = faults
        .into_iter()
        .map(|(host, fault)| match fault {
            StoreError::Unavailable(error) => format!("{host}: {error}"),
            fault => format!("{host}: {fault}"),
        })
        .collect();
    StoreError::Unavailable(sqlx::Error::Io(std::io::Error::other(faults.join("; "))))
}

/// Number of attempts, 5 ms apart, to take an idle connection from the pool.
const TAKE_ATTEMPTS: u32 = 200;

//! The connection of the change feed. With PostgreSQL it also receives the notifications that the triggers send with each
//! change, which bring the next poll forward. They are not relied on for longer than a snapshot counts as current: a
//! connection can break, and a proxy can drop them.

use std::time::Duration;

use sqlx::postgres::{PgConnection, PgListener, PgNotification, PgPool, PgPoolOptions};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Acquire as _, Executor as _};

use super::pooling::Pooling;
use super::servers::{ServerSelection, with_defaults};
use super::session::{Session, within};
use super::{Pool, Store, StoreError};
use crate::crypto::random;
use crate::model::event::Event;

/// Connection of the change feed.
#[derive(Debug)]
pub(super) enum Link {
    /// A session that receives notifications.
    Listening(PgListener),
    /// A session that does not: SQLite, a transaction pooler, or a server without notifications.
    Plain(Session),
}

/// The connection behind a [`Link`].
pub(super) enum LinkConnection<'a> {
    Postgres(&'a mut PgConnection),
    Sqlite(&'a mut SqliteConnection),
}

impl Link {
    /// The connection, for statements.
    pub(super) async fn connection(&mut self) -> Result<LinkConnection<'_>, sqlx::Error> {
        Ok(match self {
            Self::Listening(listener) => LinkConnection::Postgres(listener.acquire().await?),
            Self::Plain(Session::Postgres(connection)) => LinkConnection::Postgres(connection),
            Self::Plain(Session::Sqlite(connection)) => LinkConnection::Sqlite(connection),
        })
    }

    /// Returns the revision of the next notification, or when the connection breaks. Without notifications, never returns.
    pub(super) async fn notified(&mut self) -> Result<i64, sqlx::Error> {
        match self {
            Self::Listening(listener) => match listener.try_recv().await? {
                Some(notification) => Ok(revision(&notification)),
                None => Err(sqlx::Error::Io(std::io::ErrorKind::UnexpectedEof.into())),
            },
            Self::Plain(_) => std::future::pending().await,
        }
    }

    /// Takes the notifications that have arrived, and returns their revisions.
    pub(super) fn take_notifications(&mut self) -> Vec<i64> {
        match self {
            Self::Listening(listener) => {
                std::iter::from_fn(|| listener.next_buffered()).map(|one| revision(&one)).collect()
            }
            Self::Plain(_) => Vec::new(),
        }
    }
}

/// The revision that a notification names; 0 for one that names none, as by hand.
fn revision(notification: &PgNotification) -> i64 {
    notification.payload().parse().unwrap_or_default()
}

impl Store {
    /// Opens a connection that receives notifications, where the server in use sends them, or else a plain one.
    pub(super) async fn listening_link(&self) -> Result<Link, StoreError> {
        if let Pool::Postgres(pool, selection) = &self.pool
            && self.can_listen()
        {
            match within(listening(pool, selection)).await {
                Ok(Some(listener)) => return Ok(Link::Listening(listener)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(event = Event::RegistryNoHints.as_str(), reason = %error, "changes are found by polling alone");
                }
            }
        }
        self.plain_link().await
    }

    /// Opens a connection without notifications, to another server of the URL where this one is down or read-only.
    pub(super) async fn plain_link(&self) -> Result<Link, StoreError> {
        let mut session = self.session().await?;
        if let Session::Postgres(connection) = &mut session
            && self.pooling() == Pooling::Session
        {
            within(connection.execute(BY_INDEX)).await?;
        }
        Ok(Link::Plain(session))
    }

    /// Whether the database can send notifications to this process.
    #[must_use]
    pub fn can_listen(&self) -> bool {
        matches!(self.pool, Pool::Postgres(..)) && self.pooling() == Pooling::Session
    }
}

/// Connects to the server in use, and listens. `None` when it is read-only, or its notifications do not arrive.
async fn listening(pool: &PgPool, selection: &ServerSelection) -> Result<Option<PgListener>, sqlx::Error> {
    // A listener takes its connection from a pool; this one has no other.
    let own = PgPoolOptions::new()
        .max_connections(1)
        // The pool tries again until then where the server refuses connections.
        .acquire_timeout(PATIENCE)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(with_defaults(&pool.connect_options()));
    let mut listener = PgListener::connect_with(&own).await?;
    listener.eager_reconnect(false);
    let connection = listener.acquire().await?;
    if selection.prepare(connection).await? {
        return Ok(None);
    }
    connection.execute(BY_INDEX).await?;
    // A database that only speaks PostgreSQL's protocol, or a proxy, may accept LISTEN and deliver nothing.
    let probe = format!("grantd_{:016x}", u64::from_ne_bytes(random().map_err(std::io::Error::other)?));
    listener.listen_all([CHANNEL, &probe]).await?;
    sqlx::query("select pg_notify($1, '')").bind(&probe).persistent(false).execute(&mut listener).await?;
    let arrived = listener.next_buffered().is_some();
    listener.unlisten(&probe).await?;
    Ok(arrived.then_some(listener))
}

/// Time to connect and listen, after which the feed goes on without notifications.
const PATIENCE: Duration = Duration::from_secs(1);
/// Settings of the feed's session, where the server has them. The feed reads by the changed ids, and estimates of how many
/// there are would at times have it read whole tables. Its statements are planned once for each connection.
pub(super) const BY_INDEX: &str = "select set_config(name, value, false)
    from (values ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'),
                 ('plan_cache_mode', 'force_generic_plan')) as settings (name, value)
    where current_setting(name, true) is not null";
/// The channel that the triggers of `migrations/postgres` notify.
const CHANNEL: &str = "grantd";

//! Notifications of changes by PostgreSQL (LISTEN/NOTIFY). They bring the next poll forward and are not relied on.
//!
//! PostgreSQL sends a notification with every change. Notifications are lost when a connection breaks or a proxy drops
//! them, so polling goes on at its own interval.

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::Notify;

use super::pooling::Pooling;
use super::session::within;
use super::{LIFETIME, Pool, Store, StoreError};

impl Store {
    /// Wakes `heard` at each notification, until the connection breaks or reaches its maximum age. With SQLite, returns
    /// at once.
    ///
    /// # Errors
    /// [`StoreError`] when LISTEN fails.
    pub async fn listen(&self, heard: &Notify) -> Result<(), StoreError> {
        let Pool::Postgres(pool, _) = &self.pool else { return Ok(()) };
        // A pool of its own, since the listener keeps its connection.
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with((*pool.connect_options()).clone());
        let mut listener = within(PgListener::connect_with(&pool)).await?;
        listener.eager_reconnect(false);
        within(listener.listen(CHANNEL)).await?;
        self.queries.inc();
        // Changes before LISTEN were not announced on this connection.
        heard.notify_one();
        let hearing = async {
            while let Some(_told) = listener.try_recv().await? {
                heard.notify_one();
            }
            Ok(())
        };
        // A connection that was cut silently, or that leads to a former primary, never reports anything.
        tokio::time::timeout(LIFETIME, hearing).await.unwrap_or(Ok(()))
    }

    /// Whether the database can send notifications to this process.
    #[must_use]
    pub fn has_hints(&self) -> bool {
        matches!(self.pool, Pool::Postgres(..)) && self.pooling() == Pooling::Session
    }
}

/// The channel that the triggers of `migrations/postgres` notify.
const CHANNEL: &str = "grantd";

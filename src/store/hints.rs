//! Notifications that something has changed: heard sooner than the next poll, and never relied on.
//!
//! PostgreSQL sends one with every change. They get lost when a connection breaks or a proxy stands between, so the poll
//! goes on at its own pace whatever is heard here.

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::Notify;

use super::pooling::Pooling;
use super::session::within;
use super::{LIFETIME, Pool, Store, StoreError};

impl Store {
    /// Wakes `heard` at each notification, until the connection breaks or has lived as long as any may. With SQLite there are none: it returns at once.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot listen.
    pub async fn listen(&self, heard: &Notify) -> Result<(), StoreError> {
        let Pool::Postgres(pool, _) = &self.pool else { return Ok(()) };
        // A pool of its own: the listener keeps its connection, and others need theirs.
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with((*pool.connect_options()).clone());
        let mut listener = within(PgListener::connect_with(&pool)).await?;
        listener.eager_reconnect(false);
        within(listener.listen(CHANNEL)).await?;
        self.queries.inc();
        // What changed before we listened was told to nobody.
        heard.notify_one();
        let hearing = async {
            while let Some(_told) = listener.try_recv().await? {
                heard.notify_one();
            }
            Ok(())
        };
        // A connection that was cut in silence, or that leads to a former primary, is never heard of again.
        tokio::time::timeout(LIFETIME, hearing).await.unwrap_or(Ok(()))
    }

    /// Whether notifications reach this process at all.
    #[must_use]
    pub fn has_hints(&self) -> bool {
        matches!(self.pool, Pool::Postgres(..)) && self.pooling() == Pooling::Session
    }
}

/// The channel that the triggers of `migrations/postgres` notify.
const CHANNEL: &str = "grantd";

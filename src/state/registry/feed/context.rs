//! Dependencies of the feed.

use std::path::PathBuf;
use std::sync::Arc;

use crate::crypto::jwk::Alg;
use crate::crypto::seal::SealingKey;
use crate::model::time::{Clock, Span, UnixTime};
use crate::state::keyring::{self, Keyring};
use crate::state::registry::Registry;
use crate::store::{Database, Store};

/// Dependencies of a [`Feed`](super::Feed).
#[derive(Debug)]
pub struct FeedContext {
    /// The database.
    pub store: Store,
    /// The registry to fill.
    pub registry: Arc<Registry>,
    /// The keyring to fill.
    pub keyring: Arc<Keyring>,
    /// Opens signing keys and tag keys.
    pub sealing_key: Arc<SealingKey>,
    /// The clock.
    pub clock: Clock,
    /// Algorithm of tokens for resources that name none.
    pub default_alg: Alg,
    /// Lifetime of tokens for clients and resources that have none of their own.
    pub default_ttl: Span,
    /// Migrations that could not be applied at the start.
    pub pending_migrations: Option<PendingMigrations>,
}

/// Migrations to apply once the database is available.
#[derive(Debug)]
pub struct PendingMigrations {
    /// The database.
    pub database: Database,
    /// Seeds to apply after the schema.
    pub seeds: Option<PathBuf>,
}

impl FeedContext {
    /// The present second by the database's clock.
    pub(super) fn database_time(&self) -> UnixTime {
        self.registry.database_time(self.clock.now())
    }

    /// The longest lifetime of the tokens of a key that is made now.
    pub(super) fn max_ttl(&self) -> Span {
        let registered = self.registry.longest_ttl();
        keyring::max_ttl(self.default_ttl, registered, self.registry.options().max_stale)
    }
}

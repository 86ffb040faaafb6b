//! The view of one request: the time, the snapshot and its freshness.

use std::sync::Arc;

use arc_swap::Guard;

use super::snapshot::Snapshot;
use super::{Freshness, Registry};
use crate::model::time::UnixTime;

/// Time and registry of one request, read once, so that all of its decisions agree.
#[derive(Debug)]
pub struct Moment {
    /// Second in which the request arrived.
    pub now: UnixTime,
    /// The same by the database's clock, which decides when a client ends.
    pub database_now: UnixTime,
    /// Freshness of the snapshot at that time.
    pub freshness: Freshness,
    /// All clients and resources.
    pub snapshot: Guard<Arc<Snapshot>>,
}

impl Moment {
    /// Reads the registry at `now`.
    #[must_use]
    pub fn new(registry: &Registry, now: UnixTime) -> Self {
        let database_now = registry.database_time(now);
        Self { now, database_now, freshness: registry.freshness(), snapshot: registry.snapshot() }
    }

    /// Reads the snapshot again, after a wait that may have taken seconds: a client may have been disabled meanwhile.
    pub fn renew(&mut self, registry: &Registry) {
        self.snapshot = registry.snapshot();
    }
}

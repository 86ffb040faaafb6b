//! The view that one request has of the world.

use std::sync::Arc;

use arc_swap::Guard;

use super::snapshot::Snapshot;
use super::{Freshness, Registry};
use crate::model::time::UnixTime;

/// The time and the registry, read once: every decision about one request is made from the same.
#[derive(Debug)]
pub struct Moment {
    /// The second in which the request came.
    pub now: UnixTime,
    /// The trust that the snapshot deserved then.
    pub freshness: Freshness,
    /// Every client and resource.
    pub snapshot: Guard<Arc<Snapshot>>,
}

impl Moment {
    /// The moment `now`.
    #[must_use]
    pub fn new(registry: &Registry, now: UnixTime) -> Self {
        Self { now, freshness: registry.freshness(), snapshot: registry.snapshot() }
    }

    /// Reads the snapshot again, after a wait that may have taken seconds: a client may have been disabled meanwhile.
    pub fn renew(&mut self, registry: &Registry) {
        self.snapshot = registry.snapshot();
    }
}

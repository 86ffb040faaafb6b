//! Every client and resource in memory: an immutable snapshot behind an atomic pointer, swapped whole.
//!
//! A token request reads it without lock, await or SQL. [`feed`] keeps it current; its age is known.

pub mod feed;
pub mod revoked;
pub mod snapshot;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use crate::crypto::secret_tag::TagKey;
use crate::model::time::Span;
use crate::store::changes::Changes;
use revoked::Revoked;
use snapshot::Snapshot;

/// The current snapshot and how old it is.
#[derive(Debug)]
pub struct Registry {
    /// Tokens that were revoked one by one.
    pub revoked: Revoked,
    snapshot: ArcSwap<Snapshot>,
    started: Instant,
    /// Microseconds after `started` of the last poll that found the snapshot current, plus one; 0 before any.
    current_at: AtomicU64,
    max_stale: Duration,
    /// What stands between us and the database, for readiness.
    trouble: Mutex<Option<String>>,
}

/// How far the snapshot may be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// As good as asking the database: what is not in it does not exist.
    Current,
    /// Known clients are served; of others nothing is known.
    Stale(Duration),
    /// Older than `registry.max_stale`, or never read: nobody is served.
    Unusable,
}

impl Registry {
    /// An empty registry, unusable until the feed has filled it.
    #[must_use]
    pub fn new(max_stale: Span) -> Self {
        Self {
            revoked: Revoked::default(),
            snapshot: ArcSwap::default(),
            started: Instant::now(),
            current_at: AtomicU64::new(0),
            max_stale: max_stale.duration(),
            trouble: Mutex::new(Some("nothing has been read from the database yet".into())),
        }
    }

    /// The snapshot as it is now. Hold it for one request, not longer.
    #[must_use]
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// How far the snapshot may be trusted now.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        match self.age() {
            Some(age) if age < CURRENT_FOR => Freshness::Current,
            Some(age) if age < self.max_stale => Freshness::Stale(age),
            _ => Freshness::Unusable,
        }
    }

    /// The time since the database last confirmed the snapshot; `None` before it ever did.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let at = self.current_at.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.started.elapsed().saturating_sub(Duration::from_micros(at)))
    }

    /// What keeps the feed from the database, if anything does.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the snapshot as confirmed at `since`, the moment before the database was asked.
    pub(crate) fn confirm(&self, since: Instant) {
        let micros = since.saturating_duration_since(self.started).as_micros();
        self.current_at.store(u64::try_from(micros).unwrap_or(u64::MAX - 1) + 1, Ordering::Release);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes trouble. Returns whether it is new, so that it is logged once.
    pub(crate) fn note_trouble(&self, trouble: &str) -> bool {
        let mut noted = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let news = noted.as_deref() != Some(trouble);
        if news {
            *noted = Some(trouble.to_owned());
        }
        news
    }

    /// Applies changes to a copy and puts it in place. `tag_keys` are those that opened, when any changed.
    pub(crate) fn apply(&self, changes: Changes, tag_keys: Option<Vec<TagKey>>) {
        for (jti, expires_at) in &changes.revoked {
            // The database lets no other ids in.
            match jti.parse() {
                Ok(jti) => self.revoked.add(jti, *expires_at),
                Err(fault) => tracing::error!(event = "revoked_token.malformed", reason = %fault, "a row is left out"),
            }
        }
        self.snapshot.store(Arc::new(self.snapshot.load().with(changes, tag_keys)));
    }
}

/// A snapshot confirmed this lately is as good as the database: revocations are promised within a second or two.
pub(crate) const CURRENT_FOR: Duration = Duration::from_secs(2);

//! Every client and resource in memory: an immutable snapshot behind an atomic pointer, swapped whole.
//!
//! A token request reads it without lock, await or SQL. [`feed`] keeps it current; its age is known.

mod difference;
pub mod feed;
mod last_used;
mod lost_changes;
pub mod revoked;
pub mod snapshot;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use prometheus_client::metrics::counter::Counter;

use crate::crypto::secret_tag::TagKey;
use crate::model::event::Event;
use crate::model::time::UnixTime;
use crate::store::changes::Changes;
use revoked::RevokedTokens;
use snapshot::Snapshot;

/// The current snapshot and how old it is.
#[derive(Debug)]
pub struct Registry {
    /// Tokens that were revoked one by one.
    pub revoked: RevokedTokens,
    snapshot: ArcSwap<Snapshot>,
    started: Instant,
    /// Microseconds after `started` of the last poll that found the snapshot current, plus one; 0 before any.
    current_at: AtomicU64,
    options: RegistryOptions,
    /// Milliseconds by which our clock is ahead of the database's.
    clock_ahead: AtomicI64,
    /// Whether only a standby has answered so far: what is not in the snapshot may be in the primary.
    behind: AtomicBool,
    /// Whether the server that answered last is a standby.
    standby: AtomicBool,
    /// Why the process is not ready although it holds something: the database answers with less than there was.
    incomplete: Mutex<Option<String>>,
    /// Databases with another past that were met, for `grantd_registry_history_changes_total`.
    pub history_changes: Counter,
    /// Whole loads that differed from what was held, for `grantd_registry_differences_total`.
    pub differences: Counter,
    /// What stands between us and the database, for readiness.
    trouble: Mutex<Option<String>>,
}

/// How the registry follows the database.
#[derive(Debug, Clone, Copy)]
pub struct RegistryOptions {
    /// How long known clients are served without the database.
    pub max_stale: Duration,
    /// From one poll of the revision to the next.
    pub poll: Duration,
    /// How far our clock may be from the database's before the process is not ready.
    pub max_clock_skew: Duration,
    /// From one whole load, compared with what is held, to the next.
    pub reload: Duration,
    /// Whether revocations that a database has forgotten are written again.
    pub rewrite_lost_revocations: bool,
}

impl RegistryOptions {
    /// A snapshot confirmed this lately is as good as the database.
    #[must_use]
    pub fn current_for(&self) -> Duration {
        self.poll + Duration::from_millis(1750)
    }
}

/// What is new about the distance between our clock and the database's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SkewChange {
    /// It has grown beyond five seconds.
    Apart,
    /// It is within five seconds again.
    Together,
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
    pub fn new(options: RegistryOptions) -> Self {
        Self {
            revoked: RevokedTokens::default(),
            snapshot: ArcSwap::default(),
            started: Instant::now(),
            current_at: AtomicU64::new(0),
            options,
            clock_ahead: AtomicI64::new(0),
            behind: AtomicBool::new(false),
            standby: AtomicBool::new(false),
            incomplete: Mutex::default(),
            history_changes: Counter::default(),
            differences: Counter::default(),
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
            Some(age) if age < self.options.current_for() && !self.is_behind() => Freshness::Current,
            Some(age) if age < self.options.max_stale => Freshness::Stale(age),
            _ => Freshness::Unusable,
        }
    }

    /// The time since the database last confirmed the snapshot; `None` before it ever did.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let at = self.current_at.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.started.elapsed().saturating_sub(Duration::from_micros(at)))
    }

    /// How the registry follows the database.
    #[must_use]
    pub fn options(&self) -> RegistryOptions {
        self.options
    }

    /// Milliseconds by which our clock was ahead of the database's at the last poll.
    #[must_use]
    pub fn clock_ahead(&self) -> i64 {
        self.clock_ahead.load(Ordering::Relaxed)
    }

    /// The moment that is `now` by our clock, by the database's: it decides for all replicas what is over, which key signs
    /// and what may be forgotten.
    #[must_use]
    pub fn database_time(&self, now: UnixTime) -> UnixTime {
        // Rounded to the nearest second: clocks that agree to within half of one count as equal.
        UnixTime(now.0.saturating_sub(self.clock_ahead().saturating_add(500).div_euclid(1000)))
    }

    /// Notes by how much our clock is ahead. Returns what is to be logged, when it is news.
    pub(crate) fn note_clock(&self, ahead: i64) -> Option<SkewChange> {
        let worth_a_warning = |ahead: i64| ahead.unsigned_abs() > CLOCK_WARNING;
        let before = self.clock_ahead.swap(ahead, Ordering::Relaxed);
        match (worth_a_warning(before), worth_a_warning(ahead)) {
            (false, true) => Some(SkewChange::Apart),
            (true, false) => Some(SkewChange::Together),
            _ => None,
        }
    }

    /// Why our clock keeps the process from being ready, if it does.
    ///
    /// # Errors
    /// The reason, for readiness.
    pub fn clock_agrees(&self) -> Result<(), String> {
        let ahead = self.clock_ahead();
        if u128::from(ahead.unsigned_abs()) <= self.options.max_clock_skew.as_millis() {
            return Ok(());
        }
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        Err(format!(
            "this machine's clock is {} s {side} the database's, more than database.max_clock_skew; set both by NTP",
            ahead.unsigned_abs() / 1000
        ))
    }

    /// What keeps the feed from the database, if anything does.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether only a standby has answered: a database that refuses writes, and may lag.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed)
    }

    /// Whether the server that answered last is a standby.
    #[must_use]
    pub fn is_on_standby(&self) -> bool {
        self.standby.load(Ordering::Relaxed)
    }

    /// Notes whether the server that answered is a standby.
    pub(crate) fn note_standby(&self, standby: bool) {
        self.standby.store(standby, Ordering::Relaxed);
    }

    /// Why the process is not ready although it holds something.
    #[must_use]
    pub fn incomplete(&self) -> Option<String> {
        self.incomplete.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that the database answers with less than there was.
    pub(crate) fn note_incomplete(&self, reason: &str) {
        *self.incomplete.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }

    /// Takes the snapshot as confirmed at `since` by a database that only reads.
    pub(crate) fn confirm_behind(&self, since: Instant) {
        self.behind.store(true, Ordering::Relaxed);
        self.set_current_at(since);
    }

    /// Takes the snapshot as confirmed at `since`, the moment before the database was asked.
    pub(crate) fn confirm(&self, since: Instant) {
        self.behind.store(false, Ordering::Relaxed);
        self.set_current_at(since);
        *self.incomplete.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn set_current_at(&self, since: Instant) {
        let micros = since.saturating_duration_since(self.started).as_micros();
        self.current_at.store(u64::try_from(micros).unwrap_or(u64::MAX - 1) + 1, Ordering::Release);
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
                Err(fault) => {
                    tracing::error!(event = Event::RevokedTokenMalformed.as_str(), reason = %fault, "a row is left out");
                }
            }
        }
        self.snapshot.store(Arc::new(self.snapshot.load().next(changes, tag_keys)));
    }
}

/// Milliseconds between the clocks that are worth a warning.
const CLOCK_WARNING: u64 = 5000;

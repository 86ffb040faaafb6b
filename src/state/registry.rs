//! All clients and resources in memory: an immutable snapshot behind an atomic pointer, replaced as a whole.
//!
//! A token request reads it without lock, await or SQL. [`feed`] keeps it current, and its age is known.

mod clients;
mod difference;
pub mod ended_status;
pub mod feed;
mod issuer_changes;
mod last_used;
mod lost_changes;
pub mod moment;
mod other_sweeper;
pub mod revoked;
pub mod rule_index;
pub mod snapshot;
mod succession;
mod summary;
pub mod uses;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;

use crate::crypto::secret_tag::TagKey;
use crate::model::event::Event;
use crate::model::time::{Span, UnixTime};
use crate::model::token_id::TokenId;
use crate::store::changes::Changes;
use crate::store::ranges::ClientRange;
use difference::Difference;
use ended_status::EndedStatus;
use other_sweeper::OtherSweeper;
use revoked::RevokedTokens;
use snapshot::Snapshot;
use uses::Uses;

/// The current snapshot, with its age and the state of the database.
#[derive(Debug)]
pub struct Registry {
    /// Tokens that were revoked individually.
    pub revoked: RevokedTokens,
    /// Status indices whose epoch has ended.
    pub ended: EndedStatus,
    /// Notified when anything has changed, for the one task that waits for it.
    pub changed: Notify,
    /// Uses of credentials that wait to be written.
    pub uses: Arc<Uses>,
    /// The lease of another replica that sweeps.
    pub other_sweeper: OtherSweeper,
    snapshot: ArcSwap<Snapshot>,
    started: Instant,
    /// Time of the last poll that confirmed the snapshot, in microseconds after `started`, plus one; 0 before the
    /// first.
    current_at: AtomicU64,
    options: RegistryOptions,
    /// Milliseconds by which this machine's clock is ahead of the database's.
    clock_ahead: AtomicI64,
    /// Whether only a read-only database has answered so far. The primary may hold more than the snapshot.
    behind: AtomicBool,
    /// Whether the server that answered last is a standby.
    standby: AtomicBool,
    /// Reason for which the process is not ready although it has a snapshot: the database holds less than before.
    incomplete: Mutex<Option<String>>,
    /// Number of databases with another history that were found, for `grantd_registry_history_changes_total`.
    pub history_changes: Counter,
    /// Number of full loads that differed from the snapshot, for `grantd_registry_differences_total`.
    pub differences: Counter,
    /// Error that keeps the feed from the database, for readiness.
    trouble: Mutex<Option<String>>,
}

/// Options of following the database.
#[derive(Debug, Clone, Copy)]
pub struct RegistryOptions {
    /// Time for which known clients are served without the database.
    pub max_stale: Duration,
    /// Interval between two polls of the revision.
    pub poll: Duration,
    /// Clock skew above which the process is not ready.
    pub max_clock_skew: Duration,
    /// Interval between two full loads, each of which is compared with the snapshot.
    pub reload: Duration,
    /// Whether revocations that the database has lost are written again.
    pub rewrite_lost_revocations: bool,
}

impl RegistryOptions {
    /// Age up to which a snapshot counts as current.
    #[must_use]
    pub fn current_for(&self) -> Duration {
        self.poll + Duration::from_millis(1750)
    }
}

/// Change of the clock skew that is worth a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SkewChange {
    /// The skew has grown above five seconds.
    Apart,
    /// The skew is within five seconds again.
    Together,
}

/// Freshness of the snapshot, which decides what may be answered from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// As good as the database: a client that is not in the snapshot does not exist.
    Current,
    /// Older: known clients are served, and unknown ones get 503.
    Stale(Duration),
    /// Older than `registry.max_stale`, or never loaded: no client is served.
    Unusable,
}

impl Registry {
    /// Makes an empty registry, which is unusable until the feed has loaded it.
    #[must_use]
    pub fn new(options: RegistryOptions) -> Self {
        Self {
            revoked: RevokedTokens::default(),
            ended: EndedStatus::default(),
            changed: Notify::new(),
            uses: Arc::default(),
            other_sweeper: OtherSweeper::default(),
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

    /// The current snapshot. A caller holds it for one request at most.
    #[must_use]
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// The snapshot's freshness at present.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        match self.age() {
            Some(age) if age < self.options.current_for() && !self.is_behind() => Freshness::Current,
            Some(age) if age < self.options.max_stale => Freshness::Stale(age),
            _ => Freshness::Unusable,
        }
    }

    /// Time since the database last confirmed the snapshot; `None` before the first confirmation.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let at = self.current_at.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.started.elapsed().saturating_sub(Duration::from_micros(at)))
    }

    /// Returns the longest lifetime of tokens that a client or a resource has of its own.
    #[must_use]
    pub fn longest_ttl(&self) -> Option<Span> {
        let snapshot = self.snapshot();
        let of_clients = snapshot.clients.summaries().filter_map(|summary| summary.longest_ttl);
        of_clients.chain(snapshot.resources().filter_map(|resource| resource.token_ttl)).max().map(Span::from)
    }

    /// Time for which the database may have held something else. At most `registry.max_stale` is known of a server that
    /// has read a standby alone.
    #[must_use]
    pub fn staleness(&self) -> Duration {
        let age = self.age().unwrap_or(Duration::MAX);
        if self.is_behind() { age.max(self.options.max_stale) } else { age }
    }

    /// Options of following the database.
    #[must_use]
    pub fn options(&self) -> RegistryOptions {
        self.options
    }

    /// Milliseconds by which this machine's clock was ahead of the database's at the last poll.
    #[must_use]
    pub fn clock_ahead(&self) -> i64 {
        self.clock_ahead.load(Ordering::Relaxed)
    }

    /// Converts `now` from this machine's clock to the database's. The database's clock decides for all replicas what
    /// has expired, which key signs and what may be swept.
    #[must_use]
    pub fn database_time(&self, now: UnixTime) -> UnixTime {
        // Rounded to the nearest second, so that clocks that agree to within half a second count as equal.
        UnixTime(now.0.saturating_sub(self.clock_ahead().saturating_add(500).div_euclid(1000)))
    }

    /// Records the clock skew, in milliseconds. Returns a change that has to be logged.
    pub(crate) fn note_clock(&self, ahead: i64) -> Option<SkewChange> {
        let worth_a_warning = |ahead: i64| ahead.unsigned_abs() > CLOCK_WARNING;
        let before = self.clock_ahead.swap(ahead, Ordering::Relaxed);
        match (worth_a_warning(before), worth_a_warning(ahead)) {
            (false, true) => Some(SkewChange::Apart),
            (true, false) => Some(SkewChange::Together),
            _ => None,
        }
    }

    /// Checks that the clock skew is within `database.max_clock_skew`.
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

    /// The error that keeps the feed from the database.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether only a read-only database has answered, which may lag.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed)
    }

    /// Whether the server that answered last is a standby.
    #[must_use]
    pub fn is_on_standby(&self) -> bool {
        self.standby.load(Ordering::Relaxed)
    }

    /// Records whether the server that answered is a standby.
    pub(crate) fn note_standby(&self, standby: bool) {
        self.standby.store(standby, Ordering::Relaxed);
    }

    /// The reason for which the process is not ready although it has a snapshot.
    #[must_use]
    pub fn incomplete(&self) -> Option<String> {
        self.incomplete.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records that the database holds less than before.
    pub(crate) fn note_incomplete(&self, reason: &str) {
        *self.incomplete.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }

    /// Records that a read-only database confirmed the snapshot at `since`.
    pub(crate) fn confirm_behind(&self, since: Instant) {
        self.behind.store(true, Ordering::Relaxed);
        self.set_current_at(since);
    }

    /// Records that the database confirmed the snapshot at `since`, the moment before it was polled.
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

    /// Records an error of the feed. Returns whether it is new, so that it is logged once.
    pub(crate) fn note_trouble(&self, trouble: &str) -> bool {
        let mut noted = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let news = noted.as_deref() != Some(trouble);
        if news {
            *noted = Some(trouble.to_owned());
        }
        news
    }

    /// Adds a token that this replica has revoked.
    pub fn note_revoked(&self, jti: TokenId, expires_at: UnixTime) {
        self.revoked.add(jti, expires_at);
        self.changed.notify_one();
    }

    /// Builds the next snapshot from changes and puts it in place. `tag_keys` are the keys that opened, when any
    /// changed.
    pub(crate) fn apply(&self, changes: Changes, tag_keys: Option<Vec<TagKey>>) {
        for (jti, expires_at) in &changes.revoked {
            // The schema refuses other ids.
            match jti.parse() {
                Ok(jti) => self.revoked.add(jti, *expires_at),
                Err(fault) => {
                    tracing::error!(event = Event::RevokedTokenMalformed.as_str(), reason = %fault, "this row of revoked_token is left out");
                }
            }
        }
        // Before the snapshot: an index that it gives out has not ended.
        self.ended.add(&changes.ended);
        self.snapshot.store(Arc::new(self.snapshot.load().next(changes, tag_keys)));
        self.changed.notify_one();
    }

    /// Puts a range of clients that was read anew in place, and counts in `difference` what is not as it was.
    pub(in crate::state) fn apply_range(&self, range: ClientRange, keep_cut_offs: bool, difference: &mut Difference) {
        self.snapshot.store(Arc::new(self.snapshot.load().with_range(range, keep_cut_offs, difference)));
        self.changed.notify_one();
    }
}

/// Clock skew that is worth a warning, in milliseconds.
const CLOCK_WARNING: u64 = 5000;

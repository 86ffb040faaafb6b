//! The lease of another replica that sweeps, as the feed reads it.
//!
//! A replica that does not sweep needs no connection but the feed's to learn that it does not have to. When the lease is over,
//! either its holder has ended, or it holds the lease on another server: one that has taken over while connections to the
//! former one stay open. The replica then asks for the lease on a new connection, which tells the two apart.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::model::time::UnixTime;

/// The end of the lease that another replica holds.
#[derive(Debug)]
pub struct OtherSweeper {
    /// Seconds since 1970; 0 before the feed has read it, and [`NONE`] while no other replica is known to sweep.
    until: AtomicI64,
}

impl Default for OtherSweeper {
    fn default() -> Self {
        Self { until: AtomicI64::new(NONE) }
    }
}

impl OtherSweeper {
    /// Records whether another replica sweeps. While it does, the feed reads for how long.
    pub(crate) fn set(&self, is_there: bool) {
        self.until.store(if is_there { 0 } else { NONE }, Ordering::Relaxed);
    }

    /// Whether another replica sweeps at that time.
    #[must_use]
    pub fn sweeps_at(&self, now: UnixTime) -> bool {
        self.until.load(Ordering::Relaxed) >= now.0
    }

    /// Whether another replica has swept, and its lease is over.
    #[must_use]
    pub fn has_ended(&self, now: UnixTime) -> bool {
        (1..now.0).contains(&self.until.load(Ordering::Relaxed))
    }

    /// Whether the end of the lease is to be read again.
    #[must_use]
    pub fn is_due(&self, now: UnixTime) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        let is_settled = until.checked_sub(now.0).is_some_and(|rest| (READ_BEFORE..=LONGEST).contains(&rest));
        until != NONE && !is_settled
    }

    /// Records the end of the lease, which the feed has read.
    pub(crate) fn note(&self, until: Option<UnixTime>) {
        let until = until.map_or(0, |until| until.0);
        // This replica may have begun to sweep meanwhile.
        let known = self.until.load(Ordering::Relaxed);
        if known != NONE {
            // Else what was recorded in between stands.
            self.until.compare_exchange(known, until, Ordering::Relaxed, Ordering::Relaxed).ok();
        }
    }
}

const NONE: i64 = i64::MIN;
/// Seconds before the known end of the lease from which it is read again. Its holder has mostly renewed it by then.
const READ_BEFORE: i64 = 10;
/// Longest rest of a lease that is believed without another look: a clock may have been wrong, or set back.
const LONGEST: i64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_is_read_while_another_replica_sweeps_and_before_it_ends() {
        let (other, now) = (OtherSweeper::default(), UnixTime(1000));
        other.note(Some(UnixTime(2000)));
        assert!(!other.sweeps_at(now) && !other.is_due(now), "no other is known");
        other.set(true);
        assert!(!other.sweeps_at(now) && other.is_due(now) && !other.has_ended(now), "it is not read yet");
        other.note(Some(UnixTime(1045)));
        assert!(other.sweeps_at(now) && !other.is_due(now));
        assert!(other.sweeps_at(UnixTime(1045)) && other.is_due(UnixTime(1036)));
        assert!(other.is_due(UnixTime(900)), "the clock was set back");
        assert!(!other.has_ended(UnixTime(1045)));
        assert!(!other.sweeps_at(UnixTime(1046)) && other.has_ended(UnixTime(1046)), "it is over");
        other.note(None);
        assert!(!other.sweeps_at(now), "its row is gone");
        other.set(false);
        assert!(!other.is_due(now));
    }
}

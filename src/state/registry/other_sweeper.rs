//! The lease of another replica that sweeps, as the feed reads it.
//!
//! A replica that does not sweep needs no connection but the feed's to learn that it does not have to. When the lease is over,
//! either its holder has ended, or it holds the lease on another server: one that has taken over while connections to the
//! former one stay open. The replica then asks for the lease on a new connection, which tells the two apart.

use std::sync::{Mutex, PoisonError};

use crate::model::time::UnixTime;

/// The end of the lease that another replica holds.
#[derive(Debug, Default)]
pub struct OtherSweeper {
    /// `None` while no other replica is known to sweep, and [`UNREAD`] before the feed has read the end.
    until: Mutex<Option<UnixTime>>,
}

impl OtherSweeper {
    /// Records whether another replica sweeps. While it does, the feed reads for how long.
    pub(crate) fn set(&self, is_there: bool) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = is_there.then_some(UNREAD);
    }

    /// Whether another replica sweeps at that time.
    #[must_use]
    pub fn sweeps_at(&self, now: UnixTime) -> bool {
        self.until().is_some_and(|until| until >= now)
    }

    /// Whether another replica has swept, and its lease is over.
    #[must_use]
    pub fn has_ended(&self, now: UnixTime) -> bool {
        self.until().is_some_and(|until| until != UNREAD && until < now)
    }

    /// Whether the end of the lease is to be read again.
    #[must_use]
    pub fn is_due(&self, now: UnixTime) -> bool {
        self.until().is_some_and(|until| !(READ_BEFORE..=LONGEST).contains(&until.0.saturating_sub(now.0)))
    }

    /// Records the end of the lease, which the feed has read; `None` where there is no row of it. Has no effect when this
    /// replica has begun to sweep meanwhile.
    pub(crate) fn note(&self, until: Option<UnixTime>) {
        if let Some(known) = &mut *self.until.lock().unwrap_or_else(PoisonError::into_inner) {
            *known = until.unwrap_or(UNREAD);
        }
    }

    fn until(&self) -> Option<UnixTime> {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const UNREAD: UnixTime = UnixTime(0);
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

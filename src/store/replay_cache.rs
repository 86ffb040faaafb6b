//! Single-use ids that this process has recorded, until they expire: a database that lost them in a failover cannot
//! report them.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use super::spent::SingleUseId;
use crate::crypto::sha256;
use crate::model::time::UnixTime;

/// Bounded set of single-use ids. When it is full, the ids that expire first are dropped first.
#[derive(Debug, Default)]
pub struct ReplayCache {
    /// Half of a SHA-256 digest for each id, grouped by the period in which it expires.
    periods: Mutex<BTreeMap<i64, HashSet<[u8; 16]>>>,
}

impl ReplayCache {
    /// Adds ids.
    pub(super) fn add<'a>(&self, uses: impl IntoIterator<Item = &'a SingleUseId>) {
        let mut periods = self.periods.lock().unwrap_or_else(PoisonError::into_inner);
        for one in uses {
            periods.entry(period_of(one.expires_at)).or_default().insert(name_of(one));
        }
        drop_surplus(&mut periods);
    }

    /// Adds an id, and returns whether it is new. Drops ids that expired before `now`.
    #[must_use]
    pub fn first_use(&self, one: &SingleUseId, now: UnixTime) -> bool {
        let name = name_of(one);
        let mut periods = self.periods.lock().unwrap_or_else(PoisonError::into_inner);
        if periods.first_key_value().is_some_and(|(first, _)| *first < period_of(now)) {
            *periods = periods.split_off(&period_of(now));
        }
        if periods.values().any(|period| period.contains(&name)) {
            return false;
        }
        periods.entry(period_of(one.expires_at)).or_default().insert(name);
        drop_surplus(&mut periods);
        true
    }

    /// Whether the id is in the set.
    pub(super) fn contains(&self, one: &SingleUseId) -> bool {
        let name = name_of(one);
        let periods = self.periods.lock().unwrap_or_else(PoisonError::into_inner);
        periods.values().any(|period| period.contains(&name))
    }

    /// Drops ids that expired before `now`.
    pub(super) fn forget(&self, now: UnixTime) {
        let mut periods = self.periods.lock().unwrap_or_else(PoisonError::into_inner);
        *periods = periods.split_off(&period_of(now));
    }
}

fn drop_surplus(periods: &mut BTreeMap<i64, HashSet<[u8; 16]>>) {
    while periods.values().map(HashSet::len).sum::<usize>() > MOST {
        periods.pop_first();
    }
}

fn period_of(at: UnixTime) -> i64 {
    at.0.div_euclid(PERIOD)
}

/// Digest of kind, owner and `jti`.
fn name_of(one: &SingleUseId) -> [u8; 16] {
    let text = [one.kind.as_str().as_bytes(), b"\0", &one.jti, one.owner.as_bytes()].concat();
    sha256(&text)
}

/// Length of a period, in seconds. Long enough that few periods are searched; ids are kept for at most one period too
/// long.
const PERIOD: i64 = 64;
/// Maximum number of ids: about 40 MB.
const MOST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::super::spent::SingleUseKind;
    use super::*;

    fn one(kind: SingleUseKind, owner: &str, jti: u32, expires_at: i64) -> SingleUseId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&jti.to_be_bytes());
        SingleUseId { kind, owner: owner.to_owned(), jti: bytes, expires_at: UnixTime(expires_at) }
    }

    #[test]
    fn a_spent_id_is_known_until_it_expires() {
        let replays = ReplayCache::default();
        let used = one(SingleUseKind::Assertion, "a", 1, 1000);
        assert!(!replays.contains(&used));
        replays.add([&used]);
        assert!(replays.contains(&used));
        // The same jti in an assertion that ends at another time is the same use.
        assert!(replays.contains(&one(SingleUseKind::Assertion, "a", 1, 5000)));
        // An id of another kind, owner or jti is another id.
        for other in
            [(SingleUseKind::DpopProof, "a", 1), (SingleUseKind::Assertion, "b", 1), (SingleUseKind::Assertion, "a", 2)]
        {
            assert!(!replays.contains(&one(other.0, other.1, other.2, 1000)), "{other:?}");
        }
        let other = one(SingleUseKind::DpopProof, "a", 3, 1000);
        assert!(replays.first_use(&other, UnixTime(0)) && !replays.first_use(&other, UnixTime(1000)));
        replays.forget(UnixTime(1000));
        assert!(replays.contains(&used));
        replays.forget(UnixTime(1000 + PERIOD));
        assert!(!replays.contains(&used));
        assert!(replays.first_use(&used, UnixTime(0)) && replays.first_use(&used, UnixTime(1000 + PERIOD)));
    }

    #[test]
    fn of_too_many_the_first_to_expire_are_forgotten() {
        let replays = ReplayCache::default();
        let early = one(SingleUseKind::Assertion, "a", 0, 0);
        replays.add([&early]);
        let many = u32::try_from(MOST).unwrap();
        let later: Vec<SingleUseId> = (1..=many).map(|jti| one(SingleUseKind::Assertion, "a", jti, 1000)).collect();
        replays.add(&later[1..]);
        assert!(replays.contains(&early), "as many as there may be");
        replays.add(&later[..1]);
        assert!(!replays.contains(&early) && replays.contains(&later[0]) && replays.contains(&later[later.len() - 1]));
    }
}

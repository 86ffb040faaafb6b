//! What this process has spent, until it expires: a database that lost it in a failover cannot say so any more.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use super::spent::SingleUseId;
use crate::crypto::sha256;
use crate::model::time::UnixTime;

/// The uses of this process. Bounded: when there are too many, those that expire first are forgotten first.
#[derive(Debug, Default)]
pub struct ReplayCache {
    /// The first half of a digest for each use, by the period in which it expires.
    periods: Mutex<BTreeMap<i64, HashSet<[u8; 16]>>>,
}

impl ReplayCache {
    /// Notes what was spent.
    pub(super) fn add<'a>(&self, uses: impl IntoIterator<Item = &'a SingleUseId>) {
        let mut periods = self.periods.lock().unwrap_or_else(PoisonError::into_inner);
        for one in uses {
            periods.entry(period_of(one.expires_at)).or_default().insert(name_of(one));
        }
        drop_surplus(&mut periods);
    }

    /// Notes a use, and whether it is the first. What has expired before `now` is forgotten.
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

    /// Whether this was spent here.
    pub(super) fn contains(&self, one: &SingleUseId) -> bool {
        let name = name_of(one);
        let periods = self.periods.lock().unwrap_or_else(PoisonError::into_inner);
        periods.values().any(|period| period.contains(&name))
    }

    /// Forgets what had expired before `now`.
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

/// What tells one use from another (C34), in sixteen bytes.
fn name_of(one: &SingleUseId) -> [u8; 16] {
    let text = [one.kind.as_str().as_bytes(), b"\0", &one.jti, one.owner.as_bytes()].concat();
    sha256(&text)
}

/// Seconds of one period. Few periods are searched, and a few uses too many are kept.
const PERIOD: i64 = 64;
/// Uses that are remembered at most: about 40 MB.
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
    fn what_was_spent_is_known_until_it_expires() {
        let replays = ReplayCache::default();
        let used = one(SingleUseKind::Assertion, "a", 1, 1000);
        assert!(!replays.contains(&used));
        replays.add([&used]);
        assert!(replays.contains(&used));
        // The same jti in an assertion that ends at another time is the same use.
        assert!(replays.contains(&one(SingleUseKind::Assertion, "a", 1, 5000)));
        // C34: another kind, owner or jti is another.
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

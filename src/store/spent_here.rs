//! What this process has spent, until it expires: a database that lost it in a failover cannot say so any more.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use super::spent::Use;
use crate::crypto::sha256;
use crate::model::time::UnixTime;

/// The uses of this process. Bounded: when there are too many, those that expire first are forgotten first.
#[derive(Debug, Default)]
pub struct SpentHere {
    /// The first half of a digest for each use, by the period in which it expires.
    periods: Mutex<BTreeMap<i64, HashSet<[u8; 16]>>>,
}

impl SpentHere {
    /// Notes what was spent.
    pub(super) fn note<'a>(&self, uses: impl IntoIterator<Item = &'a Use>) {
        let mut periods = self.periods.lock().unwrap_or_else(PoisonError::into_inner);
        for one in uses {
            periods.entry(period_of(one.expires_at)).or_default().insert(name_of(one));
        }
        drop_surplus(&mut periods);
    }

    /// Notes a use, and whether it is the first. What has expired before `now` is forgotten.
    #[must_use]
    pub fn first_use(&self, one: &Use, now: UnixTime) -> bool {
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
    pub(super) fn has(&self, one: &Use) -> bool {
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

/// Returns the identity of a use, its kind, owner and `jti`, in sixteen bytes.
fn name_of(one: &Use) -> [u8; 16] {
    let text = [one.kind.as_str().as_bytes(), b"\0", &one.jti, one.owner.as_bytes()].concat();
    sha256(&text)
}

/// Seconds of one period. Few periods are searched, and a few uses too many are kept.
const PERIOD: i64 = 64;
/// Uses that are remembered at most: about 40 MB.
const MOST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::super::spent::UseKind;
    use super::*;

    fn one(kind: UseKind, owner: &str, jti: u32, expires_at: i64) -> Use {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&jti.to_be_bytes());
        Use { kind, owner: owner.to_owned(), jti: bytes, expires_at: UnixTime(expires_at) }
    }

    #[test]
    fn a_spent_id_is_known_until_it_expires() {
        let here = SpentHere::default();
        let used = one(UseKind::Assertion, "a", 1, 1000);
        assert!(!here.has(&used));
        here.note([&used]);
        assert!(here.has(&used));
        // The same jti in an assertion that ends at another time is the same use.
        assert!(here.has(&one(UseKind::Assertion, "a", 1, 5000)));
        // The same jti of another kind or owner is another use.
        for other in [(UseKind::DpopProof, "a", 1), (UseKind::Assertion, "b", 1), (UseKind::Assertion, "a", 2)] {
            assert!(!here.has(&one(other.0, other.1, other.2, 1000)), "{other:?}");
        }
        let other = one(UseKind::DpopProof, "a", 3, 1000);
        assert!(here.first_use(&other, UnixTime(0)) && !here.first_use(&other, UnixTime(1000)));
        here.forget(UnixTime(1000));
        assert!(here.has(&used));
        here.forget(UnixTime(1000 + PERIOD));
        assert!(!here.has(&used));
        assert!(here.first_use(&used, UnixTime(0)) && here.first_use(&used, UnixTime(1000 + PERIOD)));
    }

    #[test]
    fn of_too_many_the_first_to_expire_are_forgotten() {
        let here = SpentHere::default();
        let early = one(UseKind::Assertion, "a", 0, 0);
        here.note([&early]);
        let many = u32::try_from(MOST).unwrap();
        let later: Vec<Use> = (1..=many).map(|jti| one(UseKind::Assertion, "a", jti, 1000)).collect();
        here.note(&later[1..]);
        assert!(here.has(&early), "as many as there may be");
        here.note(&later[..1]);
        assert!(!here.has(&early) && here.has(&later[0]) && here.has(&later[later.len() - 1]));
    }
}

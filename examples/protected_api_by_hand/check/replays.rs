//! Memory of DPoP proofs (RFC 9449 section 11.1): a set of hashes that is bounded in time and in number.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

/// The proofs that this process has seen. Several replicas of an API share nothing: a proof can be used once at each. Where
/// that is too much, keep them in a store that all replicas share.
#[derive(Debug)]
pub(super) struct Replays {
    seen: Mutex<Seen>,
    most: usize,
}

#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<[u8; 32]>,
    /// When each may be forgotten, the soonest first.
    ends: VecDeque<(i64, [u8; 32])>,
}

impl Replays {
    pub(super) fn new(most: usize) -> Self {
        Self { seen: Mutex::default(), most }
    }

    /// Whether `id` is new. `None` when there is no room to remember it; only callers with good tokens take up room.
    pub(super) fn first_time(&self, id: [u8; 32], now: i64, until: i64) -> Option<bool> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, old)) = seen.ends.pop_front_if(|(end, _)| *end <= now) {
            seen.ids.remove(&old);
        }
        if seen.ids.contains(&id) {
            return Some(false);
        }
        if seen.ids.len() >= self.most {
            return None;
        }
        seen.ids.insert(id);
        seen.ends.push_back((until, id));
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_remembered_for_its_time_and_no_more_than_fit() {
        let replays = Replays::new(2);
        assert_eq!(replays.first_time([1; 32], 100, 170), Some(true));
        assert_eq!(replays.first_time([1; 32], 169, 239), Some(false));
        assert_eq!(replays.first_time([2; 32], 101, 171), Some(true));
        assert_eq!(replays.first_time([3; 32], 102, 172), None, "nothing is forgotten to make room");
        assert_eq!(replays.first_time([3; 32], 170, 240), Some(true));
        assert_eq!(replays.first_time([2; 32], 170, 240), Some(false));
        assert_eq!(replays.first_time([1; 32], 171, 241), Some(true));
    }
}

//! The DPoP proofs that were used (RFC 9449 section 11.1): a set of hashes, bounded in time and in number.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

/// The proofs that this process has accepted.
#[derive(Debug)]
pub(crate) struct Replays {
    seen: Mutex<Seen>,
    max: usize,
}

#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<[u8; 32]>,
    /// The time from which each may be forgotten, the earliest first.
    ends: VecDeque<(i64, [u8; 32])>,
}

impl Replays {
    pub(crate) fn new(max: usize) -> Self {
        Self { seen: Mutex::default(), max }
    }

    /// Whether `id` is new; it is remembered until `until`. `None` when there is no room: nothing is forgotten early, and only
    /// clients with good tokens take up room.
    pub(crate) fn first_time(&self, id: [u8; 32], now: i64, until: i64) -> Option<bool> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, old)) = seen.ends.pop_front_if(|(end, _)| *end <= now) {
            seen.ids.remove(&old);
        }
        if seen.ids.contains(&id) {
            return Some(false);
        }
        if seen.ids.len() >= self.max {
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
    fn a_proof_is_remembered_for_its_time_and_nothing_is_forgotten_to_make_room() {
        let replays = Replays::new(2);
        assert_eq!(replays.first_time([1; 32], 100, 170), Some(true));
        assert_eq!(replays.first_time([1; 32], 169, 239), Some(false));
        assert_eq!(replays.first_time([2; 32], 101, 171), Some(true));
        assert_eq!(replays.first_time([3; 32], 102, 172), None);
        assert_eq!(replays.first_time([3; 32], 170, 240), Some(true));
        assert_eq!(replays.first_time([2; 32], 170, 240), Some(false));
        assert_eq!(replays.first_time([1; 32], 171, 241), Some(true));
    }
}

//! Status indices: the numbers by which tokens refer to a status list (draft-ietf-oauth-status-list).

use super::time::UnixTime;

/// Status index of one epoch of a client, counted over all lists. Its bit is set once the epoch has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatusIndex(pub i64);

impl StatusIndex {
    /// The index of a client with the number `number`, where numbers are counted from the list at position `list`.
    #[must_use]
    pub fn new(list: i64, number: i64) -> Self {
        Self((list << LIST_BITS).saturating_add(number))
    }

    /// The index `idx` of the list that is called `list`; `None` when no list has it.
    #[must_use]
    pub fn of_claim(list: i64, idx: i64) -> Option<Self> {
        let is_one = (1..=LAST_LIST).contains(&list) && (0..1 << LIST_BITS).contains(&idx);
        is_one.then(|| Self::new(list - 1, idx))
    }

    /// The name of its list, which counts from 1.
    #[must_use]
    pub fn list(self) -> i64 {
        (self.0 >> LIST_BITS) + 1
    }

    /// Its index in the list: `idx` of the claim.
    #[must_use]
    pub fn idx(self) -> i64 {
        self.0 & ((1 << LIST_BITS) - 1)
    }
}

/// Status indices from `first` to `last` whose epochs ended at `ended_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedEpochs {
    /// The first index.
    pub first: StatusIndex,
    /// The last index.
    pub last: StatusIndex,
    /// The second in which the epochs ended.
    pub ended_at: UnixTime,
}

/// Binary logarithm of the number of indices in a list.
pub const LIST_BITS: u32 = 20;
/// The last list whose indices fit into the database.
const LAST_LIST: i64 = i64::MAX >> LIST_BITS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_a_list_and_a_place_in_it() {
        let index = StatusIndex::new(1, (1 << LIST_BITS) + 7);
        assert_eq!((index.list(), index.idx()), (3, 7));
        assert_eq!(StatusIndex::of_claim(3, 7), Some(index));
        for (list, idx) in [(0, 7), (-1, 7), (i64::MAX, 7), (1, -1), (1, 1 << LIST_BITS)] {
            assert_eq!(StatusIndex::of_claim(list, idx), None, "{list} {idx}");
        }
    }
}

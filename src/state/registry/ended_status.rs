//! Status indices whose epoch has ended, in memory: the bits of the status lists. The set only grows until tokens expire.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{PoisonError, RwLock};

use crate::model::status::{EndedEpochs, LIST_BITS, StatusIndex};
use crate::model::time::UnixTime;

/// Ended epochs. The set is not a part of the snapshot: an index stays dead whatever is loaded next.
#[derive(Debug, Default)]
pub struct EndedStatus(RwLock<Ended>);

#[derive(Debug, Default)]
struct Ended {
    /// Epochs of clients, in the order of their indices.
    single: BTreeMap<StatusIndex, UnixTime>,
    /// Whole lists, which a cut-off of all tokens ended.
    lists: Vec<EndedEpochs>,
}

impl EndedStatus {
    /// Adds ended epochs.
    pub fn add(&self, epochs: &[EndedEpochs]) {
        if epochs.is_empty() {
            return;
        }
        let mut ended = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for one in epochs {
            if one.first == one.last {
                ended.single.entry(one.first).or_insert(one.ended_at);
            } else if !ended.lists.iter().any(|known| known.first == one.first && known.last >= one.last) {
                ended.lists.push(*one);
            }
        }
    }

    /// Whether the epoch of an index has ended.
    #[must_use]
    pub fn contains(&self, index: StatusIndex) -> bool {
        let ended = self.0.read().unwrap_or_else(PoisonError::into_inner);
        ended.single.contains_key(&index) || ended.lists.iter().any(|one| one.first <= index && index <= one.last)
    }

    /// The number of epochs of clients in the set.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).single.len()
    }

    /// Returns the epochs that are not in `others`, whole lists first.
    #[must_use]
    pub fn missing_from(&self, others: &[EndedEpochs]) -> Vec<EndedEpochs> {
        let there: HashSet<StatusIndex> = others.iter().map(|one| one.first).collect();
        let ended = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let single = ended.single.iter().map(|(index, at)| EndedEpochs { first: *index, last: *index, ended_at: *at });
        ended.lists.iter().copied().chain(single).filter(|one| !there.contains(&one.first)).collect()
    }

    /// Returns the names of the lists that have an ended index.
    #[must_use]
    pub fn lists(&self) -> BTreeSet<i64> {
        let ended = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let single = ended.single.keys().map(|index| index.list());
        single.chain(ended.lists.iter().flat_map(|one| one.first.list()..=one.last.list())).collect()
    }

    /// Returns the ended indices of a list; `None` when all of them have ended.
    #[must_use]
    pub fn of_list(&self, list: i64) -> Option<Vec<i64>> {
        let ended = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if ended.lists.iter().any(|one| (one.first.list()..=one.last.list()).contains(&list)) {
            return None;
        }
        let first = StatusIndex::new(list - 1, 0);
        let of_list = ended.single.range(first..StatusIndex(first.0 + (1 << LIST_BITS)));
        Some(of_list.map(|(index, _)| index.idx()).collect())
    }

    /// Removes epochs that ended before `before`.
    pub fn forget(&self, before: UnixTime) {
        let mut ended = self.0.write().unwrap_or_else(PoisonError::into_inner);
        ended.single.retain(|_, at| *at >= before);
        ended.lists.retain(|one| one.ended_at >= before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_has_ended_by_itself_or_with_its_list_until_its_tokens_have() {
        let ended = EndedStatus::default();
        let one =
            |index, at| EndedEpochs { first: StatusIndex(index), last: StatusIndex(index), ended_at: UnixTime(at) };
        let list = EndedEpochs { first: StatusIndex::new(4, 0), last: StatusIndex::new(5, -1), ended_at: UnixTime(20) };
        ended.add(&[one(7, 10), one(9, 30), list, list, one(7, 40)]);
        let has = |index| ended.contains(StatusIndex(index));
        assert!(
            has(7) && has(9) && !has(8) && has(4 << LIST_BITS) && has((5 << LIST_BITS) - 1) && !has(5 << LIST_BITS)
        );
        assert_eq!((ended.of_list(1), ended.of_list(5), ended.of_list(2)), (Some(vec![7, 9]), None, Some(vec![])));
        assert_eq!((ended.lists(), ended.count()), (BTreeSet::from([1, 5]), 2));
        assert_eq!(ended.missing_from(&[one(7, 10), list]), [one(9, 30)]);
        ended.forget(UnixTime(21));
        assert!(!has(7) && has(9) && !has(4 << LIST_BITS) && ended.count() > 0);
    }
}

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

/// Returns the names of the lists from that of `first` to that of `last` in which indices were given out.
///
/// After a restore of the database, numbers go on behind the last one that a server remembers, which may be as many lists
/// away as the Unix time has seconds. Then indices were given out at the two ends alone.
pub fn lists(first: StatusIndex, last: StatusIndex) -> impl Iterator<Item = i64> {
    let (first, last) = (first.list(), last.list());
    let is_wide = last.saturating_sub(first) >= WIDE;
    let (lower, upper) = if is_wide { (first + AT_AN_END, last - AT_AN_END) } else { (last, last + 1) };
    (first..=lower).chain(upper..=last)
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
/// Number of lists, of a million indices each, above which a range has a gap.
const WIDE: i64 = 1024;
/// Number of lists at an end of such a range.
const AT_AN_END: i64 = 4;
/// The last list whose indices fit into the database.
const LAST_LIST: i64 = i64::MAX >> LIST_BITS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_a_range_are_all_of_them_unless_it_has_a_gap() {
        let of =
            |first: i64, last: i64| lists(StatusIndex::new(first, 0), StatusIndex::new(last, 7)).collect::<Vec<_>>();
        assert_eq!(of(4, 4), [5]);
        assert_eq!(of(4, 7), [5, 6, 7, 8]);
        assert_eq!(of(0, 1000).len(), 1001);
        let wide = of(0, 1_800_000_000);
        assert_eq!((wide.len(), wide.first(), wide.last()), (10, Some(&1), Some(&1_800_000_001)));
    }

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

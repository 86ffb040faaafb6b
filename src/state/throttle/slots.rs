//! Table of a fixed number of slots, each behind a lock of its own. Its parts are made when one of their slots is first
//! needed, so that a server that nobody attacks has no memory for them.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Fixed number of slots, found by a hash. Keys with the same slot share it.
#[derive(Debug)]
pub(super) struct Slots<T> {
    parts: Box<[OnceLock<Part<T>>]>,
    empty: T,
}

type Part<T> = Box<[Mutex<T>]>;

impl<T: Copy> Slots<T> {
    /// Makes a table of `count` slots, a multiple of [`PART`], that all hold `empty`.
    pub(super) fn new(count: usize, empty: T) -> Self {
        Self { parts: (0..count / PART).map(|_| OnceLock::new()).collect(), empty }
    }

    /// Returns the slot of a hash; `None` when it certainly holds what it held at first.
    pub(super) fn get(&self, hash: u64) -> Option<MutexGuard<'_, T>> {
        let (part, slot) = self.place(hash);
        let slot = self.parts.get(part)?.get()?.get(slot)?;
        Some(slot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the slot of a hash, to be changed.
    pub(super) fn get_mut(&self, hash: u64) -> MutexGuard<'_, T> {
        let (part, slot) = self.place(hash);
        #[expect(clippy::indexing_slicing, reason = "the place is within the table")]
        let slot = &self.parts[part].get_or_init(|| (0..PART).map(|_| Mutex::new(self.empty)).collect())[slot];
        slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The part of a hash, and its slot in the part.
    fn place(&self, hash: u64) -> (usize, usize) {
        #[expect(clippy::cast_possible_truncation, reason = "the remainder is below the number of slots")]
        let number = (hash % (self.parts.len() * PART) as u64) as usize;
        (number / PART, number % PART)
    }
}

/// Number of slots in a part.
const PART: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_made_when_one_of_its_slots_is_changed() {
        let slots = Slots::new(4 * PART, 7);
        assert!((0..5 * PART as u64).all(|hash| slots.get(hash).is_none()));
        *slots.get_mut(3) = 8;
        assert_eq!(slots.get(3).map(|slot| *slot), Some(8));
        assert_eq!(slots.get(4 * PART as u64 + 3).map(|slot| *slot), Some(8), "another hash with the same slot");
        assert_eq!(slots.get(4).map(|slot| *slot), Some(7));
        assert_eq!(slots.parts.iter().filter(|part| part.get().is_some()).count(), 1);
        for hash in 0..4 * PART as u64 {
            *slots.get_mut(hash) += 1;
        }
        assert!((0..4 * PART as u64).all(|hash| *slots.get_mut(hash) == if hash == 3 { 9 } else { 8 }));
    }
}

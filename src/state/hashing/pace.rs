//! The pace of the argon2 lane, measured: how many secrets may wait, and when a refused client should come again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::crypto::random;
use crate::crypto::secret::HashParams;

/// Mean time of a job, and the number of threads that run jobs.
#[derive(Debug)]
pub(super) struct Pace {
    /// Moving average, in nanoseconds.
    mean: AtomicU64,
    threads: u32,
}

impl Pace {
    /// Estimates the time of a job from the cost of a hash, until jobs have been measured. Hashing at the start to
    /// measure would delay the start, and take memory that an idle server does not need.
    pub(super) fn new(threads: usize, cost: HashParams) -> Self {
        let estimate = u64::from(cost.m) * u64::from(cost.t) * NANOSECONDS_PER_KIB;
        Self { mean: AtomicU64::new(estimate), threads: u32::try_from(threads.max(1)).unwrap_or(1) }
    }

    /// Records the time that a job took.
    pub(super) fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX / 16);
        let mean = self.mean.load(Ordering::Relaxed);
        // A measurement of another thread that is lost in between does no harm.
        self.mean.store(mean - mean / 16 + took / 16, Ordering::Relaxed);
    }

    /// The number of jobs that the threads run within [`PATIENCE`].
    pub(super) fn capacity(&self) -> usize {
        let mean = u128::from(self.mean.load(Ordering::Relaxed).max(1));
        let jobs = PATIENCE.as_nanos() * u128::from(self.threads) / mean;
        usize::try_from(jobs).unwrap_or(MAX_CAPACITY).clamp(MIN_CAPACITY, MAX_CAPACITY)
    }

    /// The time after which a refused client finds room, while `depth` jobs wait: from the time in which these are run to
    /// about twice as long, at random, so that clients that are refused together do not return together.
    pub(super) fn retry_after(&self, depth: usize) -> Duration {
        let mean = Duration::from_nanos(self.mean.load(Ordering::Relaxed));
        let run = mean.saturating_mul(u32::try_from(depth).unwrap_or(u32::MAX)) / self.threads;
        let run = run.clamp(SHORTEST, LONGEST / 2);
        let chance = random().map_or(0, u16::from_be_bytes);
        (run + run.mul_f64(f64::from(chance) / f64::from(u16::MAX))).min(LONGEST)
    }
}

/// Time for which a secret may wait for its hash. Proxies and clients give up after 30 to 60 seconds.
const PATIENCE: Duration = Duration::from_secs(30);
const MIN_CAPACITY: usize = 256;
/// A waiting secret takes 3.5 KiB at most (see `LONG`), in two readings against four hashes, so this many take 56 MiB.
const MAX_CAPACITY: usize = 16_384;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(1);
/// Time of argon2id for a KiB of memory and a pass on a server of 2020: 14 ms for m=19456,t=2.
const NANOSECONDS_PER_KIB: u64 = 360;

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(threads: usize) -> Pace {
        Pace::new(threads, HashParams::default())
    }

    #[test]
    fn as_many_secrets_may_wait_as_are_hashed_in_half_a_minute() {
        assert_eq!((pace(1).capacity(), pace(2).capacity(), pace(100).capacity()), (2141, 4283, 16_384));
        let slow = pace(1);
        (0..100).for_each(|_| slow.note(Duration::from_millis(50)));
        assert!((590..=610).contains(&slow.capacity()), "{}", slow.capacity());
        (0..100).for_each(|_| slow.note(Duration::from_secs(5)));
        assert_eq!(slow.capacity(), 256);
    }

    #[test]
    fn refused_clients_return_after_the_queue_is_done_and_not_together() {
        let seconds = |depth: usize| {
            let pace = pace(2);
            let waits: Vec<f64> = (0..200).map(|_| pace.retry_after(depth).as_secs_f64()).collect();
            (waits.iter().copied().fold(f64::MAX, f64::min), waits.iter().copied().fold(0.0, f64::max))
        };
        let within = |(least, most): (f64, f64), from: f64| {
            least >= from && least < from * 1.2 && most > from * 1.8 && most <= from * 2.0
        };
        assert!(within(seconds(0), 1.0), "{:?}", seconds(0));
        assert!(within(seconds(1000), 7.004), "{:?}", seconds(1000));
        assert!(within(seconds(1_000_000), 30.0), "{:?}", seconds(1_000_000));
    }
}

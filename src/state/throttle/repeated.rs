//! Secrets that are presented repeatedly while their client is throttled. A small share of the hashes is reserved for
//! them.
//!
//! A guesser presents another value each time, and a client always the same one. So a value that was presented before
//! is more likely to be the client's, and a value that was hashed and refused needs no second hash.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::network;
use super::slots::Slots;

/// Recently presented values, and the limits of the pairs that wait. Two fixed tables.
#[derive(Debug)]
pub struct RepeatedSecrets {
    values: Slots<PresentedSecret>,
    limits: Slots<PairLimit>,
    hasher: RandomState,
    started: Instant,
}

/// Presented value, identified by 64 bits of a keyed hash.
#[derive(Debug, Clone, Copy, Default)]
struct PresentedSecret {
    fingerprint: u64,
    /// Time of the last counted presentation, in quarters of a second since the table was made.
    at: u32,
    /// Number of presentations, counted at most once each quarter of a second; 0 for an empty slot.
    times: u8,
    /// Whether its hashes were computed and none matched.
    refused: bool,
}

/// Limit on the hashes of one client from one source. Pairs with the same slot share it.
#[derive(Debug, Clone, Copy)]
struct PairLimit {
    /// Time at which the next value may be hashed.
    next_at: Instant,
    /// Number of presentations of the value that was turned away last. Values with no more presentations are refused
    /// until `bar_until`.
    bar: u8,
    /// Time at which `bar` ends.
    bar_until: Instant,
}

impl RepeatedSecrets {
    /// Makes empty tables.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let share = PairLimit { next_at: now, bar: 0, bar_until: now };
        Self {
            values: Slots::new(VALUES, PresentedSecret::default()),
            limits: Slots::new(LIMITS, share),
            hasher: RandomState::new(),
            started: now,
        }
    }

    /// Returns the fingerprint of a value for the calls below. `attempt` covers the presented value, the claimed client
    /// and the stored hashes, so a refused value counts as new once the client's secrets change.
    #[must_use]
    pub fn fingerprint(&self, attempt: &[u8; 32], source: IpAddr) -> u64 {
        self.hasher.hash_one((attempt, network(source)))
    }

    /// Whether the hashes of this value were computed before, and none matched.
    #[must_use]
    pub fn was_refused(&self, fingerprint: u64) -> bool {
        let value = self.values.get(fingerprint);
        value.is_some_and(|value| value.times > 0 && value.fingerprint == fingerprint && value.refused)
    }

    /// Records that the hashes of this value were computed, and none matched.
    pub fn refused(&self, fingerprint: u64, now: Instant) {
        let at = self.quarter(now);
        let mut value = self.values.get_mut(fingerprint);
        if value.fingerprint == fingerprint || value.is_replaceable(at) {
            *value = PresentedSecret { fingerprint, at, times: 1, refused: true };
        }
    }

    /// Decides whether a value may be hashed although its client is throttled for this source.
    ///
    /// # Errors
    /// The time after which to present the value again.
    pub fn admit(&self, fingerprint: u64, client_id: &str, source: IpAddr, now: Instant) -> Result<(), Duration> {
        let times = self.present(fingerprint, now);
        if times < 2 {
            return Err(RETRY_AFTER);
        }
        let pair = self.hasher.hash_one((client_id, network(source)));
        let mut share = self.limits.get_mut(pair);
        let bar = if share.bar_until > now { share.bar } else { 0 };
        if times <= bar {
            return Err(RETRY_AFTER);
        }
        if share.next_at > now {
            (share.bar, share.bar_until) = (times, now + BAR_DURATION);
            return Err(RETRY_AFTER);
        }
        share.next_at = now + HASH_INTERVAL;
        Ok(())
    }

    /// Counts a presentation, and returns the number of presentations.
    fn present(&self, fingerprint: u64, now: Instant) -> u8 {
        let at = self.quarter(now);
        let mut value = self.values.get_mut(fingerprint);
        if value.fingerprint == fingerprint && value.times > 0 {
            if at > value.at {
                (value.at, value.times) = (at, value.times.saturating_add(1));
            }
            return value.times;
        }
        if value.is_replaceable(at) {
            *value = PresentedSecret { fingerprint, at, times: 1, refused: false };
        }
        1
    }

    fn quarter(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.started).as_millis() / 250).unwrap_or(u32::MAX)
    }
}

impl PresentedSecret {
    /// Whether another value may take the slot. A value that was presented again is kept for a minute.
    fn is_replaceable(&self, at: u32) -> bool {
        self.refused || self.times < 2 || at.saturating_sub(self.at) > KEPT_QUARTERS
    }
}

const VALUES: usize = 65_536;
const LIMITS: usize = 16_384;
/// Minimum time between two hashes of one client from one source.
const HASH_INTERVAL: Duration = Duration::from_millis(500);
/// `Retry-After` of a refused value.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const BAR_DURATION: Duration = Duration::from_secs(2);
/// Time for which a repeated value keeps its slot: a minute, in quarters of a second.
const KEPT_QUARTERS: u32 = 240;

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn a_value_is_admitted_when_it_is_presented_again_and_no_more_once_it_was_refused() {
        let start = Instant::now();
        let repeated = RepeatedSecrets::new(start);
        let value = repeated.fingerprint(&[7; 32], A);
        assert_eq!(repeated.admit(value, "c", A, start), Err(RETRY_AFTER));
        assert_eq!(
            repeated.admit(value, "c", A, start + Duration::from_millis(20)),
            Err(RETRY_AFTER),
            "the same moment"
        );
        assert_eq!(repeated.admit(value, "c", A, start + RETRY_AFTER), Ok(()));
        assert!(!repeated.was_refused(value));
        repeated.refused(value, start + RETRY_AFTER);
        assert!(repeated.was_refused(value));
        assert!(!repeated.was_refused(repeated.fingerprint(&[7; 32], "192.0.2.2".parse().unwrap())), "another source");
    }

    /// When the client's secret is admitted, in seconds, and how many guesses are in the same time. The guesser presents
    /// `rate` values a second, each `repeats` times, once a second; the client presents its secret once a second.
    fn contest(rate: u64, repeats: u64, longest: u64) -> (Option<u64>, u64) {
        let start = Instant::now();
        let repeated = RepeatedSecrets::new(start);
        let right = repeated.fingerprint(&[0xff; 32], A);
        let mut admitted = 0;
        // Values that are alive at the same time; each is followed by the next one after its last presentation.
        let mut alive: Vec<(u64, u64)> = (0..rate).map(|value| (value, value % repeats)).collect();
        let mut next = rate;
        for second in 0..longest {
            for (nth, (value, presented)) in alive.iter_mut().enumerate() {
                let at = start + Duration::from_millis(second * 1000 + nth as u64 * 1000 / rate);
                if nth as u64 == rate / 2 && repeated.admit(right, "c", A, at).is_ok() {
                    return (Some(second), admitted);
                }
                let mut attempt = [0; 32];
                attempt[..8].copy_from_slice(&value.to_be_bytes());
                let fingerprint = repeated.fingerprint(&attempt, A);
                let tried = repeated.was_refused(fingerprint);
                if !tried && repeated.admit(fingerprint, "c", A, at).is_ok() {
                    admitted += 1;
                    repeated.refused(fingerprint, at);
                }
                *presented += 1;
                if tried || *presented >= repeats {
                    (*value, *presented) = (next, 0);
                    next += 1;
                }
            }
        }
        (None, admitted)
    }

    #[test]
    fn a_guesser_with_a_new_value_each_time_keeps_no_other_caller_waiting() {
        for rate in [10, 50, 200] {
            assert_eq!(contest(rate, 1, 100), (Some(1), 0), "{rate} guesses a second");
        }
    }

    #[test]
    fn a_guesser_that_repeats_values_tries_no_more_than_the_share() {
        for repeats in 2..60 {
            let (seconds, guesses) = contest(50, repeats, 300);
            let seconds = seconds.unwrap_or(u64::MAX);
            assert!(seconds <= 60, "{repeats} times each: {seconds} s");
            assert!(guesses <= 2 * (seconds + 1), "{guesses} guesses in {seconds} s");
        }
    }

    #[test]
    fn a_flood_of_other_values_does_not_wash_out_one_that_was_presented_again() {
        let start = Instant::now();
        let repeated = RepeatedSecrets::new(start);
        let value = repeated.fingerprint(&[7; 32], A);
        for _ in 0..2 {
            repeated.present(value, start);
        }
        assert_eq!(repeated.present(value, start + RETRY_AFTER), 2);
        for number in 0..300_000_u64 {
            repeated.present(repeated.hasher.hash_one(number), start + RETRY_AFTER);
        }
        assert_eq!(repeated.present(value, start + RETRY_AFTER * 2), 3);
    }
}

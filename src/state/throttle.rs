//! Throttling of failed authentication, per client and source (RFC 6749 section 2.3.1: "MUST protect any endpoint
//! utilizing it against brute force attacks"), and the sources of right secrets. All tables have a fixed size, whatever
//! an attacker sends.

pub mod repeated;
mod slots;

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use slots::Slots;

/// Fixed table of failure counters per client and source. Two pairs with the same slot share a counter.
#[derive(Debug)]
pub struct Throttle {
    slots: Slots<Slot>,
    hasher: RandomState,
}

/// Leaky bucket of one pair's failures.
#[derive(Debug, Clone, Copy)]
struct Slot {
    pair: u64,
    /// Time at which the bucket will be empty.
    empty_at: Option<Instant>,
    /// Reason of the last failure.
    last: &'static str,
}

/// The refusal of a pair that has failed too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    /// Time until the pair may try.
    pub wait: Duration,
    /// Reason of the last failure that was counted.
    pub last: &'static str,
}

impl Default for Throttle {
    fn default() -> Self {
        let slots = Slots::new(SLOTS, Slot { pair: 0, empty_at: None, last: "" });
        Self { slots, hasher: RandomState::new() }
    }
}

impl Throttle {
    /// Checks whether the pair may try now.
    ///
    /// # Errors
    /// [`Throttled`].
    pub fn check(&self, client_id: &str, source: IpAddr, now: Instant) -> Result<(), Throttled> {
        let pair = self.pair(client_id, source);
        let Some(slot) = self.slots.get(pair) else { return Ok(()) };
        let full_until =
            slot.empty_at.filter(|_| slot.pair == pair).and_then(|at| at.checked_sub(REFILL_INTERVAL * (BURST - 1)));
        match full_until.map(|until| until.saturating_duration_since(now)) {
            Some(wait) if !wait.is_zero() => Err(Throttled { wait, last: slot.last }),
            _ => Ok(()),
        }
    }

    /// Counts a failure, and keeps its reason. When two pairs share a slot, the one with more failures keeps it.
    pub fn failed(&self, client_id: &str, source: IpAddr, reason: &'static str, now: Instant) {
        let pair = self.pair(client_id, source);
        let mut slot = self.slots.get_mut(pair);
        let drained = slot.empty_at.is_none_or(|at| at <= now);
        if slot.pair == pair && !drained {
            slot.empty_at = slot.empty_at.map(|at| (at + REFILL_INTERVAL).min(now + REFILL_INTERVAL * BURST));
            slot.last = reason;
        } else if drained || slot.empty_at.is_some_and(|at| at <= now + REFILL_INTERVAL) {
            *slot = Slot { pair, empty_at: Some(now + REFILL_INTERVAL), last: reason };
        }
    }

    /// Clears the failures of a pair that has presented the right secret.
    pub fn succeeded(&self, client_id: &str, source: IpAddr) {
        let pair = self.pair(client_id, source);
        if let Some(mut slot) = self.slots.get(pair).filter(|slot| slot.pair == pair) {
            slot.empty_at = None;
        }
    }

    fn pair(&self, client_id: &str, source: IpAddr) -> u64 {
        self.hasher.hash_one((client_id, network(source)))
    }
}

/// Sources from which a right secret has come. Their further attempts are hashed before those of unknown sources. Fixed
/// table; a source that shares a slot with another replaces it.
#[derive(Debug)]
pub struct KnownSources {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Default for KnownSources {
    fn default() -> Self {
        Self { slots: (0..SOURCES).map(|_| AtomicU64::new(0)).collect(), hasher: RandomState::new() }
    }
}

impl KnownSources {
    /// Records that a right secret came from `source`.
    pub fn add(&self, source: IpAddr) {
        let (hash, slot) = self.slot(source);
        // Usually it is there, and a read does not contend for the cache line.
        if slot.load(Ordering::Relaxed) != hash {
            slot.store(hash, Ordering::Relaxed);
        }
    }

    /// Whether a right secret has come from `source`.
    #[must_use]
    pub fn contains(&self, source: IpAddr) -> bool {
        let (hash, slot) = self.slot(source);
        slot.load(Ordering::Relaxed) == hash
    }

    fn slot(&self, source: IpAddr) -> (u64, &AtomicU64) {
        // 0 marks an empty slot.
        let hash = self.hasher.hash_one(network(source)) | 1 << 63;
        #[expect(clippy::cast_possible_truncation, clippy::indexing_slicing, reason = "the remainder is below SOURCES")]
        (hash, &self.slots[(hash % SOURCES as u64) as usize])
    }
}

/// Returns the network that counts as one source: the address of IPv4, the /64 of IPv6, since one host usually has a
/// whole /64.
#[must_use]
pub fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

const SOURCES: usize = 16_384;
const SLOTS: usize = 65_536;
/// Failures in a row before a client and source pair is throttled.
pub(crate) const BURST: u32 = 10;
/// A throttled pair may try once more after each interval.
pub(crate) const REFILL_INTERVAL: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn failures_slow_down_one_client_from_one_source_and_no_other() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(throttle.check("victim", A, now), Ok(()));
            throttle.failed("victim", A, "wrong_secret", now);
        }
        let throttled = Throttled { wait: REFILL_INTERVAL, last: "wrong_secret" };
        assert_eq!(throttle.check("victim", A, now), Err(throttled));
        assert_eq!(throttle.check("victim", B, now), Ok(()), "another source");
        assert_eq!(throttle.check("other", A, now), Ok(()), "another client");
        assert_eq!(throttle.check("victim", A, now + REFILL_INTERVAL), Ok(()), "one try drains back");
        let (one, neighbour) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        (0..BURST).for_each(|_| throttle.failed("victim", one, "wrong_secret", now));
        assert!(throttle.check("victim", neighbour, now).is_err(), "the same /64");
        throttle.succeeded("victim", A);
        assert_eq!(throttle.check("victim", A, now), Ok(()));
    }

    #[test]
    fn a_source_is_known_from_its_first_success_on() {
        let sources = KnownSources::default();
        assert!(!sources.contains(A));
        sources.add(A);
        assert!(sources.contains(A) && !sources.contains(B));
        assert!(sources.contains("::ffff:192.0.2.1".parse().unwrap()), "the same address");
    }

    #[test]
    fn a_flood_of_other_pairs_does_not_wash_out_a_busy_one() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..BURST {
            throttle.failed("victim", A, "wrong_secret", now);
        }
        for number in 0..200_000 {
            throttle.failed(&format!("random-{number}"), A, "wrong_secret", now);
        }
        assert!(throttle.check("victim", A, now).is_err());
    }
}

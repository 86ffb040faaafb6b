//! Rate limit of new connections per address, while the server is overloaded.
//!
//! Closing a connection at once costs much less than serving and refusing its request. Without overload there is no
//! limit, since many clients may share an address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::refusals::network;
use crate::state::load_shedding::LoadShedding;

/// Number of new connections in the present second, by address.
#[derive(Debug)]
pub struct ConnectionRate {
    load_shedding: Arc<LoadShedding>,
    /// Trusted proxies, which connect for many clients.
    trusted_proxies: Arc<[IpNet]>,
    since: Instant,
    counts: HashMap<IpAddr, u32>,
}

impl ConnectionRate {
    /// Makes a limit that applies while `load_shedding` sheds load, and never to `trusted_proxies`.
    #[must_use]
    pub fn new(load_shedding: Arc<LoadShedding>, trusted_proxies: Arc<[IpNet]>) -> Self {
        Self { load_shedding, trusted_proxies, since: Instant::now(), counts: HashMap::new() }
    }

    /// Counts a connection from `peer`, and returns whether it exceeds the limit.
    pub(super) fn exceeds(&mut self, peer: IpAddr, now: Instant) -> bool {
        if now.duration_since(self.since) >= SECOND {
            self.since = now;
            self.counts.clear();
        }
        let count = self.counts.entry(network(peer)).or_default();
        *count = count.saturating_add(1);
        *count > MOST
            && self.load_shedding.is_shedding()
            && !self.trusted_proxies.iter().any(|proxies| proxies.contains(&peer.to_canonical()))
    }
}

/// Connections per second that an address may open while the server is overloaded.
const MOST: u32 = 100;
const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_limited_while_load_is_shed_unless_it_is_a_proxy() {
        let load_shedding = Arc::new(LoadShedding::new(Duration::from_millis(250)));
        let mut pace = ConnectionRate::new(Arc::clone(&load_shedding), ["10.0.0.0/8".parse().unwrap()].into());
        let (peer, proxy) = ("192.0.2.1".parse().unwrap(), "10.1.2.3".parse().unwrap());
        let start = Instant::now();
        let exceeding =
            |pace: &mut ConnectionRate, peer: IpAddr, now| (0..2 * MOST).filter(|_| pace.exceeds(peer, now)).count();
        assert_eq!(exceeding(&mut pace, peer, start), 0, "without overload there is no limit");
        load_shedding.shed(1);
        let later = start + SECOND;
        assert_eq!(exceeding(&mut pace, peer, later), MOST as usize);
        assert_eq!(
            exceeding(&mut pace, "::ffff:192.0.2.1".parse().unwrap(), later),
            2 * MOST as usize,
            "the same address"
        );
        assert_eq!(exceeding(&mut pace, "192.0.2.2".parse().unwrap(), later), MOST as usize);
        assert_eq!(exceeding(&mut pace, proxy, later), 0);
        assert!(!pace.exceeds(peer, later + SECOND), "another second");
    }
}

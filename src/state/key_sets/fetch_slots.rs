//! Limits on concurrent fetches of JWK Sets, per host and in total, so that a host that hangs delays its own clients
//! only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Fetches in progress, counted by host.
#[derive(Debug, Default, Clone)]
pub(super) struct FetchSlots(Arc<Mutex<HashMap<Box<str>, usize>>>);

/// Permit of one fetch. Dropping it ends the fetch.
#[derive(Debug)]
pub(super) struct FetchSlot {
    hosts: Arc<Mutex<HashMap<Box<str>, usize>>>,
    host: Box<str>,
}

impl FetchSlots {
    /// Takes a permit. `None` when a limit is reached.
    pub(super) fn take(&self, host: &str) -> Option<FetchSlot> {
        let host: Box<str> = host.to_ascii_lowercase().into();
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = hosts.get(&host).copied().unwrap_or(0);
        if here >= AT_ONCE_OF_A_HOST || hosts.values().sum::<usize>() >= AT_ONCE {
            return None;
        }
        hosts.insert(host.clone(), here + 1);
        Some(FetchSlot { hosts: Arc::clone(&self.0), host })
    }
}

impl Drop for FetchSlot {
    fn drop(&mut self) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        match hosts.get_mut(&self.host) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(hosts.remove(&self.host)),
        }
    }
}

/// Maximum number of concurrent fetches. Each takes a socket and at most 80 KiB.
pub(super) const AT_ONCE: usize = 256;
const AT_ONCE_OF_A_HOST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_occupies_no_more_than_its_share_of_fetches() {
        let fetches = FetchSlots::default();
        let mut slots: Vec<FetchSlot> = (0..AT_ONCE_OF_A_HOST).map_while(|_| fetches.take("a.test")).collect();
        assert_eq!(slots.len(), AT_ONCE_OF_A_HOST);
        assert!(fetches.take("a.test").is_none() && fetches.take("A.test").is_none());
        assert!(fetches.take("b.test").is_some());
        slots.pop();
        assert!(fetches.take("a.test").is_some());
        slots.extend((0..AT_ONCE).map_while(|number| fetches.take(&format!("{number}.test"))));
        assert_eq!(slots.len(), AT_ONCE);
        assert!(fetches.take("c.test").is_none());
        drop(slots);
        assert!(fetches.0.lock().unwrap().is_empty());
    }
}

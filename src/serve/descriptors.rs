//! File descriptors: the soft limit is raised to the hard one, and connections get what is left of it.

use crate::model::event::Event;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit on open files to the hard one. Returns the limit in force, `None` when there is none.
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(event = Event::LimitNotRaised.as_str(), reason = %error, "the soft limit on open files stays as it is");
            limit.current
        }
    }
}

/// How many connections the listeners may have at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Each public listener.
    pub public: u32,
    /// The admin listener.
    pub admin: u32,
}

impl Connections {
    /// The share that `limit` leaves of `wanted` for each of `listeners` public listeners, beside `pool` connections to the database,
    /// files, fetches of key sets, and the admin listener.
    #[must_use]
    pub fn within(limit: Option<u64>, wanted: u32, listeners: u32, pool: u32) -> Self {
        let Some(limit) = limit else { return Self { public: wanted, admin: ADMIN } };
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let (admin, fetches) = (ADMIN.min(limit / 8), FETCHES.min(limit / 8));
        let database = pool.saturating_add(FURTHER_DATABASE).saturating_mul(FILES_OF_SQLITE);
        let left = limit.saturating_sub(admin + fetches + PROCESS).saturating_sub(database);
        // However low the limit is: some are better than none.
        Self { public: wanted.min((left / listeners.max(1)).max(LEAST)), admin: admin.max(LEAST) }
    }
}

/// Most connections of the admin listener.
pub(crate) const ADMIN: u32 = 256;
/// Most fetches of key sets at once.
const FETCHES: u32 = 256;
/// Standard streams, runtimes, listeners, name lookups, files that are read again.
const PROCESS: u32 = 64;
/// The feed, its listener, work in progress.
const FURTHER_DATABASE: u32 = 4;
/// The database, its write-ahead log and the index of that.
const FILES_OF_SQLITE: u32 = 3;
const LEAST: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_what_the_limit_leaves() {
        let within = |limit, listeners| Connections::within(limit, 10_000, listeners, 5);
        assert_eq!(within(None, 1), Connections { public: 10_000, admin: 256 });
        assert_eq!(within(Some(1 << 40), 2), Connections { public: 10_000, admin: 256 });
        assert_eq!(within(Some(20_000), 1), Connections { public: 10_000, admin: 256 });
        assert_eq!(within(Some(20_000), 2), Connections { public: 9698, admin: 256 });
        assert_eq!(within(Some(1024), 1), Connections { public: 677, admin: 128 });
        assert_eq!(within(Some(64), 1), Connections { public: 8, admin: 8 }, "too low for anything");
        for limit in [1024, 4096, 65_536] {
            let Connections { public, admin } = within(Some(u64::from(limit)), 2);
            assert!(2 * public + admin + 27 + PROCESS <= limit, "{limit}");
        }
    }
}

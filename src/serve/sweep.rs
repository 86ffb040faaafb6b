//! Sweeps: one replica deletes for all what has expired, and notes of changes that every replica has read. It also logs
//! what expires soon.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::expiry_notices::log_notices;
use crate::crypto::random;
use crate::model::event::Event;
use crate::model::time::{Span, UnixTime};
use crate::protocol::AuthorizationServer;
use crate::protocol::status_list::BIT_KEPT;
use crate::store::{Store, StoreError, leases};

/// Every few seconds, forgets expired revocations in memory, and deletes expired rows where this replica holds the lease.
pub(super) async fn sweep(store: Store, server: Arc<AuthorizationServer>) {
    // Without entropy replicas share a name: each sweeps then.
    let holder =
        random::<8>().map_or_else(|_| "replica".to_owned(), |bytes| format!("{:016x}", u64::from_ne_bytes(bytes)));
    let (mut revisions, mut election) = (PastRevisions::default(), Election::default());
    // Once: a role that may not write it is told by `grantd doctor`, and the issuer is refused at use anyway.
    if let Err(error) = store.record_own_issuer(server.issuer.as_str()).await {
        tracing::debug!(event = Event::SpentTrouble.as_str(), reason = %error, "the database does not know the issuer of this server");
    }
    loop {
        // Replicas that started together do not ask together.
        let jitter = random::<2>().map_or(0.0, |bytes| f64::from(u16::from_ne_bytes(bytes)) / 65536.0);
        let pause = SWEEP.max(server.registry.options().poll) + JITTER.mul_f64(jitter);
        tokio::time::sleep(pause).await;
        // By every replica's clock the tokens have ended by then.
        server.registry.revoked.forget(UnixTime(server.database_time().0 - SKEW));
        server.registry.ended.forget(UnixTime(server.database_time().0 - BIT_KEPT.seconds()));
        revisions.note(server.registry.snapshot().revision, Instant::now());
        match election.hold(&store, &server, &holder).await {
            Ok(true) => {
                delete(&store, &server, &mut revisions).await;
                if let Err(error) = log_notices(&store, &server, &holder).await {
                    tracing::debug!(event = Event::CredentialExpiring.as_str(), reason = %error, "notices of credentials wait for the next sweep");
                }
            }
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(event = Event::SpentTrouble.as_str(), reason = %error, "nothing is swept until the database answers");
            }
        }
    }
}

/// The election of the replica that sweeps, as this replica knows it. The one that sweeps also looks for a server that has
/// taken over while connections to the former one stay open.
#[derive(Debug, Default)]
struct Election {
    /// Whether this replica sweeps, and when it asked.
    known: Option<(bool, Instant)>,
}

impl Election {
    /// Whether this replica sweeps. The one that does renews its lease well before it is over, after it has looked for another
    /// server: no lease is renewed on a former one. Another replica looks, and asks for the lease, when that is over: then
    /// its holder has ended, or renews it on another server. Where the feed does not read that, it asks later than a
    /// connection of the pool lives, so on a new one. After a failed write the database is asked each time, which tells
    /// whether writes succeed again.
    async fn hold(&mut self, store: &Store, server: &AuthorizationServer, holder: &str) -> Result<bool, StoreError> {
        let (other, now) = (&server.registry.other_sweeper, server.database_time());
        if store.health.trouble().is_none() {
            if other.sweeps_at(now) {
                store.note_watched();
                return Ok(false);
            }
            let next_round = Instant::now() + SWEEP.max(server.registry.options().poll) + JITTER;
            if let Some(is_elected) = self.answer(next_round) {
                return Ok(is_elected);
            }
        }
        let has_swept = self.known.is_some_and(|(is_elected, _)| is_elected);
        if has_swept || other.has_ended(now) {
            store.look_for_another_server().await?;
        }
        let is_elected = is_elected(store, server, holder).await?;
        self.known = Some((is_elected, Instant::now()));
        other.set(!is_elected);
        Ok(is_elected)
    }

    /// The last answer; `None` when it is too old by the next round.
    fn answer(&self, next_round: Instant) -> Option<bool> {
        let (is_elected, asked_at) = self.known?;
        let lasts = if is_elected { RENEWED_WITHIN } else { ASKED_AGAIN };
        (next_round.duration_since(asked_at) < lasts).then_some(is_elected)
    }
}

/// Whether this replica sweeps. A role that may not take the lease sweeps by itself.
async fn is_elected(store: &Store, server: &AuthorizationServer, holder: &str) -> Result<bool, StoreError> {
    let now = server.database_time();
    match store.take_lease(leases::SWEEP, holder, now, now.plus(Span::from_secs(LEASE))).await {
        Err(StoreError::Denied(reason)) => {
            tracing::debug!(event = Event::SpentTrouble.as_str(), reason, "the role may not write the table lease");
            Ok(true)
        }
        taken => taken,
    }
}

/// Deletes what has expired. Failures are logged at debug level: the store counts each failed write, and logs the first in
/// a row.
async fn delete(store: &Store, server: &AuthorizationServer, revisions: &mut PastRevisions) {
    // The database's clock decides: by that of a replica that is ahead, what others still need would be gone.
    let now = match store.now().await {
        Ok(now) => now,
        Err(error) => {
            tracing::debug!(event = Event::SpentTrouble.as_str(), reason = %error, "nothing is swept until the database answers");
            return;
        }
    };
    match store.sweep_spent(now).await {
        Ok(swept) => tracing::debug!(event = Event::SpentSwept.as_str(), swept),
        Err(error) => {
            tracing::debug!(event = Event::SpentTrouble.as_str(), reason = %error, "expired uses are kept until the next sweep");
        }
    }
    match store.sweep_revoked_tokens(UnixTime(now.0 - SKEW)).await {
        Ok(swept) => tracing::debug!(event = Event::RevokedSwept.as_str(), swept),
        Err(error) => {
            tracing::debug!(event = Event::RevokedTrouble.as_str(), reason = %error, "rows of tokens that ended are kept until the next sweep");
        }
    }
    for kid in server.keyring.gone(UnixTime(now.0 - GONE_FOR)) {
        if let Err(error) = store.remove_key(&kid, None).await {
            tracing::debug!(event = Event::KeyNotSwept.as_str(), kid, reason = %error, "the row of a key that is gone is kept until the next sweep");
        }
    }
    if let Some(through) = revisions.read_by_all(Instant::now()) {
        match store.forget_changes(through).await {
            Ok(swept) => {
                revisions.forgotten = through;
                tracing::debug!(event = Event::ChangesSwept.as_str(), swept, revision = through);
            }
            Err(error) => {
                tracing::debug!(event = Event::ChangesSwept.as_str(), reason = %error, "notes of changes are kept until the next sweep");
            }
        }
    }
}

/// Revisions that this replica has held, with the time.
#[derive(Debug, Default)]
struct PastRevisions {
    held: VecDeque<(Instant, i64)>,
    /// The revision up to which notes were deleted.
    forgotten: i64,
}

impl PastRevisions {
    fn note(&mut self, revision: i64, now: Instant) {
        self.held.push_back((now, revision));
    }

    /// Returns the newest revision that every live replica has read by `now`. `None` when its notes are deleted.
    fn read_by_all(&mut self, now: Instant) -> Option<i64> {
        let is_old = |entry: &(Instant, i64)| now.duration_since(entry.0) >= READ_BY_ALL;
        while self.held.get(1).is_some_and(is_old) {
            self.held.pop_front();
        }
        let oldest = self.held.front().filter(|entry| is_old(entry))?;
        Some(oldest.1).filter(|revision| *revision > self.forgotten)
    }
}

/// Interval between sweeps, without the jitter.
const SWEEP: Duration = Duration::from_secs(5);
/// Longest jitter.
const JITTER: Duration = Duration::from_secs(5);
/// Time within which the replica that sweeps renews its lease.
const RENEWED_WITHIN: Duration = Duration::from_secs(35);
/// Time after which another replica asks for the lease, where the feed does not read when it is over.
const ASKED_AGAIN: Duration = Duration::from_secs(45);
/// Twice the greatest difference between the clocks of replicas, in seconds.
const SKEW: i64 = 120;
/// Seconds for which the row of a signing key is kept that is gone: a clock that is set back finds it again.
const GONE_FOR: i64 = 86400;
/// Seconds for which the lease is held. A replica that ends leaves the sweeps to the others after that time.
const LEASE: u64 = 45;
/// Time within which every live replica reads a change: `registry.poll` is 30 seconds at most.
const READ_BY_ALL: Duration = Duration::from_secs(40);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_is_renewed_in_time_and_asked_for_on_new_connections() {
        let (asked_at, longest_poll) = (Instant::now(), Duration::from_secs(30));
        let answer = |is_elected: bool, seconds: u64| {
            let election = Election { known: Some((is_elected, asked_at)) };
            election.answer(asked_at + Duration::from_secs(seconds))
        };
        assert_eq!((answer(true, 34), answer(true, 35)), (Some(true), None));
        assert_eq!((answer(false, 44), answer(false, 45)), (Some(false), None));
        assert_eq!(Election::default().answer(asked_at), None);
        let lease = Duration::from_secs(LEASE);
        assert!(RENEWED_WITHIN < lease, "the lease lasts until the next round");
        assert!(longest_poll + JITTER < lease, "also when each round asks");
        assert!(lease + SWEEP + JITTER < Duration::from_mins(1), "its end is noticed within a minute");
        let old = crate::store::LIFETIME;
        assert!(old + SWEEP + JITTER <= ASKED_AGAIN && old <= longest_poll, "by then the connection is old");
    }

    #[test]
    fn notes_are_deleted_once_every_live_replica_has_read_them() {
        let (start, mut revisions) = (Instant::now(), PastRevisions::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        for (seconds, revision) in [(0, 5), (10, 5), (20, 9), (30, 9)] {
            revisions.note(revision, at(seconds));
        }
        assert_eq!(revisions.read_by_all(at(39)), None);
        assert_eq!(revisions.read_by_all(at(40)), Some(5));
        assert_eq!(revisions.read_by_all(at(61)), Some(9));
        revisions.forgotten = 9;
        assert_eq!(revisions.read_by_all(at(70)), None);
        revisions.note(12, at(70));
        assert_eq!(revisions.read_by_all(at(109)), None);
        assert_eq!(revisions.read_by_all(at(111)), Some(12));
        assert!(revisions.held.len() <= 2);
    }
}

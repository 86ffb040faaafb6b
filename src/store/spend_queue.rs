//! Recording of single-use ids (`jti`): one insert decides for all replicas, and is on disk before the id counts as
//! used.
//!
//! A commit takes one disk write however many rows it has. Requests that arrive during an insert wait, and share the
//! next one.

use std::cmp::Reverse;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::AssertSqlSafe;
use tokio::sync::{Semaphore, oneshot};

use super::replay_cache::ReplayCache;
use super::spent::{ReplayCheck, SingleUseId, SingleUseKind};
use super::statement::{Value, args, placeholders};
use super::{DEADLINE, Store, StoreError};
use crate::model::time::UnixTime;

/// Requests whose single-use ids wait for the next batched insert.
#[derive(Debug)]
pub(super) struct SpendQueue {
    waiting: Mutex<VecDeque<PendingSpend>>,
    /// Permits of concurrent inserts. Few, so that batches grow and connections stay free for others.
    turns: Semaphore,
    /// Ids that this process recorded, in case the database loses them.
    replays: ReplayCache,
}

/// Waiting request: its ids, and the channel for the result.
#[derive(Debug)]
struct PendingSpend {
    uses: Vec<SingleUseId>,
    answer: oneshot::Sender<Result<ReplayCheck, Arc<StoreError>>>,
}

/// Identity of a single-use id: kind, owner and `jti`.
type Key<'a> = (SingleUseKind, &'a str, [u8; 32]);

impl SpendQueue {
    pub(super) fn new(turns: usize) -> Self {
        Self { waiting: Mutex::default(), turns: Semaphore::new(turns), replays: ReplayCache::default() }
    }

    /// Removes ids that expired before `now` from this process's cache.
    pub(super) fn forget(&self, now: UnixTime) {
        self.replays.forget(now);
    }

    fn join(&self, pending: PendingSpend) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(pending);
    }

    /// Takes the requests that waited longest. Abandoned requests are dropped: their ids are not recorded.
    fn next(&self) -> Vec<PendingSpend> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Vec::new();
        while batch.len() < TOGETHER
            && let Some(pending) = waiting.pop_front()
        {
            if !pending.answer.is_closed() {
                batch.push(pending);
            }
        }
        batch
    }
}

impl Store {
    /// Records all of `uses` in one insert. A second use, here or on another replica, is reported as a replay.
    ///
    /// The write is a task of its own, so a client that disconnects cannot stop it halfway.
    ///
    /// # Errors
    /// [`StoreError`], shared with other requests. Whether the ids were recorded is unknown, so the request has to be
    /// refused.
    pub async fn spend(&self, uses: Vec<SingleUseId>) -> Result<ReplayCheck, Arc<StoreError>> {
        if uses.is_empty() {
            return Ok(ReplayCheck::New);
        }
        // A database that lost its last commits in a failover would accept the id again.
        if let Some(before) = uses.iter().find(|one| self.spend_queue.replays.contains(one)) {
            return Ok(ReplayCheck::Replayed(before.kind));
        }
        let (answer, answered) = oneshot::channel();
        self.spend_queue.join(PendingSpend { uses, answer });
        // Each request starts a task, so none is left waiting. Most tasks find the queue empty.
        let store = self.clone();
        tokio::spawn(async move { store.spend_next().await });
        match tokio::time::timeout(DEADLINE, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(gone)) => Err(Arc::new(StoreError::Unavailable(sqlx::Error::Io(std::io::Error::other(gone))))),
            Err(_) => Err(Arc::new(StoreError::Late(DEADLINE))),
        }
    }

    async fn spend_next(&self) {
        let Ok(_turn) = self.spend_queue.turns.acquire().await else { return };
        let batch = self.spend_queue.next();
        if batch.is_empty() {
            return;
        }
        let inserted = self.insert(&batch).await;
        let answers: Vec<_> = match &inserted {
            Ok(new) => {
                self.spend_queue.replays.add(new);
                replay_checks(&batch, new).into_iter().map(Ok).collect()
            }
            Err(error) => batch.iter().map(|_| Err(Arc::clone(error))).collect(),
        };
        for (pending, answer) in batch.into_iter().zip(answers) {
            // A request that was abandoned meanwhile has used its ids all the same.
            drop(pending.answer.send(answer));
        }
    }

    /// Inserts the ids of a batch, and returns the new ones.
    async fn insert(&self, batch: &[PendingSpend]) -> Result<Vec<SingleUseId>, Arc<StoreError>> {
        let mut uses: Vec<&SingleUseId> = batch.iter().flat_map(|pending| &pending.uses).collect();
        // Sorted, so that two replicas that insert the same ids cannot deadlock. Of duplicates the row with the later
        // expiry is kept.
        uses.sort_unstable_by_key(|one| (key(one), Reverse(one.expires_at)));
        uses.dedup_by_key(|one| key(one));
        let rows: Vec<&SingleUseId> = padded(&uses).collect();
        // A row that has expired by the database's clock may have been swept already, so it does not count as new.
        let sql = format!(
            "insert into spent_jti (kind, owner, jti, expires_at) select column1, column2, column3, column4
             from (values {}) as v where column4 >= {} on conflict do nothing returning kind, owner, jti",
            placeholders(rows.len(), 4),
            self.clock_sql(),
        );
        let values = |one: &&SingleUseId| args![one.kind.as_str(), &one.owner, one.jti.as_slice(), one.expires_at];
        let values: Vec<Value> = rows.iter().flat_map(values).collect();
        let new: Vec<(String, String, Vec<u8>)> = self.write_returning(AssertSqlSafe(sql), &values).await?;
        let new: HashSet<_> =
            new.iter().map(|(kind, owner, jti)| (kind.as_str(), owner.as_str(), jti.as_slice())).collect();
        let is_new = |one: &&SingleUseId| new.contains(&(one.kind.as_str(), one.owner.as_str(), one.jti.as_slice()));
        Ok(uses.into_iter().filter(is_new).cloned().collect())
    }
}

/// Decides for each request of a batch whether its ids are new. Of two requests with the same id the first is accepted.
fn replay_checks(batch: &[PendingSpend], new: &[SingleUseId]) -> Vec<ReplayCheck> {
    let mut left: HashSet<Key<'_>> = new.iter().map(key).collect();
    batch
        .iter()
        .map(|pending| {
            let before: Vec<SingleUseKind> =
                pending.uses.iter().filter(|one| !left.remove(&key(one))).map(|one| one.kind).collect();
            before.first().map_or(ReplayCheck::New, |kind| ReplayCheck::Replayed(*kind))
        })
        .collect()
}

fn key(one: &SingleUseId) -> Key<'_> {
    (one.kind, &one.owner, one.jti)
}

/// Pads the rows to a power of two with copies, so that there are few statements to prepare. A copy conflicts with its
/// original and is ignored.
fn padded<'a>(uses: &'a [&'a SingleUseId]) -> impl Iterator<Item = &'a SingleUseId> {
    uses.iter().copied().cycle().take(uses.len().next_power_of_two())
}

/// Maximum number of requests in one insert.
const TOGETHER: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn one(kind: SingleUseKind, owner: &str, jti: u8) -> SingleUseId {
        SingleUseId { kind, owner: owner.to_owned(), jti: [jti; 32], expires_at: UnixTime(1) }
    }

    fn pending(uses: &[SingleUseId]) -> PendingSpend {
        PendingSpend { uses: uses.to_vec(), answer: oneshot::channel().0 }
    }

    #[test]
    fn of_concurrent_uses_of_one_id_the_first_succeeds() {
        let (assertion, proof) = (one(SingleUseKind::Assertion, "a", 1), one(SingleUseKind::DpopProof, "a", 1));
        let other = one(SingleUseKind::Assertion, "b", 1);
        let batch = [
            pending(&[assertion.clone(), proof.clone()]),
            pending(std::slice::from_ref(&assertion)),
            pending(&[other.clone(), proof.clone()]),
            pending(std::slice::from_ref(&other)),
        ];
        let (new, before) = (ReplayCheck::New, |kind| ReplayCheck::Replayed(kind));
        assert_eq!(
            replay_checks(&batch, &[assertion.clone(), proof, other.clone()]),
            [new, before(SingleUseKind::Assertion), before(SingleUseKind::DpopProof), before(SingleUseKind::Assertion)]
        );
        // The proof was used before, on another replica.
        assert_eq!(replay_checks(&batch, &[assertion, other])[0], before(SingleUseKind::DpopProof));
        assert_eq!(replay_checks(&batch, &[])[1], before(SingleUseKind::Assertion));
    }

    #[test]
    fn there_are_few_statements_to_prepare() {
        let uses: Vec<SingleUseId> = (0..5).map(|jti| one(SingleUseKind::Assertion, "a", jti)).collect();
        let borrowed: Vec<&SingleUseId> = uses.iter().collect();
        let rows: Vec<u8> = padded(&borrowed).map(|one| one.jti[0]).collect();
        assert_eq!(rows, [0, 1, 2, 3, 4, 0, 1, 2]);
        assert_eq!(padded(&borrowed[..1]).count(), 1);
    }

    #[test]
    fn an_abandoned_request_spends_nothing() {
        let spending = SpendQueue::new(1);
        let (answer, answered) = oneshot::channel();
        spending.join(PendingSpend { uses: Vec::new(), answer });
        spending.join(pending(&[]));
        assert_eq!(spending.next().len(), 1);
        drop(answered);
    }
}

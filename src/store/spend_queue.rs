//! Recording of single-use ids (`jti`): one insert decides for all replicas, and is on disk before the id counts as
//! used. Requests that arrive during an insert share the next one.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use sqlx::AssertSqlSafe;

use super::replay_cache::ReplayCache;
use super::spent::{ReplayCheck, SingleUseId, SingleUseKind};
use super::statement::{Value, args, placeholders};
use super::write_queue::{WriteQueue, padded};
use super::{Store, StoreError};
use crate::model::time::UnixTime;

/// Requests whose single-use ids wait for the next batched insert.
#[derive(Debug)]
pub(super) struct SpendQueue {
    writes: WriteQueue<Vec<SingleUseId>, ReplayCheck>,
    /// Ids that this process recorded, in case the database loses them.
    replays: ReplayCache,
}

/// Identity of a single-use id: kind, owner and `jti`.
type Key<'a> = (SingleUseKind, &'a str, [u8; 32]);

impl SpendQueue {
    pub(super) fn new(turns: usize) -> Self {
        Self { writes: WriteQueue::new(turns), replays: ReplayCache::default() }
    }

    /// Removes ids that expired before `now` from this process's cache.
    pub(super) fn forget(&self, now: UnixTime) {
        self.replays.forget(now);
    }
}

impl Store {
    /// Records all of `uses` in one insert, with those of other requests. A second use, here or on another replica, is
    /// reported as a replay.
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
        let spend = |store: Self, batch: Vec<Vec<SingleUseId>>| async move {
            let new = store.insert(&batch).await?;
            store.spend_queue.replays.add(&new);
            Ok(replay_checks(&batch, &new))
        };
        self.write_together(|store| &store.spend_queue.writes, uses, spend).await
    }

    /// Inserts the ids of a batch, and returns the new ones.
    async fn insert(&self, batch: &[Vec<SingleUseId>]) -> Result<Vec<SingleUseId>, StoreError> {
        let mut uses: Vec<&SingleUseId> = batch.iter().flatten().collect();
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
fn replay_checks(batch: &[Vec<SingleUseId>], new: &[SingleUseId]) -> Vec<ReplayCheck> {
    let mut left: HashSet<Key<'_>> = new.iter().map(key).collect();
    batch
        .iter()
        .map(|uses| {
            let before: Vec<SingleUseKind> =
                uses.iter().filter(|one| !left.remove(&key(one))).map(|one| one.kind).collect();
            before.first().map_or(ReplayCheck::New, |kind| ReplayCheck::Replayed(*kind))
        })
        .collect()
}

fn key(one: &SingleUseId) -> Key<'_> {
    (one.kind, &one.owner, one.jti)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(kind: SingleUseKind, owner: &str, jti: u8) -> SingleUseId {
        SingleUseId { kind, owner: owner.to_owned(), jti: [jti; 32], expires_at: UnixTime(1) }
    }

    #[test]
    fn of_concurrent_uses_of_one_id_the_first_succeeds() {
        let (assertion, proof) = (one(SingleUseKind::Assertion, "a", 1), one(SingleUseKind::DpopProof, "a", 1));
        let other = one(SingleUseKind::Assertion, "b", 1);
        let batch = [
            vec![assertion.clone(), proof.clone()],
            vec![assertion.clone()],
            vec![other.clone(), proof.clone()],
            vec![other.clone()],
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
}

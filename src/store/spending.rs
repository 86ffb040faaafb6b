//! Spending what may be used once: one insert decides, shared by all replicas, on disk before it is believed.
//!
//! A commit waits for the disk, however much it writes. So who comes while others are being written down waits for them, and
//! goes along with all who came meanwhile.

use std::cmp::Reverse;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::AssertSqlSafe;
use tokio::sync::{Semaphore, oneshot};

use super::spent::{Spent, Use, UseKind};
use super::spent_here::SpentHere;
use super::statement::{Value, args, placeholders};
use super::{DEADLINE, Store, StoreError};
use crate::model::time::UnixTime;

/// Those who wait to spend.
#[derive(Debug)]
pub(super) struct Spending {
    waiting: Mutex<VecDeque<Spender>>,
    /// Inserts at once. They share what the disk costs, and leave connections for others.
    turns: Semaphore,
    /// What was spent here, in case the database loses it.
    here: SpentHere,
}

/// A request that spends, and where it learns what came of it.
#[derive(Debug)]
struct Spender {
    uses: Vec<Use>,
    answer: oneshot::Sender<Result<Spent, Arc<StoreError>>>,
}

/// The identity of a use: the same `jti` of another kind or owner is another use.
type Key<'a> = (UseKind, &'a str, [u8; 32]);

impl Spending {
    pub(super) fn new(turns: usize) -> Self {
        Self { waiting: Mutex::default(), turns: Semaphore::new(turns), here: SpentHere::default() }
    }

    /// Forgets what was spent here and had expired before `now`.
    pub(super) fn forget(&self, now: UnixTime) {
        self.here.forget(now);
    }

    fn join(&self, spender: Spender) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(spender);
    }

    /// Those who waited longest, but for those who have left: they are told nothing, so nothing has to be true for them.
    fn next(&self) -> Vec<Spender> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Vec::new();
        while batch.len() < TOGETHER
            && let Some(spender) = waiting.pop_front()
        {
            if !spender.answer.is_closed() {
                batch.push(spender);
            }
        }
        batch
    }
}

impl Store {
    /// Spends all of `uses` at once. Whoever comes second, here or on another replica, is told so, however close behind.
    ///
    /// The write is a task of its own: a client that leaves cannot stop it halfway.
    ///
    /// # Errors
    /// [`StoreError`], shared with others: whether it was spent is not known, so the request is to be refused.
    pub async fn spend(&self, uses: Vec<Use>) -> Result<Spent, Arc<StoreError>> {
        if uses.is_empty() {
            return Ok(Spent::New);
        }
        // A database that was failed over without its last commits would take it once more.
        if let Some(before) = uses.iter().find(|one| self.spending.here.has(one)) {
            return Ok(Spent::Before(before.kind));
        }
        let (answer, answered) = oneshot::channel();
        self.spending.join(Spender { uses, answer });
        // There are as many tasks as spenders, so nobody is left waiting; most find that others were quicker.
        let store = self.clone();
        tokio::spawn(async move { store.spend_next().await });
        match tokio::time::timeout(DEADLINE, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(gone)) => Err(Arc::new(StoreError::Unavailable(sqlx::Error::Io(std::io::Error::other(gone))))),
            Err(_) => Err(Arc::new(StoreError::Late(DEADLINE))),
        }
    }

    async fn spend_next(&self) {
        let Ok(_turn) = self.spending.turns.acquire().await else { return };
        let batch = self.spending.next();
        if batch.is_empty() {
            return;
        }
        let inserted = self.insert(&batch).await;
        let answers: Vec<_> = match &inserted {
            Ok(new) => {
                self.spending.here.note(new);
                verdicts(&batch, new).into_iter().map(Ok).collect()
            }
            Err(error) => batch.iter().map(|_| Err(Arc::clone(error))).collect(),
        };
        for (spender, answer) in batch.into_iter().zip(answers) {
            // Whoever has left meanwhile has used it all the same.
            drop(spender.answer.send(answer));
        }
    }

    /// Writes down what all of `batch` use, and returns what was new of it.
    async fn insert(&self, batch: &[Spender]) -> Result<Vec<Use>, Arc<StoreError>> {
        let mut uses: Vec<&Use> = batch.iter().flat_map(|spender| &spender.uses).collect();
        // In one order, so that two who spend the same cannot wait for each other in a circle. Of one that stands there
        // twice the row that expires later is kept, so that it is remembered for as long as any replica accepts it.
        uses.sort_unstable_by_key(|one| (key(one), Reverse(one.expires_at)));
        uses.dedup_by_key(|one| key(one));
        let rows: Vec<&Use> = padded(&uses).collect();
        // A row that the database's clock calls expired may have been swept before: it is not new.
        let sql = format!(
            "insert into spent_jti (kind, owner, jti, expires_at) select column1, column2, column3, column4
             from (values {}) as v where column4 >= {} on conflict do nothing returning kind, owner, jti",
            placeholders(rows.len(), 4),
            self.clock_sql(),
        );
        let values = |one: &&Use| args![one.kind.as_str(), &one.owner, one.jti.as_slice(), one.expires_at];
        let values: Vec<Value> = rows.iter().flat_map(values).collect();
        let new: Vec<(String, String, Vec<u8>)> = self.write_returning(AssertSqlSafe(sql), &values).await?;
        let new: HashSet<_> =
            new.iter().map(|(kind, owner, jti)| (kind.as_str(), owner.as_str(), jti.as_slice())).collect();
        let is_new = |one: &&Use| new.contains(&(one.kind.as_str(), one.owner.as_str(), one.jti.as_slice()));
        Ok(uses.into_iter().filter(is_new).cloned().collect())
    }
}

/// What each of `batch` is told when `new` is what was written down: of two who use the same, the first has it.
fn verdicts(batch: &[Spender], new: &[Use]) -> Vec<Spent> {
    let mut left: HashSet<Key<'_>> = new.iter().map(key).collect();
    batch
        .iter()
        .map(|spender| {
            let before: Vec<UseKind> =
                spender.uses.iter().filter(|one| !left.remove(&key(one))).map(|one| one.kind).collect();
            before.first().map_or(Spent::New, |kind| Spent::Before(*kind))
        })
        .collect()
}

fn key(one: &Use) -> Key<'_> {
    (one.kind, &one.owner, one.jti)
}

/// As many rows as a power of two, so that there are few statements to prepare. A row that stands there twice conflicts
/// with itself, and nothing is done.
fn padded<'a>(uses: &'a [&'a Use]) -> impl Iterator<Item = &'a Use> {
    uses.iter().copied().cycle().take(uses.len().next_power_of_two())
}

/// Spenders that go into one insert at most.
const TOGETHER: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn one(kind: UseKind, owner: &str, jti: u8) -> Use {
        Use { kind, owner: owner.to_owned(), jti: [jti; 32], expires_at: UnixTime(1) }
    }

    fn spender(uses: &[Use]) -> Spender {
        Spender { uses: uses.to_vec(), answer: oneshot::channel().0 }
    }

    #[test]
    fn of_concurrent_uses_of_one_id_the_first_succeeds() {
        let (assertion, proof) = (one(UseKind::Assertion, "a", 1), one(UseKind::DpopProof, "a", 1));
        let other = one(UseKind::Assertion, "b", 1);
        let batch = [
            spender(&[assertion.clone(), proof.clone()]),
            spender(std::slice::from_ref(&assertion)),
            spender(&[other.clone(), proof.clone()]),
            spender(std::slice::from_ref(&other)),
        ];
        let (new, before) = (Spent::New, |kind| Spent::Before(kind));
        assert_eq!(
            verdicts(&batch, &[assertion.clone(), proof, other.clone()]),
            [new, before(UseKind::Assertion), before(UseKind::DpopProof), before(UseKind::Assertion)]
        );
        // The proof was used before, on another replica.
        assert_eq!(verdicts(&batch, &[assertion, other])[0], before(UseKind::DpopProof));
        assert_eq!(verdicts(&batch, &[])[1], before(UseKind::Assertion));
    }

    #[test]
    fn there_are_few_statements_to_prepare() {
        let uses: Vec<Use> = (0..5).map(|jti| one(UseKind::Assertion, "a", jti)).collect();
        let borrowed: Vec<&Use> = uses.iter().collect();
        let rows: Vec<u8> = padded(&borrowed).map(|one| one.jti[0]).collect();
        assert_eq!(rows, [0, 1, 2, 3, 4, 0, 1, 2]);
        assert_eq!(padded(&borrowed[..1]).count(), 1);
    }

    #[test]
    fn an_abandoned_request_spends_nothing() {
        let spending = Spending::new(1);
        let (answer, answered) = oneshot::channel();
        spending.join(Spender { uses: Vec::new(), answer });
        spending.join(spender(&[]));
        assert_eq!(spending.next().len(), 1);
        drop(answered);
    }
}

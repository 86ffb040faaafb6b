//! Single-use ids when many requests use them at the same moment.

use std::collections::HashMap;

use grantd::model::time::UnixTime;
use grantd::store::Store;
use grantd::store::spent::{ReplayCheck, SingleUseId, SingleUseKind};

use crate::harness::Db;

on_both!(
    ids_that_arrive_during_a_write_go_with_the_next_batch,
    of_concurrent_uses_on_two_replicas_one_succeeds,
    of_two_rows_with_one_id_the_later_expiry_is_kept,
    a_batch_write_that_fails_fails_for_every_request_in_it,
    an_id_that_expired_by_the_databases_clock_is_never_new,
);

/// An assertion that expires `ends` seconds after a moment that the database's clock has not reached.
fn assertion(number: u8, ends: i64) -> SingleUseId {
    SingleUseId {
        kind: SingleUseKind::Assertion,
        owner: "jwt-client".into(),
        jti: [number; 32],
        expires_at: UnixTime(LATER + ends),
    }
}

/// The results of spending each of these at once.
async fn spend(store: &Store, uses: impl IntoIterator<Item = Vec<SingleUseId>>) -> Vec<Result<ReplayCheck, String>> {
    let spend = |uses| {
        let store = store.clone();
        tokio::spawn(async move { store.spend(uses).await.map_err(|error| error.to_string()) })
    };
    let spending: Vec<_> = uses.into_iter().map(spend).collect();
    let mut came = Vec::new();
    for one in spending {
        came.push(one.await.unwrap());
    }
    came
}

async fn ids_that_arrive_during_a_write_go_with_the_next_batch(db: Db) {
    let store = db.store().await;
    let before = store.queries.get();
    let came = spend(&store, (0..200).map(|number| vec![assertion(number, 9)])).await;
    assert!(came.iter().all(|one| *one == Ok(ReplayCheck::New)), "{came:?}");
    let inserts = store.queries.get() - before;
    assert!((4..100).contains(&inserts), "{inserts} inserts for 200");
    let again = spend(&store, (0..200).map(|number| vec![assertion(number, 9)])).await;
    assert!(again.iter().all(|one| *one == Ok(ReplayCheck::Replayed(SingleUseKind::Assertion))), "{again:?}");
}

async fn of_concurrent_uses_on_two_replicas_one_succeeds(db: Db) {
    let (here, there) = (db.store().await, Store::open(&db.database, 4));
    let proof =
        |number: u8| SingleUseId { kind: SingleUseKind::DpopProof, owner: "jkt".into(), ..assertion(number, 9) };
    let uses = || (0..100).map(|number| vec![assertion(number % 10, 9), proof(number)]);
    let (here, there) = tokio::join!(spend(&here, uses()), spend(&there, uses().rev()));
    let mut counts: HashMap<_, usize> = HashMap::new();
    for one in here.into_iter().chain(there) {
        *counts.entry(format!("{one:?}")).or_default() += 1;
    }
    // Each of ten assertions came with ten proofs, each on both replicas.
    assert!((1..=10).contains(&counts["Ok(New)"]), "{counts:?}");
    assert_eq!(counts.values().sum::<usize>(), 200);
    assert!(counts.keys().all(|what| what.starts_with("Ok(")), "{counts:?}");
}

async fn of_two_rows_with_one_id_the_later_expiry_is_kept(db: Db) {
    let store = db.store().await;
    // The first keeps the writers busy, so that the others go together.
    let mut uses: Vec<Vec<SingleUseId>> = (0..20).map(|number| vec![assertion(number, 1000)]).collect();
    uses.extend((0..20).map(|_| vec![assertion(99, 1000)]));
    uses.extend((0..20).map(|_| vec![assertion(99, 10)]));
    let came = spend(&store, uses).await;
    assert_eq!(came.iter().filter(|one| **one == Ok(ReplayCheck::New)).count(), 21);
    let winner_lasts = came[20..40].contains(&Ok(ReplayCheck::New));
    let swept = store.sweep_spent(UnixTime(LATER + 500)).await.unwrap();
    assert!(!winner_lasts || swept == 0, "what may be used until 1000 is remembered until then");
}

async fn a_batch_write_that_fails_fails_for_every_request_in_it(db: Db) {
    let store = db.store().await;
    db.sql("alter table spent_jti rename to elsewhere").await.unwrap();
    let came = spend(&store, (0..50).map(|number| vec![assertion(number, 9)])).await;
    assert!(came.iter().all(Result::is_err), "{came:?}");
    db.sql("alter table elsewhere rename to spent_jti").await.unwrap();
    let came = spend(&store, (0..50).map(|number| vec![assertion(number, 9)])).await;
    assert!(came.iter().all(|one| *one == Ok(ReplayCheck::New)), "nothing was spent by a write that failed: {came:?}");
}

async fn an_id_that_expired_by_the_databases_clock_is_never_new(db: Db) {
    let store = db.store().await;
    let now = store.now().await.unwrap();
    let ended = |seconds: i64| SingleUseId { expires_at: UnixTime(now.0 - seconds), ..assertion(1, 0) };
    let replayed = Ok(ReplayCheck::Replayed(SingleUseKind::Assertion));
    // It may have been spent on a replica whose clock is right, and swept.
    assert_eq!(spend(&store, [vec![ended(1)]]).await[0], replayed);
    assert_eq!(spend(&store, [vec![ended(-60)]]).await, [Ok(ReplayCheck::New)]);
    store.sweep_spent(store.now().await.unwrap()).await.unwrap();
    assert_eq!(spend(&store, [vec![ended(-60)]]).await[0], replayed);
}

const LATER: i64 = 4_000_000_000;

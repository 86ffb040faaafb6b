//! Time limits of what clients sign: each has room for a client's clock, and a jti is remembered for as long as any
//! replica would take it.

use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use grantd::model::time::{Clock, UnixTime};

use crate::assertion::{Signer, TYPE, claims_at};
use crate::harness::{Answer, Db, Server, Setup, client};

on_both!(
    an_assertion_of_five_minutes_passes_from_a_clock_that_is_ahead_or_behind,
    no_replica_takes_the_longest_assertion_twice
);

const START: i64 = 1_800_000_000;

async fn ask(server: &Server, assertion: &str) -> Answer {
    let form = format!("grant_type=client_credentials&client_assertion_type={TYPE}&client_assertion={assertion}");
    server.post(&[], form).await
}

async fn with_jwt_client(db: Db) -> (Server, Signer, std::sync::Arc<std::sync::atomic::AtomicI64>) {
    let mut setup = Setup::new(db).await;
    let (clock, hand) = Clock::fixed(START);
    setup.clock = clock;
    let signer = Signer::es256();
    setup.store.create_client(&client("jwt-client"), None).await.unwrap();
    setup.store.add_client_keys("jwt-client", &[signer.stored()]).await.unwrap();
    (setup.start().await, signer, hand)
}

/// An assertion from a client whose clock is `ahead` seconds ahead, with a lifetime of `lifetime`.
fn assertion(signer: &Signer, ahead: i64, lifetime: i64, iat: bool) -> String {
    let mut claims = claims_at("jwt-client", START + ahead);
    claims["exp"] = (START + ahead + lifetime).into();
    if !iat {
        claims.as_object_mut().unwrap().remove("iat");
    }
    signer.assert(&claims)
}

async fn an_assertion_of_five_minutes_passes_from_a_clock_that_is_ahead_or_behind(db: Db) {
    let (server, signer, _) = with_jwt_client(db).await;
    // Clock of the client, lifetime, whether it has an iat, whether it is taken.
    for (ahead, lifetime, iat, taken) in [
        (0, 300, true, true),
        (1, 300, true, true),
        (25, 300, true, true),
        (30, 300, true, true),
        (31, 300, true, false),
        (1, 300, false, true),
        (30, 300, false, true),
        (31, 300, false, false),
        (0, 330, true, true),
        (0, 331, true, false),
        (0, 3600, true, false),
        (0, 3600, false, false),
        (0, 7200, true, false),
        (-9, 60, true, true),
        (-69, 60, true, true),
        (-70, 60, true, false),
        (-300, 300, true, true),
        (-309, 300, true, true),
        (-310, 300, true, false),
        // Made an hour ago for more than an hour.
        (-3600, 3660, true, false),
    ] {
        let answer = ask(&server, &assertion(&signer, ahead, lifetime, iat)).await;
        assert_eq!(answer.status == StatusCode::OK, taken, "{ahead} s ahead, {lifetime} s long, iat {iat}");
    }
}

async fn no_replica_takes_the_longest_assertion_twice(db: Db) {
    let (server, signer, hand) = with_jwt_client(db).await;
    // As far as replicas that are ready may be from the database: half a minute on either side.
    let (clock, behind) = Clock::fixed(START - 30);
    let slow = server.replica_at(clock).await;
    let once = assertion(&signer, 30, 330, true);
    ask(&server, &once).await.ok();
    let (exp, mut swept_at) = (360, None);
    for second in (1..exp - 5).step_by(30).chain(exp - 5..exp + 80) {
        hand.store(START + second, Ordering::Relaxed);
        behind.store(START + second - 30, Ordering::Relaxed);
        // Swept by a replica whose clock is half a minute ahead.
        if server.store.sweep_spent(UnixTime(START + second + 30)).await.unwrap() > 0 {
            swept_at = Some(second);
        }
        for replica in [&server, &slow] {
            assert_ne!(ask(replica, &once).await.status, StatusCode::OK, "after {second} s");
        }
    }
    assert_eq!(swept_at, Some(exp + 41), "when even the slowest replica has not taken it for a second");
}

//! Many requests at once, for the keys of one client and for those of many, whatever their hosts do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use grantd::crypto::jose::TRIED_MAX;
use grantd::crypto::signature_alg::SignatureAlg;
use serde_json::json;

use crate::assertion::{Signer, ask, claims_at};
use crate::harness::{Answer, Db, Server, client};
use crate::jwks_host::{Does, Host, ask_as, publishing, setup, with_jwks_uri_client};

on_both!(
    a_host_without_keys_is_asked_no_more_often_than_one_with_keys,
    fifty_that_come_first_are_served_with_one_fetch,
    one_host_that_hangs_holds_up_its_own_clients_alone,
    a_client_whose_host_was_not_asked_is_told_to_try_again,
    a_forged_assertion_is_tried_with_as_many_keys_as_any_client_has,
);

async fn a_host_without_keys_is_asked_no_more_often_than_one_with_keys(db: Db) {
    let (setup, hand) = setup(db, &["localhost"]).await;
    let hosts = [Host::start().await, Host::start().await, Host::start().await];
    hosts[0].publishes(&[]);
    hosts[1].answers("500 Internal Server Error", "", b"{}");
    hosts[2].does(Does::Hangs);
    for (number, host) in hosts.iter().enumerate() {
        publishing(&setup, &format!("p{number}"), &host.uri()).await;
    }
    let server = setup.start().await;
    let signer = Signer::es256();
    for (number, host) in hosts.iter().enumerate() {
        let id = format!("p{number}");
        ask_as(&server, &signer, &id).await.unauthorized();
        for second in 0..29 {
            hand.fetch_add(1, Ordering::Relaxed);
            let header = json!({"alg": "ES256", "kid": format!("k{second}")}).to_string();
            let claims = claims_at(&id, hand.load(Ordering::Relaxed)).to_string();
            ask(&server, &signer.sign(&header, &claims)).await.unauthorized();
        }
        assert_eq!(host.reached(), 1, "{id}");
        host.publishes(&[&signer]);
        hand.fetch_add(1, Ordering::Relaxed);
        ask_as(&server, &signer, &id).await.ok();
        assert_eq!(host.reached(), 2, "{id}");
    }
}

/// The answers to all of `ids`, which ask at once.
async fn at_once(server: &Arc<Server>, signer: &Arc<Signer>, ids: impl Iterator<Item = String>) -> Vec<Answer> {
    let ask = |id: String| {
        let (server, signer) = (Arc::clone(server), Arc::clone(signer));
        tokio::spawn(async move { ask_as(&server, &signer, &id).await })
    };
    let asking: Vec<_> = ids.map(ask).collect();
    let mut answers = Vec::new();
    for answer in asking {
        answers.push(answer.await.unwrap());
    }
    answers
}

async fn fifty_that_come_first_are_served_with_one_fetch(db: Db) {
    let host = Host::start().await;
    let signer = Arc::new(Signer::es256());
    host.publishes(&[&signer]);
    let (server, _) = with_jwks_uri_client(db, &host, &["localhost"]).await;
    for answer in at_once(&Arc::new(server), &signer, (0..50).map(|_| "jwks-uri-client".to_owned())).await {
        answer.ok();
    }
    assert_eq!(host.reached(), 1);
}

async fn one_host_that_hangs_holds_up_its_own_clients_alone(db: Db) {
    let (gateway, other) = (Host::start().await, Host::start().await);
    let signer = Arc::new(Signer::es256());
    other.publishes(&[&signer]);
    let (setup, _) = setup(db, &["localhost", "127.0.0.1"]).await;
    for number in 0..140 {
        publishing(&setup, &format!("g{number}"), &gateway.uri()).await;
    }
    publishing(&setup, "jwks-uri-client", &other.uri_at("127.0.0.1")).await;
    let server = Arc::new(setup.start().await);
    let crowd = tokio::spawn({
        let (server, signer) = (Arc::clone(&server), Arc::clone(&signer));
        async move { at_once(&server, &signer, (0..140).map(|number| format!("g{number}"))).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let started = Instant::now();
    ask_as(&server, &signer, "jwks-uri-client").await.ok();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let answers = crowd.await.unwrap();
    let (late, refused): (Vec<_>, Vec<_>) =
        answers.iter().enumerate().partition(|(_, answer)| answer.status == StatusCode::UNAUTHORIZED);
    assert!(!late.is_empty() && !refused.is_empty(), "{} and {}", late.len(), refused.len());
    for (_, answer) in &refused {
        answer.refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
        assert_eq!(answer.header("retry-after"), "1");
    }
    // Who was told to try again may do so, and is not made to wait for having asked.
    gateway.publishes(&[&signer]);
    for (number, _) in refused.iter().take(5) {
        ask_as(&server, &signer, &format!("g{number}")).await.ok();
    }
    ask_as(&server, &signer, &format!("g{}", late[0].0)).await.unauthorized();
}

async fn a_client_whose_host_was_not_asked_is_told_to_try_again(db: Db) {
    let host = Host::start().await;
    let signer = Arc::new(Signer::es256());
    host.publishes(&[&signer]);
    let (setup, hand) = setup(db, &["localhost"]).await;
    let ids = || (0..200).map(|number| format!("p{number}"));
    for id in ids() {
        publishing(&setup, &id, &host.uri()).await;
    }
    let server = Arc::new(setup.start().await);
    let mut left: Vec<String> = ids().collect();
    let started = Instant::now();
    while !left.is_empty() {
        assert!(started.elapsed() < Duration::from_secs(20), "{} are left", left.len());
        let answers = at_once(&server, &signer, left.clone().into_iter()).await;
        let mut answers = answers.iter();
        left.retain(|_| {
            let answer = answers.next().unwrap();
            let is_served = answer.status == StatusCode::OK;
            if !is_served {
                answer.refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
            }
            !is_served
        });
    }
    assert_eq!(host.asked(), 200);

    // While others keep us from asking, a key that may be new is not called wrong, and those that are known work.
    let next = Signer::es256();
    host.does(Does::Hangs);
    hand.fetch_add(60, Ordering::Relaxed);
    let crowd = tokio::spawn({
        let (server, next) = (Arc::clone(&server), Arc::new(Signer::es256()));
        async move { at_once(&server, &next, (0..140).map(|number| format!("p{number}"))).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    ask_as(&server, &next, "p199").await.refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
    ask_as(&server, &signer, "p199").await.ok();
    for answer in crowd.await.unwrap() {
        assert!(answer.status == StatusCode::UNAUTHORIZED || answer.status == StatusCode::SERVICE_UNAVAILABLE);
    }
}

async fn a_forged_assertion_is_tried_with_as_many_keys_as_any_client_has(db: Db) {
    let host = Host::start().await;
    let published = [Signer::ed25519().named("k1"), Signer::ed25519().named("k2")];
    host.publishes(&[&published[0], &published[1]]);
    let (server, _) = with_jwks_uri_client(db, &host, &["localhost"]).await;
    let registered = || server.server.registry.snapshot().key_counts();
    assert_eq!((registered().with(SignatureAlg::Es256), registered().with(SignatureAlg::EdDsa)), (1, 1));
    for (id, keys) in [("few", 2), ("many", 11)] {
        let keys: Vec<_> = (0..keys).map(|_| Signer::es256().stored()).collect();
        server.store.create_client(&client(id), None).await.unwrap();
        server.store.add_client_keys(id, &keys).await.unwrap();
    }
    server.refresh().await;
    assert_eq!((registered().with(SignatureAlg::Es256), registered().with(SignatureAlg::EdDsa)), (TRIED_MAX, 1));
    assert!(server.store.delete_client("many").await.unwrap());
    server.refresh().await;
    assert_eq!(registered().with(SignatureAlg::Es256), 2);

    ask_as(&server, &published[1], "jwks-uri-client").await.ok();
    let fetched = server.server.authenticator.client_jwks.key_counts();
    assert_eq!((fetched.with(SignatureAlg::EdDsa), fetched.with(SignatureAlg::Es256)), (2, 1));
}

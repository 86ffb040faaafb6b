//! Keys of trusted issuers: discovery, rotation, hostile hosts, algorithms, and what is logged of tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::http::StatusCode;
use grantd::model::federation::kind::IssuerKind;
use grantd::model::federation::trusted_issuer::IssuerColumns;
use serde_json::json;

use crate::assertion::{Signer, ask};
use crate::harness::{Db, Server};
use crate::jwks_host::{Does, Host, ca_pem, document, setup};
use crate::platforms::{NOW, columns, federated, kubernetes, pinned, refused, with};

on_both!(
    discovery_and_keys_are_fetched_when_they_are_needed_and_no_more,
    a_document_that_is_not_the_issuers_own_brings_no_keys,
    a_hostile_host_of_an_issuer_touches_no_other,
    an_issuer_has_cas_of_its_own,
    every_algorithm_of_a_key_is_verified_and_no_other,
    keys_without_kid_and_keys_of_one_kid_are_tried,
);

const SUB: &str = "system:serviceaccount:pay:billing";

/// A server that trusts the cluster at a host, with the client `pod`.
async fn cluster(db: Db, host: &Host) -> (Server, Arc<AtomicI64>) {
    let (setup, hand) = setup(db, &["localhost"]).await;
    let issuer = columns(&host.issuer(), IssuerKind::Kubernetes, |columns| columns);
    setup.store.create_trusted_issuer(&issuer).await.unwrap();
    federated(&setup.store, "pod", &host.issuer(), SUB, &json!({})).await;
    (setup.start().await, hand)
}

/// A token of the cluster at a host, as of the server's clock.
fn token(signer: &Signer, host: &Host, hand: &AtomicI64) -> String {
    signer.assert(&kubernetes(&host.issuer(), hand.load(Ordering::Relaxed)))
}

async fn discovery_and_keys_are_fetched_when_they_are_needed_and_no_more(db: Db) {
    let host = Host::start().await;
    let (first, second, thief) =
        (Signer::rsa("RS256").named("k1"), Signer::es256().named("k2"), Signer::es256().named("k9"));
    // A long max-age is not believed.
    host.is_issuer(&host.issuer(), &[first.jwk()], "cache-control: public, max-age=604800\r\n");
    let (server, hand) = cluster(db, &host).await;
    assert_eq!(host.asked(), 0);
    for _ in 0..5 {
        ask(&server, &token(&first, &host, &hand)).await.ok();
    }
    assert_eq!(host.asked(), 2, "discovery and keys");
    for number in 0..100 {
        let header = json!({"alg": "ES256", "kid": format!("x{number}")}).to_string();
        let claims = kubernetes(&host.issuer(), NOW).to_string();
        ask(&server, &thief.sign(&header, &claims)).await.unauthorized();
    }
    assert_eq!(host.asked(), 2);
    // A new key within max-age is found by its id, half a minute later at the earliest.
    host.is_issuer(&host.issuer(), &[first.jwk(), second.jwk()], "cache-control: max-age=604800\r\n");
    ask(&server, &token(&second, &host, &hand)).await.unauthorized();
    hand.fetch_add(30, Ordering::Relaxed);
    ask(&server, &token(&second, &host, &hand)).await.ok();
    assert_eq!(host.asked(), 4);
    // A removed key works for five minutes at most.
    host.is_issuer(&host.issuer(), &[second.jwk()], "cache-control: max-age=60\r\n");
    hand.fetch_add(300, Ordering::Relaxed);
    ask(&server, &token(&first, &host, &hand)).await.unauthorized();
    assert_eq!(host.asked(), 6);
    // A short max-age is kept.
    hand.fetch_add(60, Ordering::Relaxed);
    ask(&server, &token(&second, &host, &hand)).await.ok();
    assert_eq!(host.asked(), 8);
    // An empty set is a mistake: the last good one stays, for an hour.
    host.is_issuer(&host.issuer(), &[], "");
    for _ in 0..11 {
        hand.fetch_add(301, Ordering::Relaxed);
        ask(&server, &token(&second, &host, &hand)).await.ok();
    }
    hand.fetch_add(301, Ordering::Relaxed);
    let before = refused(&server, "federation_keys_unavailable");
    ask(&server, &token(&second, &host, &hand)).await.unauthorized();
    assert_eq!(refused(&server, "federation_keys_unavailable"), before + 1);
    host.is_issuer(&host.issuer(), &[second.jwk()], "");
    hand.fetch_add(30, Ordering::Relaxed);
    ask(&server, &token(&second, &host, &hand)).await.ok();
    // Nothing is fetched for an issuer that is disabled, or from whom no token comes.
    let asked = host.asked();
    server.db.sql("update trusted_issuer set enabled = 0").await.unwrap();
    server.refresh().await;
    hand.fetch_add(301, Ordering::Relaxed);
    ask(&server, &token(&second, &host, &hand)).await.unauthorized();
    assert_eq!(host.asked(), asked);
}

async fn a_document_that_is_not_the_issuers_own_brings_no_keys(db: Db) {
    let (host, elsewhere) = (Host::start().await, Host::start().await);
    let signer = Signer::rsa("RS256").named("k1");
    let (server, hand) = cluster(db, &host).await;
    let discovered =
        |discovery: String| Does::Serves(vec![("/.well-known/openid-configuration".into(), document(&discovery, ""))]);
    let (issuer, keys) = (host.issuer(), format!("{}/keys", host.issuer()));
    for discovery in [
        json!({"issuer": format!("{issuer}/"), "jwks_uri": keys}),
        json!({"issuer": elsewhere.issuer(), "jwks_uri": keys}),
        json!({"jwks_uri": keys}),
        json!({"issuer": issuer}),
        json!({"issuer": issuer, "jwks_uri": keys.replace("https", "http")}),
        json!({"issuer": [issuer], "jwks_uri": keys}),
        json!([]),
    ] {
        host.does(discovered(discovery.to_string()));
        let before = (refused(&server, "federation_keys_unavailable"), host.asked());
        ask(&server, &token(&signer, &host, &hand)).await.unauthorized();
        assert_eq!(
            (refused(&server, "federation_keys_unavailable"), host.asked()),
            (before.0 + 1, before.1 + 1),
            "{discovery}"
        );
        hand.fetch_add(30, Ordering::Relaxed);
    }
    host.answers("302 Found", &format!("location: {}/.well-known/openid-configuration\r\n", elsewhere.issuer()), b"");
    elsewhere.is_issuer(&host.issuer(), &[signer.jwk()], "");
    ask(&server, &token(&signer, &host, &hand)).await.unauthorized();
    assert_eq!(elsewhere.reached(), 0, "a redirect is not followed");
    // The key set itself may be on another host.
    hand.fetch_add(30, Ordering::Relaxed);
    host.does(discovered(
        json!({"issuer": host.issuer(), "jwks_uri": format!("{}/keys", elsewhere.issuer())}).to_string(),
    ));
    ask(&server, &token(&signer, &host, &hand)).await.ok();
    assert_eq!(elsewhere.asked(), 1);
}

async fn a_hostile_host_of_an_issuer_touches_no_other(db: Db) {
    let (hangs, good) = (Host::start().await, Host::start().await);
    let signer = Signer::rsa("RS256").named("k1");
    good.is_issuer(&good.issuer(), &[signer.jwk()], "");
    let (server, hand) = cluster(db, &good).await;
    let hostile = columns(&hangs.issuer(), IssuerKind::Oidc, |columns| columns);
    server.store.create_trusted_issuer(&hostile).await.unwrap();
    server
        .store
        .create_trusted_issuer(&pinned("https://pinned.example", IssuerKind::Kubernetes, &[&signer]))
        .await
        .unwrap();
    federated(&server.store, "pinned", "https://pinned.example", SUB, &json!({})).await;
    server.refresh().await;
    let claims = with(kubernetes(&hangs.issuer(), NOW), &json!({"jti": "x"}));
    for does in [Does::Hangs, Does::Trickles] {
        hangs.does(does);
        let token_of_hanging = signer.assert(&claims);
        let started = std::time::Instant::now();
        let (slow, fast) = tokio::join!(ask(&server, &token_of_hanging), async {
            for _ in 0..20 {
                ask(&server, &token(&signer, &good, &hand)).await.ok();
                ask(&server, &signer.assert(&kubernetes("https://pinned.example", hand.load(Ordering::Relaxed))))
                    .await
                    .ok();
            }
            started.elapsed()
        });
        assert!(fast < std::time::Duration::from_secs(3), "{fast:?}");
        slow.unauthorized();
        hand.fetch_add(30, Ordering::Relaxed);
    }
    assert_eq!(refused(&server, "federation_keys_unavailable"), 2, "an issuer's fault is not ours");
    for (status, fields, body) in [
        ("500 Internal Server Error", "", b"{}".to_vec()),
        ("200 OK", "", b"garbage".to_vec()),
        ("200 OK", "", vec![b' '; 70_000]),
        ("200 OK", "content-encoding: gzip\r\n", b"{}".to_vec()),
    ] {
        hangs.answers(status, fields, &body);
        ask(&server, &signer.assert(&claims)).await.unauthorized();
        hand.fetch_add(30, Ordering::Relaxed);
    }
    assert_eq!(refused(&server, "federation_keys_unavailable"), 6);
}

async fn an_issuer_has_cas_of_its_own(db: Db) {
    let host = Host::start().await;
    let signer = Signer::rsa("RS256").named("k1");
    host.is_issuer(&host.issuer(), &[signer.jwk()], "");
    let (mut setup, hand) = setup(db, &["localhost"]).await;
    setup.settings.clients.jwks_uri_ca_file = std::path::PathBuf::new();
    let own =
        columns(&host.issuer(), IssuerKind::Kubernetes, |columns| IssuerColumns { ca_pem: Some(ca_pem()), ..columns });
    setup.store.create_trusted_issuer(&own).await.unwrap();
    federated(&setup.store, "pod", &host.issuer(), SUB, &json!({})).await;
    let server = setup.start().await;
    ask(&server, &token(&signer, &host, &hand)).await.ok();
    // They replace the public ones, and another's do not do.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    for ca in [format!("'{other}'"), "null".to_owned()] {
        server.db.sql(&format!("update trusted_issuer set ca_pem = {ca}")).await.unwrap();
        server.refresh().await;
        let before = refused(&server, "federation_keys_unavailable");
        ask(&server, &token(&signer, &host, &hand)).await.unauthorized();
        assert_eq!(refused(&server, "federation_keys_unavailable"), before + 1);
    }
}

async fn every_algorithm_of_a_key_is_verified_and_no_other(db: Db) {
    let (setup, hand) = setup(db, &[]).await;
    let issuer = "https://algs.example";
    let signers = [
        Signer::rsa("RS256").named("rs256"),
        Signer::rsa("RS384").named("rs384"),
        Signer::rsa("RS512").named("rs512"),
        Signer::rsa("PS256").named("ps256"),
        Signer::rsa("PS384").named("ps384"),
        Signer::rsa("PS512").named("ps512"),
        Signer::es256().named("es256"),
        Signer::es384().named("es384"),
        Signer::ed25519().named("ed25519"),
        Signer::any_rsa().named("any"),
    ];
    let all: Vec<&Signer> = signers.iter().collect();
    setup.store.create_trusted_issuer(&pinned(issuer, IssuerKind::Kubernetes, &all)).await.unwrap();
    federated(&setup.store, "pod", issuer, SUB, &json!({})).await;
    let server = setup.start().await;
    let claims = kubernetes(issuer, hand.load(Ordering::Relaxed)).to_string();
    for signer in &signers {
        ask(&server, &signer.sign(&signer.header().to_string(), &claims)).await.ok();
    }
    let ed = json!({"alg": "Ed25519", "kid": "ed25519"}).to_string();
    ask(&server, &signers[8].sign(&ed, &claims)).await.ok();
    // A key without alg takes those that fit it.
    for alg in ["RS256", "RS512", "PS384"] {
        let header = json!({"alg": alg, "kid": "any"}).to_string();
        ask(&server, &signers[9].sign_by(alg, &header, &claims)).await.ok();
    }
    for (alg, kid) in [
        ("PS256", "rs256"),
        ("RS384", "rs256"),
        ("ES256", "rs256"),
        ("RS256", "es256"),
        ("none", "rs256"),
        ("HS256", "rs256"),
    ] {
        let header = json!({"alg": alg, "kid": kid}).to_string();
        let before = refused(&server, "jws_alg");
        ask(&server, &signers[0].sign_by(alg, &header, &claims)).await.unauthorized();
        assert_eq!(refused(&server, "jws_alg"), before + 1, "{alg} {kid}");
    }
}

async fn keys_without_kid_and_keys_of_one_kid_are_tried(db: Db) {
    let host = Host::start().await;
    let (a, b, other) = (Signer::es256().named("same"), Signer::es256().named("same"), Signer::es256());
    let encrypts = with(Signer::es256().named("enc").jwk(), &json!({"use": "enc"}));
    let unknown = json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA", "kid": "pq"});
    host.is_issuer(&host.issuer(), &[unknown, encrypts, a.jwk(), b.jwk(), other.jwk()], "");
    let (server, hand) = cluster(db, &host).await;
    for signer in [&a, &b, &other] {
        ask(&server, &token(signer, &host, &hand)).await.ok();
        let claims = kubernetes(&host.issuer(), hand.load(Ordering::Relaxed)).to_string();
        ask(&server, &signer.sign(r#"{"alg":"ES256"}"#, &claims)).await.ok();
    }
    let refused = ask(&server, &token(&Signer::es256().named("same"), &host, &hand)).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
}

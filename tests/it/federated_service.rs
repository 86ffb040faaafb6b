//! Federation in service: what the metadata offers, the profile, an outage of the database, SPIFFE, and the log.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use grantd::model::federation::kind::IssuerKind;
use grantd::model::federation::trusted_issuer::IssuerColumns;
use grantd::model::time::Clock;
use grantd::state::registry::Freshness;
use serde_json::{Value, json};

use crate::assertion::{Signer, TYPE, ask};
use crate::harness::{Answer, Db, ISS, Server, Setup};
use crate::jwks_host::{Host, setup};
use crate::platforms::{
    CLUSTER, NOW, SVID, ask_by_grant, columns, federated, github, kubernetes, pinned, platforms, refused, with,
};
use crate::process::daemon::{Daemon, Grantd, eventually};

on_both!(
    metadata_lists_the_grant_and_the_method_while_an_issuer_makes_them_work,
    fapi2_opens_neither_door,
    pods_are_served_while_the_database_is_away_and_jobs_are_not,
    a_jwt_svid_authenticates_a_workload,
    an_empty_bundle_revokes_all_and_an_older_one_is_ignored,
    a_refusal_says_in_the_log_who_it_was,
);

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TRUST_DOMAIN: &str = "spiffe://example.org";
const WORKLOAD: &str = "spiffe://example.org/ns/pay/sa/billing";

async fn metadata_lists_the_grant_and_the_method_while_an_issuer_makes_them_work(db: Db) {
    let (setup, signer) = (Setup::new(db).await, Signer::es256());
    let server = setup.start().await;
    let offered = async || {
        let metadata = server.get("/.well-known/oauth-authorization-server").await.json();
        let has = |member: &str, name: &str| metadata[member].as_array().unwrap().contains(&name.into());
        (has("grant_types_supported", JWT_BEARER), has("token_endpoint_auth_methods_supported", "spiffe_jwt"))
    };
    // What an unknown grant is told is what the metadata lists.
    let told = async |grants: &str| {
        let answer = server.post(&[], "grant_type=password").await;
        answer.error("unsupported_grant_type");
        assert_eq!(answer.json()["error_description"], format!("this server supports {grants}"));
    };
    let both = format!("client_credentials and {JWT_BEARER}");
    assert_eq!(offered().await, (false, false));
    told("client_credentials").await;
    ask_by_grant(&server, "x.y.z", "").await.error("unsupported_grant_type");
    let change = async |sql: &str| {
        server.db.sql(sql).await.unwrap();
        server.refresh().await;
    };
    server.store.create_trusted_issuer(&pinned(CLUSTER, IssuerKind::Kubernetes, &[&signer])).await.unwrap();
    server.refresh().await;
    assert_eq!(offered().await, (true, false));
    server.store.create_trusted_issuer(&pinned(TRUST_DOMAIN, IssuerKind::Spiffe, &[&signer])).await.unwrap();
    server.refresh().await;
    assert_eq!(offered().await, (true, true));
    told(&both).await;
    change("update trusted_issuer set enabled = 0 where kind = 'kubernetes'").await;
    assert_eq!(offered().await, (false, true));
    told("client_credentials").await;
    change("update trusted_issuer set enabled = 0").await;
    assert_eq!(offered().await, (false, false));
}

async fn fapi2_opens_neither_door(db: Db) {
    let (mut setup, signer) = (Setup::new(db).await, Signer::es256().named("k1"));
    setup.settings.profile = "fapi2".into();
    setup.settings.server.cleartext = "behind-proxy".into();
    setup.clock = Clock::fixed(NOW).0;
    let server = platforms(setup, &signer).await;
    let pod = signer.assert(&kubernetes(CLUSTER, NOW));
    ask(&server, &pod).await.refusal(StatusCode::BAD_REQUEST, "invalid_client");
    ask_by_grant(&server, &pod, "").await.error("unsupported_grant_type");
    let metadata = server.get("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(metadata["grant_types_supported"], json!(["client_credentials"]));
}

async fn pods_are_served_while_the_database_is_away_and_jobs_are_not(db: Db) {
    let signer = Signer::rsa("RS256").named("k1");
    let mut setup = Setup::new(db).await;
    setup.settings.registry.max_stale = "5s".into();
    let server = platforms(setup, &signer).await;
    let now = Clock::System.now().0;
    // Tables that the feed and single use need.
    server.db.sql("drop table registry_revision; drop table spent_jti").await.unwrap();
    let until = async |wanted: fn(Freshness) -> bool| {
        let started = Instant::now();
        while !wanted(server.server.registry.freshness()) {
            assert!(started.elapsed().as_secs() < 10);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until(|freshness| matches!(freshness, Freshness::Stale(_))).await;
    let pod = signer.assert(&kubernetes(CLUSTER, now));
    ask(&server, &pod).await.ok();
    ask(&server, &pod).await.ok();
    ask_by_grant(&server, &pod, "").await.ok();
    let unavailable = |answer: Answer| answer.refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
    unavailable(ask(&server, &signer.assert(&github(now))).await);
    // A rule may have come that is not known here.
    let other = with(kubernetes(CLUSTER, now), &json!({"sub": "system:serviceaccount:pay:other"}));
    unavailable(ask(&server, &signer.assert(&other)).await);
    until(|freshness| freshness == Freshness::Unusable).await;
    unavailable(ask(&server, &pod).await);
}

/// Claims of a JWT-SVID as SPIRE issues them.
fn svid(now: i64) -> Value {
    json!({"sub": WORKLOAD, "aud": [ISS], "iat": now, "exp": now + 300})
}

async fn ask_by_svid(server: &Server, token: &str) -> Answer {
    let form = format!("grant_type=client_credentials&client_assertion_type={SVID}&client_assertion={token}");
    server.post(&[], form).await
}

async fn a_jwt_svid_authenticates_a_workload(db: Db) {
    let (mut setup, signer) = (Setup::new(db).await, Signer::es256().named("s1"));
    setup.clock = Clock::fixed(NOW).0;
    setup.store.create_trusted_issuer(&pinned(TRUST_DOMAIN, IssuerKind::Spiffe, &[&signer])).await.unwrap();
    setup.store.create_trusted_issuer(&pinned(CLUSTER, IssuerKind::Kubernetes, &[&signer])).await.unwrap();
    federated(&setup.store, "workload", TRUST_DOMAIN, WORKLOAD, &json!({})).await;
    federated(&setup.store, "others", TRUST_DOMAIN, "spiffe://example.org/ns/ap/*", &json!({})).await;
    let server = setup.start().await;
    let of = |answer: &Answer| answer.token().1["sub"].clone();
    let token = |changes: Value| signer.assert(&with(svid(NOW), &changes));
    for changes in [
        json!({}),
        json!({"iat": null}),
        json!({"iss": "https://anything.example"}),
        json!({"iss": CLUSTER}),
        json!({"aud": ISS}),
    ] {
        assert_eq!(of(&ask_by_svid(&server, &token(changes)).await), "workload");
    }
    let again = token(json!({}));
    assert_eq!(of(&ask_by_svid(&server, &again).await), "workload");
    assert_eq!(of(&ask_by_svid(&server, &again).await), "workload", "an SVID is used until it expires");
    assert_eq!(of(&ask_by_svid(&server, &token(json!({"sub": "spiffe://example.org/ns/ap/sa/x"}))).await), "others");
    for (changes, reason) in [
        (json!({"sub": "spiffe://example.org/ns/app/sa/x"}), "federation_subject"),
        (json!({"sub": "spiffe://example.org/ns/ap"}), "federation_subject"),
        (json!({"sub": "spiffe://example.org"}), "federation_subject"),
        (json!({"sub": "billing"}), "federation_subject"),
        (json!({"sub": "spiffe://evil.example/ns/pay/sa/billing"}), "federation_issuer"),
        (json!({"sub": "spiffe://example.org.evil.example/ns/pay/sa/billing"}), "federation_issuer"),
        (json!({"aud": [ISS, "https://other.example"]}), "federation_audience"),
        (json!({"exp": null}), "assertion_incomplete"),
        (json!({"exp": NOW + 3601}), "federation_lifetime"),
    ] {
        let before = refused(&server, reason);
        ask_by_svid(&server, &token(changes.clone())).await.unauthorized();
        assert_eq!(refused(&server, reason), before + 1, "{changes}");
    }
    let header = |typ: &str| json!({"alg": "ES256", "kid": "s1", "typ": typ}).to_string();
    for typ in ["JWT", "JOSE"] {
        ask_by_svid(&server, &signer.sign(&header(typ), &svid(NOW).to_string())).await.ok();
    }
    for typ in ["jwt", "application/JWT", "x+jwt"] {
        ask_by_svid(&server, &signer.sign(&header(typ), &svid(NOW).to_string())).await.unauthorized();
    }
    // Sent as what it is not, or by the grant.
    for changes in [json!({}), json!({"iss": TRUST_DOMAIN}), json!({"iss": WORKLOAD})] {
        ask(&server, &token(changes.clone())).await.unauthorized();
        ask_by_grant(&server, &token(changes), "").await.refusal(StatusCode::BAD_REQUEST, "invalid_grant");
    }
    // A pod's token is no SVID.
    ask_by_svid(&server, &signer.assert(&kubernetes(CLUSTER, NOW))).await.unauthorized();
    server.db.sql("update client set auth_methods = 'private_key_jwt' where client_id = 'workload'").await.unwrap();
    server.refresh().await;
    ask_by_svid(&server, &again).await.unauthorized();
    server.db.sql("update client set auth_methods = 'spiffe_jwt' where client_id = 'workload'").await.unwrap();
    server.refresh().await;
    ask_by_svid(&server, &again).await.ok();
}

async fn an_empty_bundle_revokes_all_and_an_older_one_is_ignored(db: Db) {
    let host = Host::start().await;
    let (first, second) = (Signer::es256().named("s1"), Signer::es256().named("s2"));
    let as_svid = |signer: &Signer| with(signer.jwk(), &json!({"use": "jwt-svid"}));
    let bundle = |keys: &[Value], sequence: Value, hint: Value| {
        let bundle = with(json!({"keys": keys}), &json!({"spiffe_sequence": sequence, "spiffe_refresh_hint": hint}));
        host.answers("200 OK", "", bundle.to_string().as_bytes());
    };
    let (setup, hand) = setup(db, &["localhost"]).await;
    let uri = host.uri();
    let domain =
        columns(TRUST_DOMAIN, IssuerKind::Spiffe, |columns| IssuerColumns { bundle_uri: Some(&uri), ..columns });
    setup.store.create_trusted_issuer(&domain).await.unwrap();
    federated(&setup.store, "workload", TRUST_DOMAIN, WORKLOAD, &json!({})).await;
    let server = setup.start().await;
    let token = |signer: &Signer| signer.assert(&svid(hand.load(std::sync::atomic::Ordering::Relaxed)));
    let later = |seconds: i64| {
        hand.fetch_add(seconds, std::sync::atomic::Ordering::Relaxed);
    };
    let before = refused(&server, "federation_keys_unavailable");
    ask_by_svid(&server, &token(&first)).await.unauthorized();
    assert_eq!(refused(&server, "federation_keys_unavailable"), before + 1, "never had");
    // Keys of another use do not sign SVIDs.
    later(30);
    let x509 = with(second.jwk(), &json!({"use": "x509-svid"}));
    bundle(&[as_svid(&first), x509, with(second.jwk(), &json!({"use": null}))], json!(5), json!(60));
    ask_by_svid(&server, &token(&first)).await.ok();
    ask_by_svid(&server, &token(&second)).await.unauthorized();
    // The hint is obeyed.
    let asked = host.asked();
    later(48);
    ask_by_svid(&server, &token(&first)).await.ok();
    // Nobody waited for that fetch; whoever comes when the bundle is due does.
    later(12);
    ask_by_svid(&server, &token(&first)).await.ok();
    assert_eq!(host.asked(), asked + 1);
    // An older bundle is ignored, an equal one taken.
    bundle(&[as_svid(&second)], json!(4), json!(60));
    later(60);
    ask_by_svid(&server, &token(&first)).await.ok();
    assert_eq!(host.asked(), asked + 2);
    bundle(&[as_svid(&second)], json!(5), json!(60));
    later(60);
    ask_by_svid(&server, &token(&second)).await.ok();
    ask_by_svid(&server, &token(&first)).await.unauthorized();
    // No keys: all is revoked, unlike a key set by mistake empty.
    bundle(&[], json!(6), json!(60));
    later(60);
    let before = refused(&server, "jws_key");
    ask_by_svid(&server, &token(&second)).await.unauthorized();
    assert_eq!(refused(&server, "jws_key"), before + 1);
}

async fn a_refusal_says_in_the_log_who_it_was(db: Db) {
    let signer = Signer::rsa("RS256").named("k1");
    let store = db.store().await;
    store.create_trusted_issuer(&pinned(CLUSTER, IssuerKind::Kubernetes, &[&signer])).await.unwrap();
    federated(
        &store,
        "pod",
        CLUSTER,
        "system:serviceaccount:pay:billing",
        &json!({"kubernetes.io": {"namespace": "pay"}}),
    )
    .await;
    let mut daemon = Daemon::start(Grantd::new(&db).command(&["serve"]), false).await;
    let metadata = daemon.get("/.well-known/oauth-authorization-server").await.json();
    let issuer = metadata["issuer"].as_str().unwrap();
    let claims = with(kubernetes(CLUSTER, Clock::System.now().0), &json!({"aud": [issuer], "jti": "job-1"}));
    let form = |claims: &Value| {
        let token = signer.assert(claims);
        format!("grant_type=client_credentials&scope=api%3Aread&client_assertion_type={TYPE}&client_assertion={token}")
    };
    assert_eq!(daemon.post("/token", &[], form(&claims)).await.status, 200);
    let other = with(claims.clone(), &json!({"kubernetes.io": {"namespace": "payroll"}}));
    assert_eq!(daemon.post("/token", &[], form(&other)).await.status, 401);
    let granted = eventually(async || daemon.events("token.issued"), |events| !events.is_empty()).await;
    let refused = eventually(async || daemon.events("token.refused"), |events| !events.is_empty()).await;
    for event in [&granted[0], &refused[0]] {
        assert_eq!(event["auth_method"], "federated_jwt", "{event}");
        assert_eq!(event["credential_id"], "rule-of-pod", "{event}");
        assert_eq!(event["federated_issuer"], CLUSTER, "{event}");
        assert_eq!(event["federated_subject"], "system:serviceaccount:pay:billing", "{event}");
        assert_eq!(event["federated_jti"], "job-1", "{event}");
    }
    assert_eq!(granted[0]["client_id"], "pod");
    assert_eq!(refused[0]["reason"], "federation_claims");
    let detail = refused[0]["detail"].as_str().unwrap();
    assert!(detail.contains(r#"kubernetes.io.namespace: the rule wants "pay", the token has "payroll""#), "{detail}");
    daemon.stop_cleanly(Duration::from_secs(10)).await;
}

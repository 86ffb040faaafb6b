//! Workload identity federation: tokens of platforms at both doors, and everything that is wrong with tokens.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use grantd::model::federation::kind::IssuerKind;
use grantd::model::lifetime::FederatedLifetime;
use grantd::model::time::{Clock, UnixTime};
use serde_json::{Value, json};

use crate::assertion::{Signer, ask, ask_at};
use crate::harness::{Answer, Db, ISS, Server, Setup, client};
use crate::platforms::{
    AKS, CLUSTER, EKS, GITHUB, GKE, GRANT, NOW, OIDC, ask_by_grant, federated, github, gitlab, jti, kubernetes, oidc,
    pinned, platforms, refused, rule, with,
};

on_both!(
    each_platform_gets_a_token_at_both_doors,
    a_token_that_is_wrong_is_refused_with_its_reason,
    an_issuer_is_the_one_that_is_named_byte_for_byte,
    the_only_client_with_a_matching_rule_is_meant,
    a_job_token_works_once_and_a_pod_token_until_it_expires,
    a_token_of_another_kind_is_no_proof_of_identity,
    the_grant_takes_no_other_authentication,
    a_client_uses_the_grant_if_it_is_registered_for_it,
    disabling_takes_effect,
    a_rule_that_lost_its_pins_matches_nothing,
    an_issuer_that_is_this_server_is_refused,
    tokens_are_known_again_until_something_changes,
    introspection_and_revocation_take_federated_tokens,
);

fn fixed(mut setup: Setup) -> (Setup, Arc<std::sync::atomic::AtomicI64>) {
    let (clock, hand) = Clock::fixed(NOW);
    setup.clock = clock;
    (setup, hand)
}

async fn start(db: Db) -> (Server, Signer, Arc<std::sync::atomic::AtomicI64>) {
    let signer = Signer::rsa("RS256").named("k1");
    let (setup, hand) = fixed(Setup::new(db).await);
    (platforms(setup, &signer).await, signer, hand)
}

/// The client that an answer's token is of.
fn of(answer: &Answer) -> Value {
    answer.token().1["sub"].clone()
}

/// Asserts that a token is refused like any other failure, for this reason.
async fn is_refused(server: &Server, token: &str, reason: &'static str) {
    let before = refused(server, reason);
    let answer = ask(server, token).await;
    assert_eq!(refused(server, reason), before + 1, "{reason}: {}", answer.body);
    answer.unauthorized();
}

async fn each_platform_gets_a_token_at_both_doors(db: Db) {
    let (server, signer, _) = start(db).await;
    let store = &server.store;
    for (issuer, kind) in [(EKS, IssuerKind::Kubernetes), (GKE, IssuerKind::Kubernetes)] {
        store.create_trusted_issuer(&pinned(issuer, kind, &[&signer])).await.unwrap();
    }
    federated(store, "eks", EKS, "system:serviceaccount:pay:billing", &json!({})).await;
    federated(store, "gke", GKE, "system:serviceaccount:pay:billing", &json!({})).await;
    let old_shape = json!({"repository_id": "815", "repository_owner_id": "4711", "environment": "prod"});
    federated(store, "github-old", GITHUB, "repo:acme/app:environment:prod", &old_shape).await;
    server.refresh().await;
    let environment = json!({"sub": "repo:acme/app:environment:prod", "environment": "prod"});
    let merge_request =
        json!({"sub": "project_path:acme/app:ref_type:branch:ref:feature", "pipeline_source": "merge_request_event"});
    for (id, claims) in [
        ("github", github(NOW)),
        ("github-old", with(github(NOW), &environment)),
        ("gitlab", gitlab(NOW)),
        ("gitlab", with(gitlab(NOW), &merge_request)),
        ("cluster", kubernetes(CLUSTER, NOW)),
        ("aks", kubernetes(AKS, NOW)),
        ("eks", kubernetes(EKS, NOW)),
        ("gke", kubernetes(GKE, NOW)),
        ("oidc", oidc(NOW)),
    ] {
        let again = |claims: &Value| {
            if claims.get("jti").is_some() { with(claims.clone(), &json!({"jti": jti()})) } else { claims.clone() }
        };
        assert_eq!(of(&ask(&server, &signer.assert(&again(&claims))).await), id);
        let named = format!("grant_type=client_credentials&client_id={id}");
        assert_eq!(of(&ask_at(&server, "/token", &named, &signer.assert(&again(&claims))).await), id);
        assert_eq!(of(&ask_by_grant(&server, &signer.assert(&again(&claims)), "").await), id);
        assert_eq!(of(&ask_by_grant(&server, &signer.assert(&again(&claims)), &format!("&client_id={id}")).await), id);
    }
    // The pipeline of a fork has the ids of the fork.
    let fork = json!({"project_id": "666", "namespace_id": "13"});
    is_refused(&server, &signer.assert(&with(gitlab(NOW), &fork)), "federation_claims").await;
}

async fn a_token_that_is_wrong_is_refused_with_its_reason(db: Db) {
    let (server, signer, hand) = start(db).await;
    let mut short = pinned("https://short.example", IssuerKind::Kubernetes, &[&signer]);
    short.max_lifetime = Some("10m".parse::<FederatedLifetime>().unwrap());
    server.store.create_trusted_issuer(&short).await.unwrap();
    federated(&server.store, "short", "https://short.example", "system:serviceaccount:pay:billing", &json!({})).await;
    server.refresh().await;
    let pod = || kubernetes(CLUSTER, NOW);
    let short = || with(kubernetes("https://short.example", NOW), &json!({"exp": NOW + 600}));
    for (claims, reason) in [
        (with(pod(), &json!({"aud": "https://other.example"})), "federation_audience"),
        (with(pod(), &json!({"aud": [ISS, "https://other.example"]})), "federation_audience"),
        (with(pod(), &json!({"aud": [ISS, ISS]})), "federation_audience"),
        (with(pod(), &json!({"aud": []})), "federation_audience"),
        (with(pod(), &json!({"aud": null})), "federation_audience"),
        (with(pod(), &json!({"aud": format!("{ISS}/")})), "federation_audience"),
        (with(pod(), &json!({"aud": format!("{ISS}/token")})), "federation_audience"),
        (with(pod(), &json!({"aud": "HTTPS://as.test"})), "federation_audience"),
        (with(pod(), &json!({"aud": 5})), "claims_malformed"),
        (with(pod(), &json!({"exp": null})), "assertion_incomplete"),
        (with(pod(), &json!({"exp": "never"})), "claims_malformed"),
        (with(pod(), &json!({"exp": NOW - 10})), "assertion_expired"),
        (with(pod(), &json!({"exp": NOW + 3601})), "federation_lifetime"),
        (with(pod(), &json!({"iat": null, "exp": NOW + 3631})), "federation_lifetime"),
        (with(short(), &json!({"exp": NOW + 601})), "federation_lifetime"),
        (with(pod(), &json!({"iat": NOW + 31, "exp": NOW + 60})), "assertion_early"),
        (with(pod(), &json!({"iat": NOW + 3600, "exp": NOW + 7000})), "assertion_early"),
        (with(pod(), &json!({"nbf": NOW + 31})), "assertion_early"),
        (with(pod(), &json!({"sub": "system:serviceaccount:pay:default"})), "federation_subject"),
        (with(pod(), &json!({"sub": "SYSTEM:serviceaccount:pay:billing"})), "federation_subject"),
        (with(pod(), &json!({"sub": ""})), "claims_malformed"),
        (with(pod(), &json!({"sub": null})), "assertion_subject"),
        (with(pod(), &json!({"sub": ["system:serviceaccount:pay:billing"]})), "claims_malformed"),
        (with(pod(), &json!({"kubernetes.io": {"namespace": "payroll"}})), "federation_claims"),
        (with(pod(), &json!({"kubernetes.io": "pay"})), "federation_claims"),
        (with(github(NOW), &json!({"sub": "repo:acme@4711/app@815-evil:ref:refs/heads/main"})), "federation_subject"),
        (with(github(NOW), &json!({"sub": "repo:acme@4711/app@815:"})), "federation_subject"),
        (with(github(NOW), &json!({"repository_id": 815})), "federation_claims"),
        (with(github(NOW), &json!({"repository_owner_id": null})), "federation_claims"),
        (with(github(NOW), &json!({"event_name": "pull_request_target"})), "federation_claims"),
        (with(github(NOW), &json!({"jti": null})), "assertion_incomplete"),
        (with(github(NOW), &json!({"jti": ["a"]})), "claims_malformed"),
        (with(oidc(NOW), &json!({"sub": "svc|90"})), "federation_subject"),
        // The subject is never looked up as a client id.
        (with(oidc(NOW), &json!({"sub": "github"})), "federation_subject"),
    ] {
        is_refused(&server, &signer.assert(&claims), reason).await;
        // The grant says the same in its own words.
        let before = refused(&server, reason);
        let at_grant =
            ask_by_grant(&server, &signer.assert(&with(claims.clone(), &json!({"aud": claims["aud"]}))), "").await;
        let names_us = [format!("{ISS}/"), format!("{ISS}/token")].iter().any(|aud| claims["aud"] == **aud);
        if names_us {
            at_grant.ok();
            continue;
        }
        at_grant.refusal(StatusCode::BAD_REQUEST, "invalid_grant");
        assert_eq!(refused(&server, reason), before + 1, "{reason} {claims}");
    }
    for claims in [
        with(pod(), &json!({"aud": ISS})),
        with(pod(), &json!({"exp": NOW - 9, "iat": NOW - 3000})),
        with(pod(), &json!({"iat": null, "nbf": null, "exp": NOW + 3630})),
        with(pod(), &json!({"iat": NOW + 30, "exp": NOW + 60})),
        // How long ago a token was issued does not matter.
        with(pod(), &json!({"iat": NOW - 3590, "exp": NOW + 5})),
        short(),
    ] {
        ask(&server, &signer.assert(&claims)).await.ok();
    }
    // Signed by others, by another trusted issuer, or altered.
    let thief = Signer::rsa("RS256").named("k1");
    is_refused(&server, &thief.assert(&pod()), "jws_signature").await;
    is_refused(&server, &Signer::es256().named("k1").assert(&pod()), "jws_alg").await;
    is_refused(&server, &Signer::rsa("RS256").named("k2").assert(&pod()), "jws_key").await;
    let other = Signer::rsa("RS256").named("k3");
    server
        .store
        .create_trusted_issuer(&pinned("https://second.example", IssuerKind::Kubernetes, &[&other]))
        .await
        .unwrap();
    server.refresh().await;
    is_refused(&server, &other.assert(&pod()), "jws_key").await;
    hand.fetch_add(3611, Ordering::Relaxed);
    is_refused(&server, &signer.assert(&pod()), "assertion_expired").await;
}

async fn an_issuer_is_the_one_that_is_named_byte_for_byte(db: Db) {
    let (server, signer, _) = start(db).await;
    ask(&server, &signer.assert(&kubernetes(AKS, NOW))).await.ok();
    let github_host = "https://token.actions.githubusercontent.com";
    for iss in [
        AKS.trim_end_matches('/'),
        &format!("{AKS}/"),
        &format!("{github_host}/"),
        "https://TOKEN.actions.githubusercontent.com",
        "https://token.actions.githubusercontent.com.evil.example",
        "https://token.actions.githubusercontent.com@evil.example",
        "https://token.actions.githubusercontent.com/../x",
        "https://token.actions.githubusercontent%2ecom",
        "http://token.actions.githubusercontent.com",
        "https://evil.example",
    ] {
        let claims = if iss.contains("aks") { kubernetes(iss, NOW) } else { with(github(NOW), &json!({"iss": iss})) };
        is_refused(&server, &signer.assert(&claims), "federation_issuer").await;
        let before = refused(&server, "federation_issuer");
        ask_by_grant(&server, &signer.assert(&claims), "").await.refusal(StatusCode::BAD_REQUEST, "invalid_grant");
        assert_eq!(refused(&server, "federation_issuer"), before + 1);
    }
    // Neither an issuer nor the client: as for any assertion.
    is_refused(&server, &signer.assert(&with(github(NOW), &json!({"iss": "somebody"}))), "assertion_subject").await;
    is_refused(&server, &signer.assert(&with(github(NOW), &json!({"iss": null}))), "assertion_subject").await;
}

async fn the_only_client_with_a_matching_rule_is_meant(db: Db) {
    let (server, signer, _) = start(db).await;
    let store = &server.store;
    let token = |changes: Value| signer.assert(&with(with(oidc(NOW), &json!({"jti": jti()})), &changes));
    let named = |id: &str| format!("grant_type=client_credentials&client_id={id}");
    assert_eq!(of(&ask(&server, &token(json!({}))).await), "oidc");
    // A second client with a rule for the same subject: only a client_id says which.
    federated(store, "second", OIDC, "svc|9", &json!({"azp": "x"})).await;
    server.refresh().await;
    is_refused(&server, &token(json!({})), "federation_ambiguous").await;
    assert_eq!(of(&ask_at(&server, "/token", &named("second"), &token(json!({}))).await), "second");
    assert_eq!(of(&ask_at(&server, "/token", &named("oidc"), &token(json!({}))).await), "oidc");
    assert_eq!(of(&ask(&server, &token(json!({"azp": "y"}))).await), "oidc");
    ask_at(&server, "/token", &named("github"), &token(json!({}))).await.unauthorized();
    ask_at(&server, "/token", &named("nobody"), &token(json!({}))).await.unauthorized();
    // A rule that has expired, or is of a disabled client, does not count.
    let mut over = rule("over", OIDC, "svc|9", &json!({}));
    over.expires_at = Some(UnixTime(NOW));
    store.remove_federation_rule("second", "rule-of-second").await.unwrap();
    store.add_federation_rule("second", &over, "").await.unwrap();
    server.refresh().await;
    assert_eq!(of(&ask(&server, &token(json!({}))).await), "oidc");
    let before = refused(&server, "federation_rule_expired");
    ask_at(&server, "/token", &named("second"), &token(json!({}))).await.unauthorized();
    assert_eq!(refused(&server, "federation_rule_expired"), before + 1);
    store.add_federation_rule("second", &rule("again", OIDC, "svc|9", &json!({})), "").await.unwrap();
    store.set_client_enabled("oidc", false).await.unwrap();
    server.refresh().await;
    assert_eq!(of(&ask(&server, &token(json!({}))).await), "second");
    // Two rules of one client are no conflict.
    store.add_federation_rule("second", &rule("third", OIDC, "svc|9", &json!({})), "").await.unwrap();
    server.refresh().await;
    assert_eq!(of(&ask(&server, &token(json!({}))).await), "second");
    store.set_client_enabled("second", false).await.unwrap();
    server.refresh().await;
    is_refused(&server, &token(json!({})), "client_disabled").await;
}

async fn a_job_token_works_once_and_a_pod_token_until_it_expires(db: Db) {
    let (server, signer, hand) = start(db).await;
    let replica = server.replica().await;
    for claims in [github(NOW), gitlab(NOW), oidc(NOW)] {
        let token = signer.assert(&claims);
        ask(&server, &token).await.ok();
        for server in [&server, &replica] {
            is_refused(server, &token, "federation_replayed").await;
            ask_by_grant(server, &token, "").await.refusal(StatusCode::BAD_REQUEST, "invalid_grant");
        }
    }
    // An id belongs to its issuer.
    let id = jti();
    ask(&server, &signer.assert(&with(github(NOW), &json!({"jti": id})))).await.ok();
    ask(&server, &signer.assert(&with(gitlab(NOW), &json!({"jti": id})))).await.ok();
    // A refused authentication does not use it; a refused scope does.
    let token = signer.assert(&github(NOW));
    ask_at(&server, "/token", "grant_type=client_credentials&client_id=gitlab", &token).await.unauthorized();
    ask_at(&server, "/token", "grant_type=client_credentials&scope=none", &token).await.error("invalid_scope");
    is_refused(&server, &token, "federation_replayed").await;
    // Of fifty at once, one is accepted.
    let token = signer.assert(&github(NOW));
    let all = futures_util::future::join_all((0..50).map(|_| ask(&server, &token))).await;
    assert_eq!(all.iter().filter(|answer| answer.status == StatusCode::OK).count(), 1);
    let pod = signer.assert(&kubernetes(CLUSTER, NOW));
    for server in [&server, &replica, &server] {
        ask(server, &pod).await.ok();
        ask_by_grant(server, &pod, "").await.ok();
    }
    hand.fetch_add(3609, Ordering::Relaxed);
    ask(&server, &pod).await.ok();
    hand.fetch_add(1, Ordering::Relaxed);
    is_refused(&server, &pod, "assertion_expired").await;
}

async fn a_token_of_another_kind_is_no_proof_of_identity(db: Db) {
    let (server, signer, _) = start(db).await;
    let token = |typ: Option<&str>| {
        let header = match typ {
            Some(typ) => json!({"alg": "RS256", "kid": "k1", "typ": typ}),
            None => json!({"alg": "RS256", "kid": "k1"}),
        };
        signer.sign(&header.to_string(), &kubernetes(CLUSTER, NOW).to_string())
    };
    for typ in [None, Some("JWT"), Some("jwt"), Some("JOSE"), Some("application/jwt"), Some("Application/JOSE")] {
        ask(&server, &token(typ)).await.ok();
    }
    for typ in ["at+jwt", "dpop+jwt", "client-authentication+jwt", "application/at+jwt", "id_token+jwt", "x+jwt", ""] {
        is_refused(&server, &token(Some(typ)), "jws_typ").await;
        ask_by_grant(&server, &token(Some(typ)), "").await.refusal(StatusCode::BAD_REQUEST, "invalid_grant");
    }
}

async fn the_grant_takes_no_other_authentication(db: Db) {
    let (server, signer, _) = start(db).await;
    let pod = signer.assert(&kubernetes(CLUSTER, NOW));
    server.post(&[], GRANT).await.error("invalid_request");
    server.post(&[], format!("{GRANT}&assertion=")).await.error("invalid_request");
    server.post(&[], format!("{GRANT}&assertion={pod}&assertion={pod}")).await.error("invalid_request");
    for beside in [
        "&client_secret=x&client_id=cluster",
        "&client_secret=",
        &format!("&client_assertion={pod}"),
        "&client_assertion_type=x",
    ] {
        ask_by_grant(&server, &pod, beside).await.error("invalid_request");
    }
    let basic = crate::harness::basic("cluster", "x");
    let answer = server.post(&[("authorization", &basic)], format!("{GRANT}&assertion={pod}")).await;
    answer.error("invalid_request");
    ask_by_grant(&server, "x.y.z", "").await.refusal(StatusCode::BAD_REQUEST, "invalid_grant");
    // A client's own assertion is no grant.
    let own = Signer::es256();
    server.store.create_client(&client("own"), None).await.unwrap();
    server.store.add_client_keys("own", &[own.stored()]).await.unwrap();
    server.refresh().await;
    let assertion = || own.assert(&crate::assertion::claims_at("own", NOW));
    ask_by_grant(&server, &assertion(), "").await.refusal(StatusCode::BAD_REQUEST, "invalid_grant");
    ask(&server, &assertion()).await.ok();
    // RFC 7523 errata and its successor: for a grant, the token endpoint may be the audience.
    for aud in [format!("{ISS}/token"), format!("{ISS}/"), ISS.to_owned()] {
        let token = signer.assert(&with(kubernetes(CLUSTER, NOW), &json!({"aud": [aud]})));
        ask_by_grant(&server, &token, "").await.ok();
    }
    let mut elsewhere = pinned("https://elsewhere.example", IssuerKind::Kubernetes, &[&signer]);
    elsewhere.audience = Some("api://grantd".into());
    server.store.create_trusted_issuer(&elsewhere).await.unwrap();
    federated(&server.store, "elsewhere", "https://elsewhere.example", "system:serviceaccount:pay:billing", &json!({}))
        .await;
    server.refresh().await;
    let for_it = |aud: &str| signer.assert(&with(kubernetes("https://elsewhere.example", NOW), &json!({"aud": [aud]})));
    ask_by_grant(&server, &for_it("api://grantd"), "").await.ok();
    ask(&server, &for_it("api://grantd")).await.ok();
    for aud in [ISS, &format!("{ISS}/token"), "api://grantd/"] {
        ask_by_grant(&server, &for_it(aud), "").await.refusal(StatusCode::BAD_REQUEST, "invalid_grant");
    }
}

async fn a_client_uses_the_grant_if_it_is_registered_for_it(db: Db) {
    let (server, signer, _) = start(db).await;
    let pod = signer.assert(&kubernetes(CLUSTER, NOW));
    let set = async |grants: &str| {
        let sql = format!("update client set grant_types = '{grants}' where client_id = 'cluster'");
        server.db.sql(&sql).await.unwrap();
        server.refresh().await;
    };
    set("client_credentials").await;
    ask(&server, &pod).await.ok();
    ask_by_grant(&server, &pod, "").await.error("unauthorized_client");
    // Not before the token has proved who it is.
    let wrong = signer.assert(&with(kubernetes(CLUSTER, NOW), &json!({"aud": "x"})));
    ask_by_grant(&server, &wrong, "").await.refusal(StatusCode::BAD_REQUEST, "invalid_grant");
    set("urn:ietf:params:oauth:grant-type:jwt-bearer").await;
    ask(&server, &pod).await.error("unauthorized_client");
    ask_by_grant(&server, &pod, "").await.ok();
    let changed = server.store.update_client::<grantd::store::StoreError>("cluster", |client, _| {
        client.set_grant_types("client_credentials urn:ietf:params:oauth:grant-type:jwt-bearer");
        Ok(())
    });
    assert!(changed.await.unwrap().unwrap().1);
    server.refresh().await;
    ask(&server, &pod).await.ok();
    ask_by_grant(&server, &pod, "").await.ok();
    let refused = server.db.sql("update client set grant_types = 'jwt-bearer'").await.unwrap_err().to_string();
    assert!(refused.contains("grant_types: names separated by spaces, or empty for none"), "{refused}");
}

async fn disabling_takes_effect(db: Db) {
    let (server, signer, _) = start(db).await;
    let pod = signer.assert(&kubernetes(CLUSTER, NOW));
    ask(&server, &pod).await.ok();
    let set = async |sql: &str| {
        server.db.sql(sql).await.unwrap();
        server.refresh().await;
    };
    set("update client set auth_methods = 'client_secret_basic' where client_id = 'cluster'").await;
    is_refused(&server, &pod, "auth_method_not_allowed").await;
    set("update client set auth_methods = 'private_key_jwt' where client_id = 'cluster'").await;
    ask(&server, &pod).await.ok();
    set("update trusted_issuer set enabled = 0").await;
    is_refused(&server, &pod, "federation_issuer").await;
    ask_by_grant(&server, &pod, "").await.error("unsupported_grant_type");
    set("update trusted_issuer set enabled = 1").await;
    ask(&server, &pod).await.ok();
    set("update client_federation set expires_at = 1800000000 where client_id = 'cluster'").await;
    is_refused(&server, &pod, "federation_rule_expired").await;
    set("delete from client_federation").await;
    is_refused(&server, &pod, "federation_subject").await;
    set("delete from trusted_issuer").await;
    is_refused(&server, &pod, "federation_issuer").await;
}

async fn a_rule_that_lost_its_pins_matches_nothing(db: Db) {
    let (server, signer, _) = start(db).await;
    // Each rule was right when it was written: before its issuer, or for another kind.
    server.db.sql("update trusted_issuer set kind = 'github' where kind = 'oidc'").await.unwrap();
    federated(
        &server.store,
        "early",
        "https://late.example",
        "repo:*",
        &json!({"repository_id": "1", "repository_owner_id": "2"}),
    )
    .await;
    server.store.create_trusted_issuer(&pinned("https://late.example", IssuerKind::Github, &[&signer])).await.unwrap();
    server.refresh().await;
    is_refused(&server, &signer.assert(&oidc(NOW)), "federation_pin").await;
    let late = json!({"iss": "https://late.example", "repository_id": "1", "repository_owner_id": "2"});
    is_refused(&server, &signer.assert(&with(github(NOW), &late)), "federation_pin").await;
}

async fn an_issuer_that_is_this_server_is_refused(db: Db) {
    let (server, _, _) = start(db).await;
    let (store, own) = (&server.store, Signer::es256());
    store.create_trusted_issuer(&pinned(ISS, IssuerKind::Oidc, &[&own])).await.unwrap();
    federated(store, "self", ISS, "cluster", &json!({})).await;
    server.refresh().await;
    let claims = with(oidc(NOW), &json!({"iss": ISS, "sub": "cluster"}));
    is_refused(&server, &own.assert(&claims), "federation_issuer").await;
    // Once the server has written its issuer down, the database refuses it.
    server.db.sql("delete from trusted_issuer").await.unwrap();
    store.record_own_issuer(ISS).await.unwrap();
    store.record_own_issuer(ISS).await.unwrap();
    let refused = store.create_trusted_issuer(&pinned(ISS, IssuerKind::Oidc, &[&own])).await.unwrap_err().to_string();
    assert_eq!(refused, "issuer: that is this server; its own tokens prove nothing");
}

async fn tokens_are_known_again_until_something_changes(db: Db) {
    let (server, signer, _) = start(db).await;
    let pod = signer.assert(&kubernetes(CLUSTER, NOW));
    let knows = |token: &str| {
        let door = grantd::protocol::federation::Door::ClientAuthentication;
        server.server.authenticator.known_token(token, door, UnixTime(NOW)).is_some()
    };
    assert!(!knows(&pod));
    ask(&server, &pod).await.ok();
    assert!(knows(&pod));
    assert_eq!(of(&ask(&server, &pod).await), "cluster");
    // Both uses are one to be written.
    let uses = server.server.registry.uses.times();
    assert_eq!(uses.rules, [("rule-of-cluster".into(), UnixTime(NOW))]);
    server.store.record_last_used(&uses).await.unwrap();
    server.store.record_last_used(&uses).await.unwrap();
    let rules = server.store.federation_rules_of_client("cluster").await.unwrap();
    assert_eq!((rules.len(), rules[0].last_used_at), (1, Some(UnixTime(NOW))));
    // By the other door it has to be for us, too.
    let for_endpoint = signer.assert(&with(kubernetes(CLUSTER, NOW), &json!({"aud": [format!("{ISS}/token")]})));
    ask_by_grant(&server, &for_endpoint, "").await.ok();
    ask(&server, &for_endpoint).await.unauthorized();
    // A token that differs in a byte is another one.
    let mut altered = pod.clone();
    altered.replace_range(
        altered.len() - 9..altered.len() - 8,
        if pod.as_bytes()[pod.len() - 9] == b'A' { "B" } else { "A" },
    );
    is_refused(&server, &altered, "jws_signature").await;
    // What works once is never known again.
    let job = signer.assert(&github(NOW));
    ask(&server, &job).await.ok();
    assert!(!knows(&job));
    // Another client's rule makes it ambiguous, at once.
    federated(&server.store, "second", CLUSTER, "system:serviceaccount:pay:billing", &json!({})).await;
    server.refresh().await;
    is_refused(&server, &pod, "federation_ambiguous").await;
    server.store.delete_client("second").await.unwrap();
    server.refresh().await;
    ask(&server, &pod).await.ok();
    // Other keys, or another audience.
    let other = Signer::rsa("RS256").named("k1");
    let jwks = json!({"keys": [other.jwk()]}).to_string();
    server.db.sql(&format!("update trusted_issuer set jwks = '{jwks}' where issuer = '{CLUSTER}'")).await.unwrap();
    server.refresh().await;
    assert!(!knows(&pod));
    is_refused(&server, &pod, "jws_signature").await;
    ask(&server, &other.assert(&kubernetes(CLUSTER, NOW))).await.ok();
}

async fn introspection_and_revocation_take_federated_tokens(db: Db) {
    let (server, signer, _) = start(db).await;
    let pod = signer.assert(&kubernetes(CLUSTER, NOW));
    let token = ask(&server, &pod).await.access_token();
    for path in ["/introspect", "/revoke"] {
        let wrong = signer.assert(&with(kubernetes(CLUSTER, NOW), &json!({"aud": "x"})));
        ask_at(&server, path, &format!("token={token}"), &wrong).await.unauthorized();
        let answer = ask_at(&server, path, &format!("token={token}"), &pod).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
    }
    let job = signer.assert(&github(NOW));
    ask_at(&server, "/introspect", "token=x", &job).await;
    ask_at(&server, "/introspect", "token=x", &job).await.unauthorized();
    // The grant is one of the token endpoint.
    let answer = server.post_to("/introspect", &[], format!("assertion={pod}&token={token}")).await;
    answer.unauthorized();
}

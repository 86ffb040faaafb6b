//! The refusals of `profile = "fapi2"` beyond the RFCs, and the metadata under it. Its cipher suites are in
//! `mutual_tls`, its nonces in `dpop`, least privilege in `token_endpoint` and `discovery`.

use std::sync::Arc;

use axum::http::StatusCode;
use grantd::crypto::certificate::Certificate;
use grantd::http::Caller;
use grantd::model::certificate::PeerCertificate;
use grantd::model::client::Client;
use grantd::model::resource::Resource;
use serde_json::{Value, json};

use crate::assertion::{Signer, TYPE, claims};
use crate::dpop::Prover;
use crate::harness::{Answer, Db, Server, Setup, basic, client, form};
use crate::mutual_tls::self_signed;
use crate::process::daemon::Grantd;

on_both!(
    the_metadata_lists_only_features_that_the_profile_permits,
    secrets_are_refused_at_every_endpoint_before_they_are_verified,
    every_token_is_bound,
    every_algorithm_but_rs256_is_accepted,
    aud_is_a_string_and_clocks_may_differ_a_little,
    a_resource_cannot_bring_rs256_back,
    introspection_is_signed_for_callers_that_authenticate_with_a_key,
    credentials_and_keys_that_the_profile_makes_useless_are_reported,
);

const FORM: &str = "grant_type=client_credentials";

async fn setup(db: Db) -> Setup {
    let mut setup = Setup::new(db).await;
    setup.settings.profile = "fapi2".into();
    setup.settings.server.cleartext = "behind-proxy".into();
    setup
}

/// A server with the client `jwt-client`, and who signs for it.
async fn with_jwt_client(db: Db, signer: Signer) -> (Server, Signer) {
    let setup = setup(db).await;
    setup.store.create_client(&client("jwt-client"), None).await.unwrap();
    setup.store.add_client_keys("jwt-client", &[signer.stored()]).await.unwrap();
    (setup.start().await, signer)
}

/// Asks with an assertion and, where there is one, a proof.
async fn ask(server: &Server, assertion: &str, proof: Option<&str>) -> Answer {
    let body = format!("{FORM}&client_assertion_type={TYPE}&client_assertion={assertion}");
    let fields: Vec<_> = proof.map(|proof| ("dpop", proof)).into_iter().collect();
    server.post(&fields, body).await
}

async fn the_metadata_lists_only_features_that_the_profile_permits(db: Db) {
    let mut setup = setup(db).await;
    setup.settings.server.client_cert_header = true;
    setup.settings.server.trusted_proxies = vec!["192.0.2.1".into()];
    let metadata = setup.start().await.get("/.well-known/oauth-authorization-server").await.json();
    let methods = json!(["private_key_jwt", "self_signed_tls_client_auth"]);
    let algs = json!(["ES256", "EdDSA", "Ed25519", "PS256"]);
    for endpoint in ["token_endpoint", "introspection_endpoint", "revocation_endpoint"] {
        assert_eq!(metadata[format!("{endpoint}_auth_methods_supported")], methods, "{endpoint}");
        assert_eq!(metadata[format!("{endpoint}_auth_signing_alg_values_supported")], algs, "{endpoint}");
    }
    assert_eq!(metadata["dpop_signing_alg_values_supported"], algs);
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true);
    assert_eq!(metadata["grant_types_supported"], json!(["client_credentials"]), "no password grant");
}

async fn secrets_are_refused_at_every_endpoint_before_they_are_verified(db: Db) {
    let setup = setup(db).await;
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    let prover = Prover::new();
    for path in ["/token", "/introspect", "/revoke"] {
        for (id, secret) in [("basic-client", &*secret), ("basic-client", "wrong"), ("nobody", "x")] {
            // RFC 6749 section 5.2: who tried Basic is answered 401 with its challenge.
            let fields = [("authorization", &*basic(id, secret)), ("dpop", &*prover.proof())];
            server.post_to(path, &fields, format!("{FORM}&token=x")).await.unauthorized();
            // Only the methods of the profile are challenged.
            let body = format!("{FORM}&token=x&client_id={id}&client_secret={secret}");
            server.post_to(path, &[("dpop", &prover.proof())], body).await.error("invalid_client");
        }
        server.post_to(path, &[], format!("{FORM}&token=x")).await.error("invalid_client");
    }
    assert_eq!(server.server.authenticator.lane.verifications.get(), 0);
}

async fn every_token_is_bound(db: Db) {
    let (server, signer) = with_jwt_client(db, Signer::es256()).await;
    let prover = Prover::new();
    ask(&server, &signer.fresh("jwt-client"), None).await.error("invalid_request");
    let bound = ask(&server, &signer.fresh("jwt-client"), Some(&prover.proof())).await;
    bound.ok_of_type("DPoP");
    assert_eq!(bound.token().1["cnf"], json!({"jkt": prover.jkt()}));

    // A certificate of anybody's binds as well, where it is on the connection.
    let certificate = Arc::new(Certificate::parse(&self_signed("svc").chain()[0]).unwrap());
    let caller = Caller {
        address: ([192, 0, 2, 1], 4711).into(),
        certificate: Some(PeerCertificate {
            intermediates: Arc::default(),
            certificate: Arc::clone(&certificate),
            ca_verified: Err("no CA".into()),
        }),
    };
    let body = format!("{FORM}&client_assertion_type={TYPE}&client_assertion={}", signer.fresh("jwt-client"));
    let bound = server.send_by(&caller, form("/token", &[], body)).await;
    bound.ok();
    assert_eq!(bound.token().1["cnf"], json!({"x5t#S256": certificate.x5t_s256()}));
}

async fn every_algorithm_but_rs256_is_accepted(db: Db) {
    let setup = setup(db).await;
    let signers = [Signer::es256(), Signer::ed25519(), Signer::rsa("PS256"), Signer::rsa("RS256")];
    for signer in &signers {
        let id = signer.alg().to_lowercase();
        setup.store.create_client(&client(&id), None).await.unwrap();
        setup.store.add_client_keys(&id, &[signer.stored()]).await.unwrap();
    }
    let server = setup.start().await;
    let prover = Prover::new();
    for signer in &signers {
        let answer = ask(&server, &signer.fresh(&signer.alg().to_lowercase()), Some(&prover.proof())).await;
        let proof = signer.proof_by(signer.alg());
        let by_proof = ask(&server, &signers[0].fresh("es256"), Some(&proof)).await;
        if signer.alg() == "RS256" {
            answer.error("invalid_client");
            by_proof.error("invalid_dpop_proof");
        } else {
            answer.ok_of_type("DPoP");
            by_proof.ok_of_type("DPoP");
        }
    }
}

async fn aud_is_a_string_and_clocks_may_differ_a_little(db: Db) {
    let (server, signer) = with_jwt_client(db, Signer::es256()).await;
    let prover = Prover::new();
    let with = |name: &str, value: Value| {
        let mut claims = claims("jwt-client");
        claims[name] = value;
        signer.assert(&claims)
    };
    let now = claims("jwt-client")["iat"].as_i64().unwrap();
    for good in [with("iat", (now + 8).into()), with("nbf", (now + 8).into())] {
        ask(&server, &good, Some(&prover.proof())).await.ok_of_type("DPoP");
    }
    let bad = [
        with("aud", json!(["https://as.test"])),
        with("aud", "https://as.test/token".into()),
        with("iat", (now + 62).into()),
        with("nbf", (now + 62).into()),
    ];
    for bad in bad {
        ask(&server, &bad, Some(&prover.proof())).await.error("invalid_client");
    }
}

async fn a_resource_cannot_bring_rs256_back(db: Db) {
    let setup = setup(db).await;
    let resource = Resource {
        identifier: "https://api1.test".parse().unwrap(),
        scope: "api:read".parse().unwrap(),
        alg: Some(grantd::crypto::jwk::Alg::Rs256),
        token_ttl: None,
        token_typ: grantd::model::resource::TokenTyp::default(),
        status_list: false,
        introspectors: Vec::new(),
    };
    setup.save(resource).await;
    let signer = Signer::es256();
    let jwt_client = Client { resources: ["https://api1.test".parse().unwrap()].into(), ..client("jwt-client") };
    setup.store.create_client(&jwt_client, None).await.unwrap();
    setup.store.add_client_keys("jwt-client", &[signer.stored()]).await.unwrap();
    let server = setup.start().await;
    let answer = ask(&server, &signer.fresh("jwt-client"), Some(&Prover::new().proof())).await;
    answer.refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
}

async fn introspection_is_signed_for_callers_that_authenticate_with_a_key(db: Db) {
    let setup = setup(db).await;
    let resource = Resource {
        identifier: "https://api1.test".parse().unwrap(),
        scope: "api:read".parse().unwrap(),
        alg: None,
        token_ttl: None,
        token_typ: grantd::model::resource::TokenTyp::default(),
        status_list: false,
        introspectors: vec!["rs1".parse().unwrap()],
    };
    let (signer, of_rs) = (Signer::es256(), Signer::es256());
    let jwt_client = Client { resources: ["https://api1.test".parse().unwrap()].into(), ..client("jwt-client") };
    setup.store.create_client(&client("rs1"), None).await.unwrap();
    setup.store.add_client_keys("rs1", &[of_rs.stored()]).await.unwrap();
    setup.save(resource).await;
    setup.store.create_client(&jwt_client, None).await.unwrap();
    setup.store.add_client_keys("jwt-client", &[signer.stored()]).await.unwrap();
    let server = setup.start().await;
    let token = ask(&server, &signer.fresh("jwt-client"), Some(&Prover::new().proof())).await.access_token();
    let body = format!("token={token}&client_assertion_type={TYPE}&client_assertion={}", of_rs.fresh("rs1"));
    let fields = [("accept", "application/token-introspection+jwt")];
    let answer = server.post_to("/introspect", &fields, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.header("content-type"), "application/token-introspection+jwt");
    assert_eq!(answer.body.split('.').count(), 3);
}

async fn credentials_and_keys_that_the_profile_makes_useless_are_reported(db: Db) {
    let grantd = Grantd::new(&db)
        .with("GRANTD__PROFILE", "fapi2")
        .with("GRANTD__ISSUER", "https://as.test")
        .with("GRANTD__SERVER__CLEARTEXT", "behind-proxy");
    grantd.ok(&["migrate"]).await;
    let created = grantd.ok(&["client", "create", "old", "--scope", "api:read"]).await;
    assert!(created.stderr.contains("refuses secrets"), "{created:?}");
    let created = grantd.ok(&["client", "create", "new", "--scope", "api:read", "--no-secret"]).await;
    assert!(!created.stderr.contains("refuses"), "{created:?}");
    grantd.ok(&["resource", "create", "https://api1.test", "--scope", "api:read", "--alg", "RS256"]).await;
    let doctor = grantd.run(&["doctor"]).await;
    assert_eq!(doctor.status.code(), Some(1));
    let said = doctor.stdout;
    assert_eq!(said.lines().filter(|line| line.contains("fapi2")).count(), 2, "{said}");
    assert!(said.contains("client old: the fapi2 profile refuses secrets; `grantd client key add old`"), "{said}");
    assert!(said.contains("`grantd resource set https://api1.test --alg ES256`"), "{said}");
}

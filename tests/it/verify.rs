//! `GET /verify`: what a gateway is told of a request to an API.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderValue, Request};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::client_certificates::register;
use crate::dpop::Prover;
use crate::harness::{Answer, Db, ISS, Server, Setup, basic, client, form};
use crate::mutual_tls::{Identity, self_signed};
use grantd::crypto::certificate::Certificate;
use grantd::http::Caller;
use grantd::http::log::VerificationLabels;
use grantd::model::certificate::PeerCertificate;
use grantd::model::client::Client;
use grantd::model::resource::{Resource, TokenTyp};
use grantd::model::time::Clock;
use grantd::state::registry::Freshness;

on_both!(
    a_valid_token_passes_by_any_method_and_names_its_client_to_the_gateway,
    a_request_without_a_valid_token_gets_the_challenges_of_the_rfcs,
    revoked_tokens_and_those_of_disabled_or_deleted_clients_do_not_pass,
    a_question_that_is_malformed_is_the_gateways_fault,
    a_token_bound_to_a_key_passes_with_a_proof_for_the_request_that_is_held_back,
    a_token_bound_to_a_certificate_passes_with_that_certificate,
    verify_answers_503_when_the_answer_cannot_be_known,
);

const API: &str = "https://api.test";
const PROXY: [u8; 4] = [10, 0, 0, 1];

/// A server behind a gateway that it trusts, with the resource [`API`] and the client `basic-client`.
async fn set_up(db: Db, change: impl FnOnce(&mut Setup)) -> (Server, String) {
    let mut setup = Setup::new(db).await;
    setup.settings.server.trusted_proxies = vec!["10.0.0.0/8".into()];
    change(&mut setup);
    setup.resource(API, "api:read api:write").await;
    setup.resource("https://other.test", "api:read").await;
    let resources = [API.parse().unwrap(), "https://other.test".parse().unwrap()].into();
    let secret = setup.client(Client { resources, ..client("basic-client") }).await;
    (setup.start().await, secret)
}

fn asked(query: &str, fields: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::get(format!("/verify?{query}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

async fn verify_from(server: &Server, from: [u8; 4], query: &str, fields: &[(&str, &str)]) -> Answer {
    server.send_from((from, 4711), asked(query, fields)).await
}

async fn verify(server: &Server, query: &str, fields: &[(&str, &str)]) -> Answer {
    verify_from(server, PROXY, query, fields).await
}

async fn with_bearer(server: &Server, token: &str, scope: &str) -> Answer {
    let query = format!("resource=https%3A%2F%2Fapi.test{scope}");
    verify(server, &query, &[("authorization", &format!("Bearer {token}"))]).await
}

async fn token_for(server: &Server, secret: &str, further: &str) -> String {
    server.basic("basic-client", secret, &format!("&resource={API}{further}")).await.access_token()
}

fn count(server: &Server, result: &'static str, reason: &'static str) -> u64 {
    server.counts.verifications.get_or_create(&VerificationLabels { result, reason }).get()
}

#[track_caller]
fn passes(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), &*answer.body), (204, ""), "{answer:?}");
}

/// A refusal by a gateway, with the code and the scheme that the challenge begins with.
#[track_caller]
fn refused(answer: &Answer, status: u16, begins: &str) {
    assert_eq!(answer.status.as_u16(), status, "{answer:?}");
    let challenge = answer.header("www-authenticate");
    assert!(challenge.starts_with(begins), "{challenge}");
    assert!(challenge.contains("DPoP realm=\"grantd\", algs=\"ES256 ") && challenge.contains("Bearer"), "{challenge}");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("x-auth-")), "{answer:?}");
}

async fn a_valid_token_passes_by_any_method_and_names_its_client_to_the_gateway(db: Db) {
    let (server, secret) = set_up(db, |_| ()).await;
    let token = token_for(&server, &secret, "&scope=api:read+api:write").await;
    for scope in ["", "&scope=", "&scope=api:read", "&scope=api:write+api:read", "&scope=api:read&unknown=1"] {
        let answer = with_bearer(&server, &token, scope).await;
        passes(&answer);
        let told =
            ["x-auth-client-id", "x-auth-subject", "x-auth-scope", "cache-control"].map(|name| answer.header(name));
        assert_eq!(told, ["basic-client", "basic-client", "api:read api:write", "no-store"]);
    }
    // What the client of the API says of itself is not repeated.
    let mut request = asked(&format!("resource={API}"), &[("authorization", &format!("bEaRer  {token}"))]);
    request.headers_mut().insert("x-auth-client-id", HeaderValue::from_static("admin"));
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let asked =
            Request::builder().method(method).uri(request.uri()).header("authorization", format!("Bearer {token}"));
        passes(&server.send(asked.body(Body::empty()).unwrap()).await);
    }
    assert_eq!(server.send(request).await.header("x-auth-client-id"), "basic-client");
    assert_eq!(count(&server, "passed", "ok"), 14);

    // Below the issuer's path, and for an audience that no resource is registered for.
    let mut setup = Setup::new(Db::sqlite()).await;
    setup.settings.issuer = "https://as.test/tenant".into();
    setup.settings.token.audience = "urn:all".into();
    setup.save(typ_jwt("https://spring.test")).await;
    let plain = setup.client(client("plain")).await;
    let spring = Client { resources: ["https://spring.test".parse().unwrap()].into(), ..client("spring") };
    let spring_secret = setup.client(spring).await;
    let server = setup.start().await;
    for (id, secret, resource) in [("plain", plain, "urn:all"), ("spring", spring_secret, "https://spring.test")] {
        let posted = form("/tenant/token", &[("authorization", &basic(id, &secret))], "grant_type=client_credentials");
        let bearer = format!("Bearer {}", server.send(posted).await.access_token());
        let request = Request::get(format!("/tenant/verify?resource={resource}")).header("authorization", &bearer);
        passes(&server.send(request.body(Body::empty()).unwrap()).await);
        let elsewhere = Request::get(format!("/verify?resource={resource}")).header("authorization", &bearer);
        assert_eq!(server.send(elsewhere.body(Body::empty()).unwrap()).await.status, 404);
    }
}

fn typ_jwt(identifier: &str) -> Resource {
    Resource {
        identifier: identifier.parse().unwrap(),
        scope: "api:read".parse().unwrap(),
        alg: None,
        token_ttl: None,
        token_typ: TokenTyp::Jwt,
        status_list: false,
        introspectors: Vec::new(),
    }
}

async fn a_request_without_a_valid_token_gets_the_challenges_of_the_rfcs(db: Db) {
    let (clock, hand) = Clock::fixed(1_700_000_000);
    let (server, secret) = set_up(db, |setup| setup.clock = clock).await;
    let query = format!("resource={API}");
    // RFC 6750 section 3.1: no error code where there is no token.
    let basic = basic("basic-client", &secret);
    for fields in [&[][..], &[("authorization", &*basic)], &[("authorization", "")], &[("authorization", "Digest x")]] {
        let answer = verify(&server, &query, fields).await;
        refused(&answer, 401, "Bearer realm=\"grantd\", DPoP realm=\"grantd\", algs=");
        assert!(
            !answer.header("www-authenticate").contains("error") && !answer.body.contains("\"error\""),
            "{answer:?}"
        );
    }
    let token = token_for(&server, &secret, "").await;
    let bearer = format!("Bearer {token}");
    let twice = verify(&server, &query, &[("authorization", &bearer), ("authorization", &bearer)]).await;
    refused(&twice, 401, "Bearer realm=\"grantd\", error=\"invalid_request\"");
    let of_other = server.basic("basic-client", &secret, "&resource=https://other.test").await.access_token();
    for bad in ["", "garbage", "a.b.c", &token[1..], &format!("{token}x"), &format!("{token} {token}"), &*of_other] {
        refused(
            &with_bearer(&server, bad, "").await,
            401,
            "Bearer realm=\"grantd\", error=\"invalid_token\", error_description=\"",
        );
    }
    let lacking = with_bearer(&server, &token, "&scope=api:read+api:write").await;
    refused(&lacking, 403, "Bearer realm=\"grantd\", error=\"insufficient_scope\"");
    assert!(lacking.header("www-authenticate").contains("scope=\"api:read api:write\""), "{lacking:?}");
    assert_eq!((count(&server, "refused", "token_scope"), count(&server, "refused", "token_audience")), (1, 1));
    passes(&with_bearer(&server, &token, "&scope=api:read").await);
    hand.store(1_700_003_600, Ordering::Relaxed);
    let expired = with_bearer(&server, &token, "").await;
    refused(
        &expired,
        401,
        "Bearer realm=\"grantd\", error=\"invalid_token\", error_description=\"the access token has expired\"",
    );
}

async fn revoked_tokens_and_those_of_disabled_or_deleted_clients_do_not_pass(db: Db) {
    let (server, secret) = set_up(db, |_| ()).await;
    let (token, other) = (token_for(&server, &secret, "").await, token_for(&server, &secret, "").await);
    server.revoke("basic-client", &secret, &token).await;
    refused(&with_bearer(&server, &token, "").await, 401, "Bearer realm=\"grantd\", error=\"invalid_token\"");
    passes(&with_bearer(&server, &other, "").await);
    server.db.sql("update client set enabled = 0 where client_id = 'basic-client'").await.unwrap();
    server.refresh().await;
    refused(&with_bearer(&server, &other, "").await, 401, "Bearer realm=\"grantd\", error=\"invalid_token\"");
    server.db.sql("update client set enabled = 1 where client_id = 'basic-client'").await.unwrap();
    server.refresh().await;
    passes(&with_bearer(&server, &other, "").await);
    let cut = format!("update client set not_before = {} where client_id = 'basic-client'", Clock::System.now().0);
    server.db.sql(&cut).await.unwrap();
    server.refresh().await;
    refused(&with_bearer(&server, &other, "").await, 401, "Bearer realm=\"grantd\", error=\"invalid_token\"");
    server.db.sql("delete from client where client_id = 'basic-client'").await.unwrap();
    server.refresh().await;
    refused(&with_bearer(&server, &other, "").await, 401, "Bearer realm=\"grantd\", error=\"invalid_token\"");
    for reason in ["token_revoked", "token_client_disabled", "token_cut_off", "token_client_unknown"] {
        assert_eq!(count(&server, "refused", reason), 1, "{reason}");
    }
}

async fn a_question_that_is_malformed_is_the_gateways_fault(db: Db) {
    let (server, secret) = set_up(db, |_| ()).await;
    let bearer = format!("Bearer {}", token_for(&server, &secret, "").await);
    for query in [
        "",
        "resource=",
        "scope=api:read",
        "resource=https://api.test&resource=https://api.test",
        "resource=https://api.test&scope=a&scope=b",
        "resource=https://api.test&scope=a++b",
        "resource=https://api.test&scope=%22",
        "resource=%zz",
        "resource=%ff",
    ] {
        let answer = verify(&server, query, &[("authorization", &bearer)]).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (400, &json!("invalid_request")), "{query}");
    }
    assert_eq!(count(&server, "refused", "verify_query"), 9);
}

const URL: &str = "https://shop.example/orders/1?x=y";
const FORWARDED: [(&str, &str); 4] = [
    ("x-forwarded-method", "PUT"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "shop.example"),
    ("x-forwarded-uri", "/orders/1?x=y"),
];

async fn a_token_bound_to_a_key_passes_with_a_proof_for_the_request_that_is_held_back(db: Db) {
    let (server, secret) = set_up(db, |_| ()).await;
    let prover = Prover::new();
    let fields = [("authorization", &*basic("basic-client", &secret)), ("dpop", &*prover.proof())];
    let posted = format!("grant_type=client_credentials&resource={API}");
    let token = server.post(&fields, posted).await.access_token();
    let (dpop, bearer) = (format!("DPoP {token}"), format!("Bearer {token}"));
    let query = format!("resource={API}");
    let with = async |from: [u8; 4], authorization: &str, proof: &str, forwarded: &[(&str, &str)]| {
        let fields: Vec<(&str, &str)> =
            [("authorization", authorization), ("dpop", proof)].into_iter().chain(forwarded.iter().copied()).collect();
        verify_from(&server, from, &query, &fields).await
    };
    let fresh = |changes: &Value| prover.proof_at_api(("PUT", URL), &token, changes);
    let proof = fresh(&json!({}));
    passes(&with(PROXY, &dpop, &proof, &FORWARDED).await);
    // RFC 9449 section 11.1.
    refused(&with(PROXY, &dpop, &proof, &FORWARDED).await, 401, "DPoP realm=\"grantd\", algs=");
    // Section 4.3, items 8, 9, 11 and 12.
    for wrong in [
        json!({"htm": "GET"}),
        json!({"htu": "https://shop.example/orders/2"}),
        json!({"htu": "http://shop.example/orders/1"}),
        json!({"htu": "https://as.test/verify"}),
        json!({"iat": Clock::System.now().0 - 600}),
        json!({"ath": "x"}),
        json!({"ath": null}),
    ] {
        let answer = with(PROXY, &dpop, &fresh(&wrong), &FORWARDED).await;
        refused(&answer, 401, "DPoP realm=\"grantd\", algs=");
        assert!(answer.header("www-authenticate").contains("error=\"invalid_dpop_proof\""), "{wrong}");
    }
    let other = Prover::new().proof_at_api(("PUT", URL), &token, &json!({}));
    refused(&with(PROXY, &dpop, &other, &FORWARDED).await, 401, "DPoP realm=\"grantd\", algs=");
    let two = [("authorization", &*dpop), ("dpop", &*fresh(&json!({}))), ("dpop", &*fresh(&json!({})))];
    refused(&verify(&server, &query, &[&two[..], &FORWARDED].concat()).await, 401, "DPoP realm=\"grantd\", algs=");
    refused(&verify(&server, &query, &[&two[..1], &FORWARDED].concat()).await, 401, "DPoP realm=\"grantd\", algs=");
    // Section 7.2: not as a bearer token, and no bearer token as one of these.
    let as_bearer = with(PROXY, &bearer, &fresh(&json!({})), &FORWARDED).await;
    refused(&as_bearer, 401, "DPoP realm=\"grantd\", algs=");
    assert!(as_bearer.header("www-authenticate").contains("error=\"invalid_token\""), "{as_bearer:?}");
    let unbound = format!("DPoP {}", token_for(&server, &secret, "").await);
    refused(
        &with(PROXY, &unbound, &fresh(&json!({})), &FORWARDED).await,
        401,
        "Bearer realm=\"grantd\", error=\"invalid_token\"",
    );
    // Who is not trusted may say what it likes; who tells half cannot be helped.
    let stranger = with([192, 0, 2, 1], &dpop, &fresh(&json!({})), &FORWARDED).await;
    assert_eq!(stranger.status, 503);
    for (missing, field) in FORWARDED.into_iter().enumerate() {
        let mut forwarded = FORWARDED.to_vec();
        forwarded.remove(missing);
        assert_eq!(with(PROXY, &dpop, &fresh(&json!({})), &forwarded).await.status, 503);
        forwarded.extend([field, field]);
        assert_eq!(with(PROXY, &dpop, &fresh(&json!({})), &forwarded).await.status, 503);
    }
    assert_eq!(count(&server, "refused", "verify_no_target"), 9);
}

async fn a_token_bound_to_a_certificate_passes_with_that_certificate(db: Db) {
    let (own, other) = (self_signed("own"), self_signed("other"));
    let certificate = Certificate::parse(&own.chain()[0]).unwrap();
    let thumbprint = certificate.x5t_s256();
    let mut setup = Setup::new(db).await;
    setup.settings.server.trusted_proxies = vec!["10.0.0.0/8".into()];
    setup.settings.server.client_cert_header = true;
    setup.store.create_client(&client("self-signed-client"), None).await.unwrap();
    register(&setup.store, "self-signed-client", "self_signed", &thumbprint).await.unwrap();
    let server = setup.start().await;
    let field = |identity: &Identity| format!(":{}:", BASE64_STANDARD.encode(&identity.chain()[0]));
    let posted =
        form("/token", &[("client-cert", &field(&own))], "grant_type=client_credentials&client_id=self-signed-client");
    let bearer = format!("Bearer {}", server.send_from((PROXY, 4711), posted).await.access_token());
    let query = format!("resource={ISS}");
    let with = async |from: [u8; 4], fields: &[(&str, &str)]| {
        verify_from(&server, from, &query, &[&[("authorization", &*bearer)], fields].concat()).await
    };
    passes(&with(PROXY, &[("client-cert", &field(&own))]).await);
    let (own_field, other_field) = (field(&own), field(&other));
    for fields in [
        &[][..],
        &[("client-cert", &*other_field)],
        &[("client-cert", "::")],
        &[("client-cert", &*own_field), ("client-cert", &*other_field)],
    ] {
        refused(&with(PROXY, fields).await, 401, "Bearer realm=\"grantd\", error=\"invalid_token\"");
    }
    assert_eq!(count(&server, "refused", "token_certificate"), 4);
    // A stranger's word counts for nothing, nor does the certificate that a gateway itself has.
    let own_connection =
        PeerCertificate { intermediates: [].into(), certificate: certificate.into(), ca_verified: Err("no CA".into()) };
    for address in [[192, 0, 2, 1], PROXY] {
        let caller = Caller { address: (address, 4711).into(), certificate: Some(own_connection.clone()) };
        let answer = server.send_by(&caller, asked(&query, &[("authorization", &bearer)])).await;
        assert_eq!(answer.status, if address == PROXY { 401 } else { 503 }, "{answer:?}");
    }
    assert_eq!(count(&server, "refused", "verify_no_certificate"), 1);
}

async fn verify_answers_503_when_the_answer_cannot_be_known(db: Db) {
    let (server, secret) = set_up(db, |setup| setup.settings.registry.max_stale = "4s".into()).await;
    let token = token_for(&server, &secret, "").await;
    passes(&with_bearer(&server, &token, "").await);
    server.db.sql("drop table registry_revision").await.unwrap();
    let until = async |wanted: fn(Freshness) -> bool| {
        let started = Instant::now();
        while !wanted(server.server.registry.freshness()) {
            assert!(started.elapsed().as_secs() < 10);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until(|freshness| matches!(freshness, Freshness::Stale(_))).await;
    passes(&with_bearer(&server, &token, "").await);
    refused(&with_bearer(&server, "garbage", "").await, 401, "Bearer realm=\"grantd\", error=\"invalid_token\"");
    until(|freshness| freshness == Freshness::Unusable).await;
    let answer = with_bearer(&server, &token, "").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"), "{answer:?}");
    assert_eq!(count(&server, "refused", "registry_unusable"), 1);
}

//! The client of the examples: how many requests it makes, what is in them, and what it takes for an answer.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::Method;

use super::issuer::{API, Answer, Issuer, decoded};
use super::{Api, face, now, service, start_api};
use crate::harness::Db;
use crate::process::daemon::eventually;

const SECRET: &str = "p@ss:w0rd+with%20all /?&=";

/// A client of this issuer, with further arguments.
fn client(issuer: &Issuer, db: &Db, arguments: &[&str]) -> super::Service {
    let secret = db.file("secret", SECRET);
    let credential = ["--issuer", &issuer.url, "--client-id", "c", "--secret-file", secret.to_str().unwrap()];
    service(&[&credential[..], arguments].concat())
}

async fn data(issuer: &Issuer) -> String {
    format!("http://{}/data", start_api(Api::Library, &["--issuer", &issuer.url, "--resource", API], now).await)
}

#[tokio::test]
async fn callers_at_the_same_time_share_one_request() {
    let (issuer, db) = (Issuer::start(&[Answer::Token(200)]).await, Db::sqlite());
    let (service, url) = (Arc::new(client(&issuer, &db, &[])), data(&issuer).await);
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let (service, url) = (Arc::clone(&service), url.clone());
            tokio::spawn(async move { service.call(Method::GET, &url).await.unwrap().status() })
        })
        .collect();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    // Who was first goes away, and the others get their token all the same.
    calls[0].abort();
    for call in calls.into_iter().skip(1) {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn a_request_is_as_rfc_6749_wants_it() {
    let (issuer, db) = (Issuer::start(&[]).await, Db::sqlite());
    let service = client(&issuer, &db, &["--scope", "read:data list", "--resource", API]);
    assert_eq!(service.call(Method::GET, &data(&issuer).await).await.unwrap().status(), 200);
    let requests = issuer.requests.lock().unwrap();
    let (headers, body) = &requests[0];
    assert_eq!(body, "grant_type=client_credentials&scope=read%3Adata+list&resource=https%3A%2F%2Fapi.test");
    assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
    let encoded = "p%40ss%3Aw0rd%2Bwith%2520all+%2F%3F%26%3D";
    assert_eq!(headers["authorization"], crate::harness::basic("c", encoded));
    assert!(!headers.contains_key("dpop"));
}

#[tokio::test]
async fn a_busy_issuer_is_left_alone_as_long_as_it_says_and_a_refusal_is_final() {
    for (answer, expected) in [
        (Answer::Busy(503, Some("7")), "the token endpoint is busy: 503"),
        (Answer::Busy(429, Some("7")), "the token endpoint is busy: 429"),
        (Answer::Busy(500, None), "the token endpoint is busy: 500"),
        (Answer::Refused(401, "invalid_client"), "the token request was refused: 401 invalid_client"),
        (Answer::Refused(400, "invalid_scope"), "the token request was refused: 400 invalid_scope"),
    ] {
        let (issuer, db) = (Issuer::start(&[answer]).await, Db::sqlite());
        let service = client(&issuer, &db, &[]);
        for _ in 0..3 {
            let error = service.call(Method::GET, &issuer.url).await.unwrap_err().to_string();
            assert_eq!(error, expected);
        }
        assert_eq!(issuer.asked(), 1, "{answer:?}");
    }
}

#[tokio::test]
async fn dpop_works_with_nonces_of_the_issuer_and_of_the_api() {
    let (issuer, db) = (Issuer::start(&[Answer::Nonce("n1")]).await, Db::sqlite());
    let service = client(&issuer, &db, &["--dpop"]);
    let url = data(&issuer).await;
    for _ in 0..2 {
        let answer = service.call(Method::GET, &format!("{url}?page=2")).await.unwrap();
        assert_eq!(face(answer).await, "200\n{\"read_by\":\"c\"}");
    }
    let answer = service.call(Method::GET, &format!("{}/with-nonce", issuer.url)).await.unwrap();
    assert_eq!(face(answer).await, "200\nwith nonce");
    let requests = issuer.requests.lock().unwrap();
    let proofs: Vec<&str> = requests.iter().map(|(headers, _)| headers["dpop"].to_str().unwrap()).collect();
    let [first, second] = proofs[..] else { panic!("{} requests", proofs.len()) };
    let (header, one, two) = (decoded(first, 0), decoded(first, 1), decoded(second, 1));
    assert_eq!((&header["typ"], &header["alg"]), (&"dpop+jwt".into(), &"ES256".into()));
    let members: Vec<&String> = header["jwk"].as_object().unwrap().keys().collect();
    assert_eq!(members, ["crv", "kty", "x", "y"], "the public key and nothing else");
    assert_eq!((&one["htm"], &one["htu"]), (&"POST".into(), &format!("{}/token", issuer.url).into()));
    assert!(one.get("nonce").is_none() && one.get("ath").is_none() && two["nonce"] == "n1", "{one} {two}");
    assert_ne!(one["jti"], two["jti"]);
}

#[tokio::test]
async fn a_bearer_token_where_a_bound_one_was_asked_for_is_no_token() {
    let (issuer, db) = (Issuer::start(&[Answer::Bearer]).await, Db::sqlite());
    let error = client(&issuer, &db, &["--dpop"]).call(Method::GET, &issuer.url).await.unwrap_err();
    assert!(error.to_string().contains("another type than was asked for"), "{error}");
}

#[tokio::test]
async fn a_private_key_replaces_the_secret() {
    let (issuer, db) = (Issuer::start(&[]).await, Db::sqlite());
    let key = rcgen::KeyPair::generate().unwrap();
    let file = db.file("key.pem", &key.serialize_pem());
    let key_of = ["--issuer", &issuer.url, "--client-id", "c", "--key", file.to_str().unwrap()];
    for (further, kid) in [(&[][..], None), (&["--kid", "k7"][..], Some("k7"))] {
        let service = service(&[&key_of[..], further].concat());
        assert_eq!(service.call(Method::GET, &data(&issuer).await).await.unwrap().status(), 200);
        let (headers, body) = issuer.requests.lock().unwrap().pop().unwrap();
        assert!(!headers.contains_key("authorization"));
        let (form, assertion) = body.split_once("&client_assertion=").unwrap();
        assert_eq!(
            form,
            "grant_type=client_credentials&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
        );
        let assertion = assertion.strip_suffix("&client_id=c").unwrap();
        let (header, claims) = (decoded(assertion, 0), decoded(assertion, 1));
        assert_eq!((&header["typ"], &header["alg"]), (&"client-authentication+jwt".into(), &"ES256".into()));
        assert_eq!(header["kid"].as_str().unwrap().len(), kid.map_or(43, str::len));
        assert_eq!(claims["aud"], issuer.url.as_str(), "the issuer alone, as a string");
        assert_eq!((&claims["iss"], &claims["sub"]), (&"c".into(), &"c".into()));
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 60);
        let (signed, signature) = assertion.rsplit_once('.').unwrap();
        let public = DecodingKey::from_ec_pem(key.public_key_pem().as_bytes()).unwrap();
        assert!(jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &public, Algorithm::ES256).unwrap());
    }
}

#[tokio::test]
async fn a_jwt_of_the_platform_is_read_anew_for_each_token() {
    let jwt = |claims: &str| format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
    let (job, svid) = (jwt(r#"{"sub":"repo:acme/app:ref:refs/heads/main"}"#), jwt(r#"{"sub":"spiffe://td/app"}"#));
    let (issuer, db) = (Issuer::start(&[]).await, Db::sqlite());
    let file = db.directory.path().join("token");
    let arguments = ["--issuer", &issuer.url, "--client-id", "c", "--assertion-file", file.to_str().unwrap()];
    let url = data(&issuer).await;
    for (jwt, fault) in [(&job, "No such file"), (&svid, "it holds no JWT")] {
        let service = service(&arguments);
        let error = service.call(Method::GET, &url).await.unwrap_err().to_string();
        assert!(error.contains(fault), "{error}");
        // The platform writes it while the service runs, and the next attempt is a second later.
        db.file("token", &format!("{jwt}\n"));
        let called = async || service.call(Method::GET, &url).await.map(|answer| answer.status()).ok();
        eventually(called, |status| status.is_some_and(|status| status == 200)).await;
        db.file("token", "{}");
    }
    let requests = issuer.requests.lock().unwrap();
    let sent: Vec<&str> =
        requests.iter().map(|(_, body)| body.split_once("client_assertion_type=").unwrap().1).collect();
    let typed = |name: &str, jwt: &str| {
        format!("urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3A{name}&client_assertion={jwt}&client_id=c")
    };
    assert_eq!(sent, [typed("jwt-bearer", &job), typed("jwt-spiffe", &svid)]);
}

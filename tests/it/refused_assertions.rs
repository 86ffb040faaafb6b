//! Assertions that are refused, until when, and that all of them are refused alike.

use std::collections::HashMap;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use grantd::crypto::certificate::Certificate;
use grantd::http::Caller;
use grantd::model::certificate::PeerCertificate;
use grantd::model::time::{Clock, UnixTime};
use serde_json::Value;

use crate::assertion::{Signer, TYPE, ask, ask_at, claims, claims_at, mac};
use crate::client_certificates::register;
use crate::harness::{Answer, Db, Server, Setup, basic, client, form, verdict};
use crate::mutual_tls::{Identity, ca, named, self_signed};

on_both!(
    no_text_of_a_public_key_is_the_secret_of_a_mac,
    a_spent_assertion_stays_refused_at_every_second_of_every_clock,
    every_failed_assertion_gets_one_answer_at_every_endpoint,
    withdrawn_credentials_are_refused_at_every_endpoint_on_every_replica,
);

const START: i64 = 1_800_000_000;
const ENDPOINTS: [&str; 3] = ["/token", "/introspect", "/revoke"];
const FORM: &str = "grant_type=client_credentials&token=x";

/// Every text that a verifier might take for a secret: what is published of a key, and what is made of that.
fn texts_of(signer: &Signer) -> Vec<Vec<u8>> {
    let (jwk, der) = (signer.jwk(), signer.spki());
    let lines: Vec<String> = BASE64_STANDARD
        .encode(&der)
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap().to_owned())
        .collect();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", lines.join("\n"));
    let stored = signer.stored();
    let mut texts: Vec<Vec<u8>> = vec![
        jwk.to_string().into(),
        serde_json::to_vec_pretty(&jwk).unwrap(),
        Value::Object(stored.key.jwk()).to_string().into(),
        stored.key.jkt().into(),
        format!("{pem}\n").into(),
        pem.replace('\n', "\r\n").into(),
        lines.concat().into(),
        pem.into(),
        der,
        Vec::new(),
    ];
    let mut together = Vec::new();
    for member in ["x", "y", "n", "e"] {
        let Some(text) = jwk[member].as_str() else { continue };
        let octets = BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
        together.extend(&octets);
        texts.extend([text.into(), octets]);
    }
    // x and y, as they are and as a point; n and e.
    texts.extend([[&[4], &together[..]].concat(), together]);
    texts
}

async fn no_text_of_a_public_key_is_the_secret_of_a_mac(db: Db) {
    let setup = Setup::new(db).await;
    let signers = [Signer::es256(), Signer::ed25519(), Signer::rsa("PS256"), Signer::rsa("RS256")];
    for signer in &signers {
        setup.store.create_client(&client(signer.alg()), None).await.unwrap();
        setup.store.add_client_keys(signer.alg(), &[signer.stored()]).await.unwrap();
    }
    let server = setup.start().await;
    for signer in &signers {
        for secret in texts_of(signer) {
            for alg in ["HS256", "HS384", "HS512"] {
                let answer = ask(&server, &mac(alg, &secret, &claims(signer.alg()))).await;
                let secret = String::from_utf8_lossy(&secret);
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{alg} by {secret}: {}", answer.body);
                answer.unauthorized();
            }
        }
        ask(&server, &signer.fresh(signer.alg())).await.ok();
    }
}

async fn a_spent_assertion_stays_refused_at_every_second_of_every_clock(db: Db) {
    let mut setup = Setup::new(db).await;
    let (clock, hand) = Clock::fixed(START);
    setup.clock = clock;
    let signer = Signer::es256();
    setup.store.create_client(&client("jwt-client"), None).await.unwrap();
    setup.store.add_client_keys("jwt-client", &[signer.stored()]).await.unwrap();
    let server = setup.start().await;
    let mut claims = claims_at("jwt-client", START);
    claims["exp"] = (START + 20).into();
    let assertion = signer.assert(&claims);
    ask(&server, &assertion).await.ok();
    for second in 1..60 {
        let now = START + second;
        hand.store(now, Ordering::Relaxed);
        // A replica whose clock is a minute ahead sweeps what it takes for expired.
        server.store.sweep_spent(UnixTime(now + 60)).await.unwrap();
        ask(&server, &assertion).await.unauthorized();
    }
    // What it swept at last was this.
    let swept = server.store.sweep_spent(UnixTime(START + 1000)).await.unwrap();
    assert_eq!(swept, 0, "the last sweep was late enough");
}

/// A server whose client `all` has a secret, a key and a certificate.
struct World {
    server: Server,
    secret: String,
    signer: Signer,
    certificate: PeerCertificate,
}

fn peer(identity: &Identity, ca_verified: bool) -> PeerCertificate {
    PeerCertificate {
        intermediates: Arc::default(),
        certificate: Arc::new(Certificate::parse(&identity.chain()[0]).unwrap()),
        ca_verified: verdict(ca_verified),
    }
}

impl World {
    async fn new(db: Db) -> Self {
        let (setup, signer) = (Setup::new(db).await, Signer::es256());
        let secret = setup.client(client("all")).await;
        setup.store.add_client_keys("all", &[signer.stored()]).await.unwrap();
        register(&setup.store, "all", "subject_dn", "CN=svc").await.unwrap();
        let certificate = peer(&ca("ours").issue(&named("svc")), true);
        Self { server: setup.start().await, secret, signer, certificate }
    }
}

async fn by_certificate(server: &Server, path: &str, id: &str, certificate: &PeerCertificate) -> Answer {
    let caller = Caller { address: ([192, 0, 2, 1], 4711).into(), certificate: Some(certificate.clone()) };
    server.send_by(&caller, form(path, &[], format!("{FORM}&client_id={id}"))).await
}

async fn by_secret(server: &Server, path: &str, id: &str, secret: &str) -> Answer {
    server.post_to(path, &[("authorization", &basic(id, secret))], FORM).await
}

async fn every_failed_assertion_gets_one_answer_at_every_endpoint(db: Db) {
    let World { server, signer, certificate, .. } = World::new(db).await;
    let (expired, unreachable, disabled, no_grant) =
        (Signer::es256(), Signer::es256(), Signer::es256(), Signer::es256());
    for (id, signer) in [("expired", &expired), ("disabled", &disabled), ("bare", &no_grant)] {
        server.store.create_client(&client(id), None).await.unwrap();
        server.store.add_client_keys(id, &[signer.stored()]).await.unwrap();
    }
    server.store.create_client(&client("uri"), None).await.unwrap();
    server.store.set_client_enabled("disabled", false).await.unwrap();
    server
        .db
        .sql(
            "update client_key set expires_at = 5 where client_id = 'expired';
             delete from client_key where client_id = 'bare';
             update client set jwks_uri = 'https://127.0.0.1:1/jwks' where client_id = 'uri'",
        )
        .await
        .unwrap();
    server.refresh().await;
    let server = &server;
    for path in ENDPOINTS {
        // One for each method that was tried: what the client reads says what that method needs.
        let mut faces: HashMap<&str, String> = HashMap::new();
        let used = signer.fresh("all");
        assert_eq!(ask_at(server, path, FORM, &used).await.status, StatusCode::OK);
        let typed = signer.sign(r#"{"alg":"ES256","typ":"at+jwt"}"#, &claims("all").to_string());
        let other_client = format!("{FORM}&client_id=disabled");
        let other_type = format!("{FORM}&client_assertion_type=x&client_assertion={}", signer.fresh("all"));
        for (why, answer) in [
            ("a jti that was used", ask_at(server, path, FORM, &used).await),
            ("a disabled client", ask_at(server, path, FORM, &disabled.fresh("disabled")).await),
            ("a key that has expired", ask_at(server, path, FORM, &expired.fresh("expired")).await),
            ("a key that was removed", ask_at(server, path, FORM, &no_grant.fresh("bare")).await),
            ("a jwks_uri that cannot be reached", ask_at(server, path, FORM, &unreachable.fresh("uri")).await),
            ("an unknown client", ask_at(server, path, FORM, &signer.fresh("nobody")).await),
            ("a wrong signature", ask_at(server, path, FORM, &Signer::es256().fresh("all")).await),
            ("another client_id", ask_at(server, path, &other_client, &signer.fresh("all")).await),
            ("another kind of JWT", ask_at(server, path, FORM, &typed).await),
            ("no JWT", ask_at(server, path, FORM, "x").await),
            ("another type of assertion", server.post_to(path, &[], other_type).await),
            ("no assertion", server.post_to(path, &[], format!("{FORM}&client_assertion_type={TYPE}")).await),
            ("a wrong secret", by_secret(server, path, "all", "wrong").await),
            ("a secret of nobody", by_secret(server, path, "nobody", "wrong").await),
            ("a secret of a disabled client", by_secret(server, path, "disabled", "wrong").await),
            ("a wrong certificate", by_certificate(server, path, "all", &peer(&self_signed("svc"), false)).await),
            ("a certificate of nobody", by_certificate(server, path, "nobody", &certificate).await),
            ("a certificate of another", by_certificate(server, path, "expired", &certificate).await),
            ("nothing", server.post_to(path, &[], FORM).await),
        ] {
            answer.unauthorized();
            let method = ["secret", "certificate", "nothing"].into_iter().find(|method| why.contains(method));
            let first = faces.entry(method.unwrap_or("assertion")).or_insert_with(|| answer.face());
            assert_eq!(answer.face(), *first, "{why} at {path}");
        }
    }
}

async fn withdrawn_credentials_are_refused_at_every_endpoint_on_every_replica(db: Db) {
    let world = World::new(db).await;
    let (replica, store) = (world.server.replica().await, &world.server.store);
    let check = async |expected: StatusCode| {
        for server in [&world.server, &replica] {
            server.refresh().await;
            for path in ENDPOINTS {
                let body = format!("{FORM}&client_id=all&client_secret={}", world.secret);
                for (method, answer) in [
                    ("basic", by_secret(server, path, "all", &world.secret).await),
                    ("post", server.post_to(path, &[], body).await),
                    ("key", ask_at(server, path, FORM, &world.signer.fresh("all")).await),
                    ("certificate", by_certificate(server, path, "all", &world.certificate).await),
                ] {
                    assert_eq!(answer.status, expected, "{method} at {path}: {}", answer.body);
                }
            }
        }
    };
    check(StatusCode::OK).await;
    for (enabled, expected) in [(false, StatusCode::UNAUTHORIZED), (true, StatusCode::OK)] {
        store.set_client_enabled("all", enabled).await.unwrap();
        check(expected).await;
    }
    let snapshot = world.server.server.registry.snapshot().clone();
    let owned = snapshot.client("all").unwrap();
    assert!(store.revoke_secret("all", &owned.secrets[0].secret_id, Clock::System.now()).await.unwrap());
    assert!(store.remove_client_key("all", world.signer.stored().key.jkt()).await.unwrap());
    assert!(store.remove_client_certificate("all", &owned.certificates[0].cert_id).await.unwrap());
    check(StatusCode::UNAUTHORIZED).await;
}

//! Self-signed certificates in the keys of clients (RFC 8705 section 2.2.2), registered or published.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use grantd::crypto::certificate::Certificate;
use grantd::crypto::verifying_key::VerifyingKey;
use grantd::http::Caller;
use grantd::model::certificate::PeerCertificate;
use grantd::model::credential::StoredKey;
use grantd::model::time::UnixTime;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::assertion::{Signer, ask, claims_at};
use crate::harness::{Answer, Db, Server, Setup, client, form, set_auth_methods, verdict};
use crate::jwks_host::{Host, ask_as, publishing, setup, with_jwks_uri_client};
use crate::mutual_tls::{ca, named};
use crate::process::daemon::Grantd;

on_both!(
    a_certificate_in_a_registered_key_is_exactly_that_certificate,
    a_rotated_certificate_is_found_at_the_jwks_uri,
    a_certificate_that_is_not_about_its_key_is_refused_or_skipped,
    a_certificate_chooses_no_key_for_an_assertion,
    certificates_in_keys_are_added_and_listed,
);

/// A key with certificates that it signed itself.
struct Own {
    key: KeyPair,
    signer: Signer,
}

impl Own {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        Self { signer: Signer::of(&key), key }
    }

    /// Another one each time, by its serial number.
    fn certificate(&self, params: &CertificateParams) -> Vec<u8> {
        let mut params = params.clone();
        params.serial_number = Some(grantd::crypto::random::<8>().unwrap().to_vec().into());
        params.self_signed(&self.key).unwrap().der().to_vec()
    }

    fn jwk(&self, kid: &str, x5c: &[&[u8]]) -> Value {
        let mut jwk = self.signer.jwk();
        jwk["kid"] = kid.into();
        jwk["x5c"] = x5c.iter().map(|der| Value::from(BASE64_STANDARD.encode(der))).collect();
        jwk
    }
}

fn stored(jwk: &Value, expires_at: Option<i64>) -> StoredKey {
    let key = VerifyingKey::from_text(jwk.to_string().as_bytes(), None).unwrap();
    let kid = key.kid().unwrap().into();
    StoredKey {
        kid,
        key: Arc::new(key),
        created_at: UnixTime(1),
        expires_at: expires_at.map(UnixTime),
        used: Arc::default(),
    }
}

async fn show(server: &Server, der: &[u8], id: &str) -> Answer {
    show_as(server, der, id, false).await
}

async fn show_as(server: &Server, der: &[u8], id: &str, ca_verified: bool) -> Answer {
    let certificate = PeerCertificate {
        intermediates: Arc::default(),
        certificate: Arc::new(Certificate::parse(der).unwrap()),
        ca_verified: verdict(ca_verified),
    };
    let caller = Caller { address: ([192, 0, 2, 1], 4711).into(), certificate: Some(certificate) };
    let body = format!("grant_type=client_credentials&client_id={id}");
    server.send_by(&caller, form("/token", &[], body)).await
}

fn x5t(der: &[u8]) -> String {
    Certificate::parse(der).unwrap().x5t_s256()
}

async fn a_certificate_in_a_registered_key_is_exactly_that_certificate(db: Db) {
    let setup = Setup::new(db).await;
    let (first, second, old, ended) = (Own::new(), Own::new(), Own::new(), Own::new());
    let svc = named("svc");
    let mut over = named("svc");
    over.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let [of_first, of_second, of_old] = [&first, &second, &old].map(|own| own.certificate(&svc));
    let of_ended = ended.certificate(&over);
    let issuer = ca("somebody");
    let keys = [
        stored(&first.jwk("k1", &[&of_first, issuer.der()]), None),
        stored(&second.jwk("k2", &[&of_second]), None),
        stored(&old.jwk("k3", &[&of_old]), Some(5)),
        stored(&ended.jwk("k4", &[&of_ended]), None),
    ];
    setup.store.create_client(&client("self-signed-client"), None).await.unwrap();
    setup.store.create_client(&client("other"), None).await.unwrap();
    setup.store.add_client_keys("self-signed-client", &keys).await.unwrap();
    let server = setup.start().await;
    for der in [&of_first, &of_second] {
        let answer = show(&server, der, "self-signed-client").await;
        assert_eq!(answer.token().1["cnf"], json!({"x5t#S256": x5t(der)}));
        show(&server, der, "other").await.unauthorized();
        show(&server, der, "nobody").await.unauthorized();
    }
    // The same name and the same key, another key of that name, the rest of the chain; expired keys and certificates.
    for der in [&first.certificate(&svc), &Own::new().certificate(&svc), &issuer.der().to_vec(), &of_old, &of_ended] {
        show(&server, der, "self-signed-client").await.unauthorized();
        show_as(&server, der, "self-signed-client", true).await.unauthorized();
    }
    // It is a key like others besides.
    let now = server.server.clock.now().0;
    ask(&server, &first.signer.assert(&claims_at("self-signed-client", now))).await.ok();

    assert!(
        set_auth_methods(&server.store, "self-signed-client", Some("private_key_jwt tls_client_auth")).await.unwrap()
    );
    server.refresh().await;
    show(&server, &of_first, "self-signed-client").await.unauthorized();
    assert!(set_auth_methods(&server.store, "self-signed-client", Some("self_signed_tls_client_auth")).await.unwrap());
    assert!(server.store.remove_client_key("self-signed-client", "k2").await.unwrap());
    server.refresh().await;
    show(&server, &of_first, "self-signed-client").await.ok();
    show(&server, &of_second, "self-signed-client").await.unauthorized();
    ask(&server, &first.signer.assert(&claims_at("self-signed-client", now))).await.unauthorized();
}

async fn a_rotated_certificate_is_found_at_the_jwks_uri(db: Db) {
    let host = Host::start().await;
    let (first, second) = (Own::new(), Own::new());
    let [of_first, renewed, of_second] = [&first, &first, &second].map(|own| own.certificate(&named("svc")));
    host.publishes_keys(&[first.jwk("k1", &[&of_first])]);
    let (setup, hand) = setup(db, &["localhost"]).await;
    for id in ["jwks-uri-client", "off", "signs"] {
        publishing(&setup, id, &host.uri()).await;
    }
    setup.store.set_client_enabled("off", false).await.unwrap();
    set_auth_methods(&setup.store, "signs", Some("private_key_jwt")).await.unwrap();
    let server = setup.start().await;
    for id in ["off", "signs"] {
        show(&server, &of_first, id).await.unauthorized();
    }
    assert_eq!(host.asked(), 0, "nobody is asked for those who may not authenticate like this");
    let answer = show(&server, &of_first, "jwks-uri-client").await;
    assert_eq!(answer.token().1["cnf"], json!({"x5t#S256": x5t(&of_first)}));

    // The same key with another certificate, then another key.
    for (number, (own, der, before)) in
        [(&first, &renewed, &of_first), (&second, &of_second, &renewed)].into_iter().enumerate()
    {
        host.publishes_keys(&[own.jwk("k1", &[der])]);
        show(&server, der, "jwks-uri-client").await.unauthorized();
        assert_eq!(host.asked(), number + 1, "once in half a minute");
        hand.fetch_add(30, Ordering::Relaxed);
        show(&server, der, "jwks-uri-client").await.ok();
        show(&server, der, "jwks-uri-client").await.ok();
        show(&server, before, "jwks-uri-client").await.unauthorized();
        assert_eq!(host.asked(), number + 2);
    }
    let stranger = Own::new().certificate(&named("svc"));
    for _ in 0..90 {
        hand.fetch_add(1, Ordering::Relaxed);
        show(&server, &stranger, "jwks-uri-client").await.unauthorized();
    }
    assert_eq!(host.asked(), 6);
    show(&server, &of_second, "jwks-uri-client").await.ok();
}

async fn a_certificate_that_is_not_about_its_key_is_refused_or_skipped(db: Db) {
    let host = Host::start().await;
    let (own, thief) = (Own::new(), Own::new());
    let [of_own, of_thief] = [&own, &thief].map(|own| own.certificate(&named("svc")));
    let mut cut = of_own.clone();
    cut.truncate(100);
    let base64url = BASE64_URL_SAFE_NO_PAD.encode(&of_own);
    let wrong = [
        own.jwk("bad", &[&of_thief]),
        own.jwk("bad", &[&of_thief, &of_own]),
        own.jwk("bad", &[&cut]),
        own.jwk("bad", &[]),
        own.jwk("bad", &[&vec![0x30; 20_000]]),
    ];
    let spelt = [json!(null), json!("AAAA"), json!([1]), json!([base64url + "-_"]), json!({})].map(|x5c| {
        let mut jwk = own.jwk("bad", &[]);
        jwk["x5c"] = x5c;
        jwk
    });
    let good = Own::new();
    let of_good = good.certificate(&named("svc"));
    let (server, hand) = with_jwks_uri_client(db, &host, &["localhost"]).await;
    for jwk in wrong.iter().chain(&spelt) {
        VerifyingKey::from_text(jwk.to_string().as_bytes(), None).expect_err(&jwk.to_string());
        host.publishes_keys(&[jwk.clone(), good.jwk("k1", &[&of_good])]);
        hand.fetch_add(301, Ordering::Relaxed);
        show(&server, &of_good, "jwks-uri-client").await.ok();
        show(&server, &of_thief, "jwks-uri-client").await.unauthorized();
        show(&server, &of_own, "jwks-uri-client").await.unauthorized();
        ask_as(&server, &own.signer, "jwks-uri-client").await.unauthorized();
    }
    server.store.create_client(&client("bad"), None).await.unwrap();
    let row = wrong[0].to_string();
    server
        .db
        .sql(&format!("insert into client_key (client_id, kid, jwk) values ('bad', 'bad', '{row}')"))
        .await
        .unwrap();
    server.refresh().await;
    show(&server, &of_thief, "bad").await.unauthorized();
    let snapshot = server.server.registry.snapshot();
    assert!(snapshot.malformed()["client bad"].contains("x5c"), "{:?}", snapshot.malformed());
}

async fn a_certificate_chooses_no_key_for_an_assertion(db: Db) {
    let setup = Setup::new(db).await;
    let (own, thief) = (Own::new(), Own::new());
    let der = own.certificate(&named("svc"));
    setup.store.create_client(&client("self-signed-client"), None).await.unwrap();
    setup.store.add_client_keys("self-signed-client", &[stored(&own.jwk("k1", &[&der]), None)]).await.unwrap();
    let server = setup.start().await;
    let claims = || claims_at("self-signed-client", server.server.clock.now().0).to_string();
    let header = |of: &[u8]| json!({"alg": "ES256", "x5c": [BASE64_STANDARD.encode(of)]}).to_string();
    for of in [&der, &thief.certificate(&named("svc"))] {
        ask(&server, &thief.signer.sign(&header(of), &claims())).await.unauthorized();
        // A header that points to a certificate is ignored.
        ask(&server, &own.signer.sign(&header(of), &claims())).await.ok();
    }
    for header in [json!({"alg": "ES256", "x5t#S256": x5t(&der)}), json!({"alg": "ES256", "kid": x5t(&der)})] {
        ask(&server, &thief.signer.sign(&header.to_string(), &claims())).await.unauthorized();
    }
    ask(&server, &own.signer.sign(&json!({"alg": "ES256", "kid": "k1"}).to_string(), &claims())).await.ok();
}

async fn certificates_in_keys_are_added_and_listed(db: Db) {
    let grantd = Grantd::new(&db).with("GRANTD__ISSUER", crate::harness::ISS);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "self-signed-client", "--scope", "a", "--default-scope", "a", "--no-secret"]).await;
    let (own, thief, plain) = (Own::new(), Own::new(), Own::new());
    let der = own.certificate(&named("svc"));
    let set = json!({"keys": [own.jwk("k1", &[&der]), plain.signer.jwk()]}).to_string();
    let add = async |set: &str| {
        grantd.run_with_input(&["client", "key", "add", "self-signed-client", "--jwk", "-"], set).await
    };
    let done = add(&set).await;
    assert!(done.status.success() && !done.stderr.contains("warning"), "{done:?}");
    let listed = grantd.json(&["client", "key", "list", "self-signed-client", "--json"]).await;
    let told = |kid: &str| listed.as_array().unwrap().iter().find(|key| key["kid"] == kid).unwrap()["x5t#S256"].clone();
    assert_eq!(told("k1"), x5t(&der));
    assert!(listed.as_array().unwrap().iter().any(|key| key["kid"] != "k1" && key["x5t#S256"].is_null()), "{listed}");
    let mut over = named("svc");
    over.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let done = add(&thief.jwk("k2", &[&thief.certificate(&over)]).to_string()).await;
    assert!(done.status.success() && done.stderr.contains("not valid now"), "{done:?}");
    let done = add(&thief.jwk("k3", &[&der]).to_string()).await;
    assert!(done.status.code() == Some(1) && done.stderr.contains("x5c"), "{done:?}");
    assert_eq!(add(&own.jwk("k1", &[&der]).to_string()).await.status.code(), Some(1), "the kid is taken");
}

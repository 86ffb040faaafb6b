//! Bound tokens, from the client of the examples by the real program to their API, and in the hands of a thief.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::HeaderMap;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use reqwest::{Identity, Method};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use super::caching_client::Service;
use super::issuer::decoded;
use super::signer::{Signer, base64url, sha256};
use super::{Api, call, face, now, service, start_api};
use crate::harness::Db;
use crate::process::daemon::{Daemon, Grantd};

on_both!(
    a_token_bound_to_a_key_is_refused_without_it,
    a_token_bound_to_a_certificate_is_refused_without_it,
    a_token_bound_to_key_and_certificate_needs_both,
);

const READ_BY_BILLING: &str = "200\n{\"read_by\":\"billing\"}";

/// The real program, the example API, and a client that is registered and has no credential yet.
struct World {
    db: Db,
    grantd: Grantd,
    tls: CertifiedKey<KeyPair>,
}

/// The program that serves, and its issuer.
struct Issuer {
    url: String,
    _daemon: Daemon,
}

impl World {
    async fn new(db: Db) -> Self {
        let tls = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        db.file("tls.pem", &tls.cert.pem());
        db.file("tls.key", &tls.signing_key.serialize_pem());
        let file = |name: &str| db.directory.path().join(name).display().to_string();
        let grantd = Grantd::new(&db)
            .with("GRANTD__DPOP__REQUIRE_NONCE", "true")
            .with("GRANTD__SERVER__MTLS__LISTEN", "127.0.0.1:0")
            .with("GRANTD__SERVER__MTLS__CERT_FILE", &file("tls.pem"))
            .with("GRANTD__SERVER__MTLS__KEY_FILE", &file("tls.key"));
        grantd.ok(&["migrate"]).await;
        let scope = ["--scope", "read:data", "--default-scope", "read:data", "--no-secret"];
        grantd.ok(&[&["client", "create", "billing"], &scope[..]].concat()).await;
        Self { db, grantd, tls }
    }

    fn file(&self, name: &str) -> String {
        self.db.directory.path().join(name).display().to_string()
    }

    /// Registers a key of the client.
    async fn with_key(&self) {
        let key = KeyPair::generate().unwrap();
        self.db.file("client.key", &key.serialize_pem());
        self.db.file("client.pub", &key.public_key_pem());
        self.grantd.ok(&["client", "key", "add", "billing", "--jwk", &self.file("client.pub")]).await;
    }

    /// A certificate of the client, in files.
    fn certificate(&self) -> CertifiedKey<KeyPair> {
        let made = generate_simple_self_signed(["billing.test".to_owned()]).unwrap();
        self.db.file("own.pem", &made.cert.pem());
        self.db.file("own.key", &made.signing_key.serialize_pem());
        made
    }

    /// Serves. The issuer is a port that is known beforehand, and leads to the one that the program finds.
    async fn issuer(&self) -> Issuer {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let daemon = Daemon::start(self.grantd.with("GRANTD__ISSUER", &url).command(&["serve"]), false).await;
        let public = daemon.public;
        tokio::spawn(async move {
            while let Ok((mut near, _)) = socket.accept().await {
                let mut far = TcpStream::connect(public).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
            }
        });
        Issuer { url, _daemon: daemon }
    }

    /// The example API over TLS, and what is to be called there.
    async fn api(&self, api: Api, issuer: &Issuer) -> String {
        let (cert, key) = (self.file("tls.pem"), self.file("tls.key"));
        let arguments = ["--issuer", &issuer.url, "--resource", &issuer.url, "--tls-cert", &cert, "--tls-key", &key];
        format!("https://{}/data", start_api(api, &arguments, now).await)
    }

    fn service(&self, issuer: &Issuer, arguments: &[&str]) -> Service {
        let ca = self.file("tls.pem");
        service(&[&["--issuer", &issuer.url, "--client-id", "billing", "--ca", &ca], arguments].concat())
    }

    /// Somebody with another certificate, or none.
    fn stranger(&self, identity: Option<&CertifiedKey<KeyPair>>) -> reqwest::Client {
        let mut client =
            reqwest::Client::builder().tls_certs_only([reqwest::Certificate::from_der(self.tls.cert.der()).unwrap()]);
        if let Some(made) = identity {
            let pem = made.cert.pem() + &made.signing_key.serialize_pem();
            client = client.identity(Identity::from_pem(pem.as_bytes()).unwrap());
        }
        client.build().unwrap()
    }
}

/// The token, and the proof if there is one, that the service sends to an API of a thief.
async fn stolen(service: &Service) -> (String, Option<String>) {
    let seen: Arc<Mutex<HeaderMap>> = Arc::default();
    let note = Arc::clone(&seen);
    let app = Router::new().fallback(async move |headers: HeaderMap| *note.lock().unwrap() = headers);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", socket.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(socket, app).await.unwrap() });
    assert_eq!(call(service, Method::GET, &url).await.unwrap().status(), 200);
    let seen = seen.lock().unwrap();
    let field = |name: &str| seen.get(name).map(|value| value.to_str().unwrap().to_owned());
    (field("authorization").unwrap().split_once(' ').unwrap().1.to_owned(), field("dpop"))
}

/// The answer of the API to these fields.
async fn told(client: &reqwest::Client, url: &str, authorization: &str, proof: Option<&str>) -> String {
    let mut request = client.get(url).header("authorization", authorization);
    if let Some(proof) = proof {
        request = request.header("dpop", proof);
    }
    face(request.send().await.unwrap()).await
}

#[track_caller]
fn assert_refused(told: &str, part: &str) {
    assert!(
        told.starts_with("401\n") && told.contains("DPoP algs=\"ES256 EdDSA PS256\"") && told.contains(part),
        "{told}"
    );
}

async fn a_token_bound_to_a_key_is_refused_without_it(db: Db) {
    let world = World::new(db).await;
    world.with_key().await;
    let issuer = world.issuer().await;
    let service = world.service(&issuer, &["--key", &world.file("client.key"), "--dpop"]);
    let (token, proof) = stolen(&service).await;
    let thief = world.stranger(None);
    let (dpop, bearer) = (format!("DPoP {token}"), format!("Bearer {token}"));
    for api in Api::BOTH {
        let url = world.api(api, &issuer).await;
        for _ in 0..2 {
            assert_eq!(face(call(&service, Method::GET, &url).await.unwrap()).await, READ_BY_BILLING);
        }
        let claims = json!({"jti": "t", "htm": "GET", "htu": url, "iat": now(), "ath": sha256(&token)});
        let own = Signer::generate().proof(&claims);
        for (authorization, proof, part) in [
            (&dpop, Some(own.as_str()), "the token is bound to another key"),
            (&dpop, proof.as_deref(), "the proof's htu is another URL"),
            (&dpop, None, "exactly one DPoP proof is needed"),
            (&bearer, None, "the token is bound to a key: use the DPoP scheme"),
            (&bearer, proof.as_deref(), "the token is bound to a key: use the DPoP scheme"),
        ] {
            assert_refused(&told(&thief, &url, authorization, proof).await, part);
        }
    }
    let jkt = Signer::thumbprint(&decoded(&proof.unwrap(), 0)["jwk"]);
    assert_eq!(decoded(&token, 1)["cnf"], json!({"jkt": jkt}));
}

async fn a_token_bound_to_a_certificate_is_refused_without_it(db: Db) {
    let world = World::new(db).await;
    let own = world.certificate();
    let (cert, key) = (world.file("own.pem"), world.file("own.key"));
    world.grantd.ok(&["client", "cert", "add", "billing", "--self-signed", &cert]).await;
    let issuer = world.issuer().await;
    let service = world.service(&issuer, &["--tls-cert", &cert, "--tls-key", &key]);
    let (token, _) = stolen(&service).await;
    assert_eq!(decoded(&token, 1)["cnf"], json!({"x5t#S256": x5t(&own)}));
    let (bearer, other) = (format!("Bearer {token}"), world.certificate());
    // Another certificate, under the same name, gets no token either.
    let impostor = world.service(&issuer, &["--tls-cert", &cert, "--tls-key", &key]);
    for api in Api::BOTH {
        let url = world.api(api, &issuer).await;
        assert_eq!(face(call(&service, Method::GET, &url).await.unwrap()).await, READ_BY_BILLING);
        for stranger in [world.stranger(None), world.stranger(Some(&other))] {
            assert_refused(&told(&stranger, &url, &bearer, None).await, "error=\"invalid_token\"");
        }
        assert_eq!(told(&world.stranger(Some(&own)), &url, &bearer, None).await, READ_BY_BILLING, "who has its key");
        let metadata = url.replace("/data", "/.well-known/oauth-protected-resource");
        let metadata = world.stranger(None).get(metadata).send().await.unwrap().text().await.unwrap();
        assert!(metadata.contains("\"tls_client_certificate_bound_access_tokens\":true"), "{metadata}");
        let refused = call(&impostor, Method::GET, &url).await.unwrap_err().to_string();
        assert_eq!(refused, "the token request was refused: 401 invalid_client");
    }
}

async fn a_token_bound_to_key_and_certificate_needs_both(db: Db) {
    let world = World::new(db).await;
    world.with_key().await;
    let own = world.certificate();
    world.grantd.ok(&["client", "set", "billing", "--require-mtls-binding", "true"]).await;
    let issuer = world.issuer().await;
    let (cert, key, signing) = (world.file("own.pem"), world.file("own.key"), world.file("client.key"));
    let with_key = ["--key", signing.as_str(), "--dpop"];
    let service = world.service(&issuer, &[&with_key[..], &["--tls-cert", &cert, "--tls-key", &key]].concat());
    let (token, proof) = stolen(&service).await;
    let jkt = Signer::thumbprint(&decoded(&proof.unwrap(), 0)["jwk"]);
    assert_eq!(decoded(&token, 1)["cnf"], json!({"jkt": jkt, "x5t#S256": x5t(&own)}));
    for api in Api::BOTH {
        let url = world.api(api, &issuer).await;
        assert_eq!(face(call(&service, Method::GET, &url).await.unwrap()).await, READ_BY_BILLING);
        // Either alone is too little.
        let bearer = told(&world.stranger(Some(&own)), &url, &format!("Bearer {token}"), None).await;
        assert_refused(&bearer, "the token is bound to a key: use the DPoP scheme");
        let none = told(&world.stranger(None), &url, &format!("DPoP {token}"), None).await;
        assert_refused(&none, "the token is bound to another certificate");
        let error = call(&world.service(&issuer, &with_key), Method::GET, &url).await.unwrap_err().to_string();
        assert_eq!(error, "the token request was refused: 400 invalid_request");
    }
}

fn x5t(made: &CertifiedKey<KeyPair>) -> String {
    base64url(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, made.cert.der()).as_ref())
}

//! A7, H71, H72, M87, M88: clients that publish their keys, and what their hosts may do to us.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use grantd::model::time::Clock;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::assertion::{Signer, ask, claims_at};
use crate::harness::{Answer, Db, Server, Setup, client};

on_both!(
    jca_17_jca_18_keys_are_fetched_when_they_are_needed_and_no_more,
    h72_nothing_leads_to_an_address_that_is_not_public,
    h72_m88_an_answer_that_is_no_key_set_harms_nobody,
    h72_a_host_that_never_answers_is_given_up,
    jca_16_keys_or_a_uri,
);

/// What a host does with a connection.
#[derive(Clone)]
enum Does {
    /// Answers with this, head and body.
    Answers(Vec<u8>),
    /// Takes the request, and that is all.
    Hangs,
    /// Sends a byte now and then, for ever.
    Trickles,
}

/// The host of clients that publish their keys, on loopback, with a certificate that it signed itself.
struct Host {
    port: u16,
    does: Arc<Mutex<Does>>,
    /// How many requests came, and the last one.
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<String>>,
    ca: String,
}

impl Host {
    async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (ca, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let chain = vec![CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = Self {
            port: socket.local_addr().unwrap().port(),
            does: Arc::new(Mutex::new(Does::Hangs)),
            asked: Arc::default(),
            last: Arc::default(),
            ca,
        };
        let (does, asked, last) = (Arc::clone(&host.does), Arc::clone(&host.asked), Arc::clone(&host.last));
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let (acceptor, does, asked, last) = (acceptor.clone(), does.clone(), asked.clone(), last.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = vec![0; 4096];
                    let read = stream.read(&mut request).await.unwrap_or(0);
                    asked.fetch_add(1, Ordering::SeqCst);
                    *last.lock().unwrap() = String::from_utf8_lossy(&request[..read]).into_owned();
                    let does = does.lock().unwrap().clone();
                    match does {
                        Does::Answers(answer) => {
                            drop(stream.write_all(&answer).await);
                            drop(stream.shutdown().await);
                        }
                        Does::Hangs => tokio::time::sleep(Duration::from_mins(1)).await,
                        Does::Trickles => {
                            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n").await);
                            while stream.write_all(b" ").await.is_ok() && stream.flush().await.is_ok() {
                                tokio::time::sleep(Duration::from_millis(200)).await;
                            }
                        }
                    }
                });
            }
        });
        host
    }

    fn uri(&self) -> String {
        format!("https://localhost:{}/jwks?v=1", self.port)
    }

    fn answers(&self, status: &str, fields: &str, body: &[u8]) {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{fields}\r\n", body.len());
        *self.does.lock().unwrap() = Does::Answers([head.as_bytes(), body].concat());
    }

    fn publishes(&self, signers: &[&Signer]) {
        let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
        self.answers(
            "200 OK",
            "content-type: application/jwk-set+json\r\n",
            json!({"keys": keys}).to_string().as_bytes(),
        );
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A server that trusts the host, with the client `pu` that publishes there, and a hand on its clock.
async fn with_pu(db: Db, host: &Host, allowed: &[&str]) -> (Server, Arc<AtomicI64>) {
    let mut setup = Setup::new(db).await;
    let (clock, hand) = Clock::fixed(1_800_000_000);
    setup.clock = clock;
    setup.settings.clients.jwks_uri_ca_file = setup.db.file("hosts.pem", &host.ca);
    setup.settings.clients.jwks_uri_allow = allowed.iter().map(|&text| text.to_owned()).collect();
    setup.store.create_client(&client("pu"), None).await.unwrap();
    assert!(setup.store.set_jwks_uri("pu", Some(&host.uri())).await.unwrap());
    (setup.start().await, hand)
}

async fn ask_as(server: &Server, signer: &Signer, id: &str) -> Answer {
    ask(server, &signer.assert(&claims_at(id, server.server.clock.now().0))).await
}

async fn jca_17_jca_18_keys_are_fetched_when_they_are_needed_and_no_more(db: Db) {
    let host = Host::start().await;
    let (first, second, thief) =
        (Signer::es256().named("k1"), Signer::ed25519().named("k2"), Signer::es256().named("k9"));
    host.publishes(&[&first]);
    let (server, hand) = with_pu(db, &host, &["localhost"]).await;
    assert_eq!(host.asked(), 0);
    for _ in 0..5 {
        ask_as(&server, &first, "pu").await.ok();
    }
    assert_eq!(host.asked(), 1);
    let request = host.last.lock().unwrap().to_lowercase();
    assert!(
        request.starts_with("get /jwks?v=1 http/1.1\r\n")
            && request.contains(&format!("host: localhost:{}", host.port))
    );
    assert!(!request.contains("authorization") && !request.contains("cookie"), "H72: {request}");

    // H71: ten thousand unknown ids would be as many as a hundred.
    for number in 0..100 {
        let header = json!({"alg": "ES256", "kid": format!("x{number}")}).to_string();
        let claims = claims_at("pu", hand.load(Ordering::Relaxed)).to_string();
        ask(&server, &thief.sign(&header, &claims)).await.e401();
    }
    assert_eq!(host.asked(), 1);
    hand.fetch_add(30, Ordering::Relaxed);
    ask_as(&server, &thief, "pu").await.e401();
    ask_as(&server, &first, "pu").await.ok();
    assert_eq!(host.asked(), 2);

    // A new key is found by its id, half a minute after the last fetch at the earliest.
    host.publishes(&[&first, &second]);
    ask_as(&server, &second, "pu").await.e401();
    hand.fetch_add(30, Ordering::Relaxed);
    ask_as(&server, &second, "pu").await.ok();
    assert_eq!(host.asked(), 3);

    // M87: a removed one works for five minutes at most.
    host.publishes(&[&second]);
    hand.fetch_add(200, Ordering::Relaxed);
    ask_as(&server, &first, "pu").await.ok();
    hand.fetch_add(100, Ordering::Relaxed);
    ask_as(&server, &first, "pu").await.e401();
    ask_as(&server, &second, "pu").await.ok();
    assert_eq!(host.asked(), 4);

    // While the host is in trouble, what was fetched last is used, for an hour.
    host.answers("500 Internal Server Error", "", b"{}");
    for _ in 0..11 {
        hand.fetch_add(301, Ordering::Relaxed);
        ask_as(&server, &second, "pu").await.ok();
    }
    hand.fetch_add(301, Ordering::Relaxed);
    ask_as(&server, &second, "pu").await.e401();
    host.publishes(&[&second]);
    hand.fetch_add(30, Ordering::Relaxed);
    ask_as(&server, &second, "pu").await.ok();

    // C16: who may not authenticate makes nobody fetch.
    let asked = host.asked();
    server.store.set_client_enabled("pu", false).await.unwrap();
    server.refresh().await;
    hand.fetch_add(301, Ordering::Relaxed);
    ask_as(&server, &second, "pu").await.e401();
    assert_eq!(host.asked(), asked);
}

async fn h72_nothing_leads_to_an_address_that_is_not_public(db: Db) {
    let host = Host::start().await;
    let signer = Signer::es256();
    host.publishes(&[&signer]);
    let (server, _) = with_pu(db, &host, &["10.0.0.0/8", "other.test"]).await;
    ask_as(&server, &signer, "pu").await.e401();
    for (number, authority) in
        ["127.0.0.1", "[::1]", "2130706433", "0x7f.1", "0.0.0.0", "[::ffff:127.0.0.1]", "169.254.169.254"]
            .into_iter()
            .enumerate()
    {
        let id = format!("p{number}");
        server.store.create_client(&client(&id), None).await.unwrap();
        let uri = format!("https://{authority}:{}/jwks", host.port);
        server.store.set_jwks_uri(&id, Some(&uri)).await.unwrap();
        server.refresh().await;
        let started = Instant::now();
        ask_as(&server, &signer, &id).await.e401();
        assert!(started.elapsed() < Duration::from_secs(2), "{authority}: {:?}", started.elapsed());
    }
    assert_eq!(host.asked(), 0, "not even a handshake");
    for uri in ["http://c.test/jwks", "file:///etc/passwd", "https://c.test/jwks#x", "gopher://c.test/"] {
        assert!(
            server
                .store
                .set_jwks_uri("pu", Some(uri))
                .await
                .unwrap_err()
                .to_string()
                .contains("jwks_uri: an https URL"),
            "{uri}"
        );
    }
}

async fn h72_m88_an_answer_that_is_no_key_set_harms_nobody(db: Db) {
    let (host, elsewhere) = (Host::start().await, Host::start().await);
    let signer = Signer::es256();
    host.publishes(&[&signer]);
    let (server, hand) = with_pu(db, &host, &["127.0.0.0/8"]).await;
    ask_as(&server, &signer, "pu").await.ok();
    let redirect = format!("location: {}\r\n", elsewhere.uri());
    let set = json!({"keys": [Signer::es256().jwk()]}).to_string();
    let private = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "d": "AA"}]}).to_string();
    let large = vec![b' '; 10 * 1024 * 1024];
    for (why, status, fields, body) in [
        ("redirect", "302 Found", redirect.as_str(), set.as_bytes()),
        ("permanent redirect", "308 Permanent Redirect", redirect.as_str(), set.as_bytes()),
        ("not found", "404 Not Found", "", set.as_bytes()),
        ("gzip", "200 OK", "content-encoding: gzip\r\n", set.as_bytes()),
        ("no set", "200 OK", "", b"{}"),
        ("empty set", "200 OK", "", b"{\"keys\":[]}"),
        ("html", "200 OK", "", b"<html></html>"),
        ("truncated", "200 OK", "", &set.as_bytes()[..20]),
        ("private", "200 OK", "", private.as_bytes()),
        ("ten megabytes", "200 OK", "", &large),
    ] {
        host.answers(status, fields, body);
        hand.fetch_add(301, Ordering::Relaxed);
        ask_as(&server, &signer, "pu").await.ok();
        tokio::time::sleep(Duration::from_millis(100)).await;
        ask_as(&server, &signer, "pu").await.ok();
        assert_eq!(elsewhere.asked(), 0, "{why}");
    }
}

async fn h72_a_host_that_never_answers_is_given_up(db: Db) {
    let host = Host::start().await;
    let signer = Signer::es256();
    let (server, hand) = with_pu(db, &host, &["localhost"]).await;
    server.store.create_client(&client("pk"), None).await.unwrap();
    server.store.add_client_keys("pk", &[signer.stored()]).await.unwrap();
    server.refresh().await;
    for does in [Does::Hangs, Does::Trickles] {
        *host.does.lock().unwrap() = does;
        hand.fetch_add(30, Ordering::Relaxed);
        let started = Instant::now();
        let (slow, (other, took)) = tokio::join!(ask_as(&server, &signer, "pu"), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let started = Instant::now();
            (ask_as(&server, &signer, "pk").await, started.elapsed())
        });
        slow.e401();
        other.ok();
        assert!((4..8).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
        assert!(took < Duration::from_secs(2), "others do not wait: {took:?}");
    }
    assert_eq!(host.asked(), 2);
}

async fn jca_16_keys_or_a_uri(db: Db) {
    let setup = Setup::new(db).await;
    let signer = Signer::es256();
    setup.store.create_client(&client("pk"), None).await.unwrap();
    setup.store.add_client_keys("pk", &[signer.stored()]).await.unwrap();
    let refused = setup.store.set_jwks_uri("pk", Some("https://c.test/jwks")).await.unwrap_err().to_string();
    assert!(refused.contains("not both"), "{refused}");
    assert!(setup.store.set_jwks_uri("pk", None).await.unwrap());
    assert!(!setup.store.set_jwks_uri("nobody", Some("https://c.test/jwks")).await.unwrap());
    setup.store.create_client(&client("pu"), None).await.unwrap();
    assert!(setup.store.set_jwks_uri("pu", Some("https://c.test/jwks")).await.unwrap());
    let refused = setup.store.add_client_keys("pu", &[signer.stored()]).await.unwrap_err().to_string();
    assert!(refused.contains("not both"), "{refused}");
    let server = setup.start().await;
    assert_eq!(ask_as(&server, &signer, "pk").await.status, StatusCode::OK);
}

//! Hosts of clients that publish their keys, and what they may do to us.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use grantd::model::time::Clock;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::assertion::{Signer, ask, claims_at};
use crate::harness::{Answer, Db, Server, Setup, client, set_jwks_uri};

/// The behaviour of a host on a connection.
#[derive(Clone)]
pub enum Does {
    /// Answers with this, head and body.
    Answers(Vec<u8>),
    /// Answers a path with a document, and every other with 404.
    Serves(Vec<(String, Vec<u8>)>),
    /// Takes the request, and that is all.
    Hangs,
    /// Sends a byte now and then, for ever.
    Trickles,
}

/// A host on loopback, at every address of it, with a certificate for each.
pub struct Host {
    pub port: u16,
    does: Arc<Mutex<Does>>,
    reached: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<String>>,
}

/// The one CA of all hosts, so that it is never a missing one that keeps us from a host.
static CA: LazyLock<(String, Issuer<'static, KeyPair>)> = LazyLock::new(|| {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), Issuer::new(params, key))
});

const NAMES: [&str; 7] =
    ["localhost", "127.0.0.1", "::1", "0.0.0.0", "::ffff:127.0.0.1", "127.0.0.2", "169.254.169.254"];

/// TLS of a host with these names, whose certificate is of this CA.
pub fn acceptor(names: &[&str], ca: &Issuer<'static, KeyPair>) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    let chain = vec![CertificateDer::from(params.signed_by(&key, ca).unwrap().der().to_vec())];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

impl Host {
    pub async fn start() -> Self {
        let acceptor = acceptor(&NAMES, &CA.1);
        // Of both families, where there are two.
        let socket = match TcpListener::bind("[::]:0").await {
            Ok(socket) => socket,
            Err(_) => TcpListener::bind("0.0.0.0:0").await.unwrap(),
        };
        let host = Self {
            port: socket.local_addr().unwrap().port(),
            does: Arc::new(Mutex::new(Does::Hangs)),
            reached: Arc::default(),
            asked: Arc::default(),
            last: Arc::default(),
        };
        let (does, asked, last) = (Arc::clone(&host.does), Arc::clone(&host.asked), Arc::clone(&host.last));
        let reached = Arc::clone(&host.reached);
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                reached.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, acceptor.clone(), does.clone(), asked.clone(), last.clone()));
            }
        });
        host
    }

    pub fn uri(&self) -> String {
        self.uri_at("localhost")
    }

    pub fn uri_at(&self, host: &str) -> String {
        format!("https://{host}:{}/jwks?v=1", self.port)
    }

    pub fn does(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    pub fn answers(&self, status: &str, fields: &str, body: &[u8]) {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{fields}\r\n", body.len());
        self.does(Does::Answers([head.as_bytes(), body].concat()));
    }

    pub fn publishes(&self, signers: &[&Signer]) {
        self.publishes_keys(&signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>());
    }

    pub fn publishes_keys(&self, keys: &[Value]) {
        let set = json!({"keys": keys}).to_string();
        self.answers("200 OK", "content-type: application/jwk-set+json\r\n", set.as_bytes());
    }

    /// Is an OpenID provider: serves a discovery document that names `issuer`, and a key set.
    pub fn is_issuer(&self, issuer: &str, keys: &[Value], fields: &str) {
        let jwks_uri = format!("{}/keys", self.issuer());
        let discovery = json!({"issuer": issuer, "jwks_uri": jwks_uri}).to_string();
        self.does(Does::Serves(vec![
            ("/.well-known/openid-configuration".into(), document(&discovery, "")),
            ("/keys".into(), document(&json!({"keys": keys}).to_string(), fields)),
        ]));
    }

    /// The issuer at this host.
    pub fn issuer(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// How many connections were made, whatever became of them.
    pub fn reached(&self) -> usize {
        self.reached.load(Ordering::SeqCst)
    }

    /// The number of requests that came.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// The last request, in lower case.
    pub fn last(&self) -> String {
        self.last.lock().unwrap().to_lowercase()
    }
}

/// The CA of all hosts, in PEM.
pub fn ca_pem() -> &'static str {
    &CA.0
}

/// The CA itself.
pub fn authority() -> &'static Issuer<'static, KeyPair> {
    &CA.1
}

/// An answer with a JSON document.
pub fn document(body: &str, fields: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{fields}\r\n{body}", body.len()).into_bytes()
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    does: Arc<Mutex<Does>>,
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<String>>,
) {
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
        Does::Serves(documents) => {
            let path = String::from_utf8_lossy(&request[..read]).split(' ').nth(1).unwrap_or_default().to_owned();
            let answer = documents.into_iter().find(|(served, _)| *served == path).map(|(_, answer)| answer);
            let answer = answer.unwrap_or_else(|| b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec());
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
}

/// A server to be that trusts the CA of hosts, and a hand on its clock.
pub async fn setup(db: Db, allowed: &[&str]) -> (Setup, Arc<AtomicI64>) {
    let mut setup = Setup::new(db).await;
    let (clock, hand) = Clock::fixed(1_800_000_000);
    setup.clock = clock;
    setup.settings.clients.jwks_uri_ca_file = setup.db.file("hosts.pem", &CA.0);
    setup.settings.clients.jwks_uri_allow = allowed.iter().map(|&text| text.to_owned()).collect();
    (setup, hand)
}

/// Registers a client that publishes its keys at `uri`.
pub async fn publishing(setup: &Setup, id: &str, uri: &str) {
    setup.store.create_client(&client(id), None).await.unwrap();
    assert!(set_jwks_uri(&setup.store, id, Some(uri)).await.unwrap());
}

/// A server with the client `jwks-uri-client` that publishes at the host, and a hand on its clock.
pub async fn with_jwks_uri_client(db: Db, host: &Host, allowed: &[&str]) -> (Server, Arc<AtomicI64>) {
    let (setup, hand) = setup(db, allowed).await;
    publishing(&setup, "jwks-uri-client", &host.uri()).await;
    (setup.start().await, hand)
}

/// Asks with an assertion of `id` that was made now and that `signer` signed.
pub async fn ask_as(server: &Server, signer: &Signer, id: &str) -> Answer {
    ask(server, &signer.assert(&claims_at(id, server.server.clock.now().0))).await
}

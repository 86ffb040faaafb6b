//! A host of issuers, with a document of its own at each path, and tokens of platforms that these issuers have signed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use grantd::model::time::Clock;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::assertion::Signer;
use crate::harness::Db;
use crate::jwks_host::acceptor;
use crate::platforms;
use crate::process::daemon::Grantd;

/// A host on loopback that answers each path with a document of its own, over TLS.
pub struct IssuerHost {
    pub port: u16,
    documents: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    asked: Arc<AtomicUsize>,
}

/// The CA of all these hosts.
static CA: LazyLock<(String, Issuer<'static, KeyPair>)> = LazyLock::new(|| {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), Issuer::new(params, key))
});

pub fn ca_pem() -> &'static str {
    &CA.0
}

impl IssuerHost {
    pub async fn start() -> Self {
        let acceptor = acceptor(&["localhost"], &CA.1);
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let host = Self { port, documents: Arc::default(), asked: Arc::default() };
        let (documents, asked) = (Arc::clone(&host.documents), Arc::clone(&host.asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                tokio::spawn(serve(stream, acceptor.clone(), Arc::clone(&documents), Arc::clone(&asked)));
            }
        });
        host
    }

    /// Its issuer, and with a path the URL of a document.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    pub fn serves(&self, path: &str, document: &Value) {
        self.documents.lock().unwrap().insert(path.to_owned(), document.to_string().into_bytes());
    }

    /// Serves the discovery document of an issuer at a path, and these keys.
    pub fn publishes(&self, path: &str, signers: &[&Signer]) {
        let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
        self.serves("/keys", &json!({"keys": keys}));
        let document = json!({"issuer": self.url(path), "jwks_uri": self.url("/keys")});
        self.serves(&format!("{}/.well-known/openid-configuration", path.trim_end_matches('/')), &document);
    }

    /// The number of requests that came.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    documents: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    asked: Arc<AtomicUsize>,
) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut request = vec![0; 4096];
    let read = stream.read(&mut request).await.unwrap_or(0);
    asked.fetch_add(1, Ordering::SeqCst);
    let request = String::from_utf8_lossy(&request[..read]).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let document = documents.lock().unwrap().get(path).cloned();
    let status = if document.is_some() { "200 OK" } else { "404 Not Found" };
    let body = document.unwrap_or_default();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
    drop(stream.write_all(&[head.as_bytes(), &body].concat()).await);
    drop(stream.shutdown().await);
}

/// The program, with hosts that it may reach and whose CA it trusts.
pub fn grantd(db: &Db) -> Grantd {
    let ca = db.file("hosts.pem", ca_pem());
    Grantd::new(db)
        .with("GRANTD__CLIENTS__JWKS_URI_CA_FILE", ca.to_str().unwrap())
        .with("GRANTD__CLIENTS__JWKS_URI_ALLOW", "localhost")
}

/// The audience of all golden tokens: the issuer that an unconfigured grantd has.
pub const AUDIENCE: &str = "http://127.0.0.1:8080";

/// Claims of a platform's token, issued now by a host of the tests, for an unconfigured grantd.
fn issued(claims: Value, issuer: &str) -> Value {
    let aud = if claims["aud"].is_array() { json!([AUDIENCE]) } else { json!(AUDIENCE) };
    platforms::with(claims, &json!({"iss": issuer, "aud": aud}))
}

fn now() -> i64 {
    Clock::System.now().0
}

/// GitHub Actions. `sub` has one of two shapes: with names alone, or since July 2026 with ids beside them.
pub fn github(issuer: &str, sub: &str) -> Value {
    platforms::with(issued(platforms::github(now()), issuer), &json!({"sub": sub}))
}

/// GitLab CI, of a branch.
pub fn gitlab(issuer: &str) -> Value {
    issued(platforms::gitlab(now()), issuer)
}

/// GitLab CI, of a merge request from a fork: the claims of the project are the fork's.
pub fn gitlab_fork(issuer: &str) -> Value {
    let of_fork = json!({
        "sub": "project_path:mallory/app:ref_type:branch:ref:main", "project_path": "mallory/app", "project_id": "99",
        "namespace_id": "98", "ref_protected": "false", "pipeline_source": "merge_request_event",
    });
    platforms::with(gitlab(issuer), &of_fork)
}

/// A service account of a Kubernetes cluster; plain, EKS, AKS and GKE differ in `iss` alone.
pub fn service_account(issuer: &str) -> Value {
    issued(platforms::kubernetes(issuer, now()), issuer)
}

/// A JWT-SVID of SPIRE.
pub fn jwt_svid(id: &str) -> Value {
    json!({"sub": id, "aud": [AUDIENCE], "iat": now(), "exp": now() + 300})
}

/// A generic OpenID provider.
pub fn oidc(issuer: &str) -> Value {
    issued(platforms::oidc(now()), issuer)
}

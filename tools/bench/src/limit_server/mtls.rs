//! The limit for clients with certificates (RFC 8705): the handshake has proved the key and verified the chain, and the
//! token is bound to the certificate.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use axum::routing::post;
use axum::serve::{IncomingStream, Listener};
use axum::{Router, serve};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::token::{Cnf, Form, Signer, answer, mint};

/// The thumbprint of the certificate of a connection, computed once for it.
#[derive(Clone)]
struct Thumbprint(Arc<str>);

impl Connected<IncomingStream<'_, TlsListener>> for Thumbprint {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        let shown = stream.io().get_ref().1.peer_certificates().and_then(<[_]>::first);
        let hash = shown.map(|certificate| BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, certificate)));
        Self(hash.unwrap_or_default().into())
    }
}

/// Serves `POST /token` for clients with a certificate.
pub async fn run(socket: TcpListener, tls: TlsAcceptor, signer: Signer) -> anyhow::Result<()> {
    let router = Router::new().route("/token", post(token)).with_state(Arc::new(signer));
    let service = router.into_make_service_with_connect_info::<Thumbprint>();
    Ok(serve(TlsListener::start(socket, tls)?, service).await?)
}

async fn token(
    State(signer): State<Arc<Signer>>,
    ConnectInfo(Thumbprint(shown)): ConnectInfo<Thumbprint>,
    body: Bytes,
) -> Response {
    answer(by_certificate(&signer, &shown, &body))
}

fn by_certificate(signer: &Signer, shown: &str, body: &[u8]) -> Option<Vec<u8>> {
    let form = Form::parse(body)?;
    let client_id = form.client_id.as_deref().filter(|_| !shown.is_empty())?;
    mint(signer, client_id, form.scope.as_deref(), Some(Cnf::X5tS256(shown)))
}

/// TLS from PEM files; with `client_ca`, clients must have a certificate of that CA.
pub fn acceptor(cert: &Path, key: &Path, client_ca: Option<&Path>) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
    let config = match client_ca {
        None => ServerConfig::builder().with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(file).context("the clients' CA")?)?;
            ServerConfig::builder().with_client_cert_verifier(WebPkiClientVerifier::builder(roots.into()).build()?)
        }
    };
    Ok(TlsAcceptor::from(Arc::new(config.with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?)))
}

/// A listener that performs TLS handshakes off its accept loop, so that a slow one delays no other.
pub struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl TlsListener {
    /// Starts to accept connections.
    pub fn start(socket: TcpListener, tls: TlsAcceptor) -> anyhow::Result<Self> {
        let address = socket.local_addr()?;
        let (shaken, ready) = mpsc::channel(64);
        tokio::spawn(async move {
            while !shaken.is_closed() {
                let Ok((stream, peer)) = socket.accept().await else { continue };
                let (tls, shaken) = (tls.clone(), shaken.clone());
                tokio::spawn(async move {
                    // A client that leaves in the middle of a handshake does not concern the others.
                    if stream.set_nodelay(true).is_ok()
                        && let Ok(stream) = tls.accept(stream).await
                    {
                        drop(shaken.send((stream, peer)).await);
                    }
                });
            }
        });
        Ok(Self { ready, address })
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

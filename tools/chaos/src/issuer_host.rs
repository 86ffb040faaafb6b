//! Hosts of trusted issuers: each has an address of its own on loopback, publishes a document over TLS, and can fail.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;

/// Behaviour of a host on a connection.
#[derive(Debug, Clone)]
pub enum Does {
    /// Answers 200 with this document and this `Cache-Control`.
    Serves { document: String, cache_control: &'static str },
    /// Answers 200 with bytes that are no document.
    Garbles,
    /// Answers 500.
    Fails,
    /// Closes it at once.
    Drops,
    /// Takes the request and does not answer.
    Hangs,
}

/// The hosts.
#[derive(Clone)]
pub struct Hosts {
    pub port: u16,
    /// Certificate of the CA of all hosts, in PEM.
    pub ca_pem: String,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    does: HashMap<IpAddr, Does>,
    /// Times of the connections to each host.
    connected: HashMap<IpAddr, Vec<Instant>>,
}

impl Hosts {
    /// Starts the hosts with these addresses. They hang until [`Hosts::set`].
    pub async fn start(addresses: &[Ipv4Addr]) -> anyhow::Result<Self> {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (ca_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(names)?.signed_by(&key, &Issuer::new(ca, ca_key))?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let socket = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.context("the hosts of issuers")?;
        let hosts = Self { port: socket.local_addr()?.port(), ca_pem, shared: Arc::default() };
        let accepting = hosts.clone();
        tokio::spawn(async move {
            while let Ok((stream, peer)) = socket.accept().await {
                // One socket for all addresses of loopback listens on the others too.
                let Some(address) = stream.local_addr().ok().filter(|_| peer.ip().is_loopback()) else { continue };
                let does = accepting.note(address.ip());
                tokio::spawn(answer(stream, acceptor.clone(), does));
            }
        });
        Ok(hosts)
    }

    /// Sets what a host does from now on.
    pub fn set(&self, address: Ipv4Addr, does: Does) {
        self.lock().does.insert(address.into(), does);
    }

    /// The number of connections, and the largest number to one host within `window`.
    pub fn connections(&self, window: Duration) -> (usize, usize) {
        let shared = self.lock();
        let most = shared.connected.values().flat_map(|times| {
            times.iter().map(|from| times.iter().filter(|at| *at >= from && **at - *from < window).count())
        });
        (shared.connected.values().map(Vec::len).sum(), most.max().unwrap_or(0))
    }

    fn note(&self, address: IpAddr) -> Does {
        let mut shared = self.lock();
        shared.connected.entry(address).or_default().push(Instant::now());
        shared.does.get(&address).cloned().unwrap_or(Does::Hangs)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers the one request of a connection. A client that hangs up sooner ends it.
async fn answer(stream: TcpStream, acceptor: TlsAcceptor, does: Does) {
    if matches!(does, Does::Drops) {
        return;
    }
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut request = [0; 4096];
    if !matches!(stream.read(&mut request).await, Ok(1..)) {
        return;
    }
    let (status, cache_control, body) = match does {
        Does::Serves { document, cache_control } => ("200 OK", cache_control, document),
        Does::Garbles => ("200 OK", "no-cache", "\u{fffd}<html>{\"keys\":".repeat(100)),
        Does::Fails => ("500 Internal Server Error", "no-cache", String::new()),
        Does::Drops | Does::Hangs => return sleep(Duration::from_mins(1)).await,
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\ncache-control: {cache_control}\r\n\r\n", body.len());
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

//! `limit-server`: serves [`grantd_load::limit`] until it is killed.
//!
//! limit-server [ES256|EdDSA|RS256|PS256] [--listen ADDRESS] [--workers N] [--cert FILE --key FILE]
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use axum::serve::{Listener, ListenerExt as _};
use grantd_load::limit::{Signer, router};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse()?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(arguments.workers).enable_all().build()?.block_on(serve(arguments))
}

struct Arguments {
    alg: String,
    listen: SocketAddr,
    workers: usize,
    tls: Option<(PathBuf, PathBuf)>,
}

impl Arguments {
    fn parse() -> anyhow::Result<Self> {
        let mut parsed =
            Self { alg: "ES256".into(), listen: SocketAddr::from(([127, 0, 0, 1], 0)), workers: 1, tls: None };
        let (mut cert, mut key) = (None, None);
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--listen" => parsed.listen = value()?.parse().context("--listen")?,
                "--workers" => parsed.workers = value()?.parse::<usize>().context("--workers")?.max(1),
                "--cert" => cert = Some(PathBuf::from(value()?)),
                "--key" => key = Some(PathBuf::from(value()?)),
                other if other.starts_with('-') => bail!("there is no option {other}"),
                alg => alg.clone_into(&mut parsed.alg),
            }
        }
        if !parsed.listen.ip().is_loopback() {
            bail!("it knows no clients and gives everyone a token: it listens on loopback only");
        }
        parsed.tls = cert.zip(key);
        Ok(parsed)
    }
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let signer = Signer::generate(&arguments.alg).with_context(|| format!("no key for {}", arguments.alg))?;
    let router = router(Arc::new(signer));
    let socket = TcpListener::bind(arguments.listen).await?;
    println!("listening {}", socket.local_addr()?);
    match arguments.tls {
        None => {
            let socket = socket.tap_io(|stream| drop(stream.set_nodelay(true)));
            axum::serve(socket, router).await?;
        }
        Some((cert, key)) => axum::serve(TlsListener::start(socket, acceptor(&cert, &key)?)?, router).await?,
    }
    Ok(())
}

fn acceptor(cert: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Shakes hands off the accept loop, so that one slow hand holds up nobody.
struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl TlsListener {
    fn start(socket: TcpListener, tls: TlsAcceptor) -> anyhow::Result<Self> {
        let address = socket.local_addr()?;
        let (shaken, ready) = mpsc::channel(64);
        tokio::spawn(async move {
            while !shaken.is_closed() {
                let Ok((stream, peer)) = socket.accept().await else { continue };
                let (tls, shaken) = (tls.clone(), shaken.clone());
                tokio::spawn(async move {
                    // A far end that leaves in the middle of a handshake is no concern of the others.
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

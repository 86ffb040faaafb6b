//! `limit-server`: the limit, served until the process is killed. It knows no clients: it listens on loopback only.
#![forbid(unsafe_code)]

mod federated;
mod mtls;
mod single_use;
mod token;
mod verify;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use axum::serve::ListenerExt as _;
use clap::Parser as _;
use tokio::net::TcpListener;

use mtls::{TlsListener, acceptor};
use single_use::SingleUse;
use token::{Signer, router};

#[derive(clap::Parser)]
struct Arguments {
    /// ES256, EdDSA, RS256 or PS256
    #[arg(default_value = "ES256")]
    alg: String,
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Certificate for TLS
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    #[arg(long)]
    key: Option<PathBuf>,
    /// Require certificates of this CA
    #[arg(long, requires = "cert")]
    client_ca: Option<PathBuf>,
    /// Require DPoP proofs, and record their ids in this database
    #[arg(long)]
    database: Option<String>,
    /// Require assertions by these keys instead
    #[arg(long, requires = "database")]
    keys: Option<PathBuf>,
    /// Verify tokens of the P-256 key with this point, in base64url
    #[arg(long)]
    verify: Option<String>,
    /// Require tokens of the trusted issuer with this RSA key, a structure of PKCS #1 in base64url
    #[arg(long)]
    issuer_key: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.listen.ip().is_loopback(), "--listen {}: not a loopback address", arguments.listen);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(arguments.workers.max(1)).enable_all().build()?.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let signer = Signer::generate(&arguments.alg).with_context(|| format!("no key for {}", arguments.alg))?;
    let socket = TcpListener::bind(arguments.listen).await?;
    println!("listening {}", socket.local_addr()?);
    if let (Some(cert), Some(key)) = (&arguments.cert, &arguments.key) {
        let tls = acceptor(cert, key, arguments.client_ca.as_deref())?;
        if arguments.client_ca.is_some() {
            return mtls::run(socket, tls, signer).await;
        }
        return Ok(axum::serve(TlsListener::start(socket, tls)?, router(Arc::new(signer))).await?);
    }
    let router = match (&arguments.database, &arguments.keys) {
        (None, _) => match (&arguments.verify, &arguments.issuer_key) {
            (Some(point), _) => verify::router(point)?,
            (None, Some(key)) => federated::router(signer, key)?,
            (None, None) => router(Arc::new(signer)),
        },
        (Some(database), None) => single_use::proofs(Arc::new(SingleUse::new(signer, database, CONNECTIONS, "")?)),
        (Some(database), Some(keys)) => {
            let keys = std::fs::read_to_string(keys).context("--keys")?;
            single_use::assertions(Arc::new(SingleUse::new(signer, database, CONNECTIONS, &keys)?))
        }
    };
    let socket = socket.tap_io(|stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(socket, router).await?)
}

/// The default of grantd's `database.max_connections`.
const CONNECTIONS: u32 = 5;

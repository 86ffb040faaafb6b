//! `limit-server`: serves [`grantd_load::limit`] until it is killed.
//!
//! limit-server [ES256|EdDSA|RS256|PS256] [--listen ADDRESS] [--workers N] [--cert FILE --key FILE [--client-ca FILE]]
//!              [--database URL [--keys FILE]] [--verify POINT]
//!
//! With `--client-ca` it wants certificates; with `--database`, DPoP proofs; with `--keys` too, assertions. With `--verify` it
//! checks tokens for gateways by a key of P-256.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use axum::serve::ListenerExt as _;
use grantd_load::limit::certified::{self, TlsListener, acceptor};
use grantd_load::limit::proved::{self, Proved};
use grantd_load::limit::verified::verified;
use grantd_load::limit::{Signer, router};
use tokio::net::TcpListener;

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
    client_ca: Option<PathBuf>,
    database: Option<String>,
    keys: Option<PathBuf>,
    verify: Option<String>,
}

impl Arguments {
    fn parse() -> anyhow::Result<Self> {
        let mut parsed = Self {
            alg: "ES256".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            workers: 1,
            tls: None,
            client_ca: None,
            database: None,
            keys: None,
            verify: None,
        };
        let (mut cert, mut key) = (None, None);
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--listen" => parsed.listen = value()?.parse().context("--listen")?,
                "--workers" => parsed.workers = value()?.parse::<usize>().context("--workers")?.max(1),
                "--cert" => cert = Some(PathBuf::from(value()?)),
                "--key" => key = Some(PathBuf::from(value()?)),
                "--client-ca" => parsed.client_ca = Some(PathBuf::from(value()?)),
                "--database" => parsed.database = Some(value()?),
                "--keys" => parsed.keys = Some(PathBuf::from(value()?)),
                "--verify" => parsed.verify = Some(value()?),
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
    let socket = TcpListener::bind(arguments.listen).await?;
    println!("listening {}", socket.local_addr()?);
    if let Some((cert, key)) = &arguments.tls {
        let tls = acceptor(cert, key, arguments.client_ca.as_deref())?;
        if arguments.client_ca.is_some() {
            return certified::run(socket, tls, signer).await;
        }
        return Ok(axum::serve(TlsListener::start(socket, tls)?, router(Arc::new(signer))).await?);
    }
    let router = match (&arguments.database, &arguments.keys) {
        (None, _) => match &arguments.verify {
            Some(point) => verified(point)?,
            None => router(Arc::new(signer)),
        },
        (Some(database), None) => proved::proofs(Arc::new(Proved::new(signer, database, CONNECTIONS, "")?)),
        (Some(database), Some(keys)) => {
            let keys = std::fs::read_to_string(keys).context("--keys")?;
            proved::assertions(Arc::new(Proved::new(signer, database, CONNECTIONS, &keys)?))
        }
    };
    let socket = socket.tap_io(|stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(socket, router).await?)
}

/// As many as grantd has by itself (`database.max_connections`).
const CONNECTIONS: u32 = 5;

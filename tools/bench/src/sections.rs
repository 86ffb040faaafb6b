//! The sections of the bench, and what they share. A new section is a file here and a line in [`SECTIONS`].

mod assertions;
mod connections;
mod cores;
mod documents;
mod dpop;
mod federated;
mod herd;
mod memory;
mod mtls;
mod noise;
mod pkcs11;
mod refuse;
mod scale;
mod spent;
mod sql;
mod start;
mod sweep;
mod verify;
mod warm;

use std::cell::OnceCell;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use grantd_kit::clients::{Client, idle_clients, register};
use grantd_kit::grantd::Grantd;
use grantd_kit::postgres::Postgres;
use tempfile::TempDir;

use crate::contest::{GENERATOR_CORE, Plan, SERVER_CORE, beside_us, pin_self};
use crate::generator::{Load, Requests, Until};
use crate::report::Report;
use crate::stock::Stock;

/// The name of a section, its question, and its code.
type Section = (&'static str, &'static str, for<'a> fn(&'a Bench, &'a mut Report) -> Running<'a>);
type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// In the order in which they run.
pub const SECTIONS: [Section; 28] = [
    ("noise", "the limit server against itself: ratios this near to 1 mean nothing", |b, r| Box::pin(noise::run(b, r))),
    ("warm", "P1 P2: warm tokens against the limit", |b, r| Box::pin(warm::run(b, r))),
    ("connections", "new connections and TLS against the limit", |b, r| Box::pin(connections::run(b, r))),
    ("cores", "P3: both cores against one", |b, r| Box::pin(cores::run(b, r))),
    ("sql", "P4 P5: statements, rows and hashes for 100,000 tokens", |b, r| Box::pin(sql::run(b, r))),
    ("memory", "P6: resident memory", |b, r| Box::pin(memory::run(b, r))),
    ("start", "P7: start to first token", |b, r| Box::pin(start::run(b, r))),
    ("refuse", "P8: a bogus secret refused", |b, r| Box::pin(refuse::run(b, r))),
    ("scale", "P10: the cost of a token in a large registry", |b, r| Box::pin(scale::run(b, r))),
    ("scale-start", "start, processor time and memory by the number of clients", |b, r| Box::pin(scale::start(b, r))),
    ("scale-bulk", "one statement that changes all clients", |b, r| Box::pin(scale::bulk(b, r))),
    ("scale-commands", "commands in a large registry", |b, r| Box::pin(scale::commands(b, r))),
    ("scale-revocations", "100,000 revocations in one statement", |b, r| Box::pin(scale::revocations(b, r))),
    ("scale-sqlite", "one change on SQLite with 100,000 clients", |b, r| Box::pin(scale::sqlite(b, r))),
    ("scale-herd", "2,000 clients that start at once on a new replica", |b, r| Box::pin(scale::herd(b, r))),
    ("scale-database", "the load of a replica on PostgreSQL", |b, r| Box::pin(scale::database(b, r))),
    ("scale-replicas", "200 replicas on one PostgreSQL", |b, r| Box::pin(scale::replicas(b, r))),
    ("assertions", "P9: private_key_jwt against the limit", |b, r| Box::pin(assertions::run(b, r))),
    ("dpop", "DPoP proofs against the limit", |b, r| Box::pin(dpop::run(b, r))),
    ("federated-first", "new tokens of a trusted issuer against the limit", |b, r| Box::pin(federated::first(b, r))),
    ("federated-again", "reused tokens of a trusted issuer against secrets", |b, r| Box::pin(federated::again(b, r))),
    ("mtls", "certificates of clients against the limit, and against secrets", |b, r| Box::pin(mtls::run(b, r))),
    ("pkcs11", "tokens signed in SoftHSM beside those signed in memory; only by name", |b, r| {
        Box::pin(pkcs11::run(b, r))
    }),
    ("spent", "P10: the cost of a token with a million spent ids", |b, r| Box::pin(spent::run(b, r))),
    ("sweep", "what requests notice while a million expired ids are swept", |b, r| Box::pin(sweep::run(b, r))),
    ("herd", "a thousand clients that start at once", |b, r| Box::pin(herd::run(b, r))),
    ("documents", "P11: key set and metadata against static bytes", |b, r| Box::pin(documents::run(b, r))),
    ("verify", "P11: a gateway's question against a form and a signature", |b, r| Box::pin(verify::run(b, r))),
];

/// The state that sections share.
pub struct Bench {
    plan: Plan,
    quick: bool,
    grantd: PathBuf,
    postgres: Postgres,
    directory: TempDir,
    base: OnceCell<Vec<Client>>,
}

impl Bench {
    /// Runs the named sections, or all of them when none is named.
    pub async fn run(quick: bool, grantd: Option<PathBuf>, names: &[String]) -> anyhow::Result<()> {
        if let Some(unknown) = names.iter().find(|name| !SECTIONS.iter().any(|section| stands_for(name, section.0))) {
            bail!("there is no section {unknown}; there are {}", SECTIONS.map(|section| section.0).join(" "));
        }
        let (instances, round) = if quick { (1, Duration::from_secs(1)) } else { (3, Duration::from_secs(2)) };
        pin_self(GENERATOR_CORE)?;
        let bench = Self {
            plan: Plan { instances, rounds: 2, round },
            quick,
            grantd: grantd.map_or_else(|| beside_us("grantd"), |path| Ok(path.canonicalize()?))?,
            postgres: Postgres::from_environment()?,
            directory: tempfile::Builder::new().prefix("grantd-bench.").tempdir()?,
            base: OnceCell::new(),
        };
        let mut report = Report::default();
        for (name, _, section) in SECTIONS {
            if names.is_empty() || names.iter().any(|wanted| stands_for(wanted, name)) {
                section(&bench, &mut report).await?;
            }
        }
        report.sum_up();
        Ok(())
    }

    /// grantd on that database, on the server's processor, without a line in the log for each token.
    fn grantd(&self, database_url: String) -> anyhow::Result<Grantd> {
        let grantd = Grantd::new(self.grantd.clone(), self.directory.path(), database_url)?;
        Ok(Grantd { cores: Some(SERVER_CORE.to_owned()), level: Some("warn"), ..grantd })
    }

    /// Creates a database with the schema and nothing else.
    async fn empty(&self, database: &str) -> anyhow::Result<Grantd> {
        self.postgres.create(database, None).await?;
        let grantd = self.grantd(self.postgres.url(database))?;
        grantd.run_ok(&["migrate"], "").await?;
        Ok(grantd)
    }

    /// Creates a database with `total` clients; the secrets of [`REAL`] of them are known.
    async fn copy(&self, database: &str, total: usize) -> anyhow::Result<(Grantd, &[Client])> {
        if self.base.get().is_none() {
            let clients = register_many(&self.empty(BASE).await?, REAL).await?;
            self.base.get_or_init(|| clients);
        }
        self.postgres.create(database, Some(BASE)).await?;
        self.postgres.sql(database, &idle_clients("filler", total.saturating_sub(REAL), false)).await?;
        Ok((self.grantd(self.postgres.url(database))?, self.base.get().map_or(&[], Vec::as_slice)))
    }

    /// A path in the directory of the run.
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Number of spent ids in the large registry.
    fn million(&self) -> usize {
        if self.quick { 100_000 } else { 1_000_000 }
    }
}

/// Whether `wanted` is the name of the section, or the part of it before a hyphen.
fn stands_for(wanted: &str, section: &str) -> bool {
    section.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Registers `count` clients with secrets. Each takes a hash, so a thousand at most.
async fn register_many(grantd: &Grantd, count: usize) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for number in 0..count {
        clients.push(register(grantd, &format!("app-{number:04}"), &[]).await?);
    }
    Ok(clients)
}

/// A load on [`CONNECTIONS`] kept connections in cleartext, of the same requests in turn.
fn load(requests: &Arc<[Vec<u8>]>) -> Load {
    Load {
        requests: Requests::InTurn(Arc::clone(requests)),
        rate: None,
        expected: 200,
        connections: CONNECTIONS,
        reconnect: false,
        tls: None,
        until: Until::Time(Duration::from_secs(1)),
        stop: Arc::default(),
        threads: 1,
    }
}

/// The same load of requests that are sent once each.
fn load_once(stock: &Arc<Stock>) -> Load {
    Load { requests: Requests::Once(Arc::clone(stock)), ..load(&[].into()) }
}

/// Token requests of the first `count` clients.
fn requests(clients: &[Client], count: usize) -> Arc<[Vec<u8>]> {
    clients.iter().take(count).map(|client| client.request.to_vec()).collect()
}

/// Clients with a secret that is known.
const REAL: usize = 100;
const BASE: &str = "base";
const CONNECTIONS: usize = 64;

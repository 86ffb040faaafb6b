//! The sections of `bench`, and what they share. A new one is a file here and a line in [`SECTIONS`].

mod assertions;
mod connections;
mod cores;
mod documents;
mod dpop;
mod herd;
mod memory;
mod mtls;
mod noise;
mod refuse;
mod scale;
mod spent;
mod sql;
mod start;
mod sweep;
mod verify;
mod warm;

use std::cell::OnceCell;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use crate::contest::Plan;
use crate::generator::{Load, Requests, Until};
use crate::postgres::Postgres;
use crate::process::{Room, Server, free_address, pin_self, pinned};
use crate::registrations::{Registered, filler, register, token_requests};
use crate::report::Report;
use crate::site::{GENERATOR_CORE, SERVER_CORE, Serve, Site, beside_us};
use crate::stock::Stock;

/// A section's name, what it answers, and the code that does.
type Section = (&'static str, &'static str, fn(&Bench, &mut Report) -> anyhow::Result<()>);

/// In the order in which they run.
pub const SECTIONS: [Section; 17] = [
    ("noise", "the limit server against itself: ratios this near to 1 mean nothing", noise::run),
    ("warm", "P1 P2: warm tokens against the limit", warm::run),
    ("connections", "new connections and TLS against the limit", connections::run),
    ("cores", "P3: both cores against one", cores::run),
    ("sql", "P4 P5: statements, rows and hashes for 100,000 tokens", sql::run),
    ("memory", "P6: resident memory", memory::run),
    ("start", "P7: start to first token", start::run),
    ("refuse", "P8: a bogus secret refused", refuse::run),
    ("scale", "P10: the cost of a token in a large registry", scale::run),
    ("assertions", "P9: private_key_jwt against the limit", assertions::run),
    ("dpop", "DPoP proofs against the limit", dpop::run),
    ("mtls", "certificates of clients against the limit, and against secrets", mtls::run),
    ("spent", "P10: the cost of a token with a million spent ids", spent::run),
    ("sweep", "what requests notice while a million expired ids are swept", sweep::run),
    ("herd", "a thousand clients that start at once", herd::run),
    ("documents", "P11: key set and metadata against static bytes", documents::run),
    ("verify", "P11: a gateway's question against a form and a signature", verify::run),
];

/// What sections share.
pub struct Bench {
    plan: Plan,
    quick: bool,
    postgres: Postgres,
    room: Room,
    base: OnceCell<(Site, Vec<Registered>)>,
}

impl Bench {
    /// Runs the named sections, all of them when none is named.
    ///
    /// # Errors
    /// When a name is unknown, or a section cannot be carried out.
    pub fn run(quick: bool, names: &[String]) -> anyhow::Result<()> {
        if let Some(unknown) = names.iter().find(|name| !SECTIONS.iter().any(|section| section.0 == **name)) {
            bail!("there is no section {unknown}; there are {}", SECTIONS.map(|section| section.0).join(" "));
        }
        let plan = if quick {
            Plan { instances: 1, rounds: 2, round: Duration::from_secs(1) }
        } else {
            Plan { instances: 3, rounds: 2, round: Duration::from_secs(2) }
        };
        pin_self(GENERATOR_CORE)?;
        let bench = Self {
            plan,
            quick,
            postgres: Postgres::from_environment()?,
            room: Room::new("grantd-bench")?,
            base: OnceCell::new(),
        };
        let mut report = Report::default();
        for (name, _, section) in SECTIONS {
            if names.is_empty() || names.iter().any(|wanted| wanted == name) {
                section(&bench, &mut report)?;
            }
        }
        report.sum_up();
        Ok(())
    }

    /// A database with [`REAL`] clients whose secrets are known, and its clients. Sections copy it.
    fn base(&self) -> anyhow::Result<&(Site, Vec<Registered>)> {
        if self.base.get().is_none() {
            let site = self.empty(BASE)?;
            let clients = register(&site, REAL)?;
            self.base.get_or_init(|| (site, clients));
        }
        let Some(base) = self.base.get() else { bail!("the base is missing") };
        Ok(base)
    }

    /// A database with the schema and nothing else.
    fn empty(&self, database: &str) -> anyhow::Result<Site> {
        self.postgres.create(database, None)?;
        let site = Site::new(&self.room, self.postgres.url(database, None))?;
        site.migrate(None)?;
        Ok(site)
    }

    /// How many spent ids are many.
    fn million(&self) -> usize {
        if self.quick { 100_000 } else { 1_000_000 }
    }

    /// A copy of the base that has `total` clients, and those of them whose secrets are known.
    fn copy(&self, database: &str, total: usize) -> anyhow::Result<(Site, &[Registered])> {
        let (_, clients) = self.base()?;
        self.postgres.create(database, Some(BASE))?;
        self.postgres.sql(database, &filler(total.saturating_sub(REAL)))?;
        Ok((Site::new(&self.room, self.postgres.url(database, None))?, clients))
    }
}

/// Starts the limit server.
fn limit(alg: &str, arguments: &[&str]) -> anyhow::Result<Server> {
    let address = free_address()?;
    let mut command = pinned(SERVER_CORE, &beside_us("limit-server")?);
    command.args([alg, "--listen", &address.to_string()]).args(arguments).stdout(Stdio::null());
    Server::start(command, address, None)
}

/// A load of [`CONNECTIONS`] kept connections in cleartext.
fn load(server: &Server, requests: &Arc<[Vec<u8>]>) -> Load {
    Load {
        address: server.address,
        requests: Requests::InTurn(Arc::clone(requests)),
        rate: None,
        expected: 200,
        connections: CONNECTIONS,
        reconnect: false,
        tls: None,
        until: Until::Time(Duration::from_secs(1)),
        threads: 1,
    }
}

/// The same with requests that are sent once each.
fn load_of(server: &Server, stock: &Arc<Stock>) -> Load {
    Load { requests: Requests::Once(Arc::clone(stock)), ..load(server, &[].into()) }
}

/// grantd on PostgreSQL, signing with `alg`, no line for tokens.
fn quiet(alg: &str) -> Serve<'static> {
    Serve { settings: vec![("token.alg", alg.to_owned())], ..Serve::default() }
}

/// Token requests of the first `count` clients, to be shared.
fn requests(clients: &[Registered], count: usize) -> Arc<[Vec<u8>]> {
    token_requests(clients, count).into()
}

/// Clients with a secret that is known.
const REAL: usize = 100;
const BASE: &str = "base";
const CONNECTIONS: usize = 64;

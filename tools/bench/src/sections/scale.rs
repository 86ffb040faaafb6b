//! Registries of 10,000, 100,000 and a million clients, and fleets of replicas. grantd is measured from outside: by its
//! answers, its processes and its statements, so that any version of it can be.

mod bulk;
mod commands;
mod database;
mod herd;
mod measure;
mod replicas;
mod revocations;
mod sqlite;
mod start;

use grantd_kit::clients::{Client, Dialect, fleet_clients};
use grantd_kit::grantd::Grantd;
use grantd_kit::report::Goal;

use super::{Bench, REAL, load, register_many, requests};
use crate::contest::{Contender, GENERATOR_CORE, SERVER_CORE, pin_self, ratio, run as contest};
use crate::report::Report;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let few = bench.empty("few").await?;
    let few_clients = register_many(&few, USED).await?;
    let (many, many_clients) = bench.copy("many", 100_000).await?;
    let contenders = [("10 clients", few, &few_clients[..]), ("100,000 clients", many, many_clients)].map(
        |(name, grantd, clients)| {
            Contender::grantd(name, grantd.with("token.alg", "ES256"), load(&requests(clients, USED)))
        },
    );
    report.section("scale: 10 clients in use, of 10 and of 100,000");
    if let [few, many] = contest(bench.plan, &contenders, report).await?.as_slice() {
        report.figure("P10: CPU ÷ with few", &ratio(many, few, |round| round.cpu), "", Goal::AtMost(1.1));
        report.figure("P10: time for each ÷ with few", &ratio(few, many, |round| round.rate), "", Goal::AtMost(1.1));
    }
    Ok(())
}

/// A section whose failure ends no other one, and whose commands may use both processors.
macro_rules! section {
    ($name:ident, $title:literal) => {
        pub(super) async fn $name(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
            report.section(concat!("scale: ", $title));
            pin_self(&format!("{SERVER_CORE},{GENERATOR_CORE}"))?;
            if let Err(error) = $name::run(bench, report).await {
                report.failed($title, &error);
            }
            pin_self(GENERATOR_CORE)
        }
    };
}

section!(start, "start and memory of a replica");
section!(bulk, "one statement changes the token_ttl of all clients, under load");
section!(commands, "commands, wall time and peak memory");
section!(revocations, "revocations in one statement");
section!(sqlite, "one change on SQLite");
section!(herd, "clients that start at once on a new replica");
section!(database, "the load of a replica on PostgreSQL");
section!(replicas, "a fleet on one PostgreSQL");

/// The sizes of registries.
fn sizes(bench: &Bench) -> &'static [usize] {
    if bench.quick { &[10_000, 100_000] } else { &[10_000, 100_000, 1_000_000] }
}

/// The size as it stands in the name of a figure.
fn label(size: usize) -> String {
    if size < 1_000_000 { format!("{}k", size / 1000) } else { format!("{}M", size / 1_000_000) }
}

/// A database with `size` clients and those whose secrets are known. It is made once, for sections that leave it as it is.
async fn registry(bench: &Bench, size: usize) -> anyhow::Result<(String, &[Client])> {
    let name = format!("scale_{size}");
    if bench.postgres.sql("postgres", &format!("select 1 from pg_database where datname = '{name}'")).await?.is_empty()
    {
        let made = format!("{name}_in_work");
        bench.postgres.remove(&made).await?;
        bench.copy(&made, REAL).await?;
        let verifiers =
            "select 1 from information_schema.columns where (table_name, column_name) = ('client_secret', 'verifier')";
        let verifiers = !bench.postgres.sql(&made, verifiers).await?.is_empty();
        bench.postgres.sql(&made, &fleet_clients(Dialect::Postgres, size, verifiers)?).await?;
        bench.postgres.sql("postgres", &format!("alter database {made} rename to {name}")).await?;
    } else if bench.base.get().is_none() {
        anyhow::bail!("{name} is of another run");
    }
    Ok((name, bench.base.get().map_or(&[], Vec::as_slice)))
}

/// grantd on a copy of such a database, which it may change.
async fn copy_of<'a>(bench: &'a Bench, size: usize, name: &str) -> anyhow::Result<(Grantd, &'a [Client])> {
    let (original, clients) = registry(bench, size).await?;
    bench.postgres.remove(name).await?;
    // A copy file by file writes no WAL. PostgreSQL 14 and before know no other way.
    let strategy = match bench.postgres.sql("postgres", "show server_version_num").await?.parse::<u32>()? {
        150_000.. => " strategy file_copy",
        _ => "",
    };
    bench.postgres.create(name, Some(&format!("{original}{strategy}"))).await?;
    Ok((bench.grantd(bench.postgres.url(name))?, clients))
}

const USED: usize = 10;

//! P9: `private_key_jwt` against the limit that verifies, inserts durably and signs.

use std::sync::Arc;

use anyhow::ensure;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::{Bench, load_of, quiet};
use crate::client_key::{ClientKey, assertion_form};
use crate::contest::{Contender, compare, ratio, run as contest};
use crate::limit::ISSUER;
use crate::registrations::{post_form, register_keys};
use crate::report::{Figure, Goal, Report};
use crate::site::Site;
use crate::stock::Stock;

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (site, _) = bench.copy("assertions", 1000)?;
    let clients = Arc::new(register_keys(&site, &bench.room, KEYED)?);
    bench.postgres.create("assertions_limit", Some("assertions"))?;
    let keys = bench.room.path("keys");
    std::fs::write(&keys, points(&clients))?;
    let (keys, database) = (keys.display().to_string(), bench.postgres.url("assertions_limit", None));
    let options = ["--database", &database, "--keys", &keys];
    report.section(&format!("assertions: private_key_jwt, ES256, {KEYED} clients with keys, 64 kept connections"));
    let stocks = [stock(&clients), stock(&clients)];
    against_limit(bench, report, &site, &options, stocks, ("P9", Goal::AtLeast(0.85)))
}

/// The limit server and grantd, each with a stock of requests of its own, since each may be sent once.
pub(super) fn against_limit(
    bench: &Bench,
    report: &mut Report,
    site: &Site,
    options: &[&str],
    [theirs, ours]: [Arc<Stock>; 2],
    (figure, goal): (&str, Goal),
) -> anyhow::Result<()> {
    let contenders = [
        Contender::new("limit", || {
            let server = super::limit("ES256", options)?;
            let load = load_of(&server, &theirs);
            Ok((server, load))
        }),
        Contender::new("grantd", || {
            let server = site.serve(&quiet("ES256"))?;
            let load = load_of(&server, &ours);
            Ok((server, load))
        }),
    ];
    durable(bench, report)?;
    if let [limit, grantd] = contest(bench.plan, &contenders, report)?.as_slice() {
        compare(report, figure, grantd, limit, goal);
        report.figure("p99 ÷ limit's", &ratio(grantd, limit, |round| round.p99), "", Goal::None);
    }
    late(report, &[&theirs, &ours]);
    Ok(())
}

/// Assertions by the clients in turn.
pub(super) fn stock(clients: &Arc<Vec<(String, ClientKey)>>) -> Arc<Stock> {
    let clients = Arc::clone(clients);
    let turn = std::sync::atomic::AtomicUsize::new(0);
    Arc::new(Stock::new(move || {
        let turn = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % clients.len().max(1);
        let (id, key) = clients.get(turn).ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(post_form(&[], &assertion_form(&key.assertion(id, ISSUER)?)))
    }))
}

/// What is measured here is a write that is on disk.
pub(super) fn durable(bench: &Bench, report: &Report) -> anyhow::Result<()> {
    let settings = bench.postgres.sql("postgres", "show fsync; show synchronous_commit; show wal_sync_method")?;
    let settings: Vec<&str> = settings.lines().collect();
    ensure!(settings.starts_with(&["on", "on"]), "PostgreSQL writes without waiting: {settings:?}");
    report.note(&format!("PostgreSQL with fsync on, synchronous_commit on, {}", settings.last().unwrap_or(&"")));
    Ok(())
}

/// Tells how many requests were signed while it was measured, which costs the generator.
pub(super) fn late(report: &mut Report, stocks: &[&Arc<Stock>]) {
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let late = stocks.iter().map(|stock| stock.made_late()).sum::<u64>() as f64;
    report.figure("signed while sending, warm-up included", &Figure::new(vec![late]), "", Goal::None);
}

/// The keys as the limit server reads them.
fn points(clients: &[(String, ClientKey)]) -> String {
    clients.iter().map(|(id, key)| format!("{id} {}\n", BASE64_URL_SAFE_NO_PAD.encode(key.point()))).collect()
}

/// Clients that have keys.
pub(super) const KEYED: usize = 50;

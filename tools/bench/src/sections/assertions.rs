//! P9: `private_key_jwt` against the limit that verifies, inserts durably and signs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd_kit::client_key::{ClientKey, assertion_request};
use grantd_kit::clients::register_key;
use grantd_kit::grantd::{Grantd, ISSUER};
use grantd_kit::report::Goal;
use grantd_kit::stats::number;

use super::{Bench, load_once};
use crate::contest::{Contender, compare, ratio, run as contest};
use crate::report::{Figure, Report, note};
use crate::stock::Stock;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (grantd, _) = bench.copy("assertions", 1000).await?;
    let clients = keyed_clients(&grantd).await?;
    bench.postgres.create("assertions_limit", Some("assertions")).await?;
    let keys = bench.path("keys");
    std::fs::write(&keys, points(&clients))?;
    let (keys, database) = (keys.display().to_string(), bench.postgres.url("assertions_limit"));
    let options = ["--database", &database, "--keys", &keys];
    report.section(&format!("assertions: private_key_jwt, ES256, {KEYED} clients with keys, 64 kept connections"));
    let stocks = [stock(&clients), stock(&clients)];
    against_limit(bench, report, grantd, &options, stocks, ("P9", Goal::AtLeast(0.85))).await
}

/// Measures the limit server and grantd, each with a stock of its own, since each request may be sent once only.
pub(super) async fn against_limit(
    bench: &Bench,
    report: &mut Report,
    grantd: Grantd,
    options: &[&str],
    [theirs, ours]: [Arc<Stock>; 2],
    (figure, goal): (&str, Goal),
) -> anyhow::Result<()> {
    let contenders = [
        Contender::limit("limit", "ES256", options, load_once(&theirs)),
        Contender::grantd("grantd", grantd.with("token.alg", "ES256"), load_once(&ours)),
    ];
    ensure_durable(bench).await?;
    if let [limit, grantd] = contest(bench.plan, &contenders, report).await?.as_slice() {
        compare(report, figure, grantd, limit, goal);
        report.figure("p99 ÷ limit's", &ratio(grantd, limit, |round| round.p99), "", Goal::None);
    }
    report_late(report, &[&theirs, &ours]);
    Ok(())
}

/// Clients that authenticate with assertions.
pub(super) type KeyedClients = Arc<Vec<(String, ClientKey)>>;

/// Registers [`KEYED`] clients, each with a key.
pub(super) async fn keyed_clients(grantd: &Grantd) -> anyhow::Result<KeyedClients> {
    let mut clients = Vec::new();
    for number in 0..KEYED {
        let id = format!("keyed-{number:04}");
        let key = register_key(grantd, &id).await?;
        clients.push((id, key));
    }
    Ok(Arc::new(clients))
}

/// Assertions of the clients in turn.
pub(super) fn stock(clients: &KeyedClients) -> Arc<Stock> {
    let (clients, turn) = (Arc::clone(clients), AtomicUsize::new(0));
    Arc::new(Stock::new(move || {
        let turn = turn.fetch_add(1, Ordering::Relaxed) % clients.len().max(1);
        let (id, key) = clients.get(turn).ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(assertion_request(&key.assertion(id, ISSUER)?))
    }))
}

/// Fails unless PostgreSQL waits for the disk: the figures are about writes that are durable.
pub(super) async fn ensure_durable(bench: &Bench) -> anyhow::Result<()> {
    let settings = bench.postgres.sql("postgres", "show fsync; show synchronous_commit; show wal_sync_method").await?;
    let settings: Vec<&str> = settings.lines().collect();
    ensure!(settings.starts_with(&["on", "on"]), "PostgreSQL writes without waiting: {settings:?}");
    note(&format!("PostgreSQL with fsync on, synchronous_commit on, {}", settings.last().unwrap_or(&"")));
    Ok(())
}

/// Reports how many requests were signed during the measurement, which costs the generator.
pub(super) fn report_late(report: &mut Report, stocks: &[&Arc<Stock>]) {
    let late = Figure::one(number(stocks.iter().map(|stock| stock.made_late()).sum()));
    report.figure("signed while sending, warm-up included", &late, "", Goal::None);
}

/// The keys as the limit server reads them.
fn points(clients: &[(String, ClientKey)]) -> String {
    clients.iter().map(|(id, key)| format!("{id} {}\n", BASE64_URL_SAFE_NO_PAD.encode(key.point()))).collect()
}

/// The number of clients that have keys.
pub(super) const KEYED: usize = 50;

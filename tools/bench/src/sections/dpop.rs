//! A warm secret with a DPoP proof for each request, against the limit that verifies, inserts durably and signs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use grantd_kit::client_key::ClientKey;
use grantd_kit::clients::Client;
use grantd_kit::grantd::TOKEN_ENDPOINT;
use grantd_kit::http::with_field;
use grantd_kit::report::Goal;

use super::assertions::against_limit;
use super::{Bench, REAL};
use crate::report::Report;
use crate::stock::Stock;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (grantd, clients) = bench.copy("dpop", 1000).await?;
    bench.postgres.create("dpop_limit", Some("dpop")).await?;
    let database = bench.postgres.url("dpop_limit");
    report.section(&format!("dpop: a known secret and a proof, ES256, {REAL} of 1,000 clients, 64 kept connections"));
    let stocks = [stock(clients)?, stock(clients)?];
    against_limit(bench, report, grantd, &["--database", &database], stocks, ("grantd", Goal::None)).await
}

/// Requests of the clients in turn, each client with a key of its own.
fn stock(clients: &[Client]) -> anyhow::Result<Arc<Stock>> {
    let senders = clients.iter().map(|client| Ok((Arc::clone(&client.request), ClientKey::generate()?)));
    let (senders, turn) = (senders.collect::<anyhow::Result<Vec<_>>>()?, AtomicUsize::new(0));
    Ok(Arc::new(Stock::new(move || {
        let turn = turn.fetch_add(1, Ordering::Relaxed) % senders.len().max(1);
        let (request, key) = senders.get(turn).ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(with_field(request, "DPoP", &key.proof(TOKEN_ENDPOINT)?))
    })))
}

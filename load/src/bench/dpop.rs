//! A warm secret with a DPoP proof for each request, against the limit that verifies, inserts durably and signs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::assertions::against_limit;
use super::{Bench, REAL};
use crate::client_key::ClientKey;
use crate::limit::proved::HTU;
use crate::registrations::{Registered, post_form};
use crate::report::{Goal, Report};
use crate::stock::Stock;

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (site, clients) = bench.copy("dpop", 1000)?;
    bench.postgres.create("dpop_limit", Some("dpop"))?;
    let database = bench.postgres.url("dpop_limit", None);
    report.section(&format!("dpop: a known secret and a proof, ES256, {REAL} of 1,000 clients, 64 kept connections"));
    let stocks = [stock(clients)?, stock(clients)?];
    against_limit(bench, report, &site, &["--database", &database], stocks, ("grantd", Goal::None))
}

/// Requests by the clients in turn, each with a key of its own.
fn stock(clients: &[Registered]) -> anyhow::Result<Arc<Stock>> {
    let basic = |client: &Registered| BASE64_STANDARD.encode(format!("{}:{}", client.id, client.secret));
    let senders = clients.iter().map(|client| Ok((basic(client), ClientKey::generate()?)));
    let (senders, turn) = (senders.collect::<anyhow::Result<Vec<_>>>()?, AtomicUsize::new(0));
    Ok(Arc::new(Stock::new(move || {
        let turn = turn.fetch_add(1, Ordering::Relaxed) % senders.len().max(1);
        let (basic, key) = senders.get(turn).ok_or(std::io::ErrorKind::InvalidInput)?;
        let fields = [("Authorization", format!("Basic {basic}")), ("DPoP", key.proof(HTU)?)];
        Ok(post_form(&fields, "grant_type=client_credentials"))
    })))
}

//! Tokens of a Kubernetes cluster as proofs of identity: the first use of each against the limit that verifies RS256 and
//! signs, and tokens that are used again against warm secrets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd_kit::client_key::assertion_request;
use grantd_kit::clients::Client;
use grantd_kit::grantd::{Grantd, ISSUER};
use grantd_kit::issuer::{RsaKey, service_account, subject};
use grantd_kit::report::Goal;

use super::assertions::report_late;
use super::{Bench, load, load_once, requests};
use crate::contest::{Contender, compare, ratio, run as contest};
use crate::report::Report;
use crate::stock::Stock;

/// Each token is used for the first time.
pub(super) async fn first(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (grantd, clients) = bench.copy("federated_first", 1000).await?;
    let key = Arc::new(trust(bench, &grantd, clients).await?);
    let public = BASE64_URL_SAFE_NO_PAD.encode(key.pkcs1());
    let (theirs, ours) = (stock(&key, clients), stock(&key, clients));
    let contenders = [
        Contender::limit("limit", "ES256", &["--issuer-key", &public], load_once(&theirs)),
        Contender::grantd("grantd", grantd.with("token.alg", "ES256"), load_once(&ours)),
    ];
    report.section(&format!("federated-first: new RS256 tokens of {FEDERATED} pods, ES256, 64 kept connections"));
    if let [limit, grantd] = contest(bench.plan, &contenders, report).await?.as_slice() {
        compare(report, "first use", grantd, limit, Goal::AtLeast(0.9));
        report.figure("p99 ÷ limit's", &ratio(grantd, limit, |round| round.p99), "", Goal::None);
    }
    report_late(report, &[&theirs, &ours]);
    Ok(())
}

/// Each client uses its one token again and again.
pub(super) async fn again(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (grantd, clients) = bench.copy("federated_again", 1000).await?;
    let key = trust(bench, &grantd, clients).await?;
    let tokens = clients.iter().take(FEDERATED).map(|client| token_request(&key, &client.id));
    let tokens: Arc<[Vec<u8>]> = tokens.collect::<std::io::Result<Vec<_>>>()?.into();
    let grantd = grantd.with("token.alg", "ES256");
    let contenders = [
        Contender::grantd("warm secrets", grantd.clone(), load(&requests(clients, FEDERATED))),
        Contender::grantd("reused tokens", grantd, load(&tokens)),
    ];
    report.section(&format!("federated-again: one token of each of {FEDERATED} pods, ES256, 64 kept connections"));
    if let [secrets, tokens] = contest(bench.plan, &contenders, report).await?.as_slice() {
        report.figure("rate ÷ warm secrets'", &ratio(tokens, secrets, |round| round.rate), "", Goal::AtLeast(0.9));
        report.figure(
            "warm secrets' CPU ÷ its own",
            &ratio(secrets, tokens, |round| round.cpu),
            "",
            Goal::AtLeast(0.9),
        );
        report.figure("p99 ÷ warm secrets'", &ratio(tokens, secrets, |round| round.p99), "", Goal::None);
    }
    Ok(())
}

/// Trusts a cluster with a fresh key, and gives the first [`FEDERATED`] clients a rule each.
async fn trust(bench: &Bench, grantd: &Grantd, clients: &[Client]) -> anyhow::Result<RsaKey> {
    let key = RsaKey::generate()?;
    let set = bench.path("cluster.jwks");
    std::fs::write(&set, format!(r#"{{"keys":[{}]}}"#, key.jwk()))?;
    let set = set.display().to_string();
    grantd.run_ok(&["trusted-issuer", "create", CLUSTER, "--kind", "kubernetes", "--jwks", &set], "").await?;
    for client in clients.iter().take(FEDERATED) {
        let sub = subject(&client.id);
        let rule = ["client", "federation", "add", &client.id, "--issuer", CLUSTER, "--subject", &sub];
        grantd.run_ok(&rule, "").await?;
    }
    Ok(key)
}

/// Tokens of the clients in turn.
fn stock(key: &Arc<RsaKey>, clients: &[Client]) -> Arc<Stock> {
    let ids: Vec<String> = clients.iter().take(FEDERATED).map(|client| client.id.clone()).collect();
    let (key, turn) = (Arc::clone(key), AtomicUsize::new(0));
    Arc::new(Stock::new(move || {
        let turn = turn.fetch_add(1, Ordering::Relaxed) % ids.len().max(1);
        token_request(&key, ids.get(turn).ok_or(std::io::ErrorKind::InvalidInput)?)
    }))
}

fn token_request(key: &RsaKey, client_id: &str) -> std::io::Result<Vec<u8>> {
    Ok(assertion_request(&key.sign(&service_account(CLUSTER, client_id, ISSUER)?)?))
}

const CLUSTER: &str = "https://cluster.example.com";
/// The number of clients that have rules.
const FEDERATED: usize = 50;

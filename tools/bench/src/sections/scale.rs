//! P10, its first half: what a token costs when 100,000 clients are known, against ten.

use grantd_kit::report::Goal;

use super::{Bench, load, register_many, requests};
use crate::contest::{Contender, ratio, run as contest};
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

const USED: usize = 10;

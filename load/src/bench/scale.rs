//! P10, its first half: what a token costs when 100,000 clients are known, against ten.

use super::{Bench, load, quiet, requests};
use crate::contest::{Contender, ratio, run as contest};
use crate::registrations::register;
use crate::report::{Goal, Report};

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let few = bench.empty("few")?;
    let few_clients = register(&few, USED)?;
    let (many, many_clients) = bench.copy("many", 100_000)?;
    let contender = |name, site, clients| {
        let asked = requests(clients, USED);
        Contender::new(name, move || {
            let server = crate::site::Site::serve(site, &quiet("ES256"))?;
            let load = load(&server, &asked);
            Ok((server, load))
        })
    };
    let contenders = [contender("10 clients", &few, &few_clients), contender("100,000 clients", &many, many_clients)];
    report.section("scale: 10 clients in use, of 10 and of 100,000");
    if let [few, many] = contest(bench.plan, &contenders, report)?.as_slice() {
        report.figure("P10: CPU ÷ with few", &ratio(many, few, |round| round.cpu), "", Goal::AtMost(1.1));
        report.figure("P10: time for each ÷ with few", &ratio(few, many, |round| round.rate), "", Goal::AtMost(1.1));
    }
    Ok(())
}

const USED: usize = 10;

//! P3: both processors against one, with the generator included in the same way; and the same for the limit server, which
//! says what the machine permits.

use grantd_kit::grantd::Grantd;
use grantd_kit::report::Goal;

use super::{Bench, REAL, load, requests};
use crate::contest::{
    GENERATOR_CORE, Rounds, SERVER_CORE, heading, measure, pin_self, ratio, row, start_limit, warm_up,
};
use crate::generator::{Load, Until};
use crate::report::Report;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (on_one, clients) = bench.copy("cores", 1000).await?;
    let both = format!("{SERVER_CORE},{GENERATOR_CORE}");
    let on_both = Grantd { cores: Some(both.clone()), ..on_one.clone() };
    let load = load(&requests(clients, REAL));
    report.section("cores: ES256, server and generator together on one processor, and on both");
    let names = ["one", "both", "limit, one", "limit, both"];
    let mut all = names.map(|_| Rounds::new());
    for _ in 0..bench.plan.instances {
        let servers = [
            (on_one.serve().await?, SERVER_CORE, 1),
            (on_both.serve().await?, both.as_str(), 2),
            (start_limit(SERVER_CORE, &["ES256"]).await?, SERVER_CORE, 1),
            (start_limit(&both, &["ES256", "--workers", "2"]).await?, both.as_str(), 2),
        ];
        for round in 0..=bench.plan.rounds {
            for ((server, cores, threads), rounds) in servers.iter().zip(&mut all) {
                pin_self(cores)?;
                let load = Load { threads: *threads, until: Until::Time(bench.plan.round), ..load.clone() };
                if round == 0 {
                    warm_up(&load, server, server.public).await?;
                    continue;
                }
                let (measured, seen) = measure(server, &load, server.public)?;
                report.errors(&seen);
                rounds.push(measured);
            }
        }
    }
    pin_self(GENERATOR_CORE)?;
    heading();
    for (name, rounds) in names.iter().zip(&all) {
        row(name, rounds);
    }
    let [one, two, limit_one, limit_two] = &all;
    report.figure("P3: both ÷ one", &ratio(two, one, |round| round.rate), "", Goal::AtLeast(1.8));
    report.figure("the limit server: both ÷ one", &ratio(limit_two, limit_one, |round| round.rate), "", Goal::None);
    Ok(())
}

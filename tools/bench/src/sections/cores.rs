//! P3: both processors against one, with the generator included in the same way.

use grantd_kit::grantd::Grantd;
use grantd_kit::report::Goal;

use super::{Bench, REAL, load, requests};
use crate::contest::{GENERATOR_CORE, Rounds, SERVER_CORE, heading, measure, pin_self, ratio, row, warm_up};
use crate::generator::{Load, Until};
use crate::report::Report;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (on_one, clients) = bench.copy("cores", 1000).await?;
    let both = format!("{SERVER_CORE},{GENERATOR_CORE}");
    let on_both = Grantd { cores: Some(both.clone()), ..on_one.clone() };
    let load = load(&requests(clients, REAL));
    report.section("cores: ES256, server and generator together on one processor, and on both");
    let (mut one, mut two) = (Rounds::new(), Rounds::new());
    for _ in 0..bench.plan.instances {
        let servers = (on_one.serve().await?, on_both.serve().await?);
        for round in 0..=bench.plan.rounds {
            for (server, cores, threads, rounds) in
                [(&servers.0, SERVER_CORE, 1, &mut one), (&servers.1, both.as_str(), 2, &mut two)]
            {
                pin_self(cores)?;
                let load = Load { threads, until: Until::Time(bench.plan.round), ..load.clone() };
                if round == 0 {
                    warm_up(&load, server.public);
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
    for (name, rounds) in [("one", &one), ("both", &two)] {
        row(name, rounds);
    }
    report.figure("P3: both ÷ one", &ratio(&two, &one, |round| round.rate), "", Goal::AtLeast(1.8));
    Ok(())
}

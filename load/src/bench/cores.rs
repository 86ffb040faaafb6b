//! P3: both processors against one, the generator included in the same way.

use super::{Bench, REAL, load, requests};
use crate::contest::{Round, heading, measure, ratio, row, warm_up};
use crate::generator::{Load, Until};
use crate::process::pin_self;
use crate::report::{Goal, Report};
use crate::site::{GENERATOR_CORE, SERVER_CORE, Serve};

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (site, clients) = bench.copy("cores", 1000)?;
    let asked = requests(clients, REAL);
    let both = format!("{SERVER_CORE},{GENERATOR_CORE}");
    report.section("cores: ES256, server and generator together on one processor, and on both");
    let (mut on_one, mut on_both): (Vec<Round>, Vec<Round>) = (Vec::new(), Vec::new());
    for _ in 0..bench.plan.instances {
        let start = |cores| site.serve(&Serve { cores, ..Serve::default() });
        let servers = (start(SERVER_CORE)?, start(&both)?);
        for round in 0..=bench.plan.rounds {
            for (server, cores, threads, rounds) in
                [(&servers.0, SERVER_CORE, 1, &mut on_one), (&servers.1, both.as_str(), 2, &mut on_both)]
            {
                pin_self(cores)?;
                let load = Load { threads, until: Until::Time(bench.plan.round), ..load(server, &asked) };
                if round == 0 {
                    warm_up(&load);
                    continue;
                }
                let (measured, seen) = measure(server, &load)?;
                if seen.errors > 0 {
                    report.errors(seen.errors, seen.unavailable, seen.first_error.as_deref());
                }
                rounds.push(measured);
            }
        }
    }
    pin_self(GENERATOR_CORE)?;
    heading(report);
    for (name, rounds) in [("one", &on_one), ("both", &on_both)] {
        row(report, name, rounds);
    }
    report.figure("P3: both ÷ one", &ratio(&on_both, &on_one, |round| round.rate), "", Goal::AtLeast(1.8));
    Ok(())
}

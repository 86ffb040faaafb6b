//! A thousand clients that start at once, on one processor, with the slowest signature: a burst is no overload.

use std::time::Duration;

use super::{Bench, REAL, load, quiet, requests};
use crate::contest::warm_up;
use crate::generator::{Load, Until};
use crate::report::{Figure, Goal, Report};

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (site, clients) = bench.copy("herd", 1000)?;
    let asked = requests(clients, REAL);
    report.section(&format!("herd: {CLIENTS} connections at once, one token each, RS256"));
    let (mut tokens, mut unavailable, mut slowest) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.plan.instances * bench.plan.rounds {
        let server = site.serve(&quiet("RS256"))?;
        warm_up(&load(&server, &asked));
        // What the warm-up has queued is over.
        std::thread::sleep(Duration::from_secs(1));
        let until = Until::Count(CLIENTS as u64, Duration::from_mins(1));
        let seen = Load { connections: CLIENTS, until, ..load(&server, &asked) }.run();
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let (answers, refused) = (seen.answers as f64, seen.unavailable as f64);
        tokens.push(answers);
        unavailable.push(refused);
        slowest.push(seen.latencies.quantile_us(1.0) / 1000.0);
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    report.figure("tokens at the first attempt", &Figure::new(tokens), "", Goal::AtLeast(CLIENTS as f64));
    report.figure("answers 503", &Figure::new(unavailable), "", Goal::AtMost(0.0));
    report.figure("the slowest token", &Figure::new(slowest), "ms", Goal::None);
    Ok(())
}

const CLIENTS: usize = 1000;

//! A thousand clients that start at once, on one processor, with the slowest signature: a burst is no overload.

use std::time::Duration;

use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::time::sleep;

use super::{Bench, REAL, load, requests};
use crate::contest::warm_up;
use crate::generator::{Load, Until};
use crate::report::{Figure, Report};

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (grantd, clients) = bench.copy("herd", 1000).await?;
    let (grantd, load) = (grantd.with("token.alg", "RS256"), load(&requests(clients, REAL)));
    report.section(&format!("herd: {CLIENTS} connections at once, one token each, RS256"));
    let (mut tokens, mut unavailable, mut slowest) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.plan.instances * bench.plan.rounds {
        let server = grantd.serve().await?;
        warm_up(&load, &server, server.public).await?;
        // The queue of the warm-up is empty by then.
        sleep(Duration::from_secs(1)).await;
        let until = Until::Count(CLIENTS, Duration::from_mins(1));
        let mut seen = Load { connections: CLIENTS, until, ..load.clone() }.run(server.public);
        tokens.push(number(seen.answers));
        unavailable.push(number(seen.unavailable));
        slowest.push(seen.percentile(1.0) / 1000.0);
    }
    report.figure("tokens at the first attempt", &Figure::new(tokens), "", Goal::AtLeast(number(CLIENTS)));
    report.figure("answers 503", &Figure::new(unavailable), "", Goal::AtMost(0.0));
    report.figure("the slowest token", &Figure::new(slowest), "ms", Goal::None);
    Ok(())
}

const CLIENTS: usize = 1000;

//! P1 and P2: warm tokens against the limit server, with and without a line in the log for each.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use super::{Bench, REAL, load, quiet, requests};
use crate::contest::{Contender, compare, ratio, run as contest};
use crate::process::Server;
use crate::report::Goal::AtLeast;
use crate::report::{Figure, Goal, Report};
use crate::site::Serve;

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (site, clients) = bench.copy("warm", 1000)?;
    let asked = requests(clients, REAL);
    for (alg, without_line, with_line) in [("ES256", 0.95, 0.90), ("EdDSA", 0.92, 0.87), ("RS256", 0.98, 0.98)] {
        let log = bench.room.path(&format!("{alg}.log"));
        let limit = || {
            let server = super::limit(alg, &[])?;
            let load = load(&server, &asked);
            Ok((server, load))
        };
        let start = |serve: &Serve<'_>| {
            let server = site.serve(serve)?;
            let load = load(&server, &asked);
            Ok((server, load))
        };
        let quiet_log = bench.room.path(&format!("{alg}.warn.log"));
        let without = Serve { log: Some(quiet_log), ..quiet(alg) };
        let with = Serve { level: None, log: Some(log.clone()), ..quiet(alg) };
        let issued = std::cell::Cell::new(0.0);
        let mut logging = Contender::new("grantd, a line each", || start(&with));
        logging.afterwards = Box::new(|server| {
            issued.set(issued.get() + tokens(server)?);
            Ok(())
        });
        let contenders =
            [Contender::new("limit", limit), Contender::new("grantd, no line", || start(&without)), logging];
        report.section(&format!("warm {alg}: {REAL} of 1,000 clients, 64 kept connections"));
        let rounds = contest(bench.plan, &contenders, report)?;
        if let [limit, without, with] = rounds.as_slice() {
            compare(report, "P1 a, no line", without, limit, AtLeast(without_line));
            compare(report, "P1 b, a line each", with, limit, AtLeast(with_line));
            for (name, rounds) in [("P2 a, no line", without), ("P2 b, a line each", with)] {
                let ratio = ratio(rounds, limit, |round| round.p99);
                report.figure(&format!("{name}: p99 ÷ limit's"), &ratio, "", Goal::AtMost(1.25));
            }
        }
        // A log that loses lines is faster than one that does not.
        let missing = issued.get() - lines(&log)?;
        report.figure("b: tokens without a line", &Figure::new(vec![missing]), "", Goal::AtMost(0.0));
        fs::remove_file(&log)?;
    }
    Ok(())
}

fn tokens(server: &Server) -> anyhow::Result<f64> {
    let issued =
        server.metric(r#"grantd_token_requests_total{result="issued",reason="ok",method="client_secret_basic"}"#)?;
    // The writer has a thread of its own; half a second empties its queue.
    std::thread::sleep(std::time::Duration::from_millis(500));
    Ok(issued)
}

fn lines(log: &Path) -> anyhow::Result<f64> {
    let mut count = 0_u32;
    for line in BufReader::new(File::open(log)?).split(b'\n') {
        count += u32::from(line?.windows(12).any(|part| part == b"token.issued"));
    }
    Ok(f64::from(count))
}

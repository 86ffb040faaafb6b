//! P1 and P2: warm tokens against the limit server, with and without a line in the log for each.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use grantd_kit::grantd::Grantd;
use grantd_kit::report::Goal;

use super::{Bench, REAL, load, requests};
use crate::contest::{Contender, compare, ratio, run as contest};
use crate::report::{Figure, Report};

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (grantd, clients) = bench.copy("warm", 1000).await?;
    let load = load(&requests(clients, REAL));
    for (alg, without_line, with_line) in [("ES256", 0.95, 0.90), ("EdDSA", 0.92, 0.87), ("RS256", 0.98, 0.98)] {
        let grantd = grantd.clone().with("token.alg", alg);
        let log = bench.path(&format!("{alg}.log"));
        let without = Grantd { log: Some(bench.path(&format!("{alg}.warn.log"))), ..grantd.clone() };
        let with = Grantd { level: None, log: Some(log.clone()), ..grantd };
        let issued = Cell::new(0.0);
        let contenders = [
            Contender::limit("limit", alg, &[], load.clone()),
            Contender::grantd("grantd, no line", without, load.clone()),
            Contender {
                counted: Some((ISSUED, &issued)),
                ..Contender::grantd("grantd, a line each", with, load.clone())
            },
        ];
        report.section(&format!("warm {alg}: {REAL} of 1,000 clients, 64 kept connections"));
        if let [limit, without, with] = contest(bench.plan, &contenders, report).await?.as_slice() {
            compare(report, "P1 a, no line", without, limit, Goal::AtLeast(without_line));
            compare(report, "P1 b, a line each", with, limit, Goal::AtLeast(with_line));
            for (name, rounds) in [("P2 a, no line", without), ("P2 b, a line each", with)] {
                let ratio = ratio(rounds, limit, |round| round.p99);
                report.figure(&format!("{name}: p99 ÷ limit's"), &ratio, "", Goal::AtMost(1.25));
            }
        }
        // A log that loses lines is faster than one that does not.
        let missing = issued.get() - lines(&log)?;
        report.figure("b: tokens without a line", &Figure::one(missing), "", Goal::AtMost(0.0));
        fs::remove_file(&log)?;
    }
    Ok(())
}

fn lines(log: &Path) -> anyhow::Result<f64> {
    let mut count = 0_u32;
    for line in BufReader::new(File::open(log)?).split(b'\n') {
        count += u32::from(line?.windows(12).any(|part| part == b"token.issued"));
    }
    Ok(f64::from(count))
}

const ISSUED: &str = r#"grantd_token_requests_total{result="issued",reason="ok",method="client_secret_basic"}"#;

//! P8: what a secret that nobody has costs, against an answer that never changes.

use std::sync::Arc;

use anyhow::anyhow;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::{Bench, load, quiet};
use crate::contest::{Contender, ratio, run as contest};
use crate::generator::Load;
use crate::registrations::token_request;
use crate::report::{Goal, Report};
use crate::site::Serve;

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (site, _) = bench.copy("refuse", 1000)?;
    let bogus: Arc<[Vec<u8>]> = (0..NAMES).map(bogus).collect::<anyhow::Result<Vec<_>>>()?.into();
    let elsewhere = format!("POST /static-401 HTTP/1.1\r\nHost: auth.example.com\r\n{BODY}").into_bytes();
    let elsewhere: Arc<[Vec<u8>]> = [elsewhere].into();
    let refused = |load: Load| Load { expected: 401, ..load };
    let start = |serve: &Serve<'_>| {
        let server = site.serve(serve)?;
        let load = refused(load(&server, &bogus));
        Ok((server, load))
    };
    let silent = Serve { level: Some("error"), ..quiet("ES256") };
    let telling = Serve { log: Some(bench.room.path("refuse.log")), ..quiet("ES256") };
    let contenders = [
        Contender::new("static 401", || {
            let server = super::limit("ES256", &[])?;
            let load = refused(load(&server, &elsewhere));
            Ok((server, load))
        }),
        Contender::new("grantd, no line", || start(&silent)),
        Contender::new("grantd, a line each", || start(&telling)),
    ];
    report.section(&format!("refuse: secrets that nobody has, {NAMES} client ids"));
    if let [fixed, silent, telling] = contest(bench.plan, &contenders, report)?.as_slice() {
        let cpu = |rounds: &_| ratio(rounds, fixed, |round| round.cpu);
        report.figure("P8: CPU ÷ static 401's, no line", &cpu(silent), "", Goal::AtMost(1.5));
        report.figure("CPU ÷ static 401's, a line each", &cpu(telling), "", Goal::None);
    }
    Ok(())
}

/// A request by a secret that looks like one of grantd's, made of chance.
fn bogus(number: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = [0; 41];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("no randomness"))?;
    let (random, tag) = bytes.split_at(32);
    let (random, tag) = (BASE64_URL_SAFE_NO_PAD.encode(random), BASE64_URL_SAFE_NO_PAD.encode(tag));
    Ok(token_request(&format!("nobody-{number}"), &format!("gds_nobody{number}_{random}{tag}")))
}

/// Each name may fail ten times in a row before it is slowed down, so there have to be many.
const NAMES: usize = 60_000;
const BODY: &str =
    "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 29\r\n\r\ngrant_type=client_credentials";

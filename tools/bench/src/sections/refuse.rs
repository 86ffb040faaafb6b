//! P8: what refusing an unknown secret costs, against an answer that never changes.

use std::sync::Arc;

use anyhow::anyhow;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd_kit::grantd::Grantd;
use grantd_kit::http::{post_form, token_request};
use grantd_kit::report::Goal;

use super::{Bench, load};
use crate::contest::{Contender, ratio, run as contest};
use crate::generator::Load;
use crate::report::Report;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (grantd, _) = bench.copy("refuse", 1000).await?;
    let grantd = grantd.with("token.alg", "ES256");
    let bogus: Arc<[Vec<u8>]> = (0..NAMES).map(bogus).collect::<anyhow::Result<Vec<_>>>()?.into();
    let refused = |requests| Load { expected: 401, ..load(requests) };
    let elsewhere = [post_form("/static-401", &[], "grant_type=client_credentials")].into();
    let silent = Grantd { level: Some("error"), ..grantd.clone() };
    let telling = Grantd { log: Some(bench.path("refuse.log")), ..grantd };
    let contenders = [
        Contender::limit("static 401", "ES256", &[], refused(&elsewhere)),
        Contender::grantd("grantd, no line", silent, refused(&bogus)),
        Contender::grantd("grantd, a line each", telling, refused(&bogus)),
    ];
    report.section(&format!("refuse: secrets that nobody has, {NAMES} client ids"));
    if let [fixed, silent, telling] = contest(bench.plan, &contenders, report).await?.as_slice() {
        let cpu = |rounds: &_| ratio(rounds, fixed, |round| round.cpu);
        report.figure("P8: CPU ÷ static 401's, no line", &cpu(silent), "", Goal::AtMost(1.5));
        report.figure("CPU ÷ static 401's, a line each", &cpu(telling), "", Goal::None);
    }
    Ok(())
}

/// A request with a random secret of the shape of grantd's.
pub(super) fn bogus(number: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = [0; 41];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("no randomness"))?;
    let (random, tag) = bytes.split_at(32);
    let (random, tag) = (BASE64_URL_SAFE_NO_PAD.encode(random), BASE64_URL_SAFE_NO_PAD.encode(tag));
    Ok(token_request(&format!("nobody-{number}"), &format!("gds_nobody{number}_{random}{tag}")))
}

/// Each client id may fail ten times in a row before it is slowed down, so there are many.
const NAMES: usize = 60_000;

//! The limit server against itself: how far from 1 a ratio may be by chance, on this machine, at this hour.

use grantd_kit::http::token_request;
use grantd_kit::report::Goal;

use super::{Bench, REAL, load};
use crate::contest::{Contender, compare, run as contest};
use crate::report::Report;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let secret = "gds_abcdefghijklmnop_0123456789012345678901234567890123456789012";
    let requests = (0..REAL).map(|number| token_request(&format!("app-{number:04}"), secret)).collect();
    let contender = |name| Contender::limit(name, "ES256", &[], load(&requests));
    report.section("noise: the limit server against itself, ES256");
    let contenders = [contender("limit"), contender("limit again")];
    if let [one, other] = contest(bench.plan, &contenders, report).await?.as_slice() {
        compare(report, "again", other, one, Goal::None);
    }
    Ok(())
}

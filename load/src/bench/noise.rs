//! The limit server against itself: how far from 1 a ratio may be by chance, on this machine, at this hour.

use super::{Bench, REAL, load};
use crate::contest::{Contender, compare, run as contest};
use crate::registrations::token_request;
use crate::report::{Goal, Report};

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let secret = "gds_abcdefghijklmnop_0123456789012345678901234567890123456789012";
    let asked: std::sync::Arc<[Vec<u8>]> =
        (0..REAL).map(|number| token_request(&format!("app-{number:04}"), secret)).collect();
    let contender = |name| {
        Contender::new(name, || {
            let server = super::limit("ES256", &[])?;
            let load = load(&server, &asked);
            Ok((server, load))
        })
    };
    report.section("noise: the limit server against itself, ES256");
    if let [one, other] = contest(bench.plan, &[contender("limit"), contender("limit again")], report)?.as_slice() {
        compare(report, "again", other, one, Goal::None);
    }
    Ok(())
}

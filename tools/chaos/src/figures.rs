//! The figures, a file for each.

pub mod cold;
pub mod failover;
pub mod flood;
pub mod guessed;
pub mod hostile;
mod introspected;
pub mod issuers;
pub mod killed;
pub mod ledger;
pub mod once;
pub mod outage;
pub mod overload;
pub mod partition;
mod polling;
pub mod restarts;
pub mod rotation;
pub mod soak;
pub mod starvation;
pub mod timing;
pub mod upgrade;
pub mod visibility;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd_kit::stats::number;

use crate::driver::Record;
use crate::tally::Tally;

/// The honest load without a fault, measured before and after; the lower of both is what counts.
#[derive(Debug, Clone, Copy)]
pub struct Base {
    /// Percent within 250 ms.
    pub goodput: f64,
    /// In milliseconds.
    pub p99: f64,
}

impl Base {
    pub fn of(before: &Tally, after: &Tally) -> Self {
        Self { goodput: before.goodput().min(after.goodput()), p99: before.p(0.99).min(after.p(0.99)) }
    }

    /// Goodput in percent of the base.
    pub fn share(&self, tally: &Tally) -> f64 {
        if self.goodput > 0.0 { 100.0 * tally.goodput() / self.goodput } else { f64::NAN }
    }

    /// The p99 as a multiple of the base's.
    pub fn times(&self, tally: &Tally) -> f64 {
        tally.p(0.99) / self.p99
    }
}

/// The conditions of a row of the table: how the requests ended, and how late the driver was.
pub fn about(tally: &Tally) -> String {
    format!(
        "{}; p50 {:.1} ms, p99 {:.1} ms, driver late by {:.1} ms at p99",
        tally.ends(),
        tally.p(0.5),
        tally.p(0.99),
        tally.lag_p99()
    )
}

/// The number of records that break a rule.
pub fn broke(tally: &Tally, keeps: impl Fn(&Record) -> bool) -> f64 {
    number(tally.count(|record| !keeps(record)))
}

/// The `jti` of a token.
pub fn jti_of(token: &str) -> Option<String> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    Some(claims.get("jti")?.as_str()?.to_owned())
}

/// The metric that counts hashes.
pub const HASHES: &str = "grantd_argon2_verifications_total";

//! Figure 2: the database stops, freezes, refuses, or only reads, and known clients notice nothing.

use std::time::Duration;

use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::time::{Instant, sleep};

use super::{Base, about, broke};
use crate::chance::any_loopback;
use crate::database::Outage;
use crate::driver::{End, Kind, Record, Stream};
use crate::mix;
use crate::options::Options;
use crate::report::Report;
use crate::rig::{Rig, drive_all};
use crate::tally::Tally;

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let lasts = options.lengths().outage;
    for outage in [Outage::Stopped, Outage::Frozen, Outage::Refused, Outage::ReadOnly] {
        let seen = through(rig, options, outage, lasts, async { Ok(()) }, async { Ok(()) }).await?.0;
        rig.keep(&format!("outage-{outage}"), &seen.tally)?;
        seen.add_rows(report, "2", &outage.to_string(), 2.0);
    }
    let note = "they fail closed, with 503 and Retry-After; figure 6 counts them";
    report.add("2", "private_key_jwt and DPoP", Goal::None, f64::NAN, note);
    Ok(())
}

/// The result of one outage under load.
pub struct OutageResult {
    pub tally: Tally,
    /// Begin and end of the outage, since the begin of the load.
    from: Duration,
    until: Duration,
    /// From its end until every replica is ready and current.
    pub recovery: Duration,
}

/// Runs the load through an outage of `lasts`; `just_before` runs before the outage, `meanwhile` during it.
pub async fn through<T>(
    rig: &mut Rig,
    options: &Options,
    outage: Outage,
    lasts: Duration,
    just_before: impl Future<Output = anyhow::Result<()>>,
    meanwhile: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(OutageResult, T)> {
    let (before, after) = (options.lengths().base, options.lengths().base);
    if rig.registrations.cold_left() < 12 {
        rig.start_anew().await?;
    }
    let whole = before + lasts + after;
    let streams = streams(rig, whole);
    let addresses = rig.addresses();
    let origin = Instant::now();
    let load = drive_all(origin, streams, &addresses);
    let fault = async {
        sleep(before).await;
        just_before.await?;
        rig.database.leave(outage).await?;
        let from = origin.elapsed();
        let (met, ()) = tokio::join!(meanwhile, sleep(lasts));
        let until = origin.elapsed();
        rig.database.come_back(outage).await?;
        let back = Instant::now();
        rig.current(Duration::from_mins(1)).await?;
        anyhow::Ok((from, until, back.elapsed(), met?))
    };
    let (tally, fault) = tokio::join!(load, fault);
    if fault.is_err() {
        rig.database.mend().await?;
    }
    let (from, until, recovery, met) = fault?;
    Ok((OutageResult { tally, from, until, recovery }, met))
}

/// Streams of warm clients, and of a few clients of each other sort.
fn streams(rig: &Rig, lasts: Duration) -> Vec<Stream> {
    let cold = rig.registrations.take_cold(rig.registrations.cold_left().min(60));
    let registrations = &rig.registrations;
    let cold_rate = number(cold.len()) / lasts.as_secs_f64();
    let mut unknown = Stream::honest(2.0, lasts, mix::unknown());
    let mut wrong = Stream::honest(2.0, lasts, mix::wrong_secrets(registrations));
    (unknown.source, wrong.source) = (any_loopback, any_loopback);
    let cold = Stream::honest(cold_rate, lasts, mix::pairs(Kind::Cold, cold));
    vec![registrations.warm_stream(rig.honest_rate, lasts), cold, unknown, wrong]
}

impl OutageResult {
    pub fn add_rows(&self, report: &mut Report, figure: &'static str, name: &str, most_times: f64) {
        let mut rows = report.rows(figure, name);
        let end = Duration::MAX;
        let warm = self.tally.of(&[Kind::Warm]);
        let (before, after) = (warm.between(Duration::ZERO, self.from), warm.between(self.until + SETTLE, end));
        let (during, base) = (warm.between(self.from, self.until), Base::of(&before, &after));
        rows.add("warm clients served, %", Goal::AtLeast(100.0), during.success(), about(&during));
        let note = format!("base p99 {:.1} ms, the lower of before and after", base.p99);
        rows.add("their p99, times the base", Goal::AtMost(most_times), base.times(&during), note);

        // From two seconds after the last contact on, an unknown client may be a new one.
        let doubtful = |kind| self.tally.of(&[kind]).between(self.from + DOUBT, self.until);
        let (unknown, wrong) = (doubtful(Kind::UnknownClient), doubtful(Kind::WrongSecret));
        let note = format!("{}, from {} s after the last contact on", unknown.ends(), DOUBT.as_secs());
        let impolite = broke(&unknown, Record::is_polite_refusal);
        rows.add("unknown clients not note to come back (503RA)", Goal::AtMost(0.0), impolite, note);
        let impolite = broke(&wrong, |record| record.is_polite_refusal() || matches!(record.end, End::Status(401, _)));
        let note = format!("{}; 401 is right when the secret is known to be wrong", wrong.ends());
        rows.add("wrong secrets answered neither 401 nor 503RA", Goal::AtMost(0.0), impolite, note);

        let cold = self.tally.of(&[Kind::Cold]).between(self.from, self.until);
        let unserved = broke(&cold, |record| record.is_ok() || record.is_polite_refusal());
        rows.add("cold clients answered neither 200 nor 503RA", Goal::AtMost(0.0), unserved, cold.ends());
        let right = self.tally.of(&[Kind::Warm, Kind::Cold]);
        let wrongly = broke(&right, |record| !matches!(record.end, End::Status(400..=428, _)));
        rows.add("right secrets answered 4xx, at any time", Goal::AtMost(0.0), wrongly, right.ends());
        let recovery = self.recovery.as_secs_f64();
        rows.add("s from its end until all are current", Goal::AtMost(5.0), recovery, "no restart");
    }
}

/// Freshness ends two seconds after the last contact; one more for a poll that was on its way.
const DOUBT: Duration = Duration::from_secs(3);
/// From the end of the outage to the begin of what is measured as `after`.
const SETTLE: Duration = Duration::from_secs(2);

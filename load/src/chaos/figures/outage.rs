//! Figure 2: the database stops, freezes, refuses, or only reads, and known clients notice nothing.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Base, about, broke};
use crate::chaos::chance::{any_loopback, honest_loopback};
use crate::chaos::driver::{End, Kind, Record, Stream};
use crate::chaos::mix;
use crate::chaos::options::Options;
use crate::chaos::postgres::Outage;
use crate::chaos::report::{Report, Target};
use crate::chaos::rig::{Rig, drive_all};
use crate::chaos::tally::Tally;

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let lasts = options.lengths.outage;
    for (name, outage) in [
        ("stopped", Outage::Stopped),
        ("frozen", Outage::Frozen),
        ("refused", Outage::Refused),
        ("read-only", Outage::ReadOnly),
    ] {
        let seen = through(rig, options, outage, lasts, async { Ok(()) }, async { Ok(()) }).await?.0;
        rig.keep(&format!("outage-{name}"), &seen.tally)?;
        seen.tell(report, "2", name, 2.0);
    }
    let told = "they fail closed, with 503 and Retry-After; figure 6 counts them".to_owned();
    report.add("2", "private_key_jwt and DPoP", Target::Told, f64::NAN, told);
    Ok(())
}

/// One outage under load.
pub struct Seen {
    pub tally: Tally,
    /// When it was in force.
    from: Duration,
    until: Duration,
    /// From its end until every replica is ready and current.
    pub recovery: Duration,
}

/// Lets the load run through an outage of `lasts`, with `just_before` done when it begins and `meanwhile` at its side.
pub async fn through<T>(
    rig: &mut Rig,
    options: &Options,
    outage: Outage,
    lasts: Duration,
    just_before: impl Future<Output = anyhow::Result<()>>,
    meanwhile: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(Seen, T)> {
    let (before, after) = (options.lengths.base, options.lengths.base);
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
        rig.postgres.leave(outage).await?;
        let from = origin.elapsed();
        let (met, ()) = tokio::join!(meanwhile, sleep(lasts));
        let until = origin.elapsed();
        rig.postgres.come_back(outage).await?;
        let back = Instant::now();
        rig.current(Duration::from_mins(1)).await?;
        anyhow::Ok((from, until, back.elapsed(), met?))
    };
    let (tally, fault) = tokio::join!(load, fault);
    if fault.is_err() {
        rig.postgres.mend().await?;
    }
    let (from, until, recovery, met) = fault?;
    Ok((Seen { tally, from, until, recovery }, met))
}

/// Warm clients, and a few of each other sort.
fn streams(rig: &Rig, lasts: Duration) -> Vec<Stream> {
    let cold = rig.registrations.take_cold(rig.registrations.cold_left().min(60));
    let registrations = &rig.registrations;
    let cold_rate = crate::chaos::stats::number(cold.len()) / lasts.as_secs_f64();
    let mut unknown = Stream::honest(2.0, lasts, mix::unknown());
    let mut wrong = Stream::honest(2.0, lasts, mix::wrong_secrets(registrations));
    (unknown.source, wrong.source) = (any_loopback, any_loopback);
    let mut cold = Stream::honest(cold_rate, lasts, mix::pairs(Kind::Cold, cold));
    cold.source = honest_loopback;
    vec![registrations.warm_stream(rig.honest_rate, lasts), cold, unknown, wrong]
}

impl Seen {
    pub fn tell(&self, report: &mut Report, figure: &'static str, name: &str, most_times: f64) {
        let row = |what: &str| format!("{name}: {what}");
        let end = Duration::MAX;
        let warm = self.tally.of(&[Kind::Warm]);
        let (before, after) = (warm.between(Duration::ZERO, self.from), warm.between(self.until + SETTLE, end));
        let (during, base) = (warm.between(self.from, self.until), Base::of(&before, &after));
        report.add(figure, &row("warm clients served, %"), Target::AtLeast(100.0), during.success(), about(&during));
        let told = format!("base p99 {:.1} ms, the lower of before and after", base.p99);
        report.add(figure, &row("their p99, times the base"), Target::AtMost(most_times), base.times(&during), told);

        // From two seconds after the last contact on, what is not known may be new.
        let doubtful = |kind| self.tally.of(&[kind]).between(self.from + DOUBT, self.until);
        let (unknown, wrong) = (doubtful(Kind::UnknownClient), doubtful(Kind::WrongSecret));
        let told = format!("{}, from {} s after the last contact on", unknown.ends(), DOUBT.as_secs());
        let impolite = broke(&unknown, Record::is_polite_refusal);
        report.add(figure, &row("unknown clients not told to come back (503RA)"), Target::AtMost(0.0), impolite, told);
        let impolite = broke(&wrong, |record| record.is_polite_refusal() || matches!(record.end, End::Status(401, _)));
        let told = format!("{}; 401 is right when the secret is known to be wrong", wrong.ends());
        report.add(figure, &row("wrong secrets answered neither 401 nor 503RA"), Target::AtMost(0.0), impolite, told);

        let cold = self.tally.of(&[Kind::Cold]).between(self.from, self.until);
        let unserved = broke(&cold, |record| record.is_ok() || record.is_polite_refusal());
        report.add(
            figure,
            &row("cold clients answered neither 200 nor 503RA"),
            Target::AtMost(0.0),
            unserved,
            cold.ends(),
        );
        let right = self.tally.of(&[Kind::Warm, Kind::Cold]);
        let wrongly = broke(&right, |record| !matches!(record.end, End::Status(400..=428, _)));
        report.add(figure, &row("right secrets answered 4xx, at any time"), Target::AtMost(0.0), wrongly, right.ends());
        let recovery = self.recovery.as_secs_f64();
        report.add(
            figure,
            &row("s from its end until all are current"),
            Target::AtMost(5.0),
            recovery,
            "no restart".to_owned(),
        );
    }
}

/// Freshness ends two seconds after the last contact; one more for a poll that was on its way.
const DOUBT: Duration = Duration::from_secs(3);
/// What is measured as `after` begins when this much has passed.
const SETTLE: Duration = Duration::from_secs(2);

//! Figure 1: honest clients under ten times as many bogus secrets, and under attackers that hang up at once.

use std::time::Duration;

use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::time::{Instant, sleep};

use super::cold::{self, ColdResult};
use super::{Base, HASHES, about};
use crate::chance::any_loopback;
use crate::driver::{Kind, Record, Stream};
use crate::mix;
use crate::options::Options;
use crate::report::Report;
use crate::rig::{Rig, drive_all};
use crate::tally::Tally;

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let lengths = options.lengths();
    if rig.registrations.cold_left() < 60 {
        rig.start_anew().await?;
    }
    let mut before = rig.unattacked("flood-before", lengths.base).await?;
    for (name, hang_up) in [("flood", None), ("hang-up flood", Some(Duration::from_millis(5)))] {
        let attacked = under_flood(rig, options, hang_up).await?;
        rig.keep(name, &attacked.tally)?;
        // The queues of the flood are empty by then.
        sleep(Duration::from_secs(3)).await;
        let after = rig.unattacked("flood-after", lengths.base).await?;
        add_rows(report, name, &Base::of(&before, &after), &attacked);
        before = after;
    }
    Ok(())
}

struct FloodResult {
    tally: Tally,
    cold: ColdResult,
    /// Largest growth of any replica, in MiB.
    grown_mib: f64,
    rate: f64,
    hashes: f64,
}

async fn under_flood(rig: &mut Rig, options: &Options, hang_up: Option<Duration>) -> anyhow::Result<FloodResult> {
    let lasts = options.lengths().flood;
    let rate = (10.0 * rig.honest_rate).min(options.rate_cap);
    let victim = rig.registrations.warm.first().cloned().ok_or_else(|| anyhow::anyhow!("no client is registered"))?;
    let flood = Stream {
        source: any_loopback,
        hang_up,
        connections: 512,
        ..Stream::honest(rate, lasts, mix::flood(&rig.registrations, &victim.id))
    };
    let streams = vec![
        rig.registrations.warm_stream(rig.honest_rate, lasts),
        Stream::honest(5.0, lasts, mix::only(Kind::VictimItself, &victim)),
        flood,
    ];
    let most = rig.registrations.cold_left().min(60).min(usize::try_from(2 * lasts.as_secs())?);
    let pairs = rig.registrations.take_cold(most);
    let (addresses, before, hashes_before) = (rig.addresses(), rig.holdings(), rig.metric(HASHES).await);
    let both = async {
        tokio::join!(
            drive_all(Instant::now(), streams, &addresses),
            cold::meet(pairs, lasts.saturating_sub(Duration::from_secs(2)), addresses.clone())
        )
    };
    let ((tally, cold), most) = rig.watching(both).await;
    let grown = before.iter().zip(&most).map(|(before, most)| most.rss_mib - before.rss_mib);
    let hashes = (rig.metric(HASHES).await - hashes_before) / lasts.as_secs_f64();
    Ok(FloodResult { tally, cold, grown_mib: grown.fold(0.0, f64::max), rate, hashes })
}

fn add_rows(report: &mut Report, name: &str, base: &Base, attacked: &FloodResult) {
    let FloodResult { tally, cold, grown_mib, rate, hashes } = attacked;
    let warm = tally.of(&[Kind::Warm]);
    let victim = tally.of(&[Kind::VictimItself]);
    let bogus = tally.of(&[Kind::WrongSecret, Kind::UnknownClient, Kind::Victim]);
    let note = format!(
        "{}; base goodput {:.1} %, p99 {:.1} ms; flood {rate:.0}/s, {hashes:.0} hashes/s",
        about(&warm),
        base.goodput,
        base.p99
    );
    let mut rows = report.rows("1", name);
    rows.add("goodput of warm clients, % of base", Goal::AtLeast(90.0), base.share(&warm), note);
    rows.add("their p99, times the base", Goal::AtMost(2.0), base.times(&warm), about(&warm));
    rows.add("goodput of the client attacked, % of base", Goal::AtLeast(90.0), base.share(&victim), about(&victim));
    let note = format!(
        "{} clients, {} at the first attempt, slowest {:.1} s; the others come back when Retry-After says",
        cold.asked,
        cold.at_once,
        cold.slowest.as_secs_f64()
    );
    rows.add("cold clients served within 10 s, %", Goal::AtLeast(90.0), cold.percent(), note);
    let wrong = number(cold.called_wrong);
    rows.add("right secrets of cold clients called wrong", Goal::AtMost(0.0), wrong, "");
    rows.add("growth of any replica, MiB", Goal::AtMost(100.0), *grown_mib, "VmRSS, sampled twice a second");
    rows.add("p99 of bogus requests, ms", Goal::None, bogus.p(0.99), about(&bogus));
    let minted = number(bogus.count(Record::is_ok));
    rows.add("bogus requests that got a token", Goal::AtMost(0.0), minted, "");
}

//! Figure 10: honest clients send far more than C0, and then a herd of them at once.

use std::time::Duration;

use grantd_kit::report::Goal;
use grantd_kit::stats::{number, percent};
use tokio::time::{Instant, sleep};

use super::about;
use crate::capacity;
use crate::driver::{Kind, Record};
use crate::options::Options;
use crate::report::Report;
use crate::rig::Rig;
use crate::tally::Tally;

/// With RS256: a signature takes so long that the driver, which shares the machine, can send ten times C0.
pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    rig.grantd.settings.insert("token.alg", "RS256".to_owned());
    rig.start_anew().await?;
    let lengths = options.lengths();
    let capacity = capacity::find(rig, lengths.ramp_step, lengths.refinements).await?.min(options.rate_cap);
    report.add("10", "C0 with RS256, requests/s", Goal::None, capacity, "");
    let done = overload(rig, options, capacity, report).await;
    rig.grantd.settings.insert("token.alg", "ES256".to_owned());
    rig.start_anew().await?;
    done
}

async fn overload(rig: &mut Rig, options: &Options, capacity: f64, report: &mut Report) -> anyhow::Result<()> {
    let step = options.lengths().overload;
    let mut base_p99 = f64::NAN;
    let mut last = Tally::default();
    for (name, times) in [("1x", 1.0), ("2x", 2.0), ("5x", 5.0), ("10x", 10.0), ("1x again", 1.0)] {
        let rate = (times * capacity).min(options.rate_cap);
        let mut stream = rig.registrations.warm_stream(rate, step);
        stream.connections = 3000;
        let tally = rig.drive(&format!("overload-{name}"), vec![stream]).await?;
        let asked = if rate < times * capacity {
            format!("{rate:.0}/s, the most that --rate-cap allows")
        } else {
            format!("{rate:.0}/s")
        };
        let note = format!("{asked}, {}", about(&tally));
        let goodput = number(tally.count(Record::is_good)) / step.as_secs_f64();
        let mut rows = report.rows("10", format!("overload {name}"));
        if name == "1x" {
            base_p99 = tally.p(0.99);
        }
        let target = if times > 1.0 { Goal::AtLeast(80.0) } else { Goal::None };
        rows.add("goodput, % of C0", target, 100.0 * goodput / capacity, note);
        if times > 1.0 {
            let (refused, admitted) = (tally.only(Record::is_polite_refusal), tally.only(Record::is_ok));
            let other = tally.count(|record| !record.is_ok() && !record.is_polite_refusal());
            // Without refusals, none is slow.
            let slow = if refused.0.is_empty() { 0.0 } else { refused.p(0.99) };
            rows.add("p99 of refusals, ms", Goal::AtMost(50.0), slow, format!("{} of them", refused.0.len()));
            rows.add("p99 of those admitted, ms", Goal::AtMost(250.0), admitted.p(0.99), about(&admitted));
            rows.add("ended otherwise, %", Goal::AtMost(0.0), percent(other, tally.0.len()), tally.ends());
        }
        last = tally;
    }
    let recovery = recovery(&last, step, (2.0 * base_p99).max(50.0));
    let note =
        format!("the first second from which on p99 stays below {:.0} ms and none fails", (2.0 * base_p99).max(50.0));
    report.add("10", "overload: s until back at the base", Goal::AtMost(5.0), recovery, note);
    herd(rig, report).await
}

/// Seconds from the start of the last step until each second is as good as it was before the overload.
fn recovery(tally: &Tally, step: Duration, bound: f64) -> f64 {
    let Some(start) = tally.0.iter().map(|record| record.scheduled).min() else { return f64::NAN };
    let mut good_from = step.as_secs();
    for second in (0..step.as_secs()).rev() {
        let from = start + Duration::from_secs(second);
        let window = tally.between(from, from + Duration::from_secs(1));
        if window.success() < 100.0 || window.p(0.99) > bound {
            break;
        }
        good_from = second;
    }
    if good_from == step.as_secs() { f64::INFINITY } else { Duration::from_secs(good_from).as_secs_f64() }
}

/// Five thousand tokens that all end in the same second.
async fn herd(rig: &mut Rig, report: &mut Report) -> anyhow::Result<()> {
    sleep(Duration::from_secs(2)).await;
    let mut stream = rig.registrations.warm_stream(5000.0, Duration::from_secs(1));
    stream.connections = 3000;
    let started = Instant::now();
    let tally = rig.drive("herd", vec![stream]).await?.of(&[Kind::Warm]);
    let other = tally.count(|record| !record.is_ok() && !record.is_polite_refusal());
    let note = format!("over after {:.1} s; {}", started.elapsed().as_secs_f64(), about(&tally));
    report.add("10", "herd of 5,000 in a second: served within 250 ms, %", Goal::None, tally.goodput(), note.clone());
    report.add(
        "10",
        "herd: neither served nor note to come back, %",
        Goal::AtMost(0.0),
        percent(other, tally.0.len()),
        note,
    );
    Ok(())
}

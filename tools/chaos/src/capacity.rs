//! C0: the highest rate of honest requests with p99 below 50 ms and no error, by a ramp.

use std::time::Duration;

use tokio::time::sleep;

use crate::driver::Record;
use crate::rig::Rig;

/// Doubles the rate until it is too much, then halves the gap a few times.
pub async fn find(rig: &mut Rig, step: Duration, refinements: usize) -> anyhow::Result<f64> {
    let (mut best, mut rate, mut too_much) = (0.0, 25.0, None);
    while too_much.is_none() && rate < MOST {
        if bears(rig, rate, step).await? {
            best = rate;
            rate *= 2.0;
        } else {
            too_much = Some(rate);
        }
    }
    let mut above = too_much.unwrap_or(MOST);
    for _ in 0..refinements {
        let middle = f64::midpoint(best, above);
        if bears(rig, middle, step).await? {
            best = middle;
        } else {
            above = middle;
        }
    }
    Ok(best)
}

/// Whether the rig bears a rate. It may try twice, since other programs share the machine.
async fn bears(rig: &mut Rig, rate: f64, step: Duration) -> anyhow::Result<bool> {
    for _ in 0..2 {
        let stream = rig.registrations.warm_stream(rate, step);
        let tally = rig.drive("ramp", vec![stream]).await?;
        let (ok, p99) = (tally.count(Record::is_ok) == tally.0.len(), tally.p(0.99));
        eprintln!("   ramp {rate:.0}/s: p50 {:.1} ms, p99 {p99:.1} ms, {}", tally.p(0.5), tally.ends());
        if ok && p99 < 50.0 {
            return Ok(true);
        }
        sleep(Duration::from_millis(500)).await;
    }
    Ok(false)
}

/// More requests per second than a machine of two processors can send.
const MOST: f64 = 50_000.0;

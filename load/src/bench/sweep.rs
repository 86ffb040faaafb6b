//! What requests notice while a million expired ids are forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::assertions::{KEYED, durable, late, stock};
use super::spent::spent_ids;
use super::{Bench, load_of, quiet};
use crate::contest::{make_ahead, warm_up};
use crate::generator::{Load, Until};
use crate::histogram::Histogram;
use crate::registrations::register_keys;
use crate::report::{Figure, Goal, Report};

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (site, _) = bench.copy(DATABASE, 1000)?;
    let clients = Arc::new(register_keys(&site, &bench.room, KEYED)?);
    bench.postgres.sql(DATABASE, &spent_ids(bench.million(), -1000))?;
    let stock = stock(&clients);
    report.section(&format!("sweep: {} expired ids, private_key_jwt at {RATE}/s on schedule", bench.million()));
    durable(bench, report)?;

    let server = site.serve(&quiet("ES256"))?;
    let load = load_of(&server, &stock);
    warm_up(&load);
    let load = Load { rate: Some(RATE), until: Until::Time(SLICE), ..load };
    let (mut during, mut without) = (Slices::default(), Slices::default());
    let (started, mut left, mut most_a_second) = (Instant::now(), expired(bench)?, 0.0_f64);
    // Some slices before the first sweep, all of it, and as many after it.
    while left > 0 || without.count < WITHOUT.max(during.count.min(2 * WITHOUT)) {
        ensure!(started.elapsed() < MOST, "{left} expired ids were not swept within {MOST:?}");
        make_ahead(&load, SLICE, None)?;
        let (before, from) = (expired(bench)?, Instant::now());
        let seen = load.run();
        left = expired(bench)?;
        if seen.errors > 0 {
            report.errors(seen.errors, seen.unavailable, seen.first_error.as_deref());
        }
        #[expect(clippy::cast_precision_loss, reason = "a million at most")]
        let swept = before.saturating_sub(left) as f64 / from.elapsed().as_secs_f64();
        most_a_second = most_a_second.max(swept);
        let slices = if swept > 0.0 { &mut during } else { &mut without };
        slices.count += 1;
        slices.answers += seen.answers;
        slices.latencies.merge(&seen.latencies);
    }
    for (name, slices) in [("without", &without), ("during", &during)] {
        let ms = |share| format!("{:.2} ms", slices.latencies.quantile_us(share) / 1e3);
        report.note(&format!(
            "{name}: {} slices of {SLICE:?}, {} answers, p50 {}, p99 {}, slowest {}",
            slices.count,
            slices.answers,
            ms(0.5),
            ms(0.99),
            ms(1.0)
        ));
    }
    let one = |value| Figure::new(vec![value]);
    let times = |share| one(during.latencies.quantile_us(share) / without.latencies.quantile_us(share));
    report.figure("p99 during the sweep ÷ without", &times(0.99), "", Goal::None);
    report.figure("p50 during the sweep ÷ without", &times(0.5), "", Goal::None);
    let slowest = during.latencies.quantile_us(1.0) / 1e3;
    report.figure("slowest request during the sweep", &one(slowest), "ms", Goal::None);
    report.figure("rows swept a second, at most", &one(most_a_second), "", Goal::None);
    late(report, &[&stock]);
    Ok(())
}

/// What was seen in all slices of one sort.
#[derive(Default)]
struct Slices {
    count: usize,
    answers: u64,
    latencies: Histogram,
}

/// How many ids there are that were expired from the start.
fn expired(bench: &Bench) -> anyhow::Result<u64> {
    let sql = "select count(*) from spent_jti where expires_at < extract(epoch from now())::bigint - 100";
    Ok(bench.postgres.sql(DATABASE, sql)?.trim().parse()?)
}

const DATABASE: &str = "sweep";
const RATE: f64 = 500.0;
const SLICE: Duration = Duration::from_secs(1);
const WITHOUT: usize = 8;
const MOST: Duration = Duration::from_mins(4);

//! Latency of requests while a million expired ids are deleted.

use std::time::{Duration, Instant};

use anyhow::ensure;
use grantd_kit::report::Goal;
use grantd_kit::stats::number;

use super::assertions::{ensure_durable, keyed_clients, report_late, stock};
use super::spent::spent_ids;
use super::{Bench, load_once};
use crate::contest::{make_ahead, warm_up};
use crate::generator::{Load, Outcome, Until};
use crate::report::{Figure, Report, note};

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (grantd, _) = bench.copy(DATABASE, 1000).await?;
    let clients = keyed_clients(&grantd).await?;
    bench.postgres.sql(DATABASE, &spent_ids(bench.million(), -1000)).await?;
    let stock = stock(&clients);
    report.section(&format!("sweep: {} expired ids, private_key_jwt at {RATE}/s on schedule", bench.million()));
    ensure_durable(bench).await?;

    let server = grantd.with("token.alg", "ES256").serve().await?;
    let load = load_once(&stock);
    warm_up(&load, &server, server.public).await?;
    let load = Load { rate: Some(RATE), until: Until::Time(SLICE), ..load };
    let (mut during, mut without) = (Slices::default(), Slices::default());
    let (started, mut left, mut most_a_second) = (Instant::now(), expired(bench).await?, 0.0_f64);
    // Some slices before the first sweep, the whole sweep, and as many slices after it.
    while left > 0 || without.count < WITHOUT.max(during.count.min(2 * WITHOUT)) {
        ensure!(started.elapsed() < MOST, "{left} expired ids were not swept within {MOST:?}");
        make_ahead(&load, SLICE, None)?;
        let (before, from) = (expired(bench).await?, Instant::now());
        let seen = load.run(server.public);
        left = expired(bench).await?;
        report.errors(&seen);
        let swept = number(before.saturating_sub(left)) / from.elapsed().as_secs_f64();
        most_a_second = most_a_second.max(swept);
        let slices = if swept > 0.0 { &mut during } else { &mut without };
        slices.count += 1;
        slices.seen.add(&seen);
    }
    for (name, slices) in [("without", &mut without), ("during", &mut during)] {
        let [p50, p99, slowest] = [0.5, 0.99, 1.0].map(|share| slices.seen.percentile(share) / 1e3);
        note(&format!(
            "{name}: {} slices of {SLICE:?}, {} answers, p50 {p50:.2} ms, p99 {p99:.2} ms, slowest {slowest:.2} ms",
            slices.count, slices.seen.answers,
        ));
    }
    let mut times = |share| Figure::one(during.seen.percentile(share) / without.seen.percentile(share));
    report.figure("p99 during the sweep ÷ without", &times(0.99), "", Goal::None);
    report.figure("p50 during the sweep ÷ without", &times(0.5), "", Goal::None);
    let slowest = Figure::one(during.seen.percentile(1.0) / 1e3);
    report.figure("slowest request during the sweep", &slowest, "ms", Goal::None);
    report.figure("rows swept a second, at most", &Figure::one(most_a_second), "", Goal::None);
    report_late(report, &[&stock]);
    Ok(())
}

/// The slices of one sort.
#[derive(Default)]
struct Slices {
    count: usize,
    seen: Outcome,
}

/// The number of ids left that were expired from the start.
async fn expired(bench: &Bench) -> anyhow::Result<usize> {
    let sql = "select count(*) from spent_jti where expires_at < extract(epoch from now())::bigint - 100";
    Ok(bench.postgres.sql(DATABASE, sql).await?.parse()?)
}

const DATABASE: &str = "sweep";
const RATE: f64 = 500.0;
const SLICE: Duration = Duration::from_secs(1);
const WITHOUT: usize = 8;
const MOST: Duration = Duration::from_mins(4);

//! Revocations that are inserted by one statement, and what other changes wait meanwhile.

use std::time::{Duration, Instant};

use anyhow::ensure;
use grantd_kit::report::Goal;
use tokio::time::{sleep, timeout};

use super::copy_of;
use super::measure::{committed, connect, enable};
use crate::report::{Figure, Report, note};
use crate::sections::Bench;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (_, clients) = copy_of(bench, 10_000, DATABASE).await?;
    let client = clients.first().map_or("", |client| client.id.as_str());
    let limit = Duration::from_secs(if bench.quick { 20 } else { 120 });
    let mut is_too_slow = false;
    for (count, name) in [(5_000, "5k"), (10_000, "10k"), (20_000, "20k"), (100_000, "100k")] {
        let is_goal = count == 100_000;
        let goal = |most| if is_goal { Goal::AtMost(most) } else { Goal::None };
        let rows = [format!("{name} revocations"), format!("{name}: longest wait of another change")];
        let mut row = |[took, longest]: [f64; 2]| {
            let [first, second] = &rows;
            report.figure(first, &Figure::one(took), "s", goal(2.0));
            report.figure(second, &Figure::one(longest), "ms", goal(100.0));
        };
        if is_too_slow {
            row([f64::NAN; 2]);
            continue;
        }
        let mut session = connect(bench, DATABASE).await?;
        committed(&mut session, &format!("set statement_timeout = {}", limit.as_millis())).await?;
        let mut insert = tokio::spawn(async move {
            let started = Instant::now();
            let done = committed(&mut session, &revoke(count)).await;
            (done, started.elapsed())
        });
        let (mut other, mut longest, mut enabled) = (connect(bench, DATABASE).await?, Duration::ZERO, false);
        let (done, took) = loop {
            if let Ok(ended) = timeout(Duration::from_millis(10), &mut insert).await {
                break ended?;
            }
            let started = Instant::now();
            committed(&mut other, &enable(client, enabled)).await?;
            enabled = !enabled;
            longest = longest.max(started.elapsed());
        };
        row([took.as_secs_f64(), longest.as_secs_f64() * 1e3]);
        if let Err(error) = done {
            ensure!(took >= limit, "{error:#}");
            is_too_slow = true;
            note(&format!("{name}: stopped after {limit:?}; more are not tried"));
        }
        sleep(Duration::from_secs(1)).await;
    }
    bench.postgres.remove(DATABASE).await
}

fn revoke(count: usize) -> String {
    format!(
        "insert into revoked_token (jti, client_id, expires_at)
         select substr(md5('{count}-' || i), 1, 21) || 'A', 'app-0001', extract(epoch from now())::bigint + 3600
         from generate_series(1, {count}) as i"
    )
}

const DATABASE: &str = "scale_revocations";

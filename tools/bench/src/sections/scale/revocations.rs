//! Revocations that are inserted by one statement, and what other changes wait meanwhile.

use std::time::{Duration, Instant};

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
    for (count, name) in [(5_000, "5k"), (10_000, "10k"), (20_000, "20k"), (100_000, "100k")] {
        let mut session = connect(bench, DATABASE).await?;
        committed(&mut session, &format!("set statement_timeout = {}", limit.as_millis())).await?;
        let mut insert = tokio::spawn(async move {
            let started = Instant::now();
            let done = committed(&mut session, &revoke(count)).await;
            (done.is_ok(), started.elapsed())
        });
        let (mut other, mut longest, mut enabled) = (connect(bench, DATABASE).await?, Duration::ZERO, false);
        let (whole, took) = loop {
            if let Ok(ended) = timeout(Duration::from_millis(10), &mut insert).await {
                break ended?;
            }
            let started = Instant::now();
            committed(&mut other, &enable(client, enabled)).await?;
            enabled = !enabled;
            longest = longest.max(started.elapsed());
        };
        let is_goal = count == 100_000;
        let goal = |most| if is_goal { Goal::AtMost(most) } else { Goal::None };
        if !whole {
            note(&format!("{name}: stopped after {limit:?}"));
        }
        report.figure(&format!("{name} revocations"), &Figure::one(took.as_secs_f64()), "s", goal(2.0));
        let longest = longest.as_secs_f64() * 1e3;
        report.figure(&format!("{name}: longest wait of another change"), &Figure::one(longest), "ms", goal(100.0));
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

//! One statement that changes all clients, while clients ask for tokens and other changes are made.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use grantd_kit::grantd::Grantd;
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::measure::{Background, committed, connect, enable, refused, reset_peak, seconds_after, serve};
use super::{copy_of, label, sizes};
use crate::generator::Load;
use crate::report::{Figure, Report, note};
use crate::sections::refuse::bogus;
use crate::sections::{Bench, load, requests};

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    for &size in sizes(bench) {
        let is_largest = sizes(bench).last() == Some(&size);
        let done = one(bench, report, size, is_largest).await;
        bench.postgres.remove(DATABASE).await?;
        done?;
    }
    Ok(())
}

async fn one(bench: &Bench, report: &mut Report, size: usize, is_largest: bool) -> anyhow::Result<()> {
    let (grantd, clients) = copy_of(bench, size, DATABASE).await?;
    let log = bench.path(&format!("bulk-{size}.log"));
    let server = serve(&Grantd { level: Some("info"), log: Some(log.clone()), ..grantd }).await?;
    let [during, after, others @ ..] = clients else { bail!("no clients") };
    let known = Load { rate: Some(RATE), connections: 8, ..load(&requests(others, 20)) };
    let strangers: Arc<[Vec<u8>]> = (0..6000).map(bogus).collect::<anyhow::Result<Vec<_>>>()?.into();
    let unknown = Load { rate: Some(RATE), connections: 8, expected: 401, ..load(&strangers) };
    let [known, unknown] = [known, unknown].map(|load| Background::start(load, server.public));
    sleep(Duration::from_secs(3)).await;
    let steady = server.memory_mib("VmRSS")?;
    let lines_before = lines(&log)?;
    reset_peak(&server)?;

    let (mut of_bulk, mut of_one) = (connect(bench, DATABASE).await?, connect(bench, DATABASE).await?);
    let [saw_during, saw_after] = [during, after]
        .map(|client| tokio::spawn(refused(server.public, Arc::clone(&client.request), STATEMENT + EFFECT)));
    let started = Instant::now();
    let bulk = tokio::spawn(async move {
        let done = committed(&mut of_bulk, "update client set token_ttl = 1200").await;
        // A new session would wait behind the first one's backend.
        (done, of_bulk)
    });
    sleep(Duration::from_millis(300)).await;
    // Its row is changed by the bulk statement too, so it waits for that one's commit.
    let change = enable(&during.id, false);
    let single = tokio::spawn(async move { committed(&mut of_one, &change).await });
    let (done, mut session) = timeout(STATEMENT, bulk).await??;
    let took = done.map(|_| started.elapsed())?;
    let after_commit = committed(&mut session, &enable(&after.id, false)).await?;
    let during_commit = timeout(STATEMENT, single).await???;
    let delays = [
        ("a change during it in force after", seconds_after(during_commit, effect(saw_during).await)),
        ("a change after it in force after", seconds_after(after_commit, effect(saw_after).await)),
    ];
    sleep(Duration::from_secs(10)).await;
    let (known, unknown) = (known.stop().await, unknown.stop().await);
    let (peak, settled) = (server.memory_mib("VmHWM")?, server.memory_mib("VmRSS")?);
    let written = lines(&log)?.saturating_sub(lines_before);

    let mut row = |name: &str, value, unit, goal| {
        report.figure(&format!("{}: {name}", label(size)), &Figure::one(value), unit, goal);
    };
    row("the statement", took.as_secs_f64(), "s", Goal::None);
    for (name, delay) in delays {
        row(name, delay, "s", Goal::AtMost(1.0));
    }
    row("answers 503 to known clients", number(known.unavailable), "", Goal::AtMost(0.0));
    row("answers 503 to unknown clients", number(unknown.unavailable), "", Goal::AtMost(0.0));
    row("lines in the log, those of requests aside", number(written), "", Goal::AtMost(200.0));
    row("resident before", steady, "MiB", Goal::None);
    row("peak over resident before", 100.0 * (peak / steady - 1.0), "%", Goal::AtMost(20.0));
    row("resident 10 s after, over before", 100.0 * (settled / steady - 1.0), "%", Goal::None);
    for (name, seen) in [("known", &known), ("unknown", &unknown)] {
        if seen.errors > seen.unavailable {
            let (others, first) = (seen.errors - seen.unavailable, seen.first_error.as_deref().unwrap_or_default());
            note(&format!("{others} other errors of {name} clients, the first error: {first}"));
        }
    }
    if is_largest {
        sleep(Duration::from_secs(75).saturating_sub(started.elapsed().saturating_sub(took))).await;
        let notes = "select count(*) || ' ' || pg_total_relation_size('registry_change') from registry_change";
        let notes = bench.postgres.sql(DATABASE, notes).await?;
        let [rows, bytes] =
            [0, 1].map(|at| notes.split(' ').nth(at).and_then(|text| text.parse().ok()).unwrap_or(f64::NAN));
        row("rows of registry_change 75 s after", rows, "", Goal::AtMost(10_000.0));
        row("its size", bytes / 1024.0 / 1024.0, "MiB", Goal::None);
    }
    Ok(())
}

/// Waits for the moment at which a change was in force.
async fn effect(mut watching: JoinHandle<Option<std::time::Instant>>) -> Option<std::time::Instant> {
    let seen = timeout(EFFECT, &mut watching).await;
    watching.abort();
    seen.ok()?.ok()?
}

/// The lines of a log that tell of something else than a request.
fn lines(log: &std::path::Path) -> anyhow::Result<usize> {
    Ok(fs::read_to_string(log)?.lines().filter(|line| !line.contains(r#""event":"token."#)).count())
}

const DATABASE: &str = "scale_bulk";
/// The most that the statement may take.
const STATEMENT: Duration = Duration::from_mins(5);
/// The most that is waited for a change to be in force.
const EFFECT: Duration = Duration::from_mins(1);
/// Requests a second, of known clients and of unknown ones.
const RATE: f64 = 50.0;

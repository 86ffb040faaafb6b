//! P6: resident memory, idle, with 100,000 clients, and under 1,000 connections.

use std::time::{Duration, Instant};

use grantd_kit::grantd::Server;
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::time::sleep;

use super::{Bench, REAL, load, requests};
use crate::contest::warm_up;
use crate::generator::{Load, Until};
use crate::report::{Figure, Report};

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (small, clients) = bench.copy("memory", 1000).await?;
    let load = load(&requests(clients, REAL));
    let (large, _) = bench.copy("memory_large", MANY).await?;

    let server = small.with("token.alg", "ES256").serve().await?;
    let idle = resident(&server).await?;
    let started = Instant::now();
    let with_many = large.with("token.alg", "ES256").serve().await?;
    let loading = started.elapsed().as_secs_f64();
    let filled = resident(&with_many).await?;
    let filled_peak = with_many.memory_mib("VmHWM")?;
    drop(with_many);

    warm_up(&load, &server, server.public).await?;
    let warm = resident(&server).await?;
    let time = Duration::from_secs(if bench.quick { 3 } else { 6 });
    let crowd = Load { connections: 1000, until: Until::Time(time), ..load };
    let address = server.public;
    let running = std::thread::spawn(move || crowd.run(address));
    sleep(time.saturating_sub(Duration::from_secs(1))).await;
    let crowded = server.memory_mib("VmRSS")?;
    let seen = running.join().unwrap_or_default();
    let peak = server.memory_mib("VmHWM")?;

    report.section("memory: resident, ES256, PostgreSQL");
    let mut row = |name, value, unit, goal| report.figure(name, &Figure::one(value), unit, goal);
    row("P6: idle, 1,000 clients", idle, "MiB", Goal::AtMost(20.0));
    row("P6: more with 100,000 clients", filled - idle, "MiB", Goal::AtMost(100.0));
    row("peak while loading them", filled_peak, "MiB", Goal::None);
    row("a client", (filled - idle) * 1024.0 * 1024.0 / number(MANY - 1000), "bytes", Goal::None);
    row("start with 100,000 clients until ready", loading, "s", Goal::None);
    row("after 100 clients had tokens, hashes included", warm, "MiB", Goal::None);
    report.errors(&seen);
    let mut row = |name, value, goal| report.figure(name, &Figure::one(value), "MiB", goal);
    row("P6: more under 1,000 connections, from warm", crowded - warm, Goal::AtMost(30.0));
    row("peak", peak, Goal::None);
    Ok(())
}

async fn resident(server: &Server) -> anyhow::Result<f64> {
    sleep(Duration::from_secs(1)).await;
    server.memory_mib("VmRSS")
}

const MANY: usize = 100_000;

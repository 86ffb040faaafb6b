//! P6: resident memory, idle, with 100,000 clients, and under 1,000 connections.

use std::time::{Duration, Instant};

use super::{Bench, REAL, load, quiet, requests};
use crate::contest::warm_up;
use crate::generator::{Load, Until};
use crate::process::Server;
use crate::report::{Figure, Goal, Report};

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (small, clients) = bench.copy("memory", 1000)?;
    let asked = requests(clients, REAL);
    let (large, _) = bench.copy("memory_large", MANY)?;

    let server = small.serve(&quiet("ES256"))?;
    let idle = resident(&server)?;
    let started = Instant::now();
    let with_many = large.serve(&quiet("ES256"))?;
    let loading = started.elapsed().as_secs_f64();
    let filled = resident(&with_many)?;
    let filled_peak = mib(with_many.memory_kib("VmHWM")?);
    drop(with_many);

    warm_up(&load(&server, &asked));
    let warm = resident(&server)?;
    let time = Duration::from_secs(if bench.quick { 3 } else { 6 });
    let crowd = Load { connections: 1000, until: Until::Time(time), ..load(&server, &asked) };
    let running = std::thread::spawn(move || crowd.run());
    std::thread::sleep(time.saturating_sub(Duration::from_secs(1)));
    let crowded = mib(server.memory_kib("VmRSS")?);
    let seen = running.join().unwrap_or_default();
    let peak = mib(server.memory_kib("VmHWM")?);

    report.section("memory: resident, ES256, PostgreSQL");
    let mut row = |name, value, unit, goal| report.figure(name, &Figure::new(vec![value]), unit, goal);
    row("P6: idle, 1,000 clients", idle, "MiB", Goal::AtMost(20.0));
    row("P6: more with 100,000 clients", filled - idle, "MiB", Goal::AtMost(100.0));
    row("peak while loading them", filled_peak, "MiB", Goal::None);
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    row("a client", (filled - idle) * 1024.0 * 1024.0 / (MANY - 1000) as f64, "bytes", Goal::None);
    row("start with 100,000 clients until ready", loading, "s", Goal::None);
    row("after 100 clients had tokens, hashes included", warm, "MiB", Goal::None);
    if seen.errors > 0 {
        report.errors(seen.errors, seen.unavailable, seen.first_error.as_deref());
    }
    let mut row = |name, value, goal| report.figure(name, &Figure::new(vec![value]), "MiB", goal);
    row("P6: more under 1,000 connections, from warm", crowded - warm, Goal::AtMost(30.0));
    row("peak", peak, Goal::None);
    Ok(())
}

fn resident(server: &Server) -> anyhow::Result<f64> {
    std::thread::sleep(Duration::from_secs(1));
    Ok(mib(server.memory_kib("VmRSS")?))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

const MANY: usize = 100_000;

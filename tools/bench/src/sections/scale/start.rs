//! From the start of a process until it is ready, by the number of clients: time, processor time and memory.

use std::time::{Duration, Instant};

use anyhow::ensure;
use grantd_kit::clients::{Dialect, fleet_clients};
use grantd_kit::grantd::Grantd;
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::time::sleep;

use super::measure::{Throttle, begin, ready, serve};
use super::{label, registry, sizes};
use crate::report::{Figure, Report, note};
use crate::sections::Bench;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let ten = bench.empty("scale_10").await?;
    bench.postgres.sql("scale_10", &fleet_clients(Dialect::Postgres, 10, false)?).await?;
    // The first start of all makes the signing key.
    drop(serve(&ten).await?);
    let least = Start::measure(&ten).await?;
    note(&format!("with 10 clients: {:.3} s, resident {:.1} MiB", least.wall, least.resident));
    for &size in sizes(bench) {
        let (database, _) = registry(bench, size).await?;
        let grantd = bench.grantd(bench.postgres.url(&database));
        let seen = Start::measure(&grantd?).await?;
        let mut row = |name: &str, value, unit, goal| {
            report.figure(&format!("{}: {name}", label(size)), &Figure::one(value), unit, goal);
        };
        row("start until ready", seen.wall, "s", Goal::None);
        row("processor time until ready", seen.processor, "s", Goal::AtMost(5.0));
        row("resident", seen.resident, "MiB", Goal::None);
        let more = (seen.resident - least.resident) * 1024.0 * 1024.0;
        row("resident for each client", more / number(size), "bytes", Goal::AtMost(1000.0));
        row("peak of the start over resident", 100.0 * (seen.peak / seen.resident - 1.0), "%", Goal::AtMost(20.0));
    }
    let size = sizes(bench).last().copied().unwrap_or(0);
    let (database, _) = registry(bench, size).await?;
    let within = Duration::from_secs(if bench.quick { 60 } else { 180 });
    let slow = slow_start(&bench.grantd(bench.postgres.url(&database))?, within).await?;
    let name = format!("{}: ready at 25 % of a processor (1: yes)", label(size));
    report.figure(&name, &Figure::one(f64::from(u8::from(slow.is_some()))), "", Goal::AtLeast(1.0));
    let name = format!("{}: start at 25 % of a processor", label(size));
    report.figure(&name, &Figure::one(slow.map_or(f64::NAN, |took| took.as_secs_f64())), "s", Goal::None);
    Ok(())
}

struct Start {
    /// Seconds until ready.
    wall: f64,
    /// Seconds of processor time until ready.
    processor: f64,
    /// MiB, two seconds later.
    resident: f64,
    /// MiB, at most until then.
    peak: f64,
}

impl Start {
    async fn measure(grantd: &Grantd) -> anyhow::Result<Self> {
        let started = Instant::now();
        let server = serve(grantd).await?;
        let (wall, processor) = (started.elapsed().as_secs_f64(), server.processor_time()?.as_secs_f64());
        sleep(Duration::from_secs(2)).await;
        Ok(Self { wall, processor, resident: server.memory_mib("VmRSS")?, peak: server.memory_mib("VmHWM")? })
    }
}

/// The time until ready of a process that runs for 25 of each 100 ms; `None` when it is not ready within that time.
async fn slow_start(grantd: &Grantd, within: Duration) -> anyhow::Result<Option<Duration>> {
    let mut server = begin(grantd)?;
    let mut throttle = Throttle::start(&server)?;
    let took = ready(&mut server, within).await?;
    ensure!(throttle.is_running(), "the process that slows the server down has ended");
    Ok(took)
}

//! The cost of one change for a server on SQLite.

use std::fs;
use std::time::Duration;

use grantd_kit::clients::{Dialect, fleet_clients};
use grantd_kit::program::run_ok_within;
use grantd_kit::report::Goal;
use tokio::process::Command;
use tokio::time::sleep;

use super::measure::serve;
use crate::report::{Figure, Report};
use crate::sections::Bench;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let path = bench.path("scale.db").display().to_string();
    let grantd = bench.grantd(format!("sqlite:{path}"))?;
    grantd.run_ok(&["migrate"], "").await?;
    let clients = bench.path("scale.sql");
    fs::write(&clients, fleet_clients(Dialect::Sqlite, SIZE, false)?)?;
    let python = |code: &str, argument: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", code, &path, argument]);
        command
    };
    run_ok_within(&mut python(FILL, &clients.display().to_string()), "", Duration::from_mins(5)).await?;

    let server = serve(&grantd).await?;
    let changes = if bench.quick { 50 } else { 100 };
    let time = Duration::from_secs(changes / 5);
    sleep(Duration::from_secs(3)).await;
    let start = server.processor_time()?;
    sleep(time).await;
    let idle = server.processor_time()?.saturating_sub(start);
    let start = server.processor_time()?;
    run_ok_within(&mut python(CHANGE, &changes.to_string()), "", Duration::from_mins(5)).await?;
    let busy = server.processor_time()?.saturating_sub(start);
    let more = (busy.as_secs_f64() - idle.as_secs_f64()) * 1e3 / Duration::from_secs(changes).as_secs_f64();
    report.figure("100k: processor time for each change", &Figure::one(more), "ms", Goal::AtMost(1.0));
    let idle = idle.as_secs_f64() * 1e3 / time.as_secs_f64();
    report.figure("100k: processor time a second without changes", &Figure::one(idle), "ms", Goal::None);
    report.figure("100k: resident", &Figure::one(server.memory_mib("VmRSS")?), "MiB", Goal::None);
    Ok(())
}

/// Number of clients.
const SIZE: usize = 100_000;
/// Runs a file of SQL without the triggers, then one change with them.
const FILL: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=60)
triggers = db.execute(\"select name, sql from sqlite_master where type = 'trigger'\").fetchall()
db.executescript('begin;' + ''.join(f'drop trigger \"{name}\";' for name, _ in triggers) + open(sys.argv[2]).read()
    + ''.join(sql + ';' for _, sql in triggers) + 'update resource set token_ttl = 600; commit; analyze;')
";
/// Makes changes, five a second, each of another client.
const CHANGE: &str = "
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
count = int(sys.argv[2])
ids = [row[0] for row in db.execute('select client_id from client order by client_id limit ?', (count,))]
started = time.monotonic()
for number, client in enumerate(ids):
    time.sleep(max(0, started + number / 5 - time.monotonic()))
    db.execute('update client set enabled = 1 - enabled where client_id = ?', (client,))
time.sleep(max(0, started + count / 5 - time.monotonic()))
";

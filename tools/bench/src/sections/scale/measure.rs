//! Instruments of the sections: processes from /proc, statements on connections of their own, and loads that run until
//! they are stopped.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use grantd_kit::connection::{Connection, LOCALHOST};
use grantd_kit::grantd::{Grantd, Server, free_address, processor_time};
use grantd_kit::program::run_ok_within;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::generator::{Load, Outcome, Until};
use crate::sections::Bench;

/// A connection to a database.
pub(super) async fn connect(bench: &Bench, database: &str) -> anyhow::Result<PgConnection> {
    Ok(PgConnection::connect(&bench.postgres.url(database)).await?)
}

/// Runs a statement, and returns the moment at which it was committed.
pub(super) async fn committed(session: &mut PgConnection, sql: &str) -> anyhow::Result<Instant> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(session).await?;
    Ok(Instant::now())
}

/// SQL that enables or disables a client.
pub(super) fn enable(client_id: &str, enabled: bool) -> String {
    format!("update client set enabled = {} where client_id = '{client_id}'", u8::from(enabled))
}

/// Starts `grantd serve` without waiting for anything.
pub(super) fn begin(grantd: &Grantd) -> anyhow::Result<Server> {
    let (public, admin) = (free_address()?, free_address()?);
    Server::spawn(grantd.serve_command(public, admin)?, public, admin)
}

/// Waits until the server is ready; `None` when it is not within that time.
pub(super) async fn ready(server: &mut Server, within: Duration) -> anyhow::Result<Option<Duration>> {
    let started = Instant::now();
    while !server.readyz().await.is_some_and(|(ready, _)| ready) {
        ensure!(server.is_running(), "the server ended before it was ready");
        if started.elapsed() > within {
            return Ok(None);
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(Some(started.elapsed()))
}

/// Starts `grantd serve` and waits until it is ready, however many clients there are.
pub(super) async fn serve(grantd: &Grantd) -> anyhow::Result<Server> {
    let mut server = begin(grantd)?;
    ready(&mut server, START).await?.with_context(|| format!("not ready within {START:?}"))?;
    Ok(server)
}

/// Makes the peak of a process its present resident memory (proc(5), `clear_refs`).
pub(super) fn reset_peak(server: &Server) -> anyhow::Result<()> {
    Ok(fs::write(format!("/proc/{}/clear_refs", server.pid), "5")?)
}

/// A process that lets another one run for 25 of each 100 ms.
pub(super) struct Throttle(Child);

impl Throttle {
    pub(super) fn start(server: &Server) -> anyhow::Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "python3", "-c", QUARTER, &server.pid.to_string()]);
        Ok(Self(command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()?))
    }

    /// Whether the other process still runs.
    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

/// A command that was run to its end.
pub(super) struct Ran {
    /// From its start to its end, in milliseconds.
    pub(super) wall: f64,
    /// Its largest resident memory in MiB.
    pub(super) peak: f64,
    /// The lines that it printed.
    pub(super) lines: f64,
}

/// Runs a command of grantd, whatever its exit code is.
pub(super) async fn run_command(grantd: &Grantd, arguments: &[&str]) -> anyhow::Result<Ran> {
    let mut command = grantd.command(&[]);
    let mut python = Command::new("python3");
    python.arg("-c").arg(RUSAGE).arg(&grantd.program).args(arguments);
    for (name, value) in command.as_std_mut().get_envs() {
        match value {
            Some(value) => python.env(name, value),
            None => python.env_remove(name),
        };
    }
    python.current_dir(&grantd.directory);
    let printed = run_ok_within(&mut python, "", Duration::from_mins(5)).await?.stdout;
    match printed.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?.as_slice() {
        [code, wall, kib, lines] => {
            ensure!(*code < 2.0, "grantd {arguments:?} ended with {code}");
            Ok(Ran { wall: *wall, peak: kib / 1024.0, lines: *lines })
        }
        _ => anyhow::bail!("grantd {arguments:?}: {printed}"),
    }
}

/// Asks a server for tokens of a client, every ten milliseconds: the moment at which it refused the first.
pub(super) async fn refused(server: SocketAddr, request: Arc<[u8]>, within: Duration) -> Option<Instant> {
    let watching = async {
        loop {
            let Ok(mut connection) = Connection::open(LOCALHOST, server).await else {
                sleep(SAMPLE).await;
                continue;
            };
            while let Ok(answer) = connection.exchange(&request).await {
                if matches!(answer.status, 400 | 401) {
                    return Instant::now();
                }
                sleep(SAMPLE).await;
            }
        }
    };
    timeout(within, watching).await.ok()
}

/// Seconds from a commit to what it brought about; NaN when that did not come.
pub(super) fn seconds_after(commit: Instant, effect: Option<Instant>) -> f64 {
    effect.map_or(f64::NAN, |effect| effect.saturating_duration_since(commit).as_secs_f64())
}

/// A load that runs until it is stopped.
pub(super) struct Background {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Outcome>,
}

impl Background {
    pub(super) fn start(load: Load, address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let load = Load { until: Until::Time(Duration::from_mins(30)), stop: Arc::clone(&stop), ..load };
        let thread = std::thread::spawn(move || load.run(address));
        Self { stop, thread }
    }

    pub(super) async fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        tokio::task::spawn_blocking(|| self.thread.join().unwrap_or_default()).await.unwrap_or_default()
    }
}

/// The processes of PostgreSQL.
pub(super) struct Postmaster(u32);

impl Postmaster {
    pub(super) async fn find(bench: &Bench) -> anyhow::Result<Self> {
        let mut session = connect(bench, "postgres").await?;
        let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut session).await?;
        let parent = fields(u32::try_from(pid)?)?.get(1).copied().context("/proc/PID/stat")?;
        Ok(Self(u32::try_from(parent)?))
    }

    /// Processor time of all its processes so far, those that have ended included.
    pub(super) fn processor_time(&self) -> anyhow::Result<Duration> {
        let (all, mut sum) = (fields(self.0)?, processor_time(self.0)?);
        // proc(5): cutime and cstime follow utime and stime.
        sum += Duration::from_millis(10 * all.iter().skip(13).take(2).sum::<u64>());
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if fields(pid).is_ok_and(|fields| fields.get(1) == Some(&u64::from(self.0))) {
                // Nanoseconds, where the fields of stat are steps of 10 ms.
                let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
                let spent = text.split_whitespace().next().and_then(|spent| spent.parse().ok());
                sum += Duration::from_nanos(spent.unwrap_or(0));
            }
        }
        Ok(sum)
    }
}

/// The fields of /proc/PID/stat from the state on, which counts as 0.
fn fields(pid: u32) -> anyhow::Result<Vec<u64>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').context("/proc/PID/stat")?.1;
    Ok(fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
}

/// A loopback address of a client's own.
pub(super) fn source(number: usize) -> IpAddr {
    let byte = |number: usize| u8::try_from(number % 250).unwrap_or(0) + 1;
    IpAddr::from([127, 10, byte(number / 250), byte(number)])
}

const SAMPLE: Duration = Duration::from_millis(10);
const START: Duration = Duration::from_mins(3);
const QUARTER: &str = "
import os, signal, sys, time
pid = int(sys.argv[1])
try:
    while True:
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.025)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.075)
except ProcessLookupError:
    pass
";
/// Prints the exit code, milliseconds, the largest resident memory in KiB, and the number of lines on standard output.
const RUSAGE: &str = r"
import os, sys, tempfile, time
with tempfile.TemporaryFile() as out:
    started = time.monotonic()
    pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), 1), (os.POSIX_SPAWN_OPEN, 2, '/dev/null', os.O_WRONLY, 0)])
    _, status, usage = os.wait4(pid, 0)
    wall = (time.monotonic() - started) * 1000
    out.seek(0)
    print(os.waitstatus_to_exitcode(status), wall, usage.ru_maxrss, sum(1 for _ in out))
";

//! One `grantd serve` process: started, killed, started again on the same ports, and looked at from outside.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::connection;
use super::issued::Issued;
use super::shell::{Cli, must};

/// A running replica.
#[derive(Debug)]
pub struct Replica {
    pub public: SocketAddr,
    pub admin: SocketAddr,
    child: Child,
    pid: u32,
    issued: Issued,
}

/// What a process holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Holdings {
    pub rss_mib: f64,
    pub descriptors: usize,
}

impl Replica {
    /// Starts one on free ports and waits until it listens. Warnings and errors of its log go to `replica-N.log`.
    pub async fn start(cli: &Cli, number: usize, issued: Issued) -> anyhow::Result<Self> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_on(cli, number, issued, any, any).await
    }

    /// Kills it as `kill -9` does and starts it again where it was.
    pub async fn restart(&mut self, cli: &Cli, number: usize) -> anyhow::Result<()> {
        self.child.kill().await.context("killing a replica")?;
        *self = Self::start_on(cli, number, self.issued.clone(), self.public, self.admin).await?;
        Ok(())
    }

    /// Stops it as a service manager does and starts it again where it was. Returns its exit code, and from the signal to
    /// the exit.
    pub async fn stop_and_start(&mut self, cli: &Cli, number: usize) -> anyhow::Result<(Option<i32>, Duration)> {
        let told = Instant::now();
        must(Command::new("kill").args(["-TERM", &self.pid.to_string()]), "").await?;
        let status = timeout(Duration::from_secs(30), self.child.wait()).await.context("a replica does not stop")??;
        let took = told.elapsed();
        *self = Self::start_on(cli, number, self.issued.clone(), self.public, self.admin).await?;
        Ok((status.code(), took))
    }

    async fn start_on(
        cli: &Cli,
        number: usize,
        issued: Issued,
        public: SocketAddr,
        admin: SocketAddr,
    ) -> anyhow::Result<Self> {
        let mut command = cli.command(&["serve"]);
        command
            .args(["--set", &format!("server.listen={public}"), "--set", &format!("admin.listen={admin}")])
            .args(["--set", &format!("data_dir={}", cli.room.join(format!("data-{number}")).display())])
            .args(["--set", &format!("server.deadlines.drain_delay={}", cli.drain_delay)])
            .args(["--set", "log.format=json", "--set", &format!("token.alg={}", cli.alg)])
            .args(["--set", &format!("issuer={ISSUER}"), "--set", &format!("server.trusted_proxies={PROXY}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().context("starting grantd serve")?;
        let pid = child.id().context("the replica has ended already")?;
        note_pid(&cli.room, pid)?;
        let stdout = child.stdout.take().context("no stdout")?;
        let (announce, announced) = oneshot::channel();
        read_log(stdout, cli.room.join(format!("replica-{number}.log")), announce, issued.clone())?;
        let (admin, public) = timeout(Duration::from_secs(30), announced)
            .await
            .context("the replica did not listen within 30 s")?
            .context("the replica ended before it listened; see its log")?;
        Ok(Self { public, admin, child, pid, issued })
    }

    /// Waits until `/readyz` says yes.
    pub async fn ready(&self, within: Duration) -> anyhow::Result<Duration> {
        let started = Instant::now();
        while started.elapsed() < within {
            if self.readyz().await.is_some_and(|(ready, _)| ready) {
                return Ok(started.elapsed());
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("a replica was not ready within {within:?}")
    }

    /// Whether it is ready, and the age of its registry in seconds.
    pub async fn readyz(&self) -> Option<(bool, f64)> {
        let asked = timeout(Duration::from_secs(2), connection::get(self.admin, "/readyz")).await;
        let (status, body) = asked.ok()?.ok()?;
        let body: serde_json::Value = serde_json::from_str(&body).ok()?;
        Some((status == 200, body.get("registry_age_seconds")?.as_f64().unwrap_or(f64::INFINITY)))
    }

    /// The sum of all series of a metric whose line begins with `prefix`.
    pub async fn metric(&self, prefix: &str) -> f64 {
        let Ok(Ok((_, text))) = timeout(Duration::from_secs(2), connection::get(self.admin, "/metrics")).await else {
            return f64::NAN;
        };
        text.lines()
            .filter(|line| line.starts_with(prefix))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Memory and file descriptors in use.
    pub fn holdings(&self) -> Holdings {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count);
        Holdings { rss_mib: kib.and_then(|kib| kib.trim().parse().ok()).unwrap_or(0.0) / 1024.0, descriptors }
    }

    /// Whether the process is still there.
    pub fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub async fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().await;
    }
}

/// For whoever cleans up after us when we are killed.
pub fn note_pid(room: &Path, pid: u32) -> anyhow::Result<()> {
    let path = room.join("pids");
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&path).context("noting a process")?;
    writeln!(file, "{pid}").context("noting a process")
}

/// Reads the log on a thread of its own, as a log collector would: a reader that stalls would cost lines.
fn read_log(
    stdout: ChildStdout,
    file: PathBuf,
    announce: oneshot::Sender<(SocketAddr, SocketAddr)>,
    issued: Issued,
) -> anyhow::Result<()> {
    let pipe = std::fs::File::from(stdout.into_owned_fd().context("the log's pipe")?);
    let reading = move || {
        let Ok(mut kept) = std::fs::OpenOptions::new().append(true).create(true).open(file) else { return };
        let (mut admin, mut announce) = (None, Some(announce));
        let (mut reader, mut line, mut lines_kept) = (BufReader::with_capacity(1 << 16, pipe), Vec::new(), 0);
        loop {
            line.clear();
            if !matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
                return;
            }
            if announce.is_some()
                && let Some((listener, address)) = listening(&line)
            {
                match (listener.as_str(), admin) {
                    ("admin", _) => admin = Some(address),
                    (_, Some(admin)) => drop(announce.take().map(|announce| announce.send((admin, address)))),
                    _ => {}
                }
            }
            issued.note(&line);
            let is_daily = |text: &[u8]| line.windows(text.len()).any(|window| window == text);
            if lines_kept < 10_000 && !is_daily(b"\"level\":\"INFO\"") && !is_daily(b"\"event\":\"token.refused\"") {
                lines_kept += 1;
                // A log that cannot be kept does not end the run.
                let _ = kept.write_all(&line);
            }
        }
    };
    std::thread::Builder::new().name("log".to_owned()).spawn(reading).context("a thread for the log")?;
    Ok(())
}

fn listening(line: &[u8]) -> Option<(String, SocketAddr)> {
    let line: serde_json::Value = serde_json::from_slice(line).ok()?;
    (line.get("event")?.as_str()? == "listening").then_some(())?;
    Some((line.get("listener")?.as_str()?.to_owned(), line.get("address")?.as_str()?.parse().ok()?))
}

/// What replicas call themselves.
pub const ISSUER: &str = "http://127.0.0.1:8080";
/// Who may say where a request came from.
pub const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

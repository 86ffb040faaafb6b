//! grantd as a program: its command line, and `grantd serve` as a process that is watched and ended.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::connection::get;
use crate::program::{Exit, run, run_ok};

/// grantd on one database: its program, and the configuration of all its commands.
#[derive(Debug, Clone)]
pub struct Grantd {
    /// The program.
    pub program: PathBuf,
    /// Working directory: it holds the sealing key and an empty configuration file.
    pub directory: PathBuf,
    /// `database.url`.
    pub database_url: String,
    /// Further settings of `grantd serve`, by their keys.
    pub settings: BTreeMap<&'static str, String>,
    /// Processors of `grantd serve`, as `taskset` reads them; all when `None`.
    pub cores: Option<String>,
    /// `RUST_LOG` of `grantd serve`; grantd's own level when `None`.
    pub level: Option<&'static str>,
    /// File to which `grantd serve` appends its log; the log is dropped when `None`.
    pub log: Option<PathBuf>,
}

impl Grantd {
    /// grantd in `directory`, which gets a sealing key when it has none.
    pub fn new(program: PathBuf, directory: &Path, database_url: String) -> anyhow::Result<Self> {
        let key = directory.join(SEALING_KEY);
        if !key.exists() {
            let mut bytes = [0; 32];
            aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("no randomness"))?;
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(key)?;
            file.write_all(BASE64_STANDARD.encode(bytes).as_bytes())?;
            fs::write(directory.join(CONFIG), "")?;
        }
        let (settings, directory) = (BTreeMap::new(), directory.to_owned());
        Ok(Self { program, directory, database_url, settings, cores: None, level: None, log: None })
    }

    /// The same with another database.
    #[must_use]
    pub fn on(&self, database_url: String) -> Self {
        Self { database_url, ..self.clone() }
    }

    /// The same with a setting of `grantd serve`.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.settings.insert(key, value.into());
        self
    }

    /// `grantd` with arguments. Nothing of the caller's environment configures it.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        self.configure(&mut command);
        command.args(arguments);
        command
    }

    fn configure(&self, command: &mut Command) {
        for (name, _) in std::env::vars() {
            if name.starts_with("GRANTD") || matches!(name.as_str(), "RUST_LOG" | "DATABASE_URL") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(&self.directory)
            .env("GRANTD_CONFIG", self.directory.join(CONFIG))
            .env("GRANTD__ISSUER", ISSUER)
            .env("GRANTD__DATABASE__URL", &self.database_url)
            .env("GRANTD__KEYS__SEALING_KEY_FILE", self.directory.join(SEALING_KEY));
    }

    /// Runs a command, whatever its exit code is.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<Exit> {
        run(&mut self.command(arguments), "").await
    }

    /// Runs a command that has to succeed.
    pub async fn run_ok(&self, arguments: &[&str], input: &str) -> anyhow::Result<Exit> {
        run_ok(&mut self.command(arguments), input).await
    }

    /// `grantd serve` on two addresses.
    pub fn serve_command(&self, public: SocketAddr, admin: SocketAddr) -> anyhow::Result<Command> {
        let mut command = match &self.cores {
            None => Command::new(&self.program),
            Some(cores) => pinned(cores, &self.program),
        };
        self.configure(&mut command);
        command.arg("serve").args(["--set", &format!("server.listen={public}")]);
        command.args(["--set", &format!("admin.listen={admin}"), "--set", "log.format=json"]);
        for (key, value) in &self.settings {
            command.args(["--set", &format!("{key}={value}")]);
        }
        if let Some(level) = self.level {
            command.env("RUST_LOG", level);
        }
        command.stderr(Stdio::inherit()).stdout(match &self.log {
            Some(path) => Stdio::from(File::options().append(true).create(true).open(path)?),
            None => Stdio::null(),
        });
        Ok(command)
    }

    /// Starts `grantd serve` on free addresses and waits until it is ready.
    pub async fn serve(&self) -> anyhow::Result<Server> {
        let (public, admin) = (free_address()?, free_address()?);
        let mut server = Server::spawn(self.serve_command(public, admin)?, public, admin)?;
        server.listening().await?;
        server.ready(Duration::from_mins(1)).await?;
        Ok(server)
    }
}

/// A server in a process of its own. Dropping it kills the process.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Process id.
    pub pid: u32,
    /// Address at which it answers clients.
    pub public: SocketAddr,
    /// Address at which it answers operators, if it does.
    pub admin: SocketAddr,
}

impl Server {
    /// Starts the process.
    pub fn spawn(mut command: Command, public: SocketAddr, admin: SocketAddr) -> anyhow::Result<Self> {
        command.stdin(Stdio::null());
        let child = command.spawn().with_context(|| format!("{:?}", command.as_std()))?;
        let pid = child.id().context("the server has ended already")?;
        Ok(Self { child, pid, public, admin })
    }

    /// Its standard output, if that is a pipe and was not taken before.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits until the public address accepts connections, for half a minute at most.
    pub async fn listening(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        while TcpStream::connect(self.public).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended before it listened: {status}; its log says why");
            }
            anyhow::ensure!(started.elapsed() < Duration::from_secs(30), "the server did not listen within 30 s");
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Waits until `/readyz` answers 200.
    pub async fn ready(&self, within: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        while !self.readyz().await.is_some_and(|(ready, _)| ready) {
            anyhow::ensure!(started.elapsed() < within, "a server was not ready within {within:?}");
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Whether the server is ready, and the body of `/readyz`.
    pub async fn readyz(&self) -> Option<(bool, serde_json::Value)> {
        let (status, body) = get(self.admin, "/readyz").await?;
        Some((status == 200, serde_json::from_str(&body).ok()?))
    }

    /// The sum of the samples of `/metrics` whose name and labels begin with `prefix`; `None` when there is none.
    pub async fn metric(&self, prefix: &str) -> Option<f64> {
        let (_, text) = get(self.admin, "/metrics").await?;
        let values =
            text.lines().filter(|line| line.starts_with(prefix)).map(|line| line.rsplit(' ').next()?.parse().ok());
        values.reduce(|sum: Option<f64>, value| Some(sum? + value?))?
    }

    /// Processor time that it has used.
    pub fn processor_time(&self) -> anyhow::Result<Duration> {
        processor_time(self.pid)
    }

    /// Its memory in MiB: the field `VmRSS` or `VmHWM` of /proc/PID/status.
    pub fn memory_mib(&self, field: &str) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("/proc/PID/status")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }

    /// The number of its open file descriptors.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count)
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Stops the process with SIGTERM: its exit code, and the time from the signal to the exit.
    pub async fn stop(&mut self) -> anyhow::Result<(Option<i32>, Duration)> {
        let signalled = Instant::now();
        run_ok(Command::new("kill").args(["-TERM", &self.pid.to_string()]), "").await?;
        let status = timeout(Duration::from_secs(30), self.child.wait()).await.context("a server does not stop")??;
        Ok((status.code(), signalled.elapsed()))
    }

    /// Kills the process, if it still runs.
    pub async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The next server is to find its processor free.
        if self.child.start_kill().is_ok() {
            for _ in 0..1000 {
                if !self.is_running() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// A command that runs on `cores` and is killed when the thread that starts it ends.
#[must_use]
pub fn pinned(cores: &str, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "-c", cores]).arg(program);
    command
}

/// User and system time of all threads of a process so far, in steps of 10 ms.
pub fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // proc(5): the name in parentheses may hold anything; utime and stime are the 14th and 15th field.
    let fields = stat.rsplit_once(')').context("/proc/PID/stat")?.1;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// A loopback address that nobody listens on, and that this process gets only once. Its port is below those of outgoing
/// connections, of which one could take it before a server listens there.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Processes that run side by side begin at different ports.
    let first = std::process::id().wrapping_mul(331);
    for _ in 0..PORTS.len() {
        let number = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(PORTS.start + number % (PORTS.end - PORTS.start))?;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no port between {} and {} is free", PORTS.start, PORTS.end)
}

/// Linux gives outgoing connections a port from 32768 on, unless it is told otherwise.
const PORTS: Range<u32> = 10_000..32_768;

/// The issuer of every grantd that is measured.
pub const ISSUER: &str = "https://auth.example.com";
/// The token endpoint, as the `htu` of DPoP proofs.
pub const TOKEN_ENDPOINT: &str = "https://auth.example.com/token";
const CONFIG: &str = "empty.toml";
const SEALING_KEY: &str = "sealing.key";

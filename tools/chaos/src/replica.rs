//! One replica: `grantd serve`, killed and started again on the same addresses, and the reader of its log.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use grantd_kit::grantd::{Grantd, Server, free_address};
use tokio::process::ChildStdout;

use crate::token_log::TokenLog;

/// A replica.
pub struct Replica {
    server: Server,
    /// Its number, for its log and its data directory.
    number: usize,
    token_log: TokenLog,
}

/// Memory and open files of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Holdings {
    pub rss_mib: f64,
    pub descriptors: usize,
}

impl Replica {
    /// Starts a replica on free addresses and waits until it is ready. Warnings and errors go to `replica-N.log`.
    pub async fn start(grantd: &Grantd, number: usize, token_log: TokenLog) -> anyhow::Result<Self> {
        let replica = Self::start_on(grantd, number, token_log, free_address()?, free_address()?).await?;
        replica.ready(READY_WITHIN).await?;
        Ok(replica)
    }

    /// Kills the replica as `kill -9` does, and starts it again without waiting until it is ready.
    pub async fn kill_and_start(&mut self, grantd: &Grantd) -> anyhow::Result<()> {
        self.kill().await;
        *self = Self::start_on(grantd, self.number, self.token_log.clone(), self.public, self.admin).await?;
        Ok(())
    }

    /// Kills the replica, starts it again and waits until it is ready.
    pub async fn restart(&mut self, grantd: &Grantd) -> anyhow::Result<()> {
        self.kill_and_start(grantd).await?;
        self.ready(READY_WITHIN).await
    }

    /// Stops the replica as a service manager does, starts it again and waits until it is ready. Returns the exit code,
    /// and the time from the signal to the exit.
    pub async fn stop_and_start(&mut self, grantd: &Grantd) -> anyhow::Result<(Option<i32>, Duration)> {
        let stopped = self.stop().await?;
        *self = Self::start_on(grantd, self.number, self.token_log.clone(), self.public, self.admin).await?;
        self.ready(READY_WITHIN).await?;
        Ok(stopped)
    }

    async fn start_on(
        grantd: &Grantd,
        number: usize,
        token_log: TokenLog,
        public: SocketAddr,
        admin: SocketAddr,
    ) -> anyhow::Result<Self> {
        let data = grantd.directory.join(format!("data-{number}"));
        let mut command = grantd.clone().with("data_dir", data.to_string_lossy()).serve_command(public, admin)?;
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = Server::spawn(command, public, admin)?;
        note_pid(&grantd.directory, server.pid)?;
        let log = grantd.directory.join(format!("replica-{number}.log"));
        read_log(server.stdout().context("no standard output")?, log, token_log.clone())?;
        server.listening().await?;
        Ok(Self { server, number, token_log })
    }

    /// The age of the registry in seconds, if the replica is ready.
    pub async fn registry_age(&self) -> Option<f64> {
        let (_, body) = self.readyz().await.filter(|(ready, _)| *ready)?;
        Some(body.get("registry_age_seconds")?.as_f64().unwrap_or(f64::INFINITY))
    }

    /// Memory and file descriptors in use.
    pub fn holdings(&self) -> Holdings {
        Holdings { rss_mib: self.memory_mib("VmRSS").unwrap_or_default(), descriptors: self.descriptors() }
    }
}

impl Deref for Replica {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Replica {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

/// Writes down the id of a process, for the script that cleans up after a killed driver.
pub fn note_pid(room: &Path, pid: u32) -> anyhow::Result<()> {
    let path = room.join("pids");
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&path).context("noting a process")?;
    writeln!(file, "{pid}").context("noting a process")
}

/// Reads the log on a thread of its own, as a log collector does: a reader that stalls would cost lines.
fn read_log(stdout: ChildStdout, file: PathBuf, token_log: TokenLog) -> anyhow::Result<()> {
    let pipe = std::fs::File::from(stdout.into_owned_fd().context("the pipe of the log")?);
    let reading = move || {
        let Ok(mut kept) = std::fs::OpenOptions::new().append(true).create(true).open(file) else { return };
        let (mut reader, mut line, mut lines_kept) = (BufReader::with_capacity(1 << 16, pipe), Vec::new(), 0);
        loop {
            line.clear();
            if !matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
                return;
            }
            token_log.note(&line);
            let has = |text: &[u8]| line.windows(text.len()).any(|window| window == text);
            if lines_kept < 10_000 && !has(b"\"level\":\"INFO\"") && !has(b"\"event\":\"token.refused\"") {
                lines_kept += 1;
                // A log that cannot be kept does not end the run.
                let _ = kept.write_all(&line);
            }
        }
    };
    std::thread::Builder::new().name("log".to_owned()).spawn(reading).context("a thread for the log")?;
    Ok(())
}

const READY_WITHIN: Duration = Duration::from_secs(30);
/// The one address whose `X-Forwarded-For` replicas trust.
pub const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

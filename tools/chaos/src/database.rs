//! The PostgreSQL of the run, in a network namespace of its own, and its outages.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use grantd_kit::postgres::Postgres;
use grantd_kit::program::{run, run_ok};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// The PostgreSQL of the run.
#[derive(Debug, Clone)]
pub struct Database {
    /// The server, reached through its socket, which a partition does not touch.
    pub server: Postgres,
    /// Directory of its programs.
    pub bin: PathBuf,
    pub data: PathBuf,
    /// Directory of its socket and its log.
    pub socket: PathBuf,
    /// User of its processes.
    pub owner: String,
    pub namespace: String,
    pub port: u16,
}

/// A way in which the database is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// `pg_ctl stop -m immediate`: connections break off.
    Stopped,
    /// SIGSTOP to every process: connections stay and nothing answers.
    Frozen,
    /// New and old connections are refused with a reset.
    Refused,
    /// Packets vanish.
    Silent,
    /// `default_transaction_read_only`: as if demoted.
    ReadOnly,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Frozen => "frozen",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::ReadOnly => "read-only",
        })
    }
}

impl Database {
    /// Begins an outage.
    pub async fn leave(&self, outage: Outage) -> anyhow::Result<()> {
        match outage {
            Outage::Stopped => self.control(&["stop", "-m", "immediate"]).await,
            Outage::Frozen => self.signal("STOP").await,
            Outage::Refused => self.block("INPUT", "--dport", &["REJECT", "--reject-with", "tcp-reset"]).await,
            Outage::Silent => {
                // Both directions: what the server still had to send does not arrive either.
                self.block("INPUT", "--dport", &["DROP"]).await?;
                self.block("OUTPUT", "--sport", &["DROP"]).await
            }
            Outage::ReadOnly => self.read_only(true).await,
        }
    }

    /// Ends an outage.
    pub async fn come_back(&self, outage: Outage) -> anyhow::Result<()> {
        match outage {
            Outage::Stopped => self.start().await,
            Outage::Frozen => self.signal("CONT").await,
            Outage::Refused | Outage::Silent => self.iptables(&["-F"]).await,
            Outage::ReadOnly => self.read_only(false).await,
        }
    }

    /// Ends whatever outage is in force.
    pub async fn mend(&self) -> anyhow::Result<()> {
        self.iptables(&["-F"]).await?;
        self.signal("CONT").await?;
        if self.control(&["status"]).await.is_err() { self.start().await } else { Ok(()) }
    }

    /// Runs SQL on the database of the run; the answer is bare fields.
    pub async fn sql(&self, sql: &str) -> anyhow::Result<String> {
        self.server.sql("grantd", sql).await
    }

    /// Runs SQL in the background.
    pub fn sql_in_background(&self, sql: &str) -> anyhow::Result<Child> {
        let mut command = self.server.psql("grantd");
        command.args(["-c", sql]).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        command.kill_on_drop(true).spawn().context("psql")
    }

    /// Ends the connections on which replicas learn of changes, and returns how many there were.
    pub async fn cut_listeners(&self) -> anyhow::Result<usize> {
        let listening = "select count(pg_terminate_backend(pid)) from pg_stat_activity
            where pid <> pg_backend_pid() and datname = 'grantd' and query ilike 'listen%'";
        let polling = "select count(pg_terminate_backend(pid)) from pg_stat_activity
            where pid <> pg_backend_pid() and datname = 'grantd' and query ilike '%registry_revision%'";
        let cut: usize = self.sql(listening).await?.parse().context("counting")?;
        // A version that only polls has no such connection; then the one that polls is cut.
        if cut > 0 { Ok(cut) } else { self.sql(polling).await?.parse().context("counting") }
    }

    async fn start(&self) -> anyhow::Result<()> {
        // After a crash the first start may fail while shared memory of the dead is cleared away.
        let until = Instant::now() + Duration::from_secs(15);
        loop {
            match self.control(&["start", "-l", &self.socket.join("postgres.log").to_string_lossy()]).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > until => return Err(error.context("PostgreSQL does not start again")),
                Err(_) => sleep(Duration::from_millis(500)).await,
            }
        }
    }

    /// `pg_ctl` as its owner in its namespace; what it writes goes nowhere, since the server would hold a pipe open.
    async fn control(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace, "runuser", "-u", &self.owner, "--"])
            .arg(self.bin.join("pg_ctl"))
            .arg("-D")
            .arg(&self.data)
            .arg("-w")
            .args(arguments)
            .current_dir(&self.socket)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let status =
            tokio::time::timeout(Duration::from_secs(30), command.status()).await.context("pg_ctl hangs")??;
        if !status.success() {
            bail!("pg_ctl {} ended with {status}", arguments.first().unwrap_or(&""));
        }
        Ok(())
    }

    async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let file = self.data.join("postmaster.pid");
        let Ok(text) = std::fs::read_to_string(&file) else { return Ok(()) };
        let postmaster = text.lines().next().unwrap_or_default().trim().to_owned();
        // The postmaster first, so that it starts no child that we would miss.
        let children = format!("/proc/{postmaster}/task/{postmaster}/children");
        run_ok(Command::new("kill").args([&format!("-{signal}"), &postmaster]), "").await?;
        for child in std::fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            // One that ended meanwhile needs no signal.
            run(Command::new("kill").args([&format!("-{signal}"), child]), "").await?;
        }
        Ok(())
    }

    async fn block(&self, chain: &str, port_option: &str, target: &[&str]) -> anyhow::Result<()> {
        let port = self.port.to_string();
        self.iptables(&[&["-A", chain, "-p", "tcp", port_option, &port, "-j"], target].concat()).await
    }

    async fn iptables(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "iptables"]).args(arguments);
        run_ok(&mut command, "").await.map(drop)
    }

    async fn read_only(&self, on: bool) -> anyhow::Result<()> {
        let value = if on { "on" } else { "off" };
        // The session that changes it may be read-only already, and `alter system` is allowed even so.
        self.sql(&format!("alter system set default_transaction_read_only = {value}")).await?;
        self.sql("select pg_reload_conf()").await.map(drop)
    }
}

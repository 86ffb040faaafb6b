//! Other programs, each with a deadline: grantd's command line, psql, iptables, kill.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// Runs a program to its end, at most for a minute, with `input` on its stdin.
pub async fn run(command: &mut Command, input: &str) -> anyhow::Result<Ended> {
    let started = Instant::now();
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| name.clone())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that has ended reads nothing; its exit code tells why.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = timeout(Duration::from_mins(1), child.wait_with_output())
        .await
        .with_context(|| format!("{name} did not end within a minute"))??;
    Ok(Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: started.elapsed(),
    })
}

/// The same, and it has to succeed.
pub async fn must(command: &mut Command, input: &str) -> anyhow::Result<Ended> {
    let ended = run(command, input).await?;
    if ended.code != Some(0) {
        bail!("{:?} ended with {:?}: {}", command.as_std(), ended.code, ended.stderr.trim());
    }
    Ok(ended)
}

/// grantd's command line on the database of the run.
#[derive(Debug, Clone)]
pub struct Cli {
    pub grantd: PathBuf,
    pub database_url: String,
    pub sealing_key: PathBuf,
    /// Its working directory, where no configuration file is.
    pub room: PathBuf,
    /// How replicas that it starts sign.
    pub alg: &'static str,
    /// How long they answer after the signal to stop.
    pub drain_delay: &'static str,
}

impl Cli {
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.grantd);
        command
            .args(arguments)
            .current_dir(&self.room)
            .env("GRANTD_CONFIG", self.room.join("empty.toml"))
            .env("GRANTD__DATABASE__URL", &self.database_url)
            .env("GRANTD__KEYS__SEALING_KEY_FILE", &self.sealing_key)
            .env_remove("RUST_LOG");
        command
    }

    /// Runs a command, whatever its exit code.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<Ended> {
        run(&mut self.command(arguments), "").await
    }

    /// Runs a command that has to succeed.
    pub async fn must(&self, arguments: &[&str], input: &str) -> anyhow::Result<Ended> {
        must(&mut self.command(arguments), input).await
    }
}

//! Other programs, each with a deadline: grantd's command line, psql, iptables, kill.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

/// The exit of a program.
#[derive(Debug)]
pub struct Exit {
    /// The exit code; `None` when a signal ended the program.
    pub code: Option<i32>,
    /// All that it wrote to standard output.
    pub stdout: String,
    /// All that it wrote to standard error.
    pub stderr: String,
    /// From its start to its end.
    pub took: Duration,
}

/// Runs a program to its end, for at most a minute, with `input` on its standard input.
pub async fn run(command: &mut Command, input: &str) -> anyhow::Result<Exit> {
    run_within(command, input, Duration::from_mins(1)).await
}

/// Runs a program that has to succeed.
pub async fn run_ok(command: &mut Command, input: &str) -> anyhow::Result<Exit> {
    run_ok_within(command, input, Duration::from_mins(1)).await
}

/// Runs a program that has to succeed within that time.
pub async fn run_ok_within(command: &mut Command, input: &str, within: Duration) -> anyhow::Result<Exit> {
    let ended = run_within(command, input, within).await?;
    if ended.code != Some(0) {
        bail!("{:?} ended with {:?}: {}", command.as_std(), ended.code, ended.stderr.trim());
    }
    Ok(ended)
}

async fn run_within(command: &mut Command, input: &str, within: Duration) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| name.clone())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that has ended reads nothing; its exit code tells why.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = timeout(within, child.wait_with_output())
        .await
        .with_context(|| format!("{name} did not end within {within:?}"))??;
    Ok(Exit {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: started.elapsed(),
    })
}

/// The text member `name` of a JSON object.
#[must_use]
pub fn field(json: &str, name: &str) -> Option<String> {
    let object: serde_json::Value = serde_json::from_str(json).ok()?;
    Some(object.get(name)?.as_str()?.to_owned())
}

//! Figure 11: every connection to the database is stuck, and a thousand commands are killed in the middle.

use std::process::Stdio;
use std::time::Duration;

use grantd_kit::clients::register;
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Base, about};
use crate::chance::below;
use crate::options::Options;
use crate::report::Report;
use crate::rig::{Rig, drive_all};

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let client = format!("starved-{}", rig.recorded);
    register(&rig.grantd, &client, &[]).await?;
    locked(rig, options, report, &client).await?;
    cancelled(rig, options, report, &client).await
}

async fn locked(rig: &mut Rig, options: &Options, report: &mut Report, client: &str) -> anyhow::Result<()> {
    let before = rig.unattacked("starvation-before", options.lengths().base).await?;
    let tables = rig
        .database
        .sql("select string_agg(format('%I', tablename), ', ') from pg_tables where schemaname = 'public'")
        .await?;
    let lock = format!("begin; lock table {tables} in access exclusive mode; select pg_sleep(5); commit");
    let lasts = Duration::from_secs(6);
    let stream = rig.registrations.warm_stream(rig.honest_rate, lasts);
    let addresses = rig.addresses();
    let fault = async {
        sleep(Duration::from_millis(500)).await;
        let mut locking = rig.database.sql_in_background(&lock)?;
        sleep(Duration::from_millis(300)).await;
        let command = rig.grantd.run(&["client", "secret", "add", client, "--json"]).await?;
        let status = locking.wait().await?;
        anyhow::ensure!(status.success(), "psql could not lock the tables");
        anyhow::Ok(command)
    };
    let (tally, command) = tokio::join!(drive_all(Instant::now(), vec![stream], &addresses), fault);
    let command = command?;
    rig.keep("starvation", &tally)?;
    let after = rig.unattacked("starvation-after", options.lengths().base).await?;
    let base = Base::of(&before, &after);
    let note = format!("all tables locked for 5 of 6 s; {}; base goodput {:.1} %", about(&tally), base.goodput);
    report.add("11", "goodput while every table is locked, % of base", Goal::AtLeast(99.0), base.share(&tally), note);
    let note = format!("exit code {:?}: {}", command.code, command.stderr.trim());
    report.add("11", "admin command on locked tables, s", Goal::AtMost(3.5), command.took.as_secs_f64(), note.clone());
    let wrong = number(usize::from(!matches!(command.code, Some(1 | 69))));
    report.add("11", "admin command on locked tables: not ended with 69 or 1", Goal::AtMost(0.0), wrong, note);
    Ok(())
}

/// Kills commands at any moment of their lives, two at a time: half of them commands that hash first and write then, half
/// ones that write at once.
async fn cancelled(rig: &mut Rig, options: &Options, report: &mut Report, client: &str) -> anyhow::Result<()> {
    let commands =
        [vec!["client", "secret", "add", client, "--json"], vec!["client", "set", client, "--token-ttl", "10m"]];
    let mut lives = Vec::new();
    for command in &commands {
        lives.push(rig.grantd.run_ok(command, "").await?.took.max(Duration::from_millis(20)));
    }
    let total = options.lengths().cancelled;
    let mut finished = 0;
    for n in 0..total.div_ceil(2) as u64 {
        let mut pair = JoinSet::new();
        for (command, life) in commands.iter().zip(&lives) {
            pair.spawn(kill_early(rig.grantd.command(command), life.mul_f64(number(below(n ^ 0xdead, 1000)) / 1000.0)));
        }
        while let Some(ended) = pair.join_next().await {
            finished += usize::from(ended??);
        }
    }
    sleep(Duration::from_millis(1500)).await;
    let idle = rig
        .database
        .sql(
            "select count(*) from pg_stat_activity where datname = 'grantd' and state like 'idle in transaction%'
             and state_change < now() - interval '1 second'",
        )
        .await?;
    let note = format!(
        "{total} commands, half `secret add` and half `client set`, killed at random within their usual lives of {lives:.0?}; {finished} had ended by then"
    );
    report.add(
        "11",
        "idle in transaction for more than 1 s after cancelled commands",
        Goal::AtMost(0.0),
        idle.parse()?,
        note,
    );
    let mut failed = 0;
    for _ in 0..20 {
        failed += usize::from(rig.grantd.run(&["client", "secret", "add", client, "--json"]).await?.code != Some(0));
    }
    report.add("11", "of 20 commands after that, failed", Goal::AtMost(0.0), number(failed), "");
    let after = rig.unattacked("starvation-cancelled", options.lengths().base).await?;
    report.add("11", "goodput after that, %", Goal::AtLeast(99.0), after.goodput(), about(&after));
    Ok(())
}

/// Whether it had ended before it was killed.
async fn kill_early(mut command: Command, after: Duration) -> anyhow::Result<bool> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn()?;
    sleep(after).await;
    let ended = child.try_wait()?.is_some();
    child.kill().await?;
    Ok(ended)
}

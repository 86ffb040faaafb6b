//! Figure 14: replicas of the release before and of this one on one database, forwards and back under load, and migrations
//! that are killed.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use grantd_kit::clients::register;
use grantd_kit::grantd::Grantd;
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::time::sleep;

use super::about;
use super::restarts::Rotation;
use crate::chance::{below, salt, scatter};
use crate::driver::{Kind, Record, Request, Stream};
use crate::options::Options;
use crate::replica::Replica;
use crate::report::Report;
use crate::rig::Rig;
use crate::tally::Tally;
use crate::token_log::TokenLog;

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let previous = options.previous.as_deref().context("--previous is missing; run script/upgrade")?;
    killed_migrations(rig, options, previous, report).await?;
    let (before, now) = programs(rig, previous, "grantd_upgrade").await?;
    before.run_ok(&["migrate"], "").await?;
    let clients = clients(&before).await?;
    let mut replicas = Vec::new();
    for which in 0..3 {
        replicas.push(Replica::start(&before, FIRST + which, TokenLog::default()).await?);
    }
    let mut all = under_load(&mut replicas, &clients, None).await?;
    let (applied, twice) = three_at_once(&now).await?;
    for cycle in 0..options.lengths().upgrades {
        for program in [&now, &before] {
            for which in 0..3 {
                let rolled = under_load(&mut replicas, &clients, Some((which, program))).await;
                all.0.extend(rolled.with_context(|| format!("cycle {cycle}, replica {which}"))?.0);
            }
        }
    }
    rig.keep("upgrade", &all)?;
    let note = format!("{} times forwards and back, three replicas each; {}", options.lengths().upgrades, about(&all));
    let failed = number(all.count(|record: &Record| !record.is_ok()));
    report.add("14", "failed requests", Goal::AtMost(0.0), failed, note);
    let note = format!("three `grantd migrate` at once, under load; migrations that they applied: {applied}");
    report.add("14", "migrations that ran more than once", Goal::AtMost(0.0), number(twice), note);
    for replica in &mut replicas {
        replica.kill().await;
    }
    Ok(())
}

/// The command line of the release before, and of this one, on a new database.
async fn programs(rig: &Rig, previous: &Path, database: &str) -> anyhow::Result<(Grantd, Grantd)> {
    rig.database.sql(&format!("create database {database}")).await?;
    let now = on_database(rig, database);
    Ok((Grantd { program: previous.to_owned(), ..now.clone() }, now))
}

fn on_database(rig: &Rig, database: &str) -> Grantd {
    rig.grantd.on(rig.grantd.database_url.replace("/grantd?", &format!("/{database}?")))
}

async fn clients(grantd: &Grantd) -> anyhow::Result<Arc<[Arc<[u8]>]>> {
    let mut requests = Vec::new();
    for number in 0..CLIENTS {
        requests.push(register(grantd, &format!("upgraded-{number}"), &[]).await?.request);
    }
    Ok(requests.into())
}

/// A few seconds of honest requests, in which a replica may be replaced by another program.
async fn under_load(
    replicas: &mut [Replica],
    clients: &Arc<[Arc<[u8]>]>,
    replaced: Option<(usize, &Grantd)>,
) -> anyhow::Result<Tally> {
    let (rotation, clients) = (Rotation::default(), Arc::clone(clients));
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.public).collect();
    let admins = replicas.iter().map(|replica| replica.admin).collect();
    let pick = rotation.clone();
    let ask = move |n| {
        let bytes = clients.get(below(n, clients.len())).cloned().unwrap_or_default();
        Request { kind: Kind::Warm, replica: pick.pick(n), bytes }
    };
    let stream = Stream::honest(RATE, Duration::from_secs(3), Box::new(ask));
    let roll = async {
        sleep(Duration::from_millis(500)).await;
        if let Some((which, program)) = replaced
            && let Some(replica) = replicas.get_mut(which)
        {
            let (code, _) = replica.stop_and_start(program).await?;
            anyhow::ensure!(code == Some(0), "a replica ended with {code:?}");
        }
        anyhow::Ok(())
    };
    rotation.drive(admins, stream, &addresses, roll).await.map(|(tally, ())| tally)
}

/// Migrates by three processes at once. Returns how many migrations they claim to have applied (none where both programs have
/// the same schema), and how many of these more than one process claims.
async fn three_at_once(grantd: &Grantd) -> anyhow::Result<(usize, usize)> {
    let migrate = ["migrate", "--json"];
    let run = || grantd.run_ok(&migrate, "");
    let (one, two, three) = tokio::join!(run(), run(), run());
    let mut versions = Vec::new();
    for printed in [one?, two?, three?] {
        let applied: Vec<serde_json::Value> = serde_json::from_str(&printed.stdout)?;
        versions.extend(applied.iter().filter_map(|one| one.get("version")?.as_i64()));
    }
    versions.sort_unstable();
    let all = versions.len();
    versions.dedup();
    Ok((all, all - versions.len()))
}

/// Kills `grantd migrate` at any moment, and runs it again.
async fn killed_migrations(rig: &Rig, options: &Options, previous: &Path, report: &mut Report) -> anyhow::Result<()> {
    let (before, _) = programs(rig, previous, "grantd_before").await?;
    before.run_ok(&["migrate"], "").await?;
    let (times, mut halfway, mut stuck) = (options.lengths().upgrades * 10, 0, 0);
    for turn in 0..times {
        let database = format!("grantd_killed_{turn}");
        rig.database.sql(&format!("create database {database} template grantd_before")).await?;
        let grantd = on_database(rig, &database);
        let mut child = grantd.command(&["migrate"]).stdout(Stdio::null()).kill_on_drop(true).spawn()?;
        sleep(Duration::from_millis(below(scatter(turn as u64) ^ salt(), 120) as u64)).await;
        halfway += usize::from(child.try_wait()?.is_none());
        child.kill().await?;
        let again = grantd.run(&["migrate"]).await?;
        let status = grantd.run(&["migrate", "--status"]).await?;
        stuck += usize::from(again.code != Some(0) || status.stdout.contains("pending"));
        rig.database.sql(&format!("drop database {database} with (force)")).await?;
    }
    let note = format!("{times} times, {halfway} of them before it had ended");
    report.add("14", "migrations that were killed and did not recover", Goal::AtMost(0.0), number(stuck), note);
    Ok(())
}

const CLIENTS: usize = 20;
const RATE: f64 = 100.0;
/// Number of the first replica, for its log and its directory.
const FIRST: usize = 10;

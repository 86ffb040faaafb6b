//! Figure 14: replicas of the release before and of this one on one database, forwards and back under load, and migrations
//! that are killed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::about;
use super::restarts::Rotation;
use crate::chaos::chance::{below, salt, scatter};
use crate::chaos::driver::{Ask, Kind, Record, Stream};
use crate::chaos::http::token_request;
use crate::chaos::issued::Issued;
use crate::chaos::options::Options;
use crate::chaos::replica::Replica;
use crate::chaos::report::{Report, Target};
use crate::chaos::rig::{Rig, drive_all};
use crate::chaos::shell::Cli;
use crate::chaos::stats::number;
use crate::chaos::tally::Tally;

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let previous = options.previous.as_deref().context("--previous is missing; run script/upgrade")?;
    killed_migrations(rig, options, previous, report).await?;
    let (before, now) = programs(rig, previous, "grantd_upgrade").await?;
    before.must(&["migrate"], "").await?;
    let clients = clients(&before).await?;
    let mut replicas = Vec::new();
    for which in 0..3 {
        let replica = Replica::start(&before, FIRST + which, Issued::default()).await?;
        replica.ready(Duration::from_secs(30)).await?;
        replicas.push(replica);
    }
    let mut all = under_load(&mut replicas, &clients, None).await?;
    let twice = three_at_once(&now).await?;
    for cycle in 0..options.lengths.upgrades {
        for program in [&now, &before] {
            for which in 0..3 {
                let rolled = under_load(&mut replicas, &clients, Some((which, program))).await;
                all.0.extend(rolled.with_context(|| format!("cycle {cycle}, replica {which}"))?.0);
            }
        }
    }
    rig.keep("upgrade", &all)?;
    let told = format!("{} times forwards and back, three replicas each; {}", options.lengths.upgrades, about(&all));
    let failed = number(all.count(|record: &Record| !record.is_ok()));
    report.add("14", "failed requests", Target::AtMost(0.0), failed, told);
    let told = "three `grantd migrate` at once, under load".to_owned();
    report.add("14", "migrations that ran more than once", Target::AtMost(0.0), number(twice), told);
    for replica in &mut replicas {
        replica.kill().await;
    }
    Ok(())
}

/// The command line of the release before, and of this one, on a new database.
async fn programs(rig: &Rig, previous: &Path, database: &str) -> anyhow::Result<(Cli, Cli)> {
    rig.postgres.sql(&format!("create database {database}")).await?;
    let database_url = rig.cli.database_url.replace("/grantd?", &format!("/{database}?"));
    let now = Cli { database_url, ..rig.cli.clone() };
    Ok((Cli { grantd: previous.to_owned(), ..now.clone() }, now))
}

async fn clients(cli: &Cli) -> anyhow::Result<Arc<[Arc<[u8]>]>> {
    let mut requests = Vec::new();
    for number in 0..CLIENTS {
        let id = format!("upgraded-{number}");
        let create = ["client", "create", &id, "--scope", "a", "--default-scope", "a", "--json"];
        let printed: serde_json::Value = serde_json::from_str(&cli.must(&create, "").await?.stdout)?;
        let secret = printed.get("client_secret").and_then(|secret| secret.as_str()).context("no secret")?;
        requests.push(token_request(&id, secret).into());
    }
    Ok(requests.into())
}

/// A few seconds of honest requests, in which a replica may be replaced by another program.
async fn under_load(
    replicas: &mut [Replica],
    clients: &Arc<[Arc<[u8]>]>,
    replaced: Option<(usize, &Cli)>,
) -> anyhow::Result<Tally> {
    let (rotation, clients) = (Rotation::default(), Arc::clone(clients));
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.public).collect();
    let watching = rotation.watch(replicas.iter().map(|replica| replica.admin).collect());
    let pick = rotation.clone();
    let ask = move |n| {
        let bytes = clients.get(below(n, clients.len())).cloned().unwrap_or_default();
        Ask { kind: Kind::Warm, replica: pick.pick(n), bytes }
    };
    let load = drive_all(Instant::now(), vec![Stream::honest(RATE, Duration::from_secs(3), Box::new(ask))], &addresses);
    let roll = async {
        sleep(Duration::from_millis(500)).await;
        if let Some((which, program)) = replaced
            && let Some(replica) = replicas.get_mut(which)
        {
            let (code, _) = replica.stop_and_start(program, FIRST + which).await?;
            anyhow::ensure!(code == Some(0), "a replica ended with {code:?}");
            replica.ready(Duration::from_secs(30)).await?;
        }
        anyhow::Ok(())
    };
    let (tally, rolled) = tokio::select! {
        done = async { tokio::join!(load, roll) } => done,
        () = watching => anyhow::bail!("the rotation ended"),
    };
    rolled.map(|()| tally)
}

/// Migrates by three processes at once; how many migrations more than one of them claims.
async fn three_at_once(cli: &Cli) -> anyhow::Result<usize> {
    let migrate = ["migrate", "--json"];
    let (one, two, three) = tokio::join!(cli.must(&migrate, ""), cli.must(&migrate, ""), cli.must(&migrate, ""));
    let mut versions = Vec::new();
    for printed in [one?, two?, three?] {
        let applied: Vec<serde_json::Value> = serde_json::from_str(&printed.stdout)?;
        versions.extend(applied.iter().filter_map(|one| one.get("version")?.as_i64()));
    }
    versions.sort_unstable();
    let all = versions.len();
    anyhow::ensure!(all > 0, "there was nothing to migrate: is --previous the release before?");
    versions.dedup();
    Ok(all - versions.len())
}

/// Kills `grantd migrate` at any moment, and runs it again.
async fn killed_migrations(rig: &Rig, options: &Options, previous: &Path, report: &mut Report) -> anyhow::Result<()> {
    let (before, _) = programs(rig, previous, "grantd_before").await?;
    before.must(&["migrate"], "").await?;
    let (times, mut halfway, mut stuck) = (options.lengths.upgrades * 10, 0, 0);
    for turn in 0..times {
        let database = format!("grantd_killed_{turn}");
        rig.postgres.sql(&format!("create database {database} template grantd_before")).await?;
        let database_url = rig.cli.database_url.replace("/grantd?", &format!("/{database}?"));
        let cli = Cli { database_url, ..rig.cli.clone() };
        let mut child = cli.command(&["migrate"]).stdout(std::process::Stdio::null()).kill_on_drop(true).spawn()?;
        sleep(Duration::from_millis(below(scatter(turn as u64) ^ salt(), 120) as u64)).await;
        halfway += usize::from(child.try_wait()?.is_none());
        child.kill().await?;
        let again = cli.run(&["migrate"]).await?;
        let status = cli.run(&["migrate", "--status"]).await?;
        stuck += usize::from(again.code != Some(0) || status.stdout.contains("pending"));
        rig.postgres.sql(&format!("drop database {database} with (force)")).await?;
    }
    let told = format!("{times} times, {halfway} of them before it had ended");
    report.add("14", "migrations that were killed and did not recover", Target::AtMost(0.0), number(stuck), told);
    Ok(())
}

const CLIENTS: usize = 20;
const RATE: f64 = 100.0;
/// Number of the first replica, for its log and its directory.
const FIRST: usize = 10;

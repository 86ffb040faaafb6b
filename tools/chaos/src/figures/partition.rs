//! Figure 3: packets to and from the database vanish without a reset, with commands in flight.

use std::time::Duration;

use grantd_kit::clients::register;
use grantd_kit::grantd::Grantd;
use grantd_kit::program::Exit;
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::outage::through;
use crate::database::Outage;
use crate::options::Options;
use crate::report::Report;
use crate::rig::Rig;

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let client = format!("partition-{}", rig.recorded);
    register(&rig.grantd, &client, &[]).await?;
    // Five commands that wait for a lock when the packets begin to vanish. psql takes it through a socket that stays.
    let mut in_flight = JoinSet::new();
    let (mut locking, database, grantd) = (None, rig.database.clone(), rig.grantd.clone());
    let just_before = async {
        let lock = "begin; lock table client_secret in share mode; select pg_sleep(5); commit";
        locking = Some(database.sql_in_background(lock)?);
        sleep(Duration::from_millis(200)).await;
        for _ in 0..5 {
            let (grantd, client) = (grantd.clone(), client.clone());
            in_flight.spawn(async move { add(&grantd, &client).await });
        }
        sleep(HEAD_START).await;
        Ok(())
    };
    let (grantd, lasts) = (rig.grantd.clone(), options.lengths().partition);
    let asked_client = client.clone();
    let meanwhile = async move {
        let (started, mut ended) = (Instant::now(), Vec::new());
        while started.elapsed() + Duration::from_secs(4) < lasts {
            ended.push(add(&grantd, &asked_client).await?);
            sleep(Duration::from_secs(1)).await;
        }
        Ok(ended)
    };
    let (seen, asked) = through(rig, options, Outage::Silent, lasts, just_before, meanwhile).await?;
    if let Some(mut locking) = locking {
        locking.wait().await?;
    }
    rig.keep("partition", &seen.tally)?;
    seen.add_rows(report, "3", "silent partition", 1.5);

    let caught = in_flight.join_all().await.into_iter().collect::<anyhow::Result<Vec<Exit>>>()?;
    let caught_for = caught.iter().map(|ended| ended.took.saturating_sub(HEAD_START));
    let slowest = asked.iter().map(|ended| ended.took).chain(caught_for).max().unwrap_or_default().as_secs_f64();
    let note = format!(
        "{} commands begun meanwhile, exit codes {:?}; 5 in flight, {:?}",
        asked.len(),
        codes(&asked),
        codes(&caught)
    );
    let mut rows = report.rows("3", "silent partition");
    rows.add("slowest admin command, s from its start or the partition's", Goal::AtMost(3.5), slowest, note);
    let odd = asked.iter().filter(|ended| ended.code != Some(69)).count();
    let odd = odd + caught.iter().filter(|ended| ended.code != Some(69)).count();
    let note = "one that was in flight may have been done or not; it must not hang";
    rows.add("admin commands that did not end with 69", Goal::AtMost(0.0), number(odd), note);

    let after = add(&rig.grantd, &client).await?;
    let failed = number(usize::from(after.code != Some(0)));
    rows.add("failed first write after the end", Goal::AtMost(0.0), failed, after.stderr.trim());
    Ok(())
}

async fn add(grantd: &Grantd, client: &str) -> anyhow::Result<Exit> {
    grantd.run(&["client", "secret", "add", client, "--json"]).await
}

fn codes(ended: &[Exit]) -> Vec<Option<i32>> {
    ended.iter().map(|ended| ended.code).collect()
}

/// How long before the partition the five commands start: they hash first.
const HEAD_START: Duration = Duration::from_millis(700);

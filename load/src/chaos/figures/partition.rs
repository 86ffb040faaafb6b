//! Figure 3: packets to and from the database vanish without a reset, with commands in flight.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::outage::through;
use crate::chaos::options::Options;
use crate::chaos::postgres::Outage;
use crate::chaos::registrations::register;
use crate::chaos::report::{Report, Target};
use crate::chaos::rig::Rig;
use crate::chaos::shell::{Cli, Ended};
use crate::chaos::stats::number;

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let client = format!("partition-{}", rig.recorded);
    register(&rig.cli, &client, false).await?;
    // Five commands that wait for a lock when the packets begin to vanish. psql takes it through a socket that stays.
    let mut in_flight = tokio::task::JoinSet::new();
    let (mut locking, postgres, cli) = (None, rig.postgres.clone(), rig.cli.clone());
    let just_before = async {
        let lock = "begin; lock table client_secret in share mode; select pg_sleep(5); commit";
        locking = Some(postgres.sql_in_background(lock)?);
        sleep(Duration::from_millis(200)).await;
        for _ in 0..5 {
            let (cli, client) = (cli.clone(), client.clone());
            in_flight.spawn(async move { add(&cli, &client).await });
        }
        sleep(HEAD_START).await;
        Ok(())
    };
    let (cli, lasts) = (rig.cli.clone(), options.lengths.partition);
    let asked_client = client.clone();
    let meanwhile = async move {
        let (started, mut ended) = (Instant::now(), Vec::new());
        while started.elapsed() + Duration::from_secs(4) < lasts {
            ended.push(add(&cli, &asked_client).await?);
            sleep(Duration::from_secs(1)).await;
        }
        Ok(ended)
    };
    let (seen, asked) = through(rig, options, Outage::Silent, lasts, just_before, meanwhile).await?;
    if let Some(mut locking) = locking {
        locking.wait().await?;
    }
    rig.keep("partition", &seen.tally)?;
    seen.tell(report, "3", "silent partition", 1.5);

    let caught = in_flight.join_all().await.into_iter().collect::<anyhow::Result<Vec<Ended>>>()?;
    let caught_for = caught.iter().map(|ended| ended.took.saturating_sub(HEAD_START));
    let slowest = asked.iter().map(|ended| ended.took).chain(caught_for).max().unwrap_or_default().as_secs_f64();
    let told = format!(
        "{} commands begun meanwhile, exit codes {:?}; 5 in flight, {:?}",
        asked.len(),
        codes(&asked),
        codes(&caught)
    );
    report.add(
        "3",
        "silent partition: slowest admin command, s from its start or the partition's",
        Target::AtMost(3.5),
        slowest,
        told,
    );
    let odd = asked.iter().filter(|ended| ended.code != Some(69)).count();
    let odd = odd + caught.iter().filter(|ended| ended.code != Some(69)).count();
    let told = "one that was in flight may have been done or not; it must not hang".to_owned();
    report.add(
        "3",
        "silent partition: admin commands that did not end with 69",
        Target::AtMost(0.0),
        number(odd),
        told,
    );

    let after = add(&rig.cli, &client).await?;
    let failed = number(usize::from(after.code != Some(0)));
    report.add(
        "3",
        "silent partition: failed first write after the end",
        Target::AtMost(0.0),
        failed,
        after.stderr.trim().to_owned(),
    );
    Ok(())
}

async fn add(cli: &Cli, client: &str) -> anyhow::Result<Ended> {
    cli.run(&["client", "secret", "add", client, "--json"]).await
}

fn codes(ended: &[Ended]) -> Vec<Option<i32>> {
    ended.iter().map(|ended| ended.code).collect()
}

/// So long before the partition the five commands start: they hash first.
const HEAD_START: Duration = Duration::from_millis(700);

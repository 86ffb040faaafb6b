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
    // Five commands that are on their way when the packets begin to vanish.
    let mut in_flight = tokio::task::JoinSet::new();
    for n in 0..5 {
        let (cli, client, before) = (rig.cli.clone(), client.clone(), options.lengths.base);
        in_flight.spawn(async move {
            sleep(before.saturating_sub(Duration::from_millis(5 * n))).await;
            add(&cli, &client).await
        });
    }
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
    let (seen, asked) = through(rig, options, Outage::Silent, lasts, meanwhile).await?;
    rig.keep("partition", &seen.tally)?;
    seen.tell(report, "3", "silent partition", 1.5);

    let caught = in_flight.join_all().await.into_iter().collect::<anyhow::Result<Vec<Ended>>>()?;
    let slowest = asked.iter().chain(&caught).map(|ended| ended.took.as_secs_f64()).fold(0.0, f64::max);
    let told = format!(
        "{} commands begun meanwhile, exit codes {:?}; 5 in flight, {:?}",
        asked.len(),
        codes(&asked),
        codes(&caught)
    );
    report.add("3", "silent partition: slowest admin command, s", Target::AtMost(3.5), slowest, told);
    let odd = asked.iter().filter(|ended| ended.code != Some(69)).count();
    let odd = odd + caught.iter().filter(|ended| !matches!(ended.code, Some(0 | 69))).count();
    let told = "those in flight may also have been done (0) before the packets vanished".to_owned();
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

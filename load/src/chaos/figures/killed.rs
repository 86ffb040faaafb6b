//! Figure 8: one of three replicas is killed under load. A client that tries once more elsewhere loses nothing, and the
//! replica is back before long.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::restarts::stream;
use crate::chaos::chance::{below, salt};
use crate::chaos::driver::{End, Record};
use crate::chaos::options::Options;
use crate::chaos::postgres::Outage;
use crate::chaos::report::{Report, Target};
use crate::chaos::rig::{Rig, drive_all};
use crate::chaos::stats::{number, percentile};
use crate::chaos::tally::{Tally, counted};

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    rig.start_anew().await?;
    let (mut all, mut back, mut broken) = (Tally::default(), Vec::new(), Vec::new());
    for number in 0..options.lengths.kills {
        let mut load = stream(rig, Duration::from_secs(4), None);
        load.once_more = true;
        load.ask = everywhere(load.ask);
        let (addresses, cli, which) = (rig.addresses(), rig.cli.clone(), number % 3);
        let Some(replica) = rig.replicas.get_mut(which) else { anyhow::bail!("no replica") };
        let kill = async {
            sleep(Duration::from_millis(500 + below(salt(), 500) as u64)).await;
            let killed = Instant::now();
            replica.restart(&cli, which).await?;
            replica.ready(Duration::from_secs(30)).await?;
            anyhow::Ok(killed.elapsed())
        };
        let (tally, took) = tokio::join!(drive_all(Instant::now(), vec![load], &addresses), kill);
        back.push(took?.as_secs_f64());
        broken.push(number_of(&tally, End::Closed));
        all.0.extend(tally.0);
    }
    rig.keep("killed", &all)?;
    let firsts = counted(all.0.iter().filter_map(|record| record.first));
    let told = format!(
        "{} kill -9, {} requests to all three in turn; {}; first attempts that failed: {firsts}",
        options.lengths.kills,
        all.0.len(),
        all.ends()
    );
    let failed = number(all.count(|record: &Record| !record.is_ok()));
    report.add("8", "failed after one more attempt at another replica", Target::AtMost(0.0), failed, told);
    let told = "those in flight there; what is refused a connection was never sent".to_owned();
    let most = percentile(&mut broken, 1.0);
    report.add("8", "requests that broke off at one kill, at most", Target::Told, most, told);
    let told = format!("{} clients registered; median {:.2} s", options.lengths.clients, percentile(&mut back, 0.5));
    let slowest = percentile(&mut back, 1.0);
    report.add("8", "from the kill to ready again, s, slowest", Target::AtMost(2.0), slowest, told);
    without_database(rig, report).await
}

/// The same requests, to the three replicas in turn.
pub(super) fn everywhere(ask: crate::chaos::mix::Asks) -> crate::chaos::mix::Asks {
    Box::new(move |n| crate::chaos::driver::Ask { replica: below(n, 3), ..ask(n) })
}

fn number_of(tally: &Tally, end: End) -> f64 {
    number(tally.count(|record| record.first == Some(end)))
}

/// A replica that starts while the database is away waits for it, and is no crash loop.
async fn without_database(rig: &mut Rig, report: &mut Report) -> anyhow::Result<()> {
    rig.postgres.leave(Outage::Stopped).await?;
    let cli = rig.cli.clone();
    let Some(replica) = rig.replicas.first_mut() else { anyhow::bail!("no replica") };
    replica.restart(&cli, 0).await?;
    sleep(Duration::from_secs(5)).await;
    let (lives, ready) = (replica.lives(), replica.readyz().await.is_some_and(|(ready, _)| ready));
    rig.postgres.come_back(Outage::Stopped).await?;
    let back = rig.current(Duration::from_secs(30)).await?;
    let told = "killed and started while PostgreSQL was down for 5 s".to_owned();
    let wrong = number(usize::from(!lives || ready));
    report.add("8", "without the database: ended, or called itself ready", Target::AtMost(0.0), wrong, told);
    let told = "no restart".to_owned();
    report.add("8", "from its return until all are current, s", Target::AtMost(5.0), back.as_secs_f64(), told);
    rig.registrations.warm_up(&rig.addresses()).await
}

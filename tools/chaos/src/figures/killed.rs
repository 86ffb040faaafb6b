//! Figure 8: one of three replicas is killed under load. A client that tries once more elsewhere loses nothing, and the
//! replica is back before long.

use std::time::Duration;

use grantd_kit::report::Goal;
use grantd_kit::stats::{number, percentile};
use tokio::time::{Instant, sleep};

use super::restarts::stream;
use crate::chance::{below, salt};
use crate::database::Outage;
use crate::driver::{End, Record, Request};
use crate::mix::Requests;
use crate::options::Options;
use crate::report::Report;
use crate::rig::{Rig, drive_all};
use crate::tally::{Tally, counted};

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    rig.start_anew().await?;
    let (mut all, mut back, mut broken) = (Tally::default(), Vec::new(), Vec::new());
    for kill in 0..options.lengths().kills {
        let mut load = stream(rig, Duration::from_secs(4), None);
        load.once_more = true;
        load.ask = everywhere(load.ask);
        let addresses = rig.addresses();
        let (replica, grantd) = rig.replica(kill % 3)?;
        let kill = async {
            sleep(Duration::from_millis(500 + below(salt(), 500) as u64)).await;
            let killed = Instant::now();
            replica.restart(grantd).await?;
            anyhow::Ok(killed.elapsed())
        };
        let (tally, took) = tokio::join!(drive_all(Instant::now(), vec![load], &addresses), kill);
        back.push(took?.as_secs_f64());
        broken.push(number(tally.count(|record| record.first == Some(End::Closed))));
        all.0.extend(tally.0);
    }
    rig.keep("killed", &all)?;
    let firsts = counted(all.0.iter().filter_map(|record| record.first));
    let note = format!(
        "{} kill -9, {} requests to all three in turn; {}; first attempts that failed: {firsts}",
        options.lengths().kills,
        all.0.len(),
        all.ends()
    );
    let failed = number(all.count(|record: &Record| !record.is_ok()));
    report.add("8", "failed after one more attempt at another replica", Goal::AtMost(0.0), failed, note);
    let note = "those in flight there; what is refused a connection was never sent";
    let most = percentile(&mut broken, 1.0);
    report.add("8", "requests that broke off at one kill, at most", Goal::None, most, note);
    let note = format!("{} clients registered; median {:.2} s", options.lengths().clients, percentile(&mut back, 0.5));
    let slowest = percentile(&mut back, 1.0);
    report.add("8", "from the kill to ready again, s, slowest", Goal::AtMost(2.0), slowest, note);
    without_database(rig, report).await
}

/// The same requests, to all three replicas.
pub(super) fn everywhere(ask: Requests) -> Requests {
    Box::new(move |n| Request { replica: below(n, 3), ..ask(n) })
}

/// Starts a replica while the database is down: it has to wait, and must not end.
async fn without_database(rig: &mut Rig, report: &mut Report) -> anyhow::Result<()> {
    rig.database.leave(Outage::Stopped).await?;
    let (replica, grantd) = rig.replica(0)?;
    replica.kill_and_start(grantd).await?;
    sleep(Duration::from_secs(5)).await;
    let (lives, ready) = (replica.is_running(), replica.readyz().await.is_some_and(|(ready, _)| ready));
    rig.database.come_back(Outage::Stopped).await?;
    let back = rig.current(Duration::from_secs(30)).await?;
    let note = "killed and started while PostgreSQL was down for 5 s";
    let wrong = number(usize::from(!lives || ready));
    report.add("8", "without the database: ended, or called itself ready", Goal::AtMost(0.0), wrong, note);
    let note = "no restart";
    report.add("8", "from its return until all are current, s", Goal::AtMost(5.0), back.as_secs_f64(), note);
    rig.registrations.warm_up(&rig.addresses()).await
}

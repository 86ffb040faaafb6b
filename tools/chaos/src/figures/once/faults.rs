//! The faults of figure 6: a replica is killed, the database crashes, freezes, or falls silent.

use std::fmt;
use std::time::Duration;

use tokio::sync::oneshot::Receiver;
use tokio::time::{Instant, sleep, timeout};

use crate::chance::{below, salt, scatter};
use crate::database::Outage;
use crate::rig::Rig;

/// The faults of a run.
#[derive(Debug, Default)]
pub struct Faults {
    /// From a moment before each fault to a moment after everything was well again.
    spans: Vec<(Instant, Instant)>,
    killed: usize,
    crashed: usize,
    silent: usize,
    frozen: usize,
}

impl Faults {
    /// Whether any of them was near between two moments.
    pub fn touch(&self, from: Instant, until: Instant) -> bool {
        self.spans.iter().any(|(begun, over)| *begun <= until && from <= *over)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { killed, crashed, silent, frozen, .. } = self;
        write!(
            f,
            "{killed} kill -9 of a replica; PostgreSQL crashed and started {crashed} times, silent {silent}, frozen {frozen}"
        )
    }
}

/// One after the other, with pauses, until told that it is over.
pub async fn go_on(rig: &mut Rig, mut ends: Receiver<()>) -> anyhow::Result<Faults> {
    let (mut faults, salt) = (Faults::default(), salt());
    for n in 0.. {
        let chance = |bound| below(scatter(n) ^ salt ^ bound as u64, bound);
        let pause = millis(500 + chance(3500));
        // The sender has ended, well or not.
        if timeout(pause, &mut ends).await.is_ok() {
            break;
        }
        let (begun, lasts) = (Instant::now(), millis(200 + chance(2801)));
        let settles = match chance(10) {
            0..5 => {
                faults.killed += 1;
                rig.restart(chance(3)).await?;
                BRIEF
            }
            other => {
                let (outage, times) = match other {
                    5 | 6 => (Outage::Stopped, &mut faults.crashed),
                    7 | 8 => (Outage::Silent, &mut faults.silent),
                    _ => (Outage::Frozen, &mut faults.frozen),
                };
                *times += 1;
                let victim = (chance(2) == 0).then(|| chance(3));
                faults.killed += usize::from(victim.is_some());
                through(rig, outage, lasts, victim).await?;
                LONG
            }
        };
        faults.spans.push((begun, Instant::now() + settles));
    }
    Ok(faults)
}

/// An outage, in the midst of which a replica may be killed too. It is started again when the database is back.
async fn through(rig: &mut Rig, outage: Outage, lasts: Duration, victim: Option<usize>) -> anyhow::Result<()> {
    rig.database.leave(outage).await?;
    sleep(lasts / 2).await;
    if let Some(replica) = victim.and_then(|which| rig.replicas.get_mut(which)) {
        replica.kill().await;
    }
    sleep(lasts / 2).await;
    rig.database.come_back(outage).await?;
    if let Some(which) = victim {
        rig.restart(which).await?;
    }
    rig.current(Duration::from_mins(1)).await.map(drop)
}

fn millis(count: usize) -> Duration {
    Duration::from_millis(count as u64)
}

/// A replica that has just started hashes secrets once.
const BRIEF: Duration = Duration::from_secs(2);
/// A little more than a request may wait for a database whose return it has not noticed.
const LONG: Duration = Duration::from_secs(4);

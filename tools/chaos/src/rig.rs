//! The rig: three replicas on one PostgreSQL, and what all figures ask of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use grantd_kit::grantd::Grantd;
use tokio::time::{Instant, sleep};

use crate::database::Database;
use crate::driver::{Stream, drive};
use crate::registrations::Registrations;
use crate::replica::{Holdings, Replica};
use crate::tally::Tally;
use crate::token_log::TokenLog;

/// Everything that a figure works on.
pub struct Rig {
    pub grantd: Grantd,
    pub database: Database,
    pub replicas: Vec<Replica>,
    pub registrations: Arc<Registrations>,
    /// C0: the highest rate that the ramp found over all replicas, in requests per second.
    pub capacity: f64,
    /// Rate of the honest load in all figures, in requests per second.
    pub honest_rate: f64,
    /// Directory for one line for each request.
    pub record: Option<PathBuf>,
    /// The number of measurements so far; makes names unique.
    pub recorded: usize,
    /// Tokens in the logs of the replicas.
    pub token_log: TokenLog,
}

impl Rig {
    /// Starts three replicas and waits until they are ready.
    pub async fn start(grantd: Grantd, database: Database, registrations: Arc<Registrations>) -> anyhow::Result<Self> {
        let (mut replicas, token_log) = (Vec::new(), TokenLog::default());
        for number in 0..3 {
            replicas.push(Replica::start(&grantd, number, token_log.clone()).await?);
        }
        let (capacity, honest_rate, record, recorded) = (0.0, 0.0, None, 0);
        Ok(Self { grantd, database, replicas, registrations, capacity, honest_rate, record, recorded, token_log })
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.replicas.iter().map(|replica| replica.public).collect()
    }

    /// Runs streams at the same time, to the end of all.
    pub async fn drive(&mut self, name: &str, streams: Vec<Stream>) -> anyhow::Result<Tally> {
        let addresses = self.addresses();
        let tally = drive_all(Instant::now(), streams, &addresses).await;
        self.keep(name, &tally)?;
        Ok(tally)
    }

    /// Writes the records to the directory, if there is one.
    pub fn keep(&mut self, name: &str, tally: &Tally) -> anyhow::Result<()> {
        self.recorded += 1;
        match &self.record {
            Some(directory) => tally.record(directory, &format!("{:03}-{name}", self.recorded)),
            None => Ok(()),
        }
    }

    /// The honest load with nothing else happening.
    pub async fn unattacked(&mut self, name: &str, lasts: Duration) -> anyhow::Result<Tally> {
        let stream = self.registrations.warm_stream(self.honest_rate, lasts);
        self.drive(name, vec![stream]).await
    }

    /// A replica, and the program that it is started with.
    pub fn replica(&mut self, which: usize) -> anyhow::Result<(&mut Replica, &Grantd)> {
        Ok((self.replicas.get_mut(which).context("no such replica")?, &self.grantd))
    }

    /// Kills a replica, starts it again and waits until it is ready.
    pub async fn restart(&mut self, which: usize) -> anyhow::Result<()> {
        let (replica, grantd) = self.replica(which)?;
        replica.restart(grantd).await
    }

    /// Restarts every replica, and warms the warm clients up again.
    pub async fn start_anew(&mut self) -> anyhow::Result<()> {
        for which in 0..self.replicas.len() {
            self.restart(which).await?;
        }
        self.registrations.all_cold_again();
        self.registrations.warm_up(&self.addresses()).await
    }

    /// Restarts the replicas that have ended, and returns how many there were.
    pub async fn restart_ended(&mut self) -> anyhow::Result<usize> {
        let mut ended = 0;
        for replica in &mut self.replicas {
            if !replica.is_running() {
                ended += 1;
                replica.restart(&self.grantd).await?;
            }
        }
        if ended > 0 {
            self.registrations.warm_up(&self.addresses()).await?;
        }
        Ok(ended)
    }

    /// Waits until every replica is ready and has heard from the database within the last second.
    pub async fn current(&self, within: Duration) -> anyhow::Result<Duration> {
        let started = Instant::now();
        loop {
            let mut all = true;
            for replica in &self.replicas {
                all &= replica.registry_age().await.is_some_and(|age| age < 1.0);
            }
            if all {
                return Ok(started.elapsed());
            }
            anyhow::ensure!(started.elapsed() < within, "the replicas were not current again within {within:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The sum of a metric over all replicas.
    pub async fn metric(&self, prefix: &str) -> f64 {
        let mut sum = 0.0;
        for replica in &self.replicas {
            sum += replica.metric(prefix).await.unwrap_or(f64::NAN);
        }
        sum
    }

    pub fn holdings(&self) -> Vec<Holdings> {
        self.replicas.iter().map(Replica::holdings).collect()
    }

    /// The maximum of the holdings of each replica, sampled until the future ends.
    pub async fn watching<T>(&self, future: impl Future<Output = T>) -> (T, Vec<Holdings>) {
        let mut most = self.holdings();
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                done = future.as_mut() => return (done, most),
                () = sleep(Duration::from_millis(500)) => {
                    for (most, now) in most.iter_mut().zip(self.holdings()) {
                        most.rss_mib = most.rss_mib.max(now.rss_mib);
                        most.descriptors = most.descriptors.max(now.descriptors);
                    }
                }
            }
        }
    }

    /// Kills the replicas.
    pub async fn kill_all(&mut self) {
        for replica in &mut self.replicas {
            replica.kill().await;
        }
    }
}

/// Runs streams at the same time, to the end of all.
pub async fn drive_all(origin: Instant, streams: Vec<Stream>, addresses: &[SocketAddr]) -> Tally {
    let mut tasks = tokio::task::JoinSet::new();
    for stream in streams {
        let addresses = addresses.to_vec();
        tasks.spawn(async move { drive(origin, stream, &addresses).await });
    }
    Tally(tasks.join_all().await.into_iter().flatten().collect())
}

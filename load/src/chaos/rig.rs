//! The rig: three replicas on one PostgreSQL, and what all figures ask of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::driver::{Stream, drive};
use super::issued::Issued;
use super::postgres::Postgres;
use super::registrations::Registrations;
use super::replica::{Holdings, Replica};
use super::shell::Cli;
use super::tally::Tally;

/// Everything that a figure works on.
pub struct Rig {
    pub cli: Cli,
    pub postgres: Postgres,
    pub replicas: Vec<Replica>,
    pub registrations: Arc<Registrations>,
    /// The highest rate that the ramp found, over all replicas, a second.
    pub capacity: f64,
    /// What honest clients ask a second in all other figures.
    pub honest_rate: f64,
    /// Where a line for each request goes.
    pub record: Option<PathBuf>,
    /// How many measurements there were; makes names that nobody has yet.
    pub recorded: usize,
    /// What the replicas' logs say of tokens.
    pub issued: Issued,
}

impl Rig {
    /// Starts three replicas and waits until they are ready.
    pub async fn start(cli: Cli, postgres: Postgres, registrations: Arc<Registrations>) -> anyhow::Result<Self> {
        let (mut replicas, issued) = (Vec::new(), Issued::default());
        for number in 0..3 {
            let replica = Replica::start(&cli, number, issued.clone()).await?;
            replica.ready(Duration::from_secs(30)).await?;
            replicas.push(replica);
        }
        let (capacity, honest_rate, record, recorded) = (0.0, 0.0, None, 0);
        Ok(Self { cli, postgres, replicas, registrations, capacity, honest_rate, record, recorded, issued })
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

    /// Writes the records down when somebody wants them.
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

    /// Kills and starts every replica, and lets the warm clients be seen again.
    pub async fn start_anew(&mut self) -> anyhow::Result<()> {
        for (number, replica) in self.replicas.iter_mut().enumerate() {
            replica.restart(&self.cli, number).await?;
            replica.ready(Duration::from_secs(30)).await?;
        }
        self.registrations.all_cold_again();
        self.registrations.warm_up(&self.addresses()).await
    }

    /// Restarts each replica that has ended; how many had.
    pub async fn raise_the_dead(&mut self) -> anyhow::Result<usize> {
        let mut dead = 0;
        for (number, replica) in self.replicas.iter_mut().enumerate() {
            if !replica.lives() {
                dead += 1;
                replica.restart(&self.cli, number).await?;
                replica.ready(Duration::from_secs(30)).await?;
            }
        }
        if dead > 0 {
            self.registrations.warm_up(&self.addresses()).await?;
        }
        Ok(dead)
    }

    /// Waits until every replica is ready and has heard from the database within the last second.
    pub async fn current(&self, within: Duration) -> anyhow::Result<Duration> {
        let started = Instant::now();
        loop {
            let mut all = true;
            for replica in &self.replicas {
                all &= replica.readyz().await.is_some_and(|(ready, age)| ready && age < 1.0);
            }
            if all {
                return Ok(started.elapsed());
            }
            anyhow::ensure!(started.elapsed() < within, "the replicas were not current again within {within:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// A metric, over all replicas.
    pub async fn metric(&self, prefix: &str) -> f64 {
        let mut sum = 0.0;
        for replica in &self.replicas {
            sum += replica.metric(prefix).await;
        }
        sum
    }

    pub fn holdings(&self) -> Vec<Holdings> {
        self.replicas.iter().map(Replica::holdings).collect()
    }

    /// The most memory that any replica has taken since, sampled until the future ends.
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

    /// Ends the replicas.
    pub async fn kill_all(&mut self) -> anyhow::Result<()> {
        for replica in &mut self.replicas {
            replica.kill().await;
        }
        Ok(())
    }

    /// Ends the replicas and leaves the database as it was found.
    pub async fn end(&mut self) -> anyhow::Result<()> {
        self.kill_all().await?;
        self.postgres.mend().await.context("mending the database")
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

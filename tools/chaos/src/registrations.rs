//! The clients of a run: thousands that only fill the registry, and some with known secrets that send requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use grantd_kit::clients::{Client, idle_clients, register, register_imported};
use grantd_kit::connection::ask as ask_once;
use grantd_kit::grantd::Grantd;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::chance::{below, honest_loopback, untagged_secret};
use crate::database::Database;
use crate::driver::{Kind, Request, Stream};

/// The clients of a run.
#[derive(Debug)]
pub struct Registrations {
    /// Clients that every replica has seen after [`Registrations::warm_up`].
    pub warm: Arc<[Client]>,
    /// Clients kept back, to be new to a replica.
    cold: Arc<[Client]>,
    cold_used: AtomicUsize,
    /// The number of clients without a known secret.
    idle: usize,
}

impl Registrations {
    /// Registers `total` clients. The secrets of `active` are known, and a tenth of those are imported ones.
    pub async fn make(grantd: &Grantd, database: &Database, total: usize, active: usize) -> anyhow::Result<Self> {
        let idle = total.saturating_sub(active);
        // The first makes the key that tags secrets; the idle ones refer to it.
        let mut known = vec![register(grantd, "active-00000", &[]).await?];
        database.sql(&format!("begin; {} commit;", idle_clients("idle", idle, true))).await.context("idle clients")?;
        // Each takes a hash: more than two at once would only wait for processors.
        let places = Arc::new(Semaphore::new(2));
        let mut tasks = JoinSet::new();
        for number in 1..active {
            let (grantd, places) = (grantd.clone(), Arc::clone(&places));
            tasks.spawn(async move {
                let _place = places.acquire().await?;
                let id = format!("active-{number:05}");
                match number % 10 {
                    9 => register_imported(&grantd, &id, &untagged_secret(number as u64)).await,
                    _ => register(&grantd, &id, &[]).await,
                }
            });
        }
        while let Some(registered) = tasks.join_next().await {
            known.push(registered??);
        }
        known.sort_by(|a, b| a.id.cmp(&b.id));
        let cold = known.split_off(active - active / 5);
        Ok(Self { warm: known.into(), cold: cold.into(), cold_used: AtomicUsize::new(0), idle })
    }

    /// Lets every warm client get a token from every replica, eight at a time, which keeps the argon2 lane busy.
    pub async fn warm_up(&self, replicas: &[SocketAddr]) -> anyhow::Result<()> {
        let places = Arc::new(Semaphore::new(8));
        let mut tasks = JoinSet::new();
        for (number, known) in self.warm.iter().enumerate() {
            for replica in replicas.iter().copied() {
                let (places, request) = (Arc::clone(&places), Arc::clone(&known.request));
                tasks.spawn(async move {
                    let _place = places.acquire().await?;
                    until_token(replica, number as u64, &request).await
                });
            }
        }
        while let Some(warmed) = tasks.join_next().await {
            warmed??;
        }
        Ok(())
    }

    /// Honest requests by warm clients, to all replicas in turn.
    pub fn warm_stream(&self, rate: f64, lasts: Duration) -> Stream {
        let warm = Arc::clone(&self.warm);
        Stream::honest(rate, lasts, Box::new(move |n| ask(Kind::Warm, n, &warm, below(n, warm.len()))))
    }

    /// Pairs of a client and a replica that have not met, to be used once.
    pub fn take_cold(&self, most: usize) -> Vec<(Client, usize)> {
        let from = self.cold_used.fetch_add(most, Ordering::Relaxed);
        (from..from + most)
            .filter_map(|pair| {
                // First each client to one replica, then each to the next.
                let (client, turn) = (pair % self.cold.len().max(1), pair / self.cold.len().max(1));
                (turn < 3).then_some((self.cold.get(client)?.clone(), (client + turn) % 3))
            })
            .collect()
    }

    /// The number of such pairs that are left.
    pub fn cold_left(&self) -> usize {
        (3 * self.cold.len()).saturating_sub(self.cold_used.load(Ordering::Relaxed))
    }

    /// Makes all pairs available again, after every replica was restarted.
    pub fn all_cold_again(&self) {
        self.cold_used.store(0, Ordering::Relaxed);
    }

    /// The id of any registered client.
    pub fn any_id(&self, n: u64) -> String {
        let idle = below(n, self.idle + self.warm.len());
        match self.warm.get(idle) {
            Some(known) => known.id.clone(),
            None => format!("idle-{}", idle - self.warm.len() + 1),
        }
    }
}

/// A request of a known client to the replica whose turn it is.
pub fn ask(kind: Kind, n: u64, clients: &[Client], which: usize) -> Request {
    let bytes = clients.get(which).map(|known| Arc::clone(&known.request)).unwrap_or_default();
    Request { kind, replica: below(n ^ 0x7e11, 3), bytes }
}

/// Sends a token request until there is a token, thirty times at most.
async fn until_token(replica: SocketAddr, number: u64, request: &[u8]) -> anyhow::Result<()> {
    let mut last = None;
    for attempt in 0..30 {
        let source = honest_loopback(number ^ attempt << 32);
        match ask_once(source, replica, request, Duration::from_secs(10)).await {
            Some((answer, _)) if answer.status == 200 => return Ok(()),
            other => last = other,
        }
        sleep(Duration::from_millis(200)).await;
    }
    anyhow::bail!("a client could not be warmed up: {last:?}")
}

//! Honest clients that a replica has not seen before: they wait as long as `Retry-After` says and try again.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::chaos::chance::honest_loopback;
use crate::chaos::connection::Connection;
use crate::chaos::registrations::Known;
use crate::chaos::stats::percent;

/// How they fared.
#[derive(Debug, Default, Clone, Copy)]
pub struct Cold {
    pub asked: usize,
    /// Had a token within ten seconds, perhaps after they were asked to come back.
    pub served: usize,
    /// Had one at the first attempt.
    pub at_once: usize,
    /// Were told that their right secret is wrong.
    pub called_wrong: usize,
    pub slowest: Duration,
}

impl Cold {
    pub fn percent(&self) -> f64 {
        percent(self.served, self.asked)
    }
}

/// Lets one pair after the other meet, at even distances over `lasts`.
pub async fn meet(pairs: Vec<(Known, usize)>, lasts: Duration, replicas: Vec<SocketAddr>) -> Cold {
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    let every = lasts / u32::try_from(pairs.len()).unwrap_or(u32::MAX).max(1);
    for (n, (known, replica)) in (0_u32..).zip(pairs) {
        let Some(address) = replicas.get(replica).copied() else { continue };
        tasks.spawn(async move {
            tokio::time::sleep_until(start + every * n).await;
            first_token(&known, address, honest_loopback(u64::from(n) << 8 ^ 0xc01d)).await
        });
    }
    let mut cold = Cold::default();
    while let Some(met) = tasks.join_next().await {
        let Ok((attempts, took, end)) = met else { continue };
        cold.asked += 1;
        cold.called_wrong += usize::from(end == Some(401));
        if end == Some(200) {
            cold.served += 1;
            cold.at_once += usize::from(attempts == 1);
            cold.slowest = cold.slowest.max(took);
        }
    }
    cold
}

/// How many attempts, how long, and the last status. An attempt on a broken connection is repeated after a second.
pub async fn first_token(known: &Known, replica: SocketAddr, source: IpAddr) -> (usize, Duration, Option<u16>) {
    let started = Instant::now();
    let deadline = started + Duration::from_secs(10);
    let mut attempts = 0;
    loop {
        attempts += 1;
        let asking = async {
            let mut connection = Connection::open(source, replica).await.ok()?;
            connection.exchange(&known.request).await.ok()
        };
        let Ok(answer) = timeout_at(deadline, asking).await else { return (attempts, started.elapsed(), None) };
        let pause = match answer {
            Some(answer) if !matches!(answer.status, 429 | 503) => {
                return (attempts, started.elapsed(), Some(answer.status));
            }
            Some(ref answer) => answer.retry_after.unwrap_or(1),
            None => 1,
        };
        let again = Instant::now() + Duration::from_secs(u64::from(pause.clamp(1, 10)));
        if again >= deadline {
            return (attempts, started.elapsed(), answer.map(|answer| answer.status));
        }
        sleep(again - Instant::now()).await;
    }
}

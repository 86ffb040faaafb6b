//! Honest clients that a replica has not seen before: they wait as long as `Retry-After` says and try again.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use grantd_kit::clients::Client;
use grantd_kit::connection::ask;
use grantd_kit::stats::percent;
use tokio::time::{Instant, sleep, sleep_until};

use crate::chance::honest_loopback;

/// The results of cold clients.
#[derive(Debug, Default, Clone, Copy)]
pub struct ColdResult {
    pub asked: usize,
    /// Had a token within ten seconds, perhaps after refusals with `Retry-After`.
    pub served: usize,
    /// Had a token at the first attempt.
    pub at_once: usize,
    /// Were refused with 401 although their secret is right.
    pub called_wrong: usize,
    pub slowest: Duration,
}

impl ColdResult {
    pub fn percent(&self) -> f64 {
        percent(self.served, self.asked)
    }
}

/// Sends the first request of each pair of client and replica, at even distances over `lasts`.
pub async fn meet(pairs: Vec<(Client, usize)>, lasts: Duration, replicas: Vec<SocketAddr>) -> ColdResult {
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    let every = lasts / u32::try_from(pairs.len()).unwrap_or(u32::MAX).max(1);
    for (n, (known, replica)) in (0_u32..).zip(pairs) {
        let Some(address) = replicas.get(replica).copied() else { continue };
        tasks.spawn(async move {
            sleep_until(start + every * n).await;
            first_token(&known, address, honest_loopback(u64::from(n) << 8 ^ 0xc01d)).await
        });
    }
    let mut cold = ColdResult::default();
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

/// Sends requests until there is a token or ten seconds are over: the number of attempts, the time, and the last status.
/// An attempt on a broken connection is repeated after a second.
pub async fn first_token(client: &Client, replica: SocketAddr, source: IpAddr) -> (usize, Duration, Option<u16>) {
    let started = Instant::now();
    let deadline = started + Duration::from_secs(10);
    let mut attempts = 0;
    loop {
        attempts += 1;
        let answer = ask(source, replica, &client.request, deadline - Instant::now()).await.map(|(answer, _)| answer);
        let status = answer.as_ref().map(|answer| answer.status);
        let pause = match &answer {
            Some(answer) if !matches!(answer.status, 429 | 503) => return (attempts, started.elapsed(), status),
            Some(answer) => answer.retry_after.unwrap_or(1),
            None => 1,
        };
        let again = Instant::now() + Duration::from_secs(u64::from(pause.clamp(1, 10)));
        if again >= deadline {
            return (attempts, started.elapsed(), status);
        }
        sleep(again - Instant::now()).await;
    }
}

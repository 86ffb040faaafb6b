//! Figure 4 by introspection: how long after a token was revoked, or its client switched off, a replica calls it active.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use grantd_kit::clients::{Client, SCOPE, register};
use grantd_kit::connection::ask;
use grantd_kit::http::post_basic;
use grantd_kit::program::field;
use grantd_kit::report::Goal;
use grantd_kit::stats::percentile;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{GAVE_UP, polling};
use crate::chance::honest_loopback;
use crate::report::Report;
use crate::rig::Rig;

/// An act after which a token is no longer active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// `POST /revoke`, at the first replica.
    Revoke,
    /// `grantd client revoke-tokens`.
    RevokeTokens,
    /// `grantd client disable`.
    Disable,
}

pub async fn measure(rig: &Rig, trials: usize, report: &mut Report) -> anyhow::Result<()> {
    let (api, asker) = (format!("https://api-{}.test", rig.recorded), format!("asker-{}", rig.recorded));
    let asker = register(&rig.grantd, &asker, &[]).await?;
    rig.grantd.run_ok(&["resource", "create", &api, "--scope", SCOPE, "--introspect-by", &asker.id], "").await?;
    let mut all = Vec::new();
    let acts = [Act::Revoke, Act::RevokeTokens, Act::Disable].into_iter().cycle();
    for (n, act) in acts.take(trials).enumerate() {
        let client_id = format!("asked-about-{}-{n}", rig.recorded);
        let client = register(&rig.grantd, &client_id, &["--resource", &api]).await?;
        let seen = trial(rig, act, &client, &asker, n / 3 % 2 == 1).await;
        all.extend(seen.with_context(|| format!("{act:?}, trial {n}"))?);
    }
    let told = |act: Act| {
        let mut of_act: Vec<f64> = all.iter().filter(|(one, _)| *one == act).map(|(_, ms)| *ms).collect();
        format!("{act:?} p50 {:.0}, largest {:.0}", percentile(&mut of_act, 0.5), percentile(&mut of_act, 1.0))
    };
    let told = format!(
        "{trials} trials x 3 replicas, half with the connection that hears of changes cut 100 ms earlier; {}, {}, {}",
        told(Act::Revoke),
        told(Act::RevokeTokens),
        told(Act::Disable)
    );
    let mut ms: Vec<f64> = all.iter().map(|(_, ms)| *ms).collect();
    report.add("4", "by introspection: p99.9, ms", Goal::AtMost(1000.0), percentile(&mut ms, 0.999), told);
    let largest = percentile(&mut ms, 1.0);
    report.add("4", "by introspection: largest, ms", Goal::AtMost(2000.0), largest, "");
    Ok(())
}

/// How long each replica calls a token active after the act, in milliseconds.
async fn trial(rig: &Rig, act: Act, client: &Client, asker: &Client, cut: bool) -> anyhow::Result<Vec<(Act, f64)>> {
    let replicas = rig.addresses();
    let first = *replicas.first().context("no replica")?;
    let token = token(first, &client.request).await?;
    let token = format!("token={token}");
    let question: Arc<[u8]> = post_basic("/introspect", &asker.id, &asker.secret, &token).into();
    for replica in &replicas {
        until_active(*replica, &question).await?;
    }
    let mut asking = JoinSet::new();
    for replica in replicas {
        asking.spawn(last_active(replica, Arc::clone(&question)));
    }
    sleep(Duration::from_millis(50)).await;
    if cut {
        rig.database.cut_listeners().await?;
        sleep(Duration::from_millis(100)).await;
    }
    match act {
        Act::Revoke => {
            let request = post_basic("/revoke", &client.id, &client.secret, &token);
            let (status, _) = exchange(first, &request).await.context("no answer to /revoke")?;
            anyhow::ensure!(status == 200, "/revoke answered {status}");
        }
        Act::RevokeTokens => drop(rig.grantd.run_ok(&["client", "revoke-tokens", &client.id], "").await?),
        Act::Disable => drop(rig.grantd.run_ok(&["client", "disable", &client.id], "").await?),
    }
    let since = Instant::now();
    let ms = |last: Option<Instant>| {
        last.map_or(f64::INFINITY, |last| last.saturating_duration_since(since).as_secs_f64() * 1000.0)
    };
    Ok(asking.join_all().await.into_iter().map(|last| (act, ms(last))).collect())
}

async fn token(replica: SocketAddr, request: &[u8]) -> anyhow::Result<String> {
    let (started, mut ticks) = (Instant::now(), polling());
    while started.elapsed() < GAVE_UP {
        ticks.tick().await;
        if let Some((200, body)) = exchange(replica, request).await {
            return field(&body, "access_token").context("an answer without a token");
        }
    }
    anyhow::bail!("no token")
}

async fn until_active(replica: SocketAddr, question: &[u8]) -> anyhow::Result<()> {
    let (started, mut ticks) = (Instant::now(), polling());
    while started.elapsed() < GAVE_UP {
        ticks.tick().await;
        if is_active(replica, question).await == Some(true) {
            return Ok(());
        }
    }
    anyhow::bail!("the token never became active at {replica}")
}

/// When the token was last active before three answers in a row that it is not; `None` if it was active to the last.
async fn last_active(replica: SocketAddr, question: Arc<[u8]>) -> Option<Instant> {
    let (started, mut ticks) = (Instant::now(), polling());
    let (mut last, mut inactive) = (started, 0);
    while started.elapsed() < GAVE_UP {
        ticks.tick().await;
        match is_active(replica, &question).await {
            Some(true) => (last, inactive) = (Instant::now(), 0),
            Some(false) => inactive += 1,
            None => {}
        }
        if inactive == 3 {
            return Some(last);
        }
    }
    None
}

/// Whether the replica calls the token active; `None` without an answer that says so.
async fn is_active(replica: SocketAddr, question: &[u8]) -> Option<bool> {
    let (status, body) = exchange(replica, question).await?;
    (status == 200).then(|| body.contains(r#""active":true"#))
}

async fn exchange(replica: SocketAddr, request: &[u8]) -> Option<(u16, String)> {
    let (answer, body) = ask(honest_loopback(7), replica, request, Duration::from_secs(2)).await?;
    Some((answer.status, body))
}

//! Figure 4 by introspection: how long after a token was revoked, or its client switched off, a replica calls it active.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep, timeout};

use super::visibility::{GAVE_UP, ticks};
use crate::chaos::chance::honest_loopback;
use crate::chaos::connection::Connection;
use crate::chaos::http::{post_request, token_request};
use crate::chaos::report::{Report, Target};
use crate::chaos::rig::Rig;
use crate::chaos::stats::percentile;

/// What takes a token back.
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
    let asker_secret = make(rig, &asker, &[]).await?;
    rig.cli.must(&["resource", "create", &api, "--scope", "a", "--introspect-by", &asker], "").await?;
    let mut all = Vec::new();
    let acts = [Act::Revoke, Act::RevokeTokens, Act::Disable].into_iter().cycle();
    for (n, act) in acts.take(trials).enumerate() {
        let client_id = format!("asked-about-{}-{n}", rig.recorded);
        let secret = make(rig, &client_id, &["--resource", &api]).await?;
        let seen = trial(rig, act, (&client_id, &secret), (&asker, &asker_secret), n / 3 % 2 == 1).await;
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
    report.add("4", "by introspection: p99.9, ms", Target::AtMost(1000.0), percentile(&mut ms, 0.999), told);
    let largest = percentile(&mut ms, 1.0);
    report.add("4", "by introspection: largest, ms", Target::AtMost(2000.0), largest, String::new());
    Ok(())
}

/// Registers a client, and returns its secret.
async fn make(rig: &Rig, client_id: &str, more: &[&str]) -> anyhow::Result<String> {
    let create = ["client", "create", client_id, "--scope", "a", "--default-scope", "a", "--json"];
    let printed = rig.cli.must(&[&create, more].concat(), "").await?.stdout;
    let printed: serde_json::Value = serde_json::from_str(&printed).context("what grantd printed")?;
    let secret = printed.get("client_secret").and_then(|secret| secret.as_str());
    Ok(secret.context("grantd printed no secret")?.to_owned())
}

async fn trial(
    rig: &Rig,
    act: Act,
    client: (&str, &str),
    asker: (&str, &str),
    cut: bool,
) -> anyhow::Result<Vec<(Act, f64)>> {
    let replicas = rig.addresses();
    let first = *replicas.first().context("no replica")?;
    let token = token(first, &token_request(client.0, client.1)).await?;
    let question: Arc<[u8]> = post_request("/introspect", asker.0, asker.1, &format!("token={token}")).into();
    for replica in &replicas {
        until_active(*replica, &question).await?;
    }
    let mut asking = tokio::task::JoinSet::new();
    for replica in replicas {
        asking.spawn(last_active(replica, Arc::clone(&question)));
    }
    sleep(Duration::from_millis(50)).await;
    if cut {
        rig.postgres.cut_listeners().await?;
        sleep(Duration::from_millis(100)).await;
    }
    match act {
        Act::Revoke => {
            let request = post_request("/revoke", client.0, client.1, &format!("token={token}"));
            let (status, _) = exchange(first, &request).await.context("no answer to /revoke")?;
            anyhow::ensure!(status == 200, "/revoke answered {status}");
        }
        Act::RevokeTokens => drop(rig.cli.must(&["client", "revoke-tokens", client.0], "").await?),
        Act::Disable => drop(rig.cli.must(&["client", "disable", client.0], "").await?),
    }
    let since = Instant::now();
    let ms = |last: Option<Instant>| {
        last.map_or(f64::INFINITY, |last| last.saturating_duration_since(since).as_secs_f64() * 1000.0)
    };
    Ok(asking.join_all().await.into_iter().map(|last| (act, ms(last))).collect())
}

async fn token(replica: SocketAddr, request: &[u8]) -> anyhow::Result<String> {
    let (started, mut ticks) = (Instant::now(), ticks());
    while started.elapsed() < GAVE_UP {
        ticks.tick().await;
        if let Some((200, body)) = exchange(replica, request).await {
            let body: serde_json::Value = serde_json::from_slice(&body)?;
            let token = body.get("access_token").and_then(|token| token.as_str());
            return Ok(token.context("an answer without a token")?.to_owned());
        }
    }
    anyhow::bail!("no token")
}

async fn until_active(replica: SocketAddr, question: &[u8]) -> anyhow::Result<()> {
    let (started, mut ticks) = (Instant::now(), ticks());
    while started.elapsed() < GAVE_UP {
        ticks.tick().await;
        if is_active(replica, question).await == Some(true) {
            return Ok(());
        }
    }
    anyhow::bail!("the token never became active at {replica}")
}

/// When the token was last called active before three answers in a row that it is not; `None` if it was to the last.
async fn last_active(replica: SocketAddr, question: Arc<[u8]>) -> Option<Instant> {
    let (started, mut ticks) = (Instant::now(), ticks());
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

/// `None` when there was no answer that says.
async fn is_active(replica: SocketAddr, question: &[u8]) -> Option<bool> {
    let (status, body) = exchange(replica, question).await?;
    let active = body.windows(13).any(|part| part == br#""active":true"#);
    (status == 200).then_some(active)
}

async fn exchange(replica: SocketAddr, request: &[u8]) -> Option<(u16, Vec<u8>)> {
    let asking = async {
        let mut connection = Connection::open(honest_loopback(7), replica).await.ok()?;
        let answer = connection.exchange(request).await.ok()?;
        Some((answer.status, connection.body(&answer).to_vec()))
    };
    timeout(Duration::from_secs(2), asking).await.ok()?
}

//! Figure 4 by introspection: how long after a token was revoked, or its client switched off, a replica calls it active.

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

use super::polling::{accepted, active, first_yes, last_yes, millis};
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
    let note = |act: Act| {
        let mut of_act: Vec<f64> = all.iter().filter(|(one, _)| *one == act).map(|(_, ms)| *ms).collect();
        format!("{act:?} p50 {:.0}, largest {:.0}", percentile(&mut of_act, 0.5), percentile(&mut of_act, 1.0))
    };
    let note = format!(
        "{trials} trials x 3 replicas, half with the connection that hears of changes cut 100 ms earlier; {}, {}, {}",
        note(Act::Revoke),
        note(Act::RevokeTokens),
        note(Act::Disable)
    );
    let mut ms: Vec<f64> = all.iter().map(|(_, ms)| *ms).collect();
    report.add("4", "by introspection: p99.9, ms", Goal::AtMost(1000.0), percentile(&mut ms, 0.999), note);
    let largest = percentile(&mut ms, 1.0);
    report.add("4", "by introspection: largest, ms", Goal::AtMost(2000.0), largest, "");
    Ok(())
}

/// How long each replica calls a token active after the act, in milliseconds.
async fn trial(rig: &Rig, act: Act, client: &Client, asker: &Client, cut: bool) -> anyhow::Result<Vec<(Act, f64)>> {
    let replicas = rig.addresses();
    let first = *replicas.first().context("no replica")?;
    let (_, body) = first_yes(first, Arc::clone(&client.request), accepted).await.context("no token")?;
    let token = format!("token={}", field(&body, "access_token").context("an answer without a token")?);
    let question: Arc<[u8]> = post_basic("/introspect", &asker.id, &asker.secret, &token).into();
    for replica in &replicas {
        first_yes(*replica, Arc::clone(&question), active).await.context("the token never became active")?;
    }
    let mut asking = JoinSet::new();
    for replica in replicas {
        asking.spawn(last_yes(replica, Arc::clone(&question), active));
    }
    sleep(Duration::from_millis(50)).await;
    if cut {
        rig.database.cut_listeners().await?;
        sleep(Duration::from_millis(100)).await;
    }
    match act {
        Act::Revoke => {
            let request = post_basic("/revoke", &client.id, &client.secret, &token);
            let answer = ask(honest_loopback(7), first, &request, Duration::from_secs(2)).await;
            let (answer, _) = answer.context("no answer to /revoke")?;
            anyhow::ensure!(answer.status == 200, "/revoke answered {}", answer.status);
        }
        Act::RevokeTokens => drop(rig.grantd.run_ok(&["client", "revoke-tokens", &client.id], "").await?),
        Act::Disable => drop(rig.grantd.run_ok(&["client", "disable", &client.id], "").await?),
    }
    let since = Instant::now();
    Ok(asking.join_all().await.into_iter().map(|last| (act, millis(since, last))).collect())
}

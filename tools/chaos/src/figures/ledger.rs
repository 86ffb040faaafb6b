//! Figure 5: what a command or an endpoint acknowledged is there, once, whatever is killed meanwhile.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use grantd_kit::clients::SCOPES;
use grantd_kit::connection::ask;
use grantd_kit::grantd::Grantd;
use grantd_kit::http::{post_basic, token_request};
use grantd_kit::program::field;
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::time::sleep;

use super::jti_of;
use crate::chance::{below, honest_loopback, salt, scatter};
use crate::database::Outage;
use crate::options::Options;
use crate::report::Report;
use crate::rig::Rig;

/// A write that a worker tried, and whether it was acknowledged.
#[derive(Debug)]
struct Entry {
    operation: Operation,
    /// The client, the secret or the token.
    id: String,
    acknowledged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Create,
    AddSecret,
    RevokeSecret,
    RevokeToken,
    Disable,
}

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    rig.recorded += 1;
    let over = Arc::new(AtomicBool::new(false));
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        let (grantd, replicas, over, run) = (rig.grantd.clone(), rig.addresses(), Arc::clone(&over), rig.recorded);
        workers.spawn(async move { work(&grantd, &replicas, &over, &format!("ledger-{run}-{worker}")).await });
    }
    let mut unhealthy = 0;
    let crashes = options.lengths().kills / 4;
    for n in 0..options.lengths().kills + crashes {
        sleep(Duration::from_millis(200 + below(scatter(n as u64) ^ salt(), 2800) as u64)).await;
        if n % 5 == 4 {
            rig.database.leave(Outage::Stopped).await?;
            rig.database.come_back(Outage::Stopped).await?;
            rig.current(Duration::from_mins(1)).await?;
        } else {
            rig.restart(n % 3).await?;
        }
        if n % 10 == 9 {
            unhealthy += usize::from(!is_healthy(&rig.grantd).await?);
        }
    }
    over.store(true, Ordering::Relaxed);
    let mut ledger = Vec::new();
    while let Some(entries) = workers.join_next().await {
        ledger.extend(entries?);
    }
    unhealthy += usize::from(!is_healthy(&rig.grantd).await?);
    add_rows(rig, &ledger, (options.lengths().kills, crashes), unhealthy, report).await?;
    rig.registrations.warm_up(&rig.addresses()).await
}

/// Creates clients one after the other, rotates and revokes what they have, and disables them, until note to stop.
async fn work(grantd: &Grantd, replicas: &[SocketAddr], over: &AtomicBool, name: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let client = format!("{name}-{number}");
        let create = [&["client", "create", &client, "--json"][..], &SCOPES].concat();
        let Some(first) = noted(&mut entries, grantd, Operation::Create, &client, &create).await else { continue };
        let (first_id, secret) = (field(&first, "secret_id"), field(&first, "client_secret"));
        let add = ["client", "secret", "add", &client, "--json"];
        noted(&mut entries, grantd, Operation::AddSecret, &client, &add).await;
        let replica = replicas.get(number % replicas.len().max(1)).copied();
        if let (Some(replica), Some(secret)) = (replica, &secret)
            && let Some((jti, acknowledged)) = revoke_token(replica, &client, secret).await
        {
            entries.push(Entry { operation: Operation::RevokeToken, id: jti, acknowledged });
        }
        if let Some(first_id) = &first_id {
            let revoke = ["client", "secret", "revoke", &client, first_id];
            noted(&mut entries, grantd, Operation::RevokeSecret, first_id, &revoke).await;
        }
        noted(&mut entries, grantd, Operation::Disable, &client, &["client", "disable", &client]).await;
    }
    entries
}

/// Runs a command and enters it in the ledger. Returns what it printed when it succeeded.
async fn noted(
    entries: &mut Vec<Entry>,
    grantd: &Grantd,
    operation: Operation,
    id: &str,
    arguments: &[&str],
) -> Option<String> {
    let ended = grantd.run(arguments).await.ok()?;
    let acknowledged = ended.code == Some(0);
    // The id of a secret is known only when it was printed.
    let id = match operation {
        Operation::AddSecret => field(&ended.stdout, "secret_id").unwrap_or_else(|| format!("?{id}")),
        _ => id.to_owned(),
    };
    entries.push(Entry { operation, id, acknowledged });
    acknowledged.then_some(ended.stdout)
}

/// Requests a token and revokes it: its `jti`, and whether the revocation was acknowledged.
pub(super) async fn revoke_token(replica: SocketAddr, client: &str, secret: &str) -> Option<(String, bool)> {
    let token = asked(replica, &token_request(client, secret)).await.filter(|(status, _)| *status == 200)?.1;
    let token = field(&token, "access_token")?;
    let jti = jti_of(&token)?;
    let revoked = asked(replica, &post_basic("/revoke", client, secret, &format!("token={token}"))).await;
    Some((jti, revoked.is_some_and(|(status, _)| status == 200)))
}

/// Sends a request up to five times, since a new client is not known everywhere at once.
async fn asked(replica: SocketAddr, request: &[u8]) -> Option<(u16, String)> {
    for attempt in 0..5 {
        let (answer, body) = ask(honest_loopback(attempt), replica, request, Duration::from_secs(5)).await?;
        if answer.status != 401 {
            return Some((answer.status, body));
        }
        sleep(Duration::from_millis(300)).await;
    }
    None
}

async fn is_healthy(grantd: &Grantd) -> anyhow::Result<bool> {
    let ended = grantd.run(&["doctor"]).await?;
    // A session that was killed a moment ago may still hold a lock.
    let faults = ended.stdout.lines().filter(|line| !line.is_empty() && !line.starts_with("locks:"));
    Ok(ended.code == Some(0) || ended.code == Some(1) && faults.count() == 0)
}

async fn add_rows(
    rig: &Rig,
    ledger: &[Entry],
    (kills, crashes): (usize, usize),
    unhealthy: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (mut lost, mut note) = (0, String::new());
    for (operation, sql) in [
        (Operation::Create, "select client_id from client where client_id like 'ledger-%'"),
        (Operation::AddSecret, "select secret_id from client_secret"),
        (Operation::RevokeSecret, "select secret_id from client_secret where revoked_at is not null"),
        (Operation::RevokeToken, "select jti from revoked_token"),
        (Operation::Disable, "select client_id from client where enabled = 0"),
    ] {
        let there = rig.database.sql(sql).await?;
        let there: HashSet<&str> = there.lines().map(str::trim).collect();
        let of_kind = || ledger.iter().filter(|entry| entry.operation == operation);
        let acknowledged = of_kind().filter(|entry| entry.acknowledged).count();
        lost += of_kind().filter(|entry| entry.acknowledged && !there.contains(entry.id.as_str())).count();
        write!(note, "{operation:?} {acknowledged} of {}; ", of_kind().count())?;
    }
    let attempts =
        ledger.iter().filter(|entry| matches!(entry.operation, Operation::Create | Operation::AddSecret)).count();
    let secrets = rig.database.sql("select count(*) from client_secret where client_id like 'ledger-%'").await?;
    let twice = secrets.trim().parse::<usize>()?.saturating_sub(attempts);
    note = format!("{kills} kill -9 of replicas, {crashes} crashes of PostgreSQL; acknowledged: {note}");
    report.add("5", "acknowledged writes that are not there", Goal::AtMost(0.0), number(lost), note);
    let note = "each command makes one secret at most";
    report.add("5", "writes that are there more than once", Goal::AtMost(0.0), number(twice), note);
    report.add("5", "faults that doctor finds", Goal::AtMost(0.0), number(unhealthy), "");
    Ok(())
}

const WORKERS: usize = 20;

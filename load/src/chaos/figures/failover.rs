//! Figure 12: failovers of a cluster under Patroni, with asynchronous and with synchronous replication.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep, timeout};

use super::about;
use super::ledger::{asked, field};
use crate::chaos::chance::honest_loopback;
use crate::chaos::connection::{self, Connection};
use crate::chaos::driver::Record;
use crate::chaos::http::post_request;
use crate::chaos::options::Options;
use crate::chaos::patroni::{Fault, Patroni};
use crate::chaos::registrations::register;
use crate::chaos::replica::ISSUER;
use crate::chaos::report::{Report, Target};
use crate::chaos::rig::{Rig, drive_all};
use crate::chaos::shell::Cli;
use crate::chaos::stats::number;
use crate::client_key::{ClientKey, assertion_form};

/// A write that was tried, and whether it was acknowledged.
struct Write {
    at: Duration,
    id: String,
    acknowledged: bool,
}

pub async fn measure(rig: &Rig, patroni: &Patroni, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    for synchronous in [false, true] {
        patroni.synchronous(synchronous).await?;
        for fault in Fault::ALL {
            let kind = if synchronous { "synchronous" } else { "asynchronous" };
            eprintln!("   {kind}, {}", fault.name());
            let row = format!("{kind}, {}", fault.name());
            one(rig, patroni, options, report, (synchronous, fault), &row).await.with_context(|| row.clone())?;
        }
    }
    Ok(())
}

async fn one(
    rig: &Rig,
    patroni: &Patroni,
    options: &Options,
    report: &mut Report,
    (synchronous, fault): (bool, Fault),
    row: &str,
) -> anyhow::Result<()> {
    rig.registrations.warm_up(&rig.addresses()).await?;
    let name = format!("failover-{}-{}", if synchronous { "s" } else { "a" }, fault as u8);
    let key = ClientKey::generate()?;
    let create = ["client", "create", &name, "--scope", "a", "--default-scope", "a", "--no-secret"];
    rig.cli.must(&create, "").await?;
    rig.cli.must(&["client", "key", "add", &name, "--jwk", "-"], &key.jwk()).await?;
    let revoker = register(&rig.cli, &format!("{name}-revoker"), false).await?;
    sleep(Duration::from_secs(2)).await;

    let (over, origin, addresses) = (Arc::new(AtomicBool::new(false)), Instant::now(), rig.addresses());
    let assertions = tokio::spawn(assert_on(Arc::clone(&over), origin, addresses.clone(), name.clone(), key));
    let secret = rig.cli.must(&["client", "secret", "add", &revoker.client_id, "--json"], "").await?.stdout;
    let secret = field(&secret, "client_secret").context("no secret")?;
    let revocations =
        tokio::spawn(revoke_on(Arc::clone(&over), origin, addresses.clone(), revoker.client_id.clone(), secret));
    let changes = tokio::spawn(change_on(Arc::clone(&over), origin, rig.cli.clone(), name.clone()));
    let lasts = options.lengths.failover;
    let suffering = async {
        sleep(Duration::from_secs(5)).await;
        let suffered = patroni.suffer(fault, lasts).await;
        sleep(Duration::from_secs(5)).await;
        over.store(true, Ordering::Relaxed);
        suffered
    };
    // Longer than anything takes; what is left of it is not waited for.
    let load = async {
        let mut all = crate::chaos::tally::Tally::default();
        while !over.load(Ordering::Relaxed) {
            let stream = super::restarts::stream(rig, Duration::from_secs(5), None);
            let stream = crate::chaos::driver::Stream { ask: super::killed::everywhere(stream.ask), ..stream };
            all.0.extend(drive_all(Instant::now(), vec![stream], &addresses).await.0);
        }
        all
    };
    let (tally, suffered) = tokio::join!(load, suffering);
    let (assertions, revocations, changes) = (assertions.await?, revocations.await?, changes.await?);
    suffered?;
    rig.current(Duration::from_mins(1)).await?;
    sleep(Duration::from_secs(2)).await;

    let failed = number(tally.count(|record: &Record| !record.is_ok()));
    report.add("12", &format!("{row}: failed tokens of known clients"), Target::AtMost(0.0), failed, about(&tally));
    let (assertion_gap, revocation_gap) = (gap(&assertions), gap(&revocations));
    let told = format!(
        "assertions {assertion_gap:.1} s, revocations {revocation_gap:.1} s; {} of {} and {} of {} succeeded",
        succeeded(&assertions),
        assertions.len(),
        succeeded(&revocations),
        revocations.len()
    );
    // From the fault to what Patroni makes of it takes its ttl, 20 s; nobody may lead while etcd is gone.
    let most = 40.0;
    let longest = assertion_gap.max(revocation_gap);
    report.add("12", &format!("{row}: longest time without a write, s"), Target::AtMost(most), longest, told);
    let lost = lost(patroni, "select client_id from client", &changes).await?;
    let target = if synchronous { Target::AtMost(0.0) } else { Target::Told };
    let told = format!("{} clients created and acknowledged", succeeded(&changes));
    report.add("12", &format!("{row}: acknowledged changes lost"), target, lost, told);
    let lost = self::lost(patroni, "select jti from revoked_token", &revocations).await?;
    let told = "after the replicas wrote again what the database had forgotten".to_owned();
    report.add("12", &format!("{row}: acknowledged revocations missing"), Target::AtMost(0.0), lost, told);
    let mut positions = HashSet::new();
    for replica in &rig.replicas {
        let (_, body) = connection::get(replica.admin, "/readyz").await.map_err(anyhow::Error::msg)?;
        let body: serde_json::Value = serde_json::from_str(&body)?;
        let part = |name: &str| body.get(name).map(ToString::to_string);
        positions.insert((part("registry_revision"), part("registry_history")));
    }
    let told = format!(
        "{} times another history was met, {} differences",
        rig.metric("grantd_registry_history_changes_total").await,
        rig.metric("grantd_registry_differences_total").await
    );
    let disagree = number(positions.len().saturating_sub(1));
    report.add("12", &format!("{row}: replicas that disagree afterwards"), Target::AtMost(0.0), disagree, told);
    let again = replayed(&assertions).await;
    let told = "each again at the replica that had taken it".to_owned();
    report.add("12", &format!("{row}: assertions taken twice by one replica"), Target::AtMost(0.0), again, told);
    Ok(())
}

fn succeeded(writes: &[Write]) -> usize {
    writes.iter().filter(|write| write.acknowledged).count()
}

/// The longest time between two writes that succeeded, in seconds.
fn gap(writes: &[Write]) -> f64 {
    let at: Vec<Duration> = writes.iter().filter(|write| write.acknowledged).map(|write| write.at).collect();
    at.windows(2).filter_map(|pair| Some(pair.get(1)?.saturating_sub(*pair.first()?).as_secs_f64())).fold(0.0, f64::max)
}

async fn lost(patroni: &Patroni, sql: &str, writes: &[Write]) -> anyhow::Result<f64> {
    let there = patroni.ask_grantd(sql).await.context("the database does not answer")?;
    let there: HashSet<&str> = there.lines().map(str::trim).collect();
    let missing = writes.iter().filter(|write| write.acknowledged && !there.contains(write.id.as_str()));
    Ok(number(missing.count()))
}

/// Sends an assertion every 200 ms. Each is kept with its replica, to be tried again.
async fn assert_on(
    over: Arc<AtomicBool>,
    origin: Instant,
    replicas: Vec<SocketAddr>,
    client_id: String,
    key: ClientKey,
) -> Vec<Write> {
    let mut writes = Vec::new();
    for n in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        sleep(Duration::from_millis(200)).await;
        let (Some(replica), Ok(assertion)) = (replicas.get(n % replicas.len()), key.assertion(&client_id, ISSUER))
        else {
            continue;
        };
        let acknowledged = assert(*replica, &assertion).await;
        writes.push(Write { at: origin.elapsed(), id: format!("{replica} {assertion}"), acknowledged });
    }
    writes
}

async fn assert(replica: SocketAddr, assertion: &str) -> bool {
    let form = assertion_form(assertion);
    let request = format!(
        "POST /token HTTP/1.1\r\nHost: grantd\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    let exchange = async {
        let mut connection = Connection::open(honest_loopback(7), replica).await.ok()?;
        connection.exchange(request.as_bytes()).await.ok()
    };
    timeout(Duration::from_secs(5), exchange).await.ok().flatten().is_some_and(|answer| answer.status == 200)
}

async fn replayed(writes: &[Write]) -> f64 {
    let mut again = 0;
    for write in writes.iter().filter(|write| write.acknowledged) {
        let Some((replica, assertion)) = write.id.split_once(' ') else { continue };
        if let Ok(replica) = replica.parse() {
            again += usize::from(assert(replica, assertion).await);
        }
    }
    number(again)
}

/// Gets a token and revokes it, every 200 ms.
async fn revoke_on(
    over: Arc<AtomicBool>,
    origin: Instant,
    replicas: Vec<SocketAddr>,
    client_id: String,
    secret: String,
) -> Vec<Write> {
    let mut writes = Vec::new();
    for n in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        sleep(Duration::from_millis(200)).await;
        let Some(replica) = replicas.get(n % replicas.len()).copied() else { break };
        let token = asked(replica, &crate::chaos::http::token_request(&client_id, &secret)).await;
        let Some(token) = token.and_then(|(_, body)| field(&body, "access_token")) else { continue };
        let Some(jti) = super::jti_of(&token) else { continue };
        let revoke = post_request("/revoke", &client_id, &secret, &format!("token={token}"));
        let acknowledged = asked(replica, &revoke).await.is_some_and(|(status, _)| status == 200);
        writes.push(Write { at: origin.elapsed(), id: jti, acknowledged });
    }
    writes
}

/// Creates a client every half second, as an operator does.
async fn change_on(over: Arc<AtomicBool>, origin: Instant, cli: Cli, name: String) -> Vec<Write> {
    let mut writes = Vec::new();
    for n in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        sleep(Duration::from_millis(500)).await;
        let id = format!("{name}-change-{n}");
        let ended = cli.run(&["client", "create", &id, "--scope", "a", "--no-secret"]).await;
        let acknowledged = ended.is_ok_and(|ended| ended.code == Some(0));
        writes.push(Write { at: origin.elapsed(), id, acknowledged });
    }
    writes
}

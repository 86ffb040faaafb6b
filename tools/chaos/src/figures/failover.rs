//! Figure 12: failovers of a cluster under Patroni, with asynchronous and with synchronous replication.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use grantd_kit::client_key::{ClientKey, assertion_request};
use grantd_kit::clients::{Client, register, register_key};
use grantd_kit::connection::ask;
use grantd_kit::grantd::{Grantd, ISSUER};
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::time::{Instant, sleep};

use super::about;
use super::killed::everywhere;
use super::ledger::revoke_token;
use crate::chance::honest_loopback;
use crate::driver::{Record, Stream};
use crate::options::Options;
use crate::patroni::{FAULTS, Fault, Patroni};
use crate::report::Report;
use crate::rig::{Rig, drive_all};
use crate::tally::Tally;

/// A write that was tried, and whether it was acknowledged.
struct Write {
    at: Duration,
    id: String,
    acknowledged: bool,
}

pub async fn measure(rig: &Rig, patroni: &Patroni, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    for synchronous in [false, true] {
        patroni.synchronous(synchronous).await?;
        for (fault, name) in FAULTS {
            let kind = if synchronous { "synchronous" } else { "asynchronous" };
            let row = format!("{kind}, {name}");
            eprintln!("   {row}");
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
    let key = register_key(&rig.grantd, &name).await?;
    let revoker = register(&rig.grantd, &format!("{name}-revoker"), &[]).await?;
    sleep(Duration::from_secs(2)).await;

    let (addresses, grantd) = (rig.addresses(), rig.grantd.clone());
    let writers =
        Writers { over: Arc::new(AtomicBool::new(false)), origin: Instant::now(), replicas: addresses.clone() };
    let over = Arc::clone(&writers.over);
    let assertions = tokio::spawn(writers.clone().send_assertions(name.clone(), key));
    let revocations = tokio::spawn(writers.clone().revoke_tokens(revoker));
    let changes = tokio::spawn(writers.create_clients(grantd, name));
    let lasts = options.lengths().failover;
    let suffering = async {
        sleep(Duration::from_secs(5)).await;
        let suffered = patroni.suffer(fault, lasts).await;
        sleep(Duration::from_secs(5)).await;
        over.store(true, Ordering::Relaxed);
        suffered
    };
    let load = async {
        let mut all = Tally::default();
        while !over.load(Ordering::Relaxed) {
            let stream = super::restarts::stream(rig, Duration::from_secs(5), None);
            let stream = Stream { ask: everywhere(stream.ask), ..stream };
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
    let mut rows = report.rows("12", row);
    rows.add("failed tokens of known clients", Goal::AtMost(0.0), failed, about(&tally));
    let (assertion_gap, revocation_gap) = (gap(&assertions), gap(&revocations));
    let note = format!(
        "assertions {assertion_gap:.1} s, revocations {revocation_gap:.1} s; {} of {} and {} of {} succeeded",
        succeeded(&assertions),
        assertions.len(),
        succeeded(&revocations),
        revocations.len()
    );
    // Patroni acts on a fault after its ttl, 20 s; no node may lead while etcd is gone.
    let most = 40.0;
    let longest = assertion_gap.max(revocation_gap);
    rows.add("longest time without a write, s", Goal::AtMost(most), longest, note);
    let lost = lost(patroni, "select client_id from client", &changes).await?;
    let target = if synchronous { Goal::AtMost(0.0) } else { Goal::None };
    let note = format!("{} clients created and acknowledged", succeeded(&changes));
    rows.add("acknowledged changes lost", target, lost, note);
    let lost = self::lost(patroni, "select jti from revoked_token", &revocations).await?;
    let note = "after the replicas wrote again what the database had lost";
    rows.add("acknowledged revocations missing", Goal::AtMost(0.0), lost, note);
    let mut positions = HashSet::new();
    for replica in &rig.replicas {
        let (_, body) = replica.readyz().await.context("no answer of /readyz")?;
        let part = |name: &str| body.get(name).map(ToString::to_string);
        positions.insert((part("registry_revision"), part("registry_history")));
    }
    let note = format!(
        "{} times another history was met, {} differences",
        rig.metric("grantd_registry_history_changes_total").await,
        rig.metric("grantd_registry_differences_total").await
    );
    let disagree = number(positions.len().saturating_sub(1));
    rows.add("replicas that disagree afterwards", Goal::AtMost(0.0), disagree, note);
    let again = replayed(&assertions).await;
    let note = "each again at the replica that had accepted it";
    rows.add("assertions taken twice by one replica", Goal::AtMost(0.0), again, note);
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

/// The clients and the operator that write during a fault.
#[derive(Clone)]
struct Writers {
    over: Arc<AtomicBool>,
    origin: Instant,
    replicas: Vec<SocketAddr>,
}

impl Writers {
    /// Waits for the next turn, which has a replica; `None` when the writers have to stop.
    async fn turn(&self, turn: &mut usize, millis: u64) -> Option<SocketAddr> {
        sleep(Duration::from_millis(millis)).await;
        let replica = self.replicas.get(*turn % self.replicas.len().max(1)).copied();
        *turn += 1;
        replica.filter(|_| !self.over.load(Ordering::Relaxed))
    }

    /// Sends an assertion every 200 ms. Each is kept with its replica, for a replay.
    async fn send_assertions(self, client_id: String, key: ClientKey) -> Vec<Write> {
        let (mut writes, mut turn) = (Vec::new(), 0);
        while let Some(replica) = self.turn(&mut turn, 200).await {
            let Ok(assertion) = key.assertion(&client_id, ISSUER) else { continue };
            let acknowledged = accepts(replica, &assertion).await;
            writes.push(Write { at: self.origin.elapsed(), id: format!("{replica} {assertion}"), acknowledged });
        }
        writes
    }

    /// Requests a token and revokes it, every 200 ms.
    async fn revoke_tokens(self, client: Client) -> Vec<Write> {
        let (mut writes, mut turn) = (Vec::new(), 0);
        while let Some(replica) = self.turn(&mut turn, 200).await {
            let revoked = revoke_token(replica, &client.id, &client.secret).await;
            let Some((jti, acknowledged)) = revoked else { continue };
            writes.push(Write { at: self.origin.elapsed(), id: jti, acknowledged });
        }
        writes
    }

    /// Creates a client every half second, as an operator does.
    async fn create_clients(self, grantd: Grantd, name: String) -> Vec<Write> {
        let (mut writes, mut turn) = (Vec::new(), 0);
        while self.turn(&mut turn, 500).await.is_some() {
            let id = format!("{name}-change-{turn}");
            let ended = grantd.run(&["client", "create", &id, "--scope", "a", "--no-secret"]).await;
            let acknowledged = ended.is_ok_and(|ended| ended.code == Some(0));
            writes.push(Write { at: self.origin.elapsed(), id, acknowledged });
        }
        writes
    }
}

/// Whether the replica accepts an assertion.
async fn accepts(replica: SocketAddr, assertion: &str) -> bool {
    let answer = ask(honest_loopback(7), replica, &assertion_request(assertion), Duration::from_secs(5)).await;
    answer.is_some_and(|(answer, _)| answer.status == 200)
}

/// Replays the acknowledged assertions, and returns how many were accepted again.
async fn replayed(writes: &[Write]) -> f64 {
    let mut again = 0;
    for write in writes.iter().filter(|write| write.acknowledged) {
        let Some((replica, assertion)) = write.id.split_once(' ') else { continue };
        if let Ok(replica) = replica.parse() {
            again += usize::from(accepts(replica, assertion).await);
        }
    }
    number(again)
}

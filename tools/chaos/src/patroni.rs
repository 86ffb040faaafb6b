//! Three PostgreSQL under Patroni, with etcd and HAProxy, each in a network namespace, and the faults of this cluster.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use grantd_kit::connection::ask;
use grantd_kit::http::request;
use grantd_kit::postgres::Postgres;
use grantd_kit::program::{run, run_ok};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::replica::note_pid;

/// The cluster.
#[derive(Debug, Clone)]
pub struct Patroni {
    /// The first three numbers of every address.
    net: String,
    room: PathBuf,
    /// PostgreSQL behind the proxy.
    server: Postgres,
    /// Prefix of the names of network namespaces.
    namespace: String,
    /// Prefix of the names of the links on the bridge.
    links: String,
}

/// A fault of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of PostgreSQL and Patroni on the leader's node, which starts again after a while.
    LeaderKilled,
    /// A planned switchover.
    Switchover,
    /// SIGSTOP to everything on the leader's node, and SIGCONT when another leads.
    LeaderFrozen,
    /// The leader's link is down for a while.
    LeaderCutOff,
    /// etcd is killed and started again: nobody may lead meanwhile.
    EtcdGone,
    /// HAProxy is killed and started again.
    HaproxyRestarted,
}

/// All faults, with their names in the report.
pub const FAULTS: [(Fault, &str); 6] = [
    (Fault::LeaderKilled, "leader killed"),
    (Fault::Switchover, "switchover"),
    (Fault::LeaderFrozen, "leader frozen"),
    (Fault::LeaderCutOff, "leader cut off"),
    (Fault::EtcdGone, "etcd gone"),
    (Fault::HaproxyRestarted, "HAProxy restarted"),
];

impl Patroni {
    pub fn new(net: String, room: PathBuf, bin: &Path, namespace: String, links: String) -> Self {
        let server = Postgres::new(Some(bin), &format!("postgres://postgres@{net}.15:{PORT}/"), "?connect_timeout=2");
        Self { net, room, server, namespace, links }
    }

    /// Host and port of the proxy, through which grantd reaches the leader.
    pub fn address(&self) -> (String, u16) {
        (format!("{}.15", self.net), PORT)
    }

    /// Starts all parts, and waits for a leader with two standbys.
    pub async fn start(&self) -> anyhow::Result<()> {
        self.start_part("etcd")?;
        sleep(Duration::from_secs(1)).await;
        for node in ["node1", "node2", "node3", "haproxy"] {
            self.start_part(node)?;
        }
        self.whole(Duration::from_mins(2)).await
    }

    /// Makes grantd's database.
    pub async fn create_database(&self) -> anyhow::Result<()> {
        self.ask("create database grantd").await.context("creating the database").map(drop)
    }

    fn start_part(&self, name: &str) -> anyhow::Result<()> {
        let child =
            Command::new(self.room.join("start")).arg(name).spawn().with_context(|| format!("starting {name}"))?;
        note_pid(&self.room, child.id().unwrap_or_default())
    }

    /// Waits until one node leads, two follow it, and the proxy reaches the leader.
    async fn whole(&self, within: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        while started.elapsed() < within {
            let members = self.members().await;
            let running = members
                .iter()
                .filter(|(_, role, state)| role != "leader" && matches!(state.as_str(), "running" | "streaming"));
            if members.iter().any(|(_, role, _)| role == "leader")
                && running.count() == 2
                && self.ask("select pg_is_in_recovery()").await.is_some_and(|answer| answer == "f")
            {
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
        bail!("the cluster is not whole after {within:?}: {:?}", self.members().await)
    }

    /// Name, role and state of each member, as the first member reports that answers.
    async fn members(&self) -> Vec<(String, String, String)> {
        for node in 1..=3 {
            let asked = self.rest(node, "GET", "/cluster", "").await;
            let Some(cluster) = asked.ok().and_then(|body| serde_json::from_str::<Value>(&body).ok()) else { continue };
            let Some(members) = cluster.get("members").and_then(Value::as_array) else { continue };
            let text =
                |member: &Value, key: &str| member.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            return members.iter().map(|one| (text(one, "name"), text(one, "role"), text(one, "state"))).collect();
        }
        Vec::new()
    }

    /// The number of the leader.
    async fn leader(&self) -> anyhow::Result<usize> {
        for _ in 0..100 {
            for node in 1..=3 {
                let asked = timeout(Duration::from_secs(1), self.rest(node, "GET", "/primary", "")).await;
                if matches!(asked, Ok(Ok(_))) {
                    return Ok(node);
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
        bail!("no node leads")
    }

    /// Turns synchronous replication on or off, and waits until it is so.
    pub async fn synchronous(&self, on: bool) -> anyhow::Result<()> {
        let leader = self.leader().await?;
        self.rest(leader, "PATCH", "/config", &format!("{{\"synchronous_mode\": {on}}}")).await?;
        let wanted = if on { "t" } else { "f" };
        for _ in 0..60 {
            let sql = "select current_setting('synchronous_standby_names') <> ''";
            if self.ask(sql).await.is_some_and(|is| is == wanted) {
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
        bail!("synchronous_mode = {on} is not in force")
    }

    /// Causes the fault, ends it after `lasts`, and waits until the cluster is whole again.
    pub async fn suffer(&self, fault: Fault, lasts: Duration) -> anyhow::Result<()> {
        let leader = self.leader().await?;
        let node = format!("node{leader}");
        match fault {
            Fault::LeaderKilled => {
                self.signal(&node, "KILL").await?;
                sleep(lasts).await;
                self.start_part(&node)?;
            }
            Fault::Switchover => {
                let candidate = leader % 3 + 1;
                // With synchronous replication only the synchronous standby may take over.
                let body = format!("{{\"leader\": \"{node}\"}}");
                let named = format!("{{\"leader\": \"{node}\", \"candidate\": \"node{candidate}\"}}");
                if self.rest(leader, "POST", "/switchover", &body).await.is_err() {
                    self.rest(leader, "POST", "/switchover", &named).await?;
                }
                sleep(lasts).await;
            }
            Fault::LeaderFrozen => {
                self.signal(&node, "STOP").await?;
                sleep(lasts.max(Duration::from_secs(30))).await;
                self.signal(&node, "CONT").await?;
            }
            Fault::LeaderCutOff => {
                let link = format!("{}-1{leader}", self.links);
                run_ok(Command::new("ip").args(["link", "set", &link, "down"]), "").await?;
                sleep(lasts.max(Duration::from_secs(30))).await;
                run_ok(Command::new("ip").args(["link", "set", &link, "up"]), "").await?;
            }
            Fault::EtcdGone => {
                self.signal("etcd", "KILL").await?;
                sleep(lasts).await;
                self.start_part("etcd")?;
            }
            Fault::HaproxyRestarted => {
                self.signal("haproxy", "KILL").await?;
                sleep(Duration::from_secs(1)).await;
                self.start_part("haproxy")?;
            }
        }
        self.whole(Duration::from_mins(2)).await
    }

    /// Sends a signal to everything in a namespace.
    async fn signal(&self, name: &str, signal: &str) -> anyhow::Result<()> {
        let namespace = format!("{}-{name}", self.namespace);
        let pids = run_ok(Command::new("ip").args(["netns", "pids", &namespace]), "").await?.stdout;
        let pids: Vec<&str> = pids.split_whitespace().collect();
        anyhow::ensure!(!pids.is_empty(), "nothing runs in {namespace}");
        // One that ended meanwhile needs no signal.
        run(Command::new("kill").arg(format!("-{signal}")).args(pids), "").await.map(drop)
    }

    /// Runs SQL on the leader's database `postgres`.
    async fn ask(&self, sql: &str) -> Option<String> {
        self.ask_of("postgres", sql).await
    }

    /// Runs SQL on grantd's database, through the proxy; `None` when it does not answer within five seconds.
    pub async fn ask_grantd(&self, sql: &str) -> Option<String> {
        self.ask_of("grantd", sql).await
    }

    async fn ask_of(&self, database: &str, sql: &str) -> Option<String> {
        timeout(Duration::from_secs(5), self.server.sql(database, sql)).await.ok()?.ok()
    }

    async fn rest(&self, node: usize, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
        let address = format!("{}.1{node}:8008", self.net).parse()?;
        let request = request(method, path, &[("Connection", "close")], "application/json", body);
        let (answer, body) = ask(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address, &request, Duration::from_secs(30))
            .await
            .context("Patroni does not answer")?;
        anyhow::ensure!(answer.status < 300, "{method} {path}: {} {body}", answer.status);
        Ok(body)
    }
}

/// Port of the proxy.
const PORT: u16 = 5000;

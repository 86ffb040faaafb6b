//! A fleet on one PostgreSQL: how soon the last replica knows of a change, and how many connections there are.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use grantd_kit::clients::Client;
use grantd_kit::connection::{Connection, LOCALHOST, ask};
use grantd_kit::grantd::{Grantd, Server};
use grantd_kit::http::post_basic;
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use sqlx::PgConnection;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::measure::{begin, committed, connect, enable, ready, seconds_after};
use crate::contest::{GENERATOR_CORE, SERVER_CORE};
use crate::report::{Figure, Report, note};
use crate::sections::Bench;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let count = if bench.quick { 40 } else { 200 };
    let (grantd, clients) = bench.copy(DATABASE, 1000).await?;
    let grantd = Grantd { cores: Some(format!("{SERVER_CORE},{GENERATOR_CORE}")), level: Some("error"), ..grantd };
    let started = Instant::now();
    let servers = start(&grantd, count).await?;
    let goal = Goal::AtLeast(number(count));
    report.figure(&format!("{count} replicas: ready"), &Figure::one(number(servers.len())), "", goal);
    report.figure("until all are ready", &Figure::one(started.elapsed().as_secs_f64()), "s", Goal::None);
    sleep(Duration::from_secs(5)).await;

    let client = clients.first().context("no client")?;
    let mut session = connect(bench, DATABASE).await?;
    let mut connections = open_connections(&mut session).await?;
    let (mut last, mut middle) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // Verifies the secret once in each replica.
        let mut warming = JoinSet::new();
        for server in &servers {
            let (to, request) = (server.public, client.request.clone());
            warming.spawn(async move { ask(LOCALHOST, to, &request, WITHIN).await });
        }
        let answers = warming.join_all().await;
        let known = answers.iter().flatten().filter(|(answer, _)| answer.status == 200).count();
        if known < servers.len() {
            note(&format!("{} of {} replicas gave no token before the change", servers.len() - known, servers.len()));
        }
        let mut delays = propagate(&mut session, client, &servers).await?;
        delays.sort_by(f64::total_cmp);
        last.push(delays.last().copied().unwrap_or(f64::NAN) * 1e3);
        middle.push(delays.get(delays.len() / 2).copied().unwrap_or(f64::NAN) * 1e3);
        connections = connections.max(open_connections(&mut session).await?);
        committed(&mut session, &enable(&client.id, true)).await?;
        sleep(Duration::from_secs(2)).await;
    }
    report.figure("until the last replica refuses", &Figure::new(last), "ms", Goal::AtMost(300.0));
    report.figure("until half of them refuse", &Figure::new(middle), "ms", Goal::None);
    report.figure("connections to PostgreSQL, at most", &Figure::one(connections), "", Goal::AtMost(410.0));
    drop(servers);
    bench.postgres.remove(DATABASE).await
}

/// Starts replicas, ten at a time; those that are not ready in time are left out.
async fn start(grantd: &Grantd, count: usize) -> anyhow::Result<Vec<Server>> {
    let mut servers = Vec::new();
    for from in (0..count).step_by(10) {
        let mut starting = JoinSet::new();
        for _ in from..count.min(from + 10) {
            let grantd = grantd.clone();
            starting.spawn(async move {
                let mut server = begin(&grantd)?;
                let is_ready = ready(&mut server, WITHIN).await?;
                anyhow::Ok(is_ready.map(|_| server))
            });
        }
        for started in starting.join_all().await {
            servers.extend(started?);
        }
    }
    Ok(servers)
}

/// Disables the client: the seconds from the commit until each replica refuses it.
async fn propagate(session: &mut PgConnection, client: &Client, servers: &[Server]) -> anyhow::Result<Vec<f64>> {
    // The scope is refused before anything is signed, and the disabled client before its scope: this is the cheapest request
    // that tells.
    let form = "grant_type=client_credentials&scope=nothing-of-that-name";
    let request = post_basic("/token", &client.id, &client.secret, form);
    let mut asking = JoinSet::new();
    for (number, server) in servers.iter().enumerate() {
        let (to, request) = (server.public, request.clone());
        // Not all in the same millisecond.
        let first = Instant::now() + Duration::from_millis(200) + SAMPLE * u32::try_from(number % 10)? / 10;
        asking.spawn(async move { timeout(WITHIN, refused(to, &request, first)).await.ok().flatten() });
    }
    // All of them have asked at least once by then.
    sleep(Duration::from_millis(400)).await;
    let commit = committed(session, &enable(&client.id, false)).await?;
    Ok(asking.join_all().await.into_iter().map(|effect| seconds_after(commit, effect)).collect())
}

/// Asks on one connection until the client is refused.
async fn refused(to: SocketAddr, request: &[u8], first: Instant) -> Option<Instant> {
    let mut connection = Connection::open(LOCALHOST, to).await.ok()?;
    let mut due = first;
    loop {
        sleep_until(due.into()).await;
        let Ok(answer) = connection.exchange(request).await else {
            connection = Connection::open(LOCALHOST, to).await.ok()?;
            continue;
        };
        // A replica that sheds load answers 503, which tells nothing.
        let is_scope = String::from_utf8_lossy(connection.body(&answer)).contains("invalid_scope");
        if matches!(answer.status, 400 | 401) && !is_scope {
            return Some(Instant::now());
        }
        due = (due + SAMPLE).max(Instant::now());
    }
}

async fn open_connections(session: &mut PgConnection) -> anyhow::Result<f64> {
    let sql = "select count(*) from pg_stat_activity where datname = 'scale_replicas' and pid <> pg_backend_pid()";
    Ok(number(usize::try_from(sqlx::query_scalar::<_, i64>(sql).fetch_one(session).await?)?))
}

const DATABASE: &str = "scale_replicas";
const ROUNDS: usize = 5;
const SAMPLE: Duration = Duration::from_millis(10);
const WITHIN: Duration = Duration::from_secs(30);

//! Costs of a replica for its PostgreSQL: connections, and processor time idle and for each change.

use std::time::Duration;

use grantd_kit::grantd::Server;
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use sqlx::PgConnection;
use tokio::time::{Instant, sleep, sleep_until};

use super::copy_of;
use super::measure::{Background, Postmaster, committed, connect, enable, serve};
use crate::report::{Figure, Report};
use crate::sections::{Bench, load, requests};

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (grantd, clients) = copy_of(bench, 10_000, DATABASE).await?;
    bench.postgres.sql("postgres", &format!("drop role if exists {ROLE}; create role {ROLE} superuser login")).await?;
    let url = bench.postgres.url(DATABASE).replacen("//postgres@", &format!("//{ROLE}@"), 1);
    let grantd = grantd.on(url);
    // The first start of all makes the signing key.
    drop(serve(&grantd).await?);
    let time = Duration::from_secs(if bench.quick { 20 } else { 60 });
    let postgres = Postmaster::find(bench).await?;
    let mut session = connect(bench, DATABASE).await?;
    let client = clients.first().map_or("", |client| client.id.as_str());
    sleep(Duration::from_secs(2)).await;
    let idle = window(&postgres, time, None, client).await?;
    let changed = window(&postgres, time, Some(&mut session), client).await?;

    let mut servers: Vec<Server> = Vec::new();
    for _ in 0..REPLICAS {
        servers.push(serve(&grantd).await?);
    }
    sleep(FIRST_MINUTES).await;
    let idle_with = window(&postgres, time, None, client).await?;
    let changed_with = window(&postgres, time, Some(&mut session), client).await?;
    let replicas = number(REPLICAS);
    let connections = most_connections(&mut session, Duration::from_secs(3)).await? / replicas;
    servers.truncate(1);
    sleep(Duration::from_secs(2)).await;
    let loaded = match servers.first() {
        Some(server) => {
            let load = Background::start(load(&requests(clients, 100)), server.public);
            let most = most_connections(&mut session, Duration::from_secs(5)).await?;
            load.stop().await;
            most
        }
        None => f64::NAN,
    };

    let mut row = |name, value, unit, goal| report.figure(name, &Figure::one(value), unit, goal);
    row("connections of an idle replica", connections, "", Goal::AtMost(2.0));
    row("connections of a replica under load, at most", loaded, "", Goal::AtMost(2.0));
    let rate = (idle_with - idle) / time.as_secs_f64() / replicas;
    row("PostgreSQL's processor time a second and replica", rate, "ms", Goal::AtMost(0.3));
    let count = time.as_secs_f64() * RATE;
    let of_change = (changed - idle) / count;
    row("PostgreSQL's processor time for a change", of_change, "ms", Goal::None);
    let of_replica = ((changed_with - idle_with) / count - of_change) / replicas;
    row("and for each replica that reads it", of_replica, "ms", Goal::AtMost(0.2));
    drop(servers);
    bench.postgres.remove(DATABASE).await
}

/// Milliseconds of processor time that PostgreSQL uses within that time, with changes or without.
async fn window(
    postgres: &Postmaster,
    time: Duration,
    session: Option<&mut PgConnection>,
    client: &str,
) -> anyhow::Result<f64> {
    let (before, started) = (postgres.processor_time()?, Instant::now());
    if let Some(session) = session {
        let (mut enabled, mut due) = (false, started);
        while started.elapsed() < time {
            committed(session, &enable(client, enabled)).await?;
            enabled = !enabled;
            due += Duration::from_secs_f64(1.0 / RATE);
            sleep_until(due).await;
        }
    }
    sleep_until(started + time).await;
    Ok(postgres.processor_time()?.saturating_sub(before).as_secs_f64() * 1e3)
}

/// The most connections of grantd that are seen within that time.
async fn most_connections(session: &mut PgConnection, time: Duration) -> anyhow::Result<f64> {
    let (started, mut most) = (Instant::now(), 0);
    while started.elapsed() < time {
        let sql = "select count(*) from pg_stat_activity where usename = 'grantd_scale'";
        most = most.max(sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *session).await?);
        sleep(Duration::from_millis(50)).await;
    }
    Ok(number(usize::try_from(most)?))
}

const DATABASE: &str = "scale_database";
const ROLE: &str = "grantd_scale";
/// Number of replicas: more than one, since PostgreSQL's own work is of the same size as that for one replica.
const REPLICAS: usize = 10;
/// The time in which a new replica does what it does once: its statements are planned, its connections made, and those that
/// nothing uses closed.
const FIRST_MINUTES: Duration = Duration::from_secs(150);
/// Changes a second.
const RATE: f64 = 5.0;

//! Clients that start at once on a replica that has seen none of them, and try again until each has a token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use grantd_kit::clients::{Client, register};
use grantd_kit::connection::Connection;
use grantd_kit::grantd::Grantd;
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::copy_of;
use super::measure::{serve, source};
use crate::report::{Figure, Report};
use crate::sections::Bench;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let count = if bench.quick { 400 } else { 2000 };
    let (grantd, _) = copy_of(bench, 10_000, DATABASE).await?;
    let tagged = tagged(&grantd, count).await?;
    let imported = imported(bench, &grantd, count).await?;
    for (name, clients, most) in [("tagged", tagged, Goal::AtMost(1.0)), ("imported", imported, Goal::None)] {
        let server = serve(&grantd).await?;
        sleep(Duration::from_secs(1)).await;
        let within = Duration::from_secs(if bench.quick { 45 } else { 120 });
        let (started, mut starting) = (Instant::now(), JoinSet::new());
        for (number, client) in clients.iter().enumerate() {
            let request = Arc::clone(&client.request);
            starting.spawn(async move { timeout(within, Start::of(number, server.public, &request)).await.ok() });
        }
        let (mut tokens, mut refusals, mut last) = (0, 0, Duration::ZERO);
        while let Some(start) = starting.join_next().await {
            if let Some(start) = start? {
                tokens += 1;
                refusals += start.refusals;
                last = last.max(start.at - started);
            }
        }
        let name = format!("{count} {name} secrets");
        report.figure(&format!("{name}: tokens"), &Figure::one(number(tokens)), "", Goal::AtLeast(number(count)));
        report.figure(&format!("{name}: until the last token"), &Figure::one(last.as_secs_f64()), "s", most);
        let each = number(refusals) / number(tokens.max(1));
        report.figure(&format!("{name}: refusals for each token"), &Figure::one(each), "", Goal::AtMost(0.0));
    }
    bench.postgres.remove(DATABASE).await
}

/// One client that starts.
struct Start {
    /// The moment of its token.
    at: Instant,
    /// Its attempts that failed before.
    refusals: usize,
}

impl Start {
    /// Asks from an address of its own until there is a token, and comes back when the server says so.
    async fn of(number: usize, to: std::net::SocketAddr, request: &[u8]) -> Self {
        let mut refusals = 0;
        loop {
            let answer = match Connection::open(source(number), to).await {
                Ok(mut connection) => connection.exchange(request).await.ok(),
                Err(_) => None,
            };
            match answer {
                Some(answer) if answer.status == 200 => return Self { at: Instant::now(), refusals },
                answer => {
                    refusals += 1;
                    let seconds = answer.and_then(|answer| answer.retry_after).unwrap_or(1);
                    sleep(Duration::from_secs(seconds.into())).await;
                }
            }
        }
    }
}

/// Registers clients with secrets that grantd generates, two at a time.
async fn tagged(grantd: &Grantd, count: usize) -> anyhow::Result<Vec<Client>> {
    let (mut clients, mut working) = (Vec::new(), JoinSet::new());
    for worker in 0..2 {
        let grantd = grantd.clone();
        working.spawn(async move {
            let mut clients = Vec::new();
            for number in (worker..count).step_by(2) {
                clients.push(register(&grantd, &format!("tagged-{number:04}"), &[]).await?);
            }
            anyhow::Ok(clients)
        });
    }
    while let Some(registered) = working.join_next().await {
        clients.extend(registered??);
    }
    Ok(clients)
}

/// Registers clients with imported secrets. They share one, which each verifies for itself.
async fn imported(bench: &Bench, grantd: &Grantd, count: usize) -> anyhow::Result<Vec<Client>> {
    let secret = "imported-secret-of-many-clients-3f8a1c";
    let printed = grantd.run_ok(&["hash-secret"], secret).await?.stdout;
    let hash = printed.split_whitespace().find(|word| word.starts_with("$argon2id$")).context("no hash")?;
    let sql = format!(
        "insert into client (client_id, scope, default_scope)
         select 'imported-' || i, 'api:read api:write', 'api:read' from generate_series(1, {count}) as i;
         insert into client_secret (client_id, hash) select 'imported-' || i, '{hash}' from generate_series(1, {count}) as i;"
    );
    bench.postgres.sql(DATABASE, &sql).await?;
    Ok((1..=count)
        .map(|number| Client::new(&format!("imported-{number}"), secret.to_owned(), String::new(), true))
        .collect())
}

const DATABASE: &str = "scale_herd";

//! Clients that start at once on a replica that has seen none of them, and try again until each has a token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
        let (started, refusals, mut starting) = (Instant::now(), Arc::new(AtomicUsize::new(0)), JoinSet::new());
        for (number, client) in clients.iter().enumerate() {
            let (request, to, refusals) = (Arc::clone(&client.request), server.public, Arc::clone(&refusals));
            starting.spawn(async move { timeout(within, first_token(number, to, &request, &refusals)).await.ok() });
        }
        let (mut tokens, mut last) = (0, Duration::ZERO);
        while let Some(token) = starting.join_next().await {
            if let Some(at) = token? {
                tokens += 1;
                last = last.max(at - started);
            }
        }
        let name = format!("{count} {name} secrets");
        report.figure(&format!("{name}: tokens"), &Figure::one(number(tokens)), "", Goal::AtLeast(number(count)));
        report.figure(&format!("{name}: until the last token"), &Figure::one(last.as_secs_f64()), "s", most);
        let each = number(refusals.load(Ordering::Relaxed)) / number(tokens.max(1));
        report.figure(&format!("{name}: refusals for each token"), &Figure::one(each), "", Goal::AtMost(0.0));
    }
    bench.postgres.remove(DATABASE).await
}

/// Asks from an address of its own until there is a token, and comes back when the server says so: the moment of the token.
async fn first_token(number: usize, to: SocketAddr, request: &[u8], refusals: &AtomicUsize) -> Instant {
    loop {
        let answer = match Connection::open(source(number), to).await {
            Ok(mut connection) => connection.exchange(request).await.ok(),
            Err(_) => None,
        };
        if answer.as_ref().is_some_and(|answer| answer.status == 200) {
            return Instant::now();
        }
        refusals.fetch_add(1, Ordering::Relaxed);
        let seconds = answer.and_then(|answer| answer.retry_after).unwrap_or(1);
        sleep(Duration::from_secs(seconds.into())).await;
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

//! P7: from the start of the process to the first token.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use grantd_kit::clients::{Client, idle_clients, register};
use grantd_kit::connection::{LOCALHOST, ask};
use grantd_kit::grantd::{Grantd, Server, free_address};
use grantd_kit::program::run_ok;
use grantd_kit::report::Goal;
use tokio::time::sleep;

use super::Bench;
use crate::report::{Figure, Report};

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let starts = if bench.quick { 3 } else { 7 };
    let (small, small_client) = sqlite(bench, "small", 0).await?;
    let (large, large_client) = sqlite(bench, "large", 10_000).await?;
    let (postgres, clients) = bench.copy("start", 10_000).await?;
    let known = clients.first().context("no client")?;
    let times = [
        ("P7: SQLite, one client", first_tokens(&small, &small_client, starts).await?, Goal::AtMost(50.0)),
        ("SQLite, 10,000 clients", first_tokens(&large, &large_client, starts).await?, Goal::None),
        ("P7: PostgreSQL, 10,000 clients", first_tokens(&postgres, known, starts).await?, Goal::AtMost(300.0)),
    ];
    report.section("start: from the start of the process to the first token, a hash included");
    for (name, times, goal) in times {
        report.figure(name, &times, "ms", goal);
    }
    Ok(())
}

/// Creates a SQLite file with one client whose secret is known, and `more` clients.
async fn sqlite(bench: &Bench, name: &str, more: usize) -> anyhow::Result<(Grantd, Client)> {
    let grantd = bench.grantd(format!("sqlite:{}", bench.path(&format!("{name}.db")).display()))?;
    let seeds = bench.path(&format!("{name}.seeds"));
    fs::create_dir(&seeds)?;
    fs::write(seeds.join("1_filler.sql"), idle_clients("filler", more, false))?;
    run_ok(grantd.command(&["migrate"]).env("GRANTD__DATABASE__SEEDS", seeds), "").await?;
    let client = register(&grantd, "app-0000", &[]).await?;
    Ok((grantd, client))
}

async fn first_tokens(grantd: &Grantd, client: &Client, starts: usize) -> anyhow::Result<Figure> {
    // The first start of all makes the signing key.
    drop(grantd.serve().await?);
    let mut times = Vec::new();
    for _ in 0..starts {
        let (public, admin) = (free_address()?, free_address()?);
        let command = grantd.serve_command(public, admin)?;
        let started = Instant::now();
        let mut server = Server::spawn(command, public, admin)?;
        server.listening().await?;
        let first_token = async || ask(LOCALHOST, public, &client.request, Duration::from_secs(20)).await;
        while first_token().await.is_none_or(|(answer, _)| answer.status != 200) {
            ensure!(server.is_running() && started.elapsed() < Duration::from_secs(30), "no token within 30 s");
            sleep(Duration::from_millis(1)).await;
        }
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Figure::new(times))
}

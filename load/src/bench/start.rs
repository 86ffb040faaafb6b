//! P7: from the start of the process to the first token.

use std::fs;
use std::time::{Duration, Instant};

use super::Bench;
use crate::process::{Server, exchange};
use crate::registrations::{filler, register, token_request};
use crate::report::{Figure, Goal, Report};
use crate::site::{Serve, Site};

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let starts = if bench.quick { 3 } else { 7 };
    let small = sqlite(bench, "small", 0)?;
    let large = sqlite(bench, "large", 10_000)?;
    let (postgres, clients) = bench.copy("start", 10_000)?;
    let known = clients.first().map(|client| token_request(&client.id, &client.secret)).unwrap_or_default();
    let times = [
        ("P7: SQLite, one client", first_tokens(&small.0, &small.1, starts)?, Goal::AtMost(50.0)),
        ("SQLite, 10,000 clients", first_tokens(&large.0, &large.1, starts)?, Goal::None),
        ("P7: PostgreSQL, 10,000 clients", first_tokens(&postgres, &known, starts)?, Goal::AtMost(300.0)),
    ];
    report.section("start: from the start of the process to the first token, a hash included");
    for (name, times, goal) in times {
        report.figure(name, &times, "ms", goal);
    }
    Ok(())
}

/// A SQLite file with one client whose secret is known, and `more`.
fn sqlite(bench: &Bench, name: &str, more: usize) -> anyhow::Result<(Site, Vec<u8>)> {
    let site = Site::new(&bench.room, format!("sqlite:{}", bench.room.path(&format!("{name}.db")).display()))?;
    let seeds = bench.room.path(&format!("{name}.seeds"));
    fs::create_dir(&seeds)?;
    if more > 0 {
        fs::write(seeds.join("1_filler.sql"), filler(more))?;
    }
    site.migrate(Some(&seeds))?;
    let clients = register(&site, 1)?;
    let request = clients.first().map(|client| token_request(&client.id, &client.secret)).unwrap_or_default();
    Ok((site, request))
}

fn first_tokens(site: &Site, request: &[u8], starts: usize) -> anyhow::Result<Figure> {
    // The first start of all makes the signing key.
    drop(site.serve(&Serve::default())?);
    let mut times = Vec::new();
    for _ in 0..starts {
        let (command, address, admin) = site.serving(&Serve::default())?;
        let started = Instant::now();
        let mut server = Server::start(command, address, Some(admin))?;
        server.until(Duration::from_secs(30), |_| exchange(address, request).is_ok_and(|(status, _)| status == 200))?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Figure::new(times))
}

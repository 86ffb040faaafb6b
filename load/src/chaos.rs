//! Injects faults into three replicas and their PostgreSQL under load, and holds what happens against targets.

mod capacity;
mod chance;
mod connection;
mod driver;
mod figures;
mod http;
mod issued;
mod mix;
mod options;
mod patroni;
mod postgres;
mod proxy;
mod registrations;
mod replica;
mod report;
mod rig;
mod shell;
mod stats;
mod tally;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use options::Options;
use registrations::Registrations;
use report::Report;
use rig::Rig;
use shell::Cli;

/// Runs the figures that the command line asks for and prints the table.
///
/// # Errors
/// When the rig itself fails. A target that is missed is no error: the table tells.
pub async fn run(arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let options = Options::parse(arguments)?;
    if let Some(patroni) = &options.patroni {
        patroni.start().await?;
        patroni.create_database().await?;
    }
    let mut rig = set_up(&options).await?;
    let mut report = Report::default();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let measured = tokio::select! {
        measured = measure(&mut rig, &options, &mut report) => measured,
        _ = terminate.recv() => Err(anyhow::anyhow!("told to stop")),
        _ = interrupt.recv() => Err(anyhow::anyhow!("told to stop")),
    };
    let ended = if options.patroni.is_some() { rig.kill_all().await } else { rig.end().await };
    println!("\n{}\n{report}", conditions(&rig, &options));
    measured.and(ended)
}

async fn set_up(options: &Options) -> anyhow::Result<Rig> {
    let (room, lengths) = (&options.room, &options.lengths);
    let sealing_key = room.join("sealing.key");
    std::fs::write(room.join("empty.toml"), "").context("writing to --room")?;
    let text = grantd::crypto::seal::SealingKey::generate_base64()?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&sealing_key)?;
    file.write_all(text.as_bytes())?;
    if let Some(directory) = &options.record {
        std::fs::create_dir_all(directory).context("--record")?;
    }
    let database_url =
        format!("postgres://postgres@{}:{}/grantd?sslmode=disable", options.database_host, options.postgres.port);
    let cli = Cli {
        grantd: options.grantd.clone(),
        database_url,
        sealing_key,
        room: room.clone(),
        alg: "ES256",
        drain_delay: "1s",
    };
    eprintln!("== {} clients, {} of them active", lengths.clients, lengths.active);
    cli.must(&["migrate"], "").await?;
    let registrations = Registrations::make(&cli, &options.postgres, lengths.clients, lengths.active).await?;
    eprintln!("== three replicas, and their first requests");
    let mut rig = Rig::start(cli, options.postgres.clone(), registrations.into()).await?;
    rig.record.clone_from(&options.record);
    rig.registrations.warm_up(&rig.addresses()).await?;
    rig.capacity = match options.capacity {
        Some(capacity) => capacity,
        None => {
            eprintln!("== the ramp");
            capacity::find(&mut rig, lengths.ramp_step, lengths.refinements).await?
        }
    };
    anyhow::ensure!(rig.capacity > 0.0, "not even a slow ramp was borne; is the machine busy?");
    rig.honest_rate = (rig.capacity / 2.0).min(options.honest_cap);
    eprintln!("   C0 {:.0}/s, honest load {:.0}/s", rig.capacity, rig.honest_rate);
    Ok(rig)
}

async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    if let Some(patroni) = &options.patroni {
        return figures::failover::measure(rig, patroni, options, report).await;
    }
    for run in 1..=options.runs {
        for figure in &options.figures {
            eprintln!("== figure {figure}, run {run} of {}", options.runs);
            let measured = match figure.as_str() {
                "1" => figures::flood::measure(rig, options, report).await,
                "2" => figures::outage::measure(rig, options, report).await,
                "3" => figures::partition::measure(rig, options, report).await,
                "4" => figures::visibility::measure(rig, options, report).await,
                "5" => figures::ledger::measure(rig, options, report).await,
                "6" => figures::once::measure(rig, options, report).await,
                "7" => figures::restarts::measure(rig, options, report).await,
                "8" => figures::killed::measure(rig, options, report).await,
                "9" => figures::hostile::measure(rig, options, report).await,
                "10" => figures::overload::measure(rig, options, report).await,
                "H62" => figures::guessed::measure(rig, options, report).await,
                "14" => figures::upgrade::measure(rig, options, report).await,
                "15" => figures::soak::measure(rig, options, report).await,
                "11" => figures::starvation::measure(rig, options, report).await,
                _ => figures::timing::measure(rig, options, report).await,
            };
            measured.with_context(|| format!("figure {figure}"))?;
            // A replica that died is a finding of its own, and must not spoil the figures after it.
            let dead = rig.raise_the_dead().await?;
            let what = format!("replicas that ended by themselves in figure {figure}");
            report.add("all", &what, report::Target::AtMost(0.0), stats::number(dead), String::new());
        }
    }
    Ok(())
}

fn conditions(rig: &Rig, options: &Options) -> String {
    let lengths = &options.lengths;
    format!(
        "Three replicas, PostgreSQL (fsync on) and the driver share {} processors, without cgroups; {} clients, {} of them active; \
         C0 {:.0}/s over all replicas ({}); honest load {:.0}/s, open loop, a tenth of requests on new \
         connections, time-out 2 s, no retries; {} run(s), the worst counts. Goodput is tokens within 250 ms.",
        std::thread::available_parallelism().map_or(0, usize::from),
        lengths.clients,
        lengths.active,
        rig.capacity,
        if options.capacity.is_some() { "given" } else { "ramp, p99 < 50 ms, no errors" },
        rig.honest_rate,
        options.runs,
    )
}

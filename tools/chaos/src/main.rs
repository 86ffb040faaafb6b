//! `chaos`: injects faults into three replicas and their PostgreSQL under load, and compares the results with targets.
//! script/chaos sets up what it needs and runs it.
#![forbid(unsafe_code)]

mod capacity;
mod chance;
mod database;
mod driver;
mod figures;
mod issuer_host;
mod mix;
mod options;
mod patroni;
mod pool;
mod proxy;
mod registrations;
mod replica;
mod report;
mod rig;
mod tally;
mod token_log;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use grantd_kit::grantd::Grantd;
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::signal::unix::{SignalKind, signal};

use options::Options;
use patroni::Patroni;
use registrations::Registrations;
use report::Report;
use rig::Rig;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the figures that the command line names and prints the table. A target that is missed is no error.
async fn run(options: Options) -> anyhow::Result<()> {
    let patroni = options.place.patroni();
    if let Some(patroni) = &patroni {
        patroni.start().await?;
        patroni.create_database().await?;
    }
    let mut rig = set_up(&options, patroni.as_ref()).await?;
    let mut report = Report::default();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let measured = tokio::select! {
        measured = measure(&mut rig, patroni.as_ref(), &options, &mut report) => measured,
        _ = terminate.recv() => Err(anyhow::anyhow!("stopped by SIGTERM")),
        _ = interrupt.recv() => Err(anyhow::anyhow!("stopped by SIGINT")),
    };
    rig.kill_all().await;
    let mended = if patroni.is_some() { Ok(()) } else { rig.database.mend().await };
    println!("\n{}\n{report}", conditions(&rig, &options));
    measured.and(mended.context("mending the database"))
}

async fn set_up(options: &Options, patroni: Option<&Patroni>) -> anyhow::Result<Rig> {
    let (lengths, place) = (options.lengths(), &options.place);
    if let Some(directory) = &options.record {
        std::fs::create_dir_all(directory).context("--record")?;
    }
    let (database_url, database) = place.database(patroni);
    let grantd = Grantd::new(place.grantd.clone(), &place.room, database_url)?
        .with("token.alg", "ES256")
        .with("server.deadlines.drain_delay", "1s")
        .with("server.trusted_proxies", replica::PROXY.to_string());
    eprintln!("== {} clients, {} of them active", lengths.clients, lengths.active);
    grantd.run_ok(&["migrate"], "").await?;
    let registrations = Registrations::make(&grantd, &database, lengths.clients, lengths.active).await?;
    eprintln!("== three replicas, and their first requests");
    let mut rig = Rig::start(grantd, database, registrations.into()).await?;
    rig.record.clone_from(&options.record);
    rig.registrations.warm_up(&rig.addresses()).await?;
    rig.capacity = match options.capacity {
        Some(capacity) => capacity,
        None => {
            eprintln!("== the ramp");
            capacity::find(&mut rig, lengths.ramp_step, lengths.refinements).await?
        }
    };
    anyhow::ensure!(rig.capacity > 0.0, "the replicas do not bear the slowest step of the ramp; is the machine busy?");
    rig.honest_rate = (rig.capacity / 2.0).min(options.honest_cap);
    eprintln!("   C0 {:.0}/s, honest load {:.0}/s", rig.capacity, rig.honest_rate);
    Ok(rig)
}

async fn measure(
    rig: &mut Rig,
    patroni: Option<&Patroni>,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    if let Some(patroni) = patroni {
        return figures::failover::measure(rig, patroni, options, report).await;
    }
    for run in 1..=options.runs {
        for figure in options.figures() {
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
                "11" => figures::starvation::measure(rig, options, report).await,
                "13" => figures::rotation::measure(rig, options, report).await,
                "14" => figures::upgrade::measure(rig, options, report).await,
                "15" => figures::soak::measure(rig, options, report).await,
                "16" => figures::issuers::measure(rig, options, report).await,
                "H62" => figures::guessed::measure(rig, options, report).await,
                _ => figures::timing::measure(rig, options, report).await,
            };
            measured.with_context(|| format!("figure {figure}"))?;
            // A replica that ended is a finding of its own, and must not spoil the figures after it.
            let ended = rig.restart_ended().await?;
            let what = format!("replicas that ended by themselves in figure {figure}");
            report.add("all", &what, Goal::AtMost(0.0), number(ended), "");
        }
    }
    Ok(())
}

fn conditions(rig: &Rig, options: &Options) -> String {
    let lengths = options.lengths();
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

//! Servers measured against each other: several processes each, and alternating rounds, so that what the machine does
//! meanwhile falls on all of them.

use std::cell::Cell;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use grantd_kit::grantd::{Grantd, Server, free_address, pinned, processor_time};
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::time::sleep;

use crate::generator::{Load, Outcome, Requests, Until};
use crate::report::{self, Figure, Report};

/// How thoroughly servers are measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Processes of each server, one after the other.
    pub instances: usize,
    /// Rounds with each process.
    pub rounds: usize,
    /// Length of a round.
    pub round: Duration,
}

/// A server that is measured against others.
pub struct Contender<'a> {
    /// Its name in the table.
    pub name: &'static str,
    pub program: Program,
    pub load: Load,
    /// Address of the load, where that is not the server's first listener.
    pub address: Option<SocketAddr>,
    /// A metric, and the cell to which it is added when a process has done its rounds.
    pub counted: Option<(&'static str, &'a Cell<f64>)>,
}

/// The program of a contender.
pub enum Program {
    /// The limit server with these arguments.
    Limit(Vec<String>),
    /// grantd.
    Grantd(Grantd),
}

impl Contender<'_> {
    /// The limit server.
    pub fn limit(name: &'static str, alg: &str, arguments: &[&str], load: Load) -> Self {
        let arguments = [&[alg], arguments].concat().into_iter().map(str::to_owned).collect();
        Self { name, program: Program::Limit(arguments), load, address: None, counted: None }
    }

    /// grantd.
    pub fn grantd(name: &'static str, grantd: Grantd, load: Load) -> Self {
        Self { name, program: Program::Grantd(grantd), load, address: None, counted: None }
    }

    async fn start(&self) -> anyhow::Result<Server> {
        match &self.program {
            Program::Grantd(grantd) => grantd.serve().await,
            Program::Limit(arguments) => start_limit(SERVER_CORE, arguments).await,
        }
    }
}

/// Starts the limit server on `cores`.
pub async fn start_limit<S: AsRef<OsStr>>(cores: &str, arguments: &[S]) -> anyhow::Result<Server> {
    let address = free_address()?;
    let mut command = pinned(cores, &beside_us("limit-server")?);
    command.args(arguments).args(["--listen", &address.to_string()]).stdout(Stdio::null());
    let mut server = Server::spawn(command, address, address)?;
    server.listening().await?;
    Ok(server)
}

/// The figures of one round.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// Answers in a second.
    pub rate: f64,
    /// Processor time of the server for each answer, in microseconds.
    pub cpu: f64,
    /// Half of all answers came within this, in microseconds.
    pub p50: f64,
    /// And 99 of 100.
    pub p99: f64,
    /// Processor time of the generator for each answer, in microseconds. Near that of the server, it is the generator
    /// that was measured.
    pub generator: f64,
    /// Answers with the status 503.
    pub unavailable: f64,
}

/// All rounds of one contender, in the order in which they were run.
pub type Rounds = Vec<Round>;

/// Measures all contenders, and prints a line for each.
pub async fn run(plan: Plan, contenders: &[Contender<'_>], report: &mut Report) -> anyhow::Result<Vec<Rounds>> {
    heading();
    let mut all = vec![Rounds::new(); contenders.len()];
    let mut total = Outcome::default();
    for _ in 0..plan.instances {
        let mut servers = Vec::new();
        for contender in contenders {
            let server = contender.start().await?;
            warm_up(&contender.load, &server, contender.address.unwrap_or(server.public)).await?;
            servers.push(server);
        }
        for _ in 0..plan.rounds {
            for ((contender, server), rounds) in contenders.iter().zip(&servers).zip(&mut all) {
                let load = Load { until: Until::Time(plan.round), ..contender.load.clone() };
                make_ahead(&load, plan.round, rounds.last())?;
                let (round, seen) = measure(server, &load, contender.address.unwrap_or(server.public))?;
                total.add(&seen);
                rounds.push(round);
            }
        }
        for (contender, server) in contenders.iter().zip(&servers) {
            if let Some((metric, sum)) = contender.counted {
                sum.set(sum.get() + server.metric(metric).await.with_context(|| format!("no metric {metric}"))?);
                // The log has a thread of its own; half a second empties its queue.
                sleep(Duration::from_millis(500)).await;
            }
        }
    }
    for (contender, rounds) in contenders.iter().zip(&all) {
        row(contender.name, rounds);
    }
    report.errors(&total);
    Ok(all)
}

/// Signs as many requests as a round will take, judged by the round before, if each may be sent once only.
pub fn make_ahead(load: &Load, round: Duration, before: Option<&Round>) -> anyhow::Result<()> {
    if let Requests::Once(stock) = &load.requests {
        let rate = load.rate.or(before.map(|before| before.rate)).unwrap_or(FIRST_RATE);
        stock.renew(grantd_kit::stats::count(rate * 1.3 * round.as_secs_f64()) + 100)?;
    }
    Ok(())
}

/// Runs a load, and returns what it has cost the server.
pub fn measure(server: &Server, load: &Load, address: SocketAddr) -> anyhow::Result<(Round, Outcome)> {
    let before = (server.processor_time()?, processor_time(std::process::id())?);
    let mut seen = load.run(address);
    let cpu = server.processor_time()?.saturating_sub(before.0);
    let generator = processor_time(std::process::id())?.saturating_sub(before.1);
    let answers = number(seen.answers.max(1));
    let round = Round {
        rate: answers / seen.elapsed.as_secs_f64(),
        cpu: cpu.as_secs_f64() * 1e6 / answers,
        p50: seen.percentile(0.5),
        p99: seen.percentile(0.99),
        generator: generator.as_secs_f64() * 1e6 / answers,
        unavailable: number(seen.unavailable),
    };
    Ok((round, seen))
}

/// Sends each request once, or a thousand of them, so that every client has been seen; then goes on for half a second, and
/// waits until no hash is computed any more.
pub async fn warm_up(load: &Load, server: &Server, address: SocketAddr) -> anyhow::Result<()> {
    let each = match &load.requests {
        Requests::InTurn(requests) => requests.len().min(1000),
        Requests::Once(_) => 1000,
    };
    for until in [Until::Count(each, Duration::from_secs(30)), Until::Time(Duration::from_millis(500))] {
        // A failure here repeats itself in the rounds, and is reported there.
        drop(Load { until, ..load.clone() }.run(address));
    }
    // A secret that grantd has made is known by its verifier, and argon2id verifies it in the background, which no request of
    // a round costs. The limit server has no such metric.
    let mut hashes = server.metric(HASHES).await;
    for _ in 0..60 {
        if hashes.is_none() {
            return Ok(());
        }
        sleep(Duration::from_millis(500)).await;
        let before = std::mem::replace(&mut hashes, server.metric(HASHES).await);
        if hashes == before {
            return Ok(());
        }
    }
    bail!("hashes are still computed half a minute after the load")
}

/// The head of a table of [`row`]s.
pub fn heading() {
    let columns = ["requests/s", "server CPU µs", "p50 µs", "p99 µs", "generator CPU µs", "answers 503"];
    report::row("", &columns.map(str::to_owned));
}

/// Prints the rounds of one contender as a line of a table.
pub fn row(name: &str, rounds: &[Round]) {
    let figure = |of: fn(&Round) -> f64| figure(rounds, of).to_string();
    let columns = [
        figure(|round| round.rate),
        figure(|round| round.cpu),
        figure(|round| round.p50),
        figure(|round| round.p99),
        figure(|round| round.generator),
        figure(|round| round.unavailable),
    ];
    report::row(name, &columns);
}

/// One number of each round.
fn figure(rounds: &[Round], of: impl Fn(&Round) -> f64) -> Figure {
    Figure::new(rounds.iter().map(of).collect())
}

/// The ratio of two contenders, pair by pair.
pub fn ratio(ours: &[Round], theirs: &[Round], of: impl Fn(&Round) -> f64) -> Figure {
    Figure::new(ours.iter().zip(theirs).map(|(ours, theirs)| of(ours) / of(theirs)).collect())
}

/// How close `ours` comes to `limit`, in requests per second and in processor time; both have to hold.
pub fn compare(report: &mut Report, name: &str, ours: &[Round], limit: &[Round], goal: Goal) {
    report.figure(&format!("{name}: requests/s ÷ limit"), &ratio(ours, limit, |round| round.rate), "", goal);
    report.figure(&format!("{name}: limit's CPU ÷ its own"), &ratio(limit, ours, |round| round.cpu), "", goal);
}

/// Moves the main thread, and the threads it will start, to `cores`.
pub fn pin_self(cores: &str) -> anyhow::Result<()> {
    let pid = std::process::id().to_string();
    let done = std::process::Command::new("taskset").args(["-pc", cores, &pid]).output().context("taskset")?;
    if !done.status.success() {
        bail!("taskset -pc {cores}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

/// The path of a program that was built together with this one.
pub fn beside_us(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!("{} is missing: build it first, as script/bench does", path.display());
    }
    path.canonicalize().context("the path of this program")
}

/// The number of hashes so far.
pub const HASHES: &str = "grantd_argon2_verifications_total";
/// The processor of the servers.
pub const SERVER_CORE: &str = "0";
/// The processor of the generator.
pub const GENERATOR_CORE: &str = "1";
/// Requests a second that are assumed of a server before its first round.
const FIRST_RATE: f64 = 6000.0;

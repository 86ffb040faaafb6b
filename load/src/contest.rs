//! Servers measured against each other: several processes each, and alternating rounds, so that what the machine does
//! meanwhile falls on all of them.

use std::time::Duration;

use crate::generator::{Load, Requests, Seen, Until};
use crate::process::{Server, processor_time};
use crate::report::{Figure, Goal, Report};

/// How thoroughly.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Processes of each server, one after the other.
    pub instances: usize,
    /// Rounds with each process.
    pub rounds: usize,
    /// How long a round is.
    pub round: Duration,
}

/// Starts a server, and says how to load it.
pub type Start<'a> = Box<dyn Fn() -> anyhow::Result<(Server, Load)> + 'a>;
/// Looks at a server.
pub type Look<'a> = Box<dyn Fn(&Server) -> anyhow::Result<()> + 'a>;

/// One that takes part.
pub struct Contender<'a> {
    /// What the table calls it.
    pub name: String,
    /// Starts a process and says how to ask it.
    pub start: Start<'a>,
    /// Looks at a process that has done its rounds.
    pub afterwards: Look<'a>,
}

impl<'a> Contender<'a> {
    /// One that nobody looks at afterwards.
    pub fn new(name: &str, start: impl Fn() -> anyhow::Result<(Server, Load)> + 'a) -> Self {
        Self { name: name.to_owned(), start: Box::new(start), afterwards: Box::new(|_| Ok(())) }
    }
}

/// What one round has shown.
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

/// Lets all contenders run, and prints what each has done.
///
/// # Errors
/// When one does not start.
pub fn run(plan: Plan, contenders: &[Contender<'_>], report: &mut Report) -> anyhow::Result<Vec<Rounds>> {
    heading(report);
    let mut all = vec![Rounds::new(); contenders.len()];
    let (mut errors, mut unavailable, mut first_error) = (0, 0, None);
    for _ in 0..plan.instances {
        let mut running = Vec::new();
        for contender in contenders {
            let (server, load) = (contender.start)()?;
            warm_up(&load);
            running.push((server, load));
        }
        for _ in 0..plan.rounds {
            for ((server, load), rounds) in running.iter().zip(&mut all) {
                let load = Load { until: Until::Time(plan.round), ..load.clone() };
                make_ahead(&load, plan.round, rounds.last())?;
                let (round, seen) = measure(server, &load)?;
                errors += seen.errors;
                unavailable += seen.unavailable;
                first_error = first_error.or(seen.first_error);
                rounds.push(round);
            }
        }
        for (contender, (server, _)) in contenders.iter().zip(&running) {
            (contender.afterwards)(server)?;
        }
    }
    for (contender, rounds) in contenders.iter().zip(&all) {
        row(report, &contender.name, rounds);
    }
    if errors > 0 {
        report.errors(errors, unavailable, first_error.as_deref());
    }
    Ok(all)
}

/// Makes as many requests as a round will take, if each may be sent once only, by what the round before took.
///
/// # Errors
/// When one cannot be made.
pub fn make_ahead(load: &Load, round: Duration, before: Option<&Round>) -> anyhow::Result<()> {
    if let Requests::Once(stock) = &load.requests {
        let rate = load.rate.or(before.map(|before| before.rate)).unwrap_or(FIRST_RATE);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and far below 2^52")]
        stock.renew((rate * 1.3 * round.as_secs_f64()) as usize + 100)?;
    }
    Ok(())
}

/// One run with what it has cost the server.
///
/// # Errors
/// When /proc does not tell.
pub fn measure(server: &Server, load: &Load) -> anyhow::Result<(Round, Seen)> {
    let before = (server.processor_time()?, processor_time(std::process::id())?);
    let seen = load.run();
    let cpu = server.processor_time()?.saturating_sub(before.0);
    let generator = processor_time(std::process::id())?.saturating_sub(before.1);
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let answers = seen.answers.max(1) as f64;
    let round = Round {
        rate: answers / seen.elapsed.as_secs_f64(),
        cpu: cpu.as_secs_f64() * 1e6 / answers,
        p50: seen.latencies.quantile_us(0.5),
        p99: seen.latencies.quantile_us(0.99),
        generator: generator.as_secs_f64() * 1e6 / answers,
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        unavailable: seen.unavailable as f64,
    };
    Ok((round, seen))
}

/// Sends each request once, so that every client has been seen, or a thousand of them; and then for half a second more.
pub fn warm_up(load: &Load) {
    let each = match &load.requests {
        Requests::InTurn(requests) => u64::try_from(requests.len()).map_or(1000, |each| each.min(1000)),
        Requests::Once(_) => 1000,
    };
    for until in [Until::Count(each, Duration::from_secs(30)), Until::Time(Duration::from_millis(500))] {
        // What fails here fails in the rounds too, and is told there.
        drop(Load { until, ..load.clone() }.run());
    }
}

/// The head of a table of [`row`]s.
pub fn heading(report: &Report) {
    report.row(
        "",
        &["requests/s", "server CPU µs", "p50 µs", "p99 µs", "generator CPU µs", "answers 503"].map(str::to_owned),
    );
}

/// What all rounds of one contender have shown, as a line of a table.
pub fn row(report: &Report, name: &str, rounds: &[Round]) {
    let figure = |of: fn(&Round) -> f64| figure(rounds, of).to_string();
    let columns = [
        figure(|round| round.rate),
        figure(|round| round.cpu),
        figure(|round| round.p50),
        figure(|round| round.p99),
        figure(|round| round.generator),
        figure(|round| round.unavailable),
    ];
    report.row(name, &columns);
}

/// One number of each round.
pub fn figure(rounds: &[Round], of: impl Fn(&Round) -> f64) -> Figure {
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

/// What is guessed of a server that has not been measured yet.
const FIRST_RATE: f64 = 6000.0;

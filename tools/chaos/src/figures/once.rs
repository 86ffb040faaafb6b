//! Figure 6: the same assertion, or the same DPoP proof, at three replicas at once, while replicas and the database fail.

mod faults;
mod round;

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

use crate::driver::End;
use crate::options::Options;
use crate::report::Report;
use crate::rig::Rig;
use crate::tally::counted;

use faults::Faults;
use round::{Round, Senders};

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    rig.recorded += 1;
    let senders = Arc::new(Senders::register(rig).await?);
    rig.token_log.begin();
    let (rounds, faults) = send(rig, options.lengths().rounds, senders).await?;
    // The log lines of the last requests arrive meanwhile.
    sleep(Duration::from_secs(2)).await;
    let logged = rig.token_log.end();
    rig.registrations.warm_up(&rig.addresses()).await?;
    add_rows(&rounds, &faults, &logged, report);
    Ok(())
}

/// Sends all rounds on a schedule, with faults beside them.
async fn send(rig: &mut Rig, count: usize, senders: Arc<Senders>) -> anyhow::Result<(Vec<Round>, Faults)> {
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let (over, ends) = tokio::sync::oneshot::channel();
    let sending = async {
        let (start, mut tasks, mut rounds) = (Instant::now(), tokio::task::JoinSet::new(), Vec::with_capacity(count));
        for n in 0..count {
            sleep_until(start + Duration::from_secs_f64(number(n) / A_SECOND)).await;
            let place = Arc::clone(&places).acquire_owned().await?;
            let senders = Arc::clone(&senders);
            tasks.spawn(async move {
                let round = senders.round(n).await;
                drop(place);
                round
            });
            while let Some(ended) = tasks.try_join_next() {
                rounds.push(ended??);
            }
        }
        while let Some(ended) = tasks.join_next().await {
            rounds.push(ended??);
        }
        // The receiver may have failed, and says so itself.
        let _ = over.send(());
        anyhow::Ok(rounds)
    };
    let (rounds, faults) = tokio::join!(sending, faults::go_on(rig, ends));
    Ok((rounds?, faults?))
}

fn add_rows(rounds: &[Round], faults: &Faults, logged: &[(Ipv4Addr, String)], report: &mut Report) {
    let mut of_log: HashMap<Ipv4Addr, HashSet<&str>> = HashMap::new();
    for (name, jti) in logged {
        of_log.entry(*name).or_default().insert(jti);
    }
    let calm = |round: &Round| !faults.touch(round.sent, round.ended);
    let tokens = |round: &Round| {
        let mut all = of_log.get(&round.name).cloned().unwrap_or_default();
        all.extend(round.tokens.iter().map(String::as_str));
        all.len()
    };
    let count = |is: &dyn Fn(&Round) -> bool| rounds.iter().filter(|round| is(round)).count();
    let ends = |is: &dyn Fn(&Round) -> bool| {
        counted(rounds.iter().filter(|round| is(round)).flat_map(|round| round.ends.iter().copied()))
    };
    let mut add = |what: &str, target, value, note| report.add("6", what, target, number(value), note);

    let (assertions, calm_rounds) = (count(&|round| round.assertion), count(&calm));
    let note = format!(
        "{} rounds, {assertions} with assertions, the others with proofs; {}; all sent within 1 ms but for {}; {faults}",
        rounds.len(),
        ends(&|_| true),
        count(&|round| round.spread > Duration::from_millis(1)),
    );
    add("assertions or proofs accepted more than once", Goal::AtMost(0.0), count(&|round| round.accepted() > 1), note);
    let answered: usize = rounds.iter().map(|round| round.tokens.len()).sum();
    let note = format!(
        "{} tokens in the logs, {answered} in answers; {} rounds have one that is in the log only (its replica was killed, or broke \
         off before it had answered)",
        logged.len(),
        count(&|round| round.accepted() == 0 && tokens(round) > 0),
    );
    add("with more than one token in logs and answers together", Goal::AtMost(0.0), count(&|r| tokens(r) > 1), note);
    let note = format!("{calm_rounds} rounds; {}", ends(&calm));
    let wrong = count(&|round| calm(round) && round.accepted() != 1);
    add("no fault near: not exactly one token", Goal::AtMost(0.0), wrong, note);
    let odd = count(&|round| calm(round) && round.accepted() == 1 && !round.is_exactly_one());
    let note = "503 when requests wait too long for a thread, on a machine that is busy".to_owned();
    add("no fault near: one token, but a refusal was not that of a replay", Goal::None, odd, note);
    let note = format!("{} rounds; {}", rounds.len() - calm_rounds, ends(&|round| !calm(round)));
    add("a fault near: without a token", Goal::None, count(&|r| !calm(r) && r.accepted() == 0), note);
    let is_503 = |end: &&End| matches!(end, End::Status(503, _));
    let refused: usize = rounds.iter().map(|round| round.ends.iter().filter(is_503).count()).sum();
    add(
        "answers of 503",
        Goal::None,
        refused,
        "a client may not know whether its assertion is spent; it makes another".into(),
    );
    let impolite = rounds.iter().flat_map(|round| &round.ends).filter(|end| **end == End::Status(503, false)).count();
    add("answers of 503 without Retry-After", Goal::AtMost(0.0), impolite, String::new());
}

/// Rounds a second, three requests each.
const A_SECOND: f64 = 200.0;
/// Rounds at once; while the database is silent, each request takes three seconds.
const IN_FLIGHT: usize = 400;

//! Figure M80: whether the time of a refusal tells which clients exist.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use grantd_kit::connection::Connection;
use grantd_kit::http::token_request;
use grantd_kit::report::Goal;
use grantd_kit::stats::{auc, number, percent, percentile};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::chance::{any_loopback, below, salt, scatter, tagged_secret, untagged_secret};
use crate::driver::Stream;
use crate::mix::{self, unknown_id};
use crate::options::Options;
use crate::registrations::Registrations;
use crate::report::Report;
use crate::rig::{Rig, drive_all};

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    for (shape, secret) in [("tagged", tagged_secret as fn(u64) -> String), ("untagged", untagged_secret)] {
        for flooded in [false, true] {
            let classes = compare(rig, options, secret, flooded).await;
            let when = if flooded { "in a flood" } else { "idle" };
            add_rows(report, &format!("{shape} wrong secrets, {when}"), &classes);
            sleep(Duration::from_secs(3)).await;
        }
    }
    Ok(())
}

/// The answers to one class of clients.
#[derive(Debug, Default, Clone)]
struct Class {
    /// Microseconds from the first byte sent to the last received.
    micros: Vec<f64>,
    /// How many of those were 401.
    refused: usize,
}

const CLASSES: [&str; 3] = ["unknown", "generated", "imported"];

/// Sends wrong secrets for clients of the three classes in turn, to two replicas at once.
async fn compare(rig: &Rig, options: &Options, secret: fn(u64) -> String, flooded: bool) -> [Class; 3] {
    let lasts = options.lengths().comparison;
    let mut samplers = JoinSet::new();
    for address in rig.addresses().into_iter().take(2) {
        let registrations = Arc::clone(&rig.registrations);
        let (until, most) = (Instant::now() + lasts, options.lengths().samples / 2);
        samplers.spawn(async move { sample(&registrations, address, secret, most, until).await });
    }
    let mut flood = JoinSet::new();
    if flooded && let Some(victim) = rig.registrations.warm.get(1) {
        let addresses = rig.addresses();
        let mut stream = Stream::honest(
            (10.0 * rig.honest_rate).min(options.rate_cap),
            lasts,
            mix::flood(&rig.registrations, &victim.id),
        );
        stream.source = any_loopback;
        flood.spawn(async move { drive_all(Instant::now(), vec![stream], &addresses).await });
    }
    let mut all: [Class; 3] = Default::default();
    while let Some(sampled) = samplers.join_next().await {
        for (all, class) in all.iter_mut().zip(sampled.unwrap_or_default()) {
            all.micros.extend(class.micros);
            all.refused += class.refused;
        }
    }
    // It stops when there are enough samples.
    flood.shutdown().await;
    all
}

async fn sample(
    registrations: &Registrations,
    replica: SocketAddr,
    secret: fn(u64) -> String,
    most: usize,
    until: Instant,
) -> [Class; 3] {
    let ids = |imported: bool| -> Vec<&str> {
        registrations.warm.iter().filter(|known| known.imported == imported).map(|known| &*known.id).take(20).collect()
    };
    let (generated, imported, salt) = (ids(false), ids(true), salt());
    let mut classes: [Class; 3] = Default::default();
    let mut kept: Option<Connection> = None;
    for round in 0..most as u64 {
        if Instant::now() >= until {
            break;
        }
        let n = scatter(round.wrapping_add(salt));
        // Another address after five rounds: ten failures of a client from one address would be slowed down.
        if round % 5 == 0 {
            kept = None;
        }
        // A random turn and direction, so that no class is always first.
        let (turn, back) = (below(n, 3), scatter(n ^ 1).is_multiple_of(2));
        for place in 0..3 {
            let which = (turn + if back { 3 - place } else { place }) % 3;
            let pick = |ids: &[&str]| ids.get(below(n ^ 2, ids.len())).map_or_else(String::new, |&id| id.to_owned());
            let client_id = match which {
                0 => unknown_id(n),
                1 => pick(&generated),
                _ => pick(&imported),
            };
            let request = token_request(&client_id, &secret(n ^ place as u64));
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => match Connection::open(any_loopback(n), replica).await {
                    Ok(connection) => connection,
                    Err(_) => continue,
                },
            };
            let sent = Instant::now();
            let answer = timeout(Duration::from_secs(5), connection.exchange(&request)).await;
            let micros = sent.elapsed().as_secs_f64() * 1e6;
            if let (Ok(Ok(answer)), Some(class)) = (answer, classes.get_mut(which)) {
                class.micros.push(micros);
                class.refused += usize::from(answer.status == 401);
                kept = (!answer.close).then_some(connection);
            }
        }
    }
    classes
}

fn add_rows(report: &mut Report, case: &str, classes: &[Class; 3]) {
    let [unknown, generated, imported] = classes;
    for (first, second, names) in
        [(unknown, generated, (0, 1)), (unknown, imported, (0, 2)), (generated, imported, (1, 2))]
    {
        let area = auc(&first.micros, &second.micros);
        let name = |class: usize| CLASSES.get(class).copied().unwrap_or_default();
        let (a, b) = (name(names.0), name(names.1));
        let about = |name: &str, class: &Class| {
            let median = percentile(&mut class.micros.clone(), 0.5);
            format!(
                "{name} {} samples, median {median:.0} us, {:.1} % 401",
                class.micros.len(),
                percent(class.refused, class.micros.len())
            )
        };
        let chance = if (area.value - 0.5).abs() < 2.0 * area.standard_error { "; within chance of 0.5" } else { "" };
        let conditions =
            format!("standard error {:.4}{chance}; {}; {}", area.standard_error, about(a, first), about(b, second));
        report.add(
            "M80",
            &format!("AUC {a} / {b}, {case}"),
            Goal::Between(0.48, 0.52, area.standard_error),
            area.value,
            conditions,
        );
        // Another status would tell clients apart without a clock.
        let shares = |class: &Class| number(class.refused) / number(class.micros.len().max(1));
        let apart = 100.0 * (shares(first) - shares(second)).abs();
        report.add("M80", &format!("difference of shares of 401, {a} / {b}, {case}, points"), Goal::None, apart, "");
    }
}

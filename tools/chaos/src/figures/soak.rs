//! Figure 15: hours of random faults under load, chosen by a seed. Nothing ends by itself, nothing grows, nothing is
//! unexplained.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use grantd_kit::client_key::{ClientKey, assertion_request};
use grantd_kit::clients::register_key;
use grantd_kit::connection::ask;
use grantd_kit::grantd::ISSUER;
use grantd_kit::program::field;
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::time::{Instant, sleep};

use super::about;
use crate::chance::{any_loopback, below, honest_loopback, salt, scatter};
use crate::database::Outage;
use crate::driver::{End, Record, Stream};
use crate::mix;
use crate::options::Options;
use crate::replica::Holdings;
use crate::report::Report;
use crate::rig::{Rig, drive_all};
use crate::tally::Tally;

/// The faults of a soak, and the state of the replicas.
#[derive(Default)]
struct SoakResult {
    /// Name, begin and end of each fault. It ends when everything is well again.
    faults: Vec<(String, Duration, Duration)>,
    /// The number of replicas that ended by themselves.
    ended: usize,
    /// Memory and descriptors of each replica, minute by minute.
    holdings: Vec<(Duration, Vec<Holdings>)>,
}

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let seed = options.seed.unwrap_or_else(salt);
    eprintln!("   seed {seed}");
    let lasts = options.lengths().soak;
    let client_id = format!("soak-{}", rig.recorded);
    let key = register_key(&rig.grantd, &client_id).await?;
    let addresses = rig.addresses();
    let (origin, accepted) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let asserting = {
        let (addresses, accepted) = (addresses.clone(), Arc::clone(&accepted));
        tokio::spawn(async move { send_assertions(&client_id, &key, &addresses, &accepted).await })
    };
    let load = vec![rig.registrations.warm_stream(rig.honest_rate.min(RATE), lasts)];
    let (tally, soak) = tokio::join!(drive_all(origin, load, &addresses), faults(rig, origin, lasts, seed));
    asserting.abort();
    let soak = soak?;
    rig.current(Duration::from_mins(1)).await?;
    rig.keep("soak", &tally)?;
    let doctor = rig.grantd.run(&["doctor"]).await?;
    let spent = rig.database.sql("select count(*) from spent_jti").await?;
    add_rows(&tally, &soak, seed, lasts, report);
    report.add("15", "doctor's exit code", Goal::AtMost(0.0), doctor.code.map_or(f64::NAN, f64::from), doctor.stdout);
    let note = format!("{} assertions were accepted", accepted.load(Ordering::Relaxed));
    report.add("15", "rows of spent ids at the end", Goal::None, spent.trim().parse()?, note);
    Ok(())
}

/// Sends five assertions a second, and counts those that are accepted.
async fn send_assertions(
    client_id: &str,
    key: &ClientKey,
    replicas: &[SocketAddr],
    accepted: &AtomicUsize,
) -> anyhow::Result<()> {
    for n in 0.. {
        sleep(Duration::from_millis(200)).await;
        let request = assertion_request(&key.assertion(client_id, ISSUER)?);
        let Some(replica) = replicas.get(below(n, replicas.len())) else { continue };
        let answer = ask(honest_loopback(n), *replica, &request, Duration::from_secs(5)).await;
        accepted.fetch_add(usize::from(answer.is_some_and(|(answer, _)| answer.status == 200)), Ordering::Relaxed);
    }
    Ok(())
}

async fn faults(rig: &mut Rig, origin: Instant, lasts: Duration, seed: u64) -> anyhow::Result<SoakResult> {
    let mut soak = SoakResult::default();
    let mut sampled = 0;
    // Shorter pauses in a short soak, so that each fault has its turn.
    let (least, more) = if lasts < Duration::from_mins(10) { (4, 8) } else { (20, 40) };
    for n in 0.. {
        let chance = |bound: usize| below(scatter(seed.wrapping_add(n)) >> 8, bound);
        let pause = Duration::from_secs((least + chance(more)) as u64);
        let until = Instant::now() + pause;
        while Instant::now() < until {
            sleep(Duration::from_secs(1)).await;
            if origin.elapsed().as_secs() / 60 >= sampled {
                sampled += 1;
                soak.holdings.push((origin.elapsed(), rig.holdings()));
            }
        }
        if origin.elapsed() + Duration::from_secs(30) > lasts {
            return Ok(soak);
        }
        let begun = origin.elapsed();
        let name = fault(rig, usize::try_from(n)? + chance(FAULTS), chance).await?;
        rig.current(Duration::from_mins(1)).await?;
        soak.faults.push((name, begun, origin.elapsed() + SETTLE));
        soak.ended += rig.restart_ended().await?;
    }
    Ok(soak)
}

async fn fault(rig: &mut Rig, turn: usize, chance: impl Fn(usize) -> usize) -> anyhow::Result<String> {
    let outage = match turn % FAULTS {
        0 => Outage::Stopped,
        1 => Outage::Frozen,
        2 => Outage::Refused,
        3 => Outage::Silent,
        4 => Outage::ReadOnly,
        5 => {
            rig.restart(chance(3)).await?;
            return Ok("kill -9 of a replica".to_owned());
        }
        6 => {
            for replica in &mut rig.replicas {
                replica.stop_and_start(&rig.grantd).await?;
            }
            return Ok("rolling restart".to_owned());
        }
        7 => {
            rig.grantd.run_ok(&["key", "rotate"], "").await?;
            return Ok("key rotation".to_owned());
        }
        8 => {
            let Some(known) = rig.registrations.warm.get(chance(20)) else { return Ok("secret rotation".to_owned()) };
            let added = rig.grantd.run_ok(&["client", "secret", "add", &known.id, "--json"], "").await?;
            let secret_id = field(&added.stdout, "secret_id").unwrap_or_default();
            rig.grantd.run_ok(&["client", "secret", "revoke", &known.id, &secret_id], "").await?;
            return Ok("secret rotation".to_owned());
        }
        _ => {
            let Some(victim) = rig.registrations.warm.first().cloned() else { return Ok("flood".to_owned()) };
            let flood = Stream {
                source: any_loopback,
                connections: 256,
                ..Stream::honest(1000.0, Duration::from_secs(5), mix::flood(&rig.registrations, &victim.id))
            };
            drive_all(Instant::now(), vec![flood], &rig.addresses()).await;
            return Ok("flood".to_owned());
        }
    };
    rig.database.leave(outage).await?;
    sleep(Duration::from_secs((2 + chance(7)) as u64)).await;
    rig.database.come_back(outage).await?;
    Ok(format!("PostgreSQL {outage}"))
}

fn add_rows(tally: &Tally, soak: &SoakResult, seed: u64, lasts: Duration, report: &mut Report) {
    let mut names: Vec<&str> = soak.faults.iter().map(|(name, _, _)| name.as_str()).collect();
    names.sort_unstable();
    let counts: Vec<String> =
        names.chunk_by(|a, b| a == b).filter_map(|same| Some(format!("{} × {}", same.len(), same.first()?))).collect();
    let note = format!("seed {seed}, {} min; {}", lasts.as_secs() / 60, counts.join(", "));
    report.add("15", "replicas that ended by themselves", Goal::AtMost(0.0), number(soak.ended), note);
    let near = |record: &Record| {
        soak.faults.iter().any(|(_, from, until)| record.scheduled + AHEAD >= *from && record.scheduled <= *until)
    };
    let calm = tally.only(|record| !near(record));
    let failed = number(calm.count(|record| !record.is_ok()));
    report.add("15", "no fault near: failed requests", Goal::AtMost(0.0), failed, about(&calm));
    let odd = number(tally.count(|record| match record.end {
        End::Status(503, polite) => !polite,
        End::Status(status, _) => status != 200,
        _ => false,
    }));
    report.add("15", "answers other than 200 and 503 with Retry-After", Goal::AtMost(0.0), odd, tally.ends());
    let third = lasts / 3;
    let (first, last) = (calm.between(Duration::ZERO, third), calm.between(lasts.saturating_sub(third), lasts));
    let note = format!("{:.1} and {:.1} ms, no fault near", first.p(0.99), last.p(0.99));
    report.add("15", "p99 of the last third ÷ the first's", Goal::AtMost(1.1), last.p(0.99) / first.p(0.99), note);
    let most = |from: Duration, of: fn(&Holdings) -> f64| {
        let later = soak.holdings.iter().filter(|(at, _)| *at >= from);
        later.flat_map(|(_, replicas)| replicas).map(of).fold(0.0, f64::max)
    };
    let half = |of: fn(&Holdings) -> f64| most(lasts / 2, of) / most(Duration::ZERO, of);
    let note = format!("at most {:.0} MiB", most(Duration::ZERO, |one| one.rss_mib));
    report.add("15", "memory, most in the second half ÷ most", Goal::None, half(|one| one.rss_mib), note);
    let note = format!("at most {:.0}", most(Duration::ZERO, |one| number(one.descriptors)));
    report.add(
        "15",
        "descriptors, most in the second half ÷ most",
        Goal::None,
        half(|one| number(one.descriptors)),
        note,
    );
}

const RATE: f64 = 100.0;
const FAULTS: usize = 10;
/// A replica that has just started hashes each secret once.
const SETTLE: Duration = Duration::from_secs(5);
/// A request that was sent this long before a fault may still be under way.
const AHEAD: Duration = Duration::from_secs(2);

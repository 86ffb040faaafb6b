//! Figure H62: a client with an imported secret meets a replica for the first time, while a guesser at its own address
//! sends another wrong secret in its name every 20 ms.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use grantd_kit::clients::Client;
use grantd_kit::connection::Connection;
use grantd_kit::http::token_request;
use grantd_kit::report::Goal;
use grantd_kit::stats::{number, percent};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use super::HASHES;
use super::cold::first_token;
use crate::chance::untagged_secret;
use crate::options::Options;
use crate::report::Report;
use crate::rig::Rig;

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    rig.start_anew().await?;
    let all = rig.registrations.take_cold(rig.registrations.cold_left());
    let pairs: Vec<_> = all.into_iter().filter(|(known, _)| known.imported).take(options.lengths().trials).collect();
    let (addresses, hashes) = (rig.addresses(), rig.metric(HASHES).await);
    let started = Instant::now();
    let (mut met, mut guesses) = (Vec::new(), 0);
    // A few at a time, so that the replicas are not busy with hashes.
    for (batch, pairs) in pairs.chunks(TOGETHER).enumerate() {
        let mut tasks = JoinSet::new();
        for (nth, (known, replica)) in pairs.iter().cloned().enumerate() {
            let Some(address) = addresses.get(replica).copied() else { continue };
            let source = IpAddr::V4(Ipv4Addr::from(0x7f02_0001 + u32::try_from(batch * TOGETHER + nth)?));
            tasks.spawn(async move { under_guesses(&known, address, source).await });
        }
        while let Some(done) = tasks.join_next().await {
            let (attempts, took, end, sent) = done?;
            guesses += sent;
            met.push((attempts, took, end));
        }
    }
    let hashes = rig.metric(HASHES).await - hashes;
    let served: Vec<_> = met.iter().filter(|(_, _, end)| *end == Some(200)).collect();
    let attempts = served.iter().map(|(attempts, ..)| *attempts).max().unwrap_or(0);
    let slowest = served.iter().map(|(_, took, _)| took.as_secs_f64()).fold(0.0, f64::max);
    let note = format!(
        "{} clients, at most {attempts} attempts, slowest {slowest:.1} s; {guesses} guesses in {:.0} s, {hashes:.0} hashes",
        met.len(),
        started.elapsed().as_secs_f64()
    );
    let share = percent(served.len(), met.len());
    report.add("H62", "guessed at: served within 10 s, %", Goal::AtLeast(90.0), share, note);
    let wrong = number(met.iter().filter(|(_, _, end)| *end == Some(401)).count());
    report.add("H62", "guessed at: right secrets called wrong", Goal::AtMost(0.0), wrong, "");
    Ok(())
}

/// Lets a client send its first request once the guesser is slowed down: attempts, time, last status, number of guesses.
async fn under_guesses(client: &Client, replica: SocketAddr, source: IpAddr) -> (usize, Duration, Option<u16>, usize) {
    let client_id = client.id.clone();
    let mut guesser = JoinSet::new();
    let (sent, mut seen) = tokio::sync::watch::channel((0_usize, false));
    guesser.spawn(async move {
        let (mut connection, mut ticks) = (None, interval(Duration::from_millis(20)));
        for n in 0_u64.. {
            ticks.tick().await;
            let guess = token_request(&client_id, &untagged_secret(n ^ 0x6e55 << 32));
            if connection.is_none() {
                connection = Connection::open(source, replica).await.ok();
            }
            let Some(open) = connection.as_mut() else { continue };
            let answer = open.exchange(&guess).await;
            if answer.is_err() {
                connection = None;
            }
            let slowed = answer.is_ok_and(|answer| answer.status == 429);
            sent.send_modify(|(guesses, was_slowed)| (*guesses, *was_slowed) = (*guesses + 1, *was_slowed || slowed));
        }
    });
    // The guesser is slowed down, and so is every request from its address.
    drop(timeout(Duration::from_secs(30), seen.wait_for(|(_, slowed)| *slowed)).await);
    let (attempts, took, end) = first_token(client, replica, source).await;
    guesser.abort_all();
    let (number, _) = *seen.borrow();
    (attempts, took, end, number)
}

const TOGETHER: usize = 4;

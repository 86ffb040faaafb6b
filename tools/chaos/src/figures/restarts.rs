//! Figure 7: replicas are restarted one after the other under load, directly and behind proxies, and none of the requests
//! may fail; and a stop ends in time, although clients hold connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use grantd_kit::connection::get;
use grantd_kit::report::Goal;
use grantd_kit::stats::{number, percentile};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::about;
use crate::chance::below;
use crate::driver::{Kind, Record, Request, Stream};
use crate::options::Options;
use crate::proxy::{Proxy, WAYS, Way};
use crate::report::Report;
use crate::rig::{Rig, drive_all};
use crate::tally::Tally;

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    for way in WAYS {
        restarts(rig, options, report, way).await?;
    }
    rig.grantd.settings.insert(DRAIN_DELAY, "1s".to_owned());
    held_connections(rig, options, report).await?;
    rig.start_anew().await
}

async fn restarts(rig: &mut Rig, options: &Options, report: &mut Report, way: Way) -> anyhow::Result<()> {
    rig.grantd.settings.insert(DRAIN_DELAY, way.drain_delay.to_owned());
    rig.start_anew().await?;
    let proxy = Proxy::start(way, &rig.grantd.directory, &rig.replicas).await?;
    let (mut all, mut exits, mut wrong_codes) = (Tally::default(), Vec::new(), 0);
    for restart in 0..options.lengths().restarts {
        let rotation = Rotation::default();
        let addresses = proxy.as_ref().map_or_else(|| rig.addresses(), |proxy| vec![proxy.address]);
        let stop_takes = way.drain_delay.trim_end_matches('s').parse().unwrap_or(1.0);
        let lasts = Duration::from_secs_f64(stop_takes + 2.0) + way.settles;
        let stream = stream(rig, lasts, proxy.is_none().then(|| rotation.clone()));
        let admins = rig.replicas.iter().map(|replica| replica.admin).collect();
        let (replica, grantd) = rig.replica(restart % 3)?;
        let restart = async {
            sleep(Duration::from_millis(500)).await;
            let stopped = replica.stop_and_start(grantd).await?;
            sleep(way.settles).await;
            anyhow::Ok(stopped)
        };
        let (tally, (code, took)) = rotation.drive(admins, stream, &addresses, restart).await?;
        wrong_codes += usize::from(code != Some(0));
        exits.push(took.as_secs_f64());
        all.0.extend(tally.0);
    }
    rig.keep(&format!("restarts-{}", way.name), &all)?;
    let note = format!(
        "{} restarts, one replica after the other, drain_delay {}; {}",
        options.lengths().restarts,
        way.drain_delay,
        about(&all)
    );
    let mut rows = report.rows("7", way.name);
    let failed = number(all.count(|record: &Record| !record.is_ok()));
    rows.add("failed requests", Goal::AtMost(0.0), failed, note);
    rows.add("exit codes other than 0", Goal::AtMost(0.0), number(wrong_codes), "");
    let slowest = percentile(&mut exits, 1.0);
    rows.add("slowest exit, s", Goal::AtMost(10.0), slowest, "");
    Ok(())
}

/// Requests of a few clients: a replica that has just started hashes each secret once, and with more clients the figure
/// would be about hashing.
pub(super) fn stream(rig: &Rig, lasts: Duration, rotation: Option<Rotation>) -> Stream {
    let clients: Vec<_> = rig.registrations.warm.iter().take(CLIENTS).cloned().collect();
    let rate = rig.honest_rate.min(RATE);
    Stream::honest(
        rate,
        lasts,
        Box::new(move |n| {
            let bytes =
                clients.get(below(n, clients.len())).map(|known| Arc::clone(&known.request)).unwrap_or_default();
            let replica = rotation.as_ref().map_or(0, |rotation| rotation.pick(n));
            Request { kind: Kind::Warm, replica, bytes }
        }),
    )
}

/// The replicas to which a client sends that looks at `/readyz`.
#[derive(Debug, Clone)]
pub(super) struct Rotation(Arc<[AtomicBool; 3]>);

impl Default for Rotation {
    fn default() -> Self {
        Self(Arc::new([true; 3].map(AtomicBool::new)))
    }
}

impl Rotation {
    pub(super) fn pick(&self, n: u64) -> usize {
        let ready: Vec<usize> = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, ready)| ready.load(Ordering::Relaxed))
            .map(|(which, _)| which)
            .collect();
        ready.get(below(n ^ 0x7e11, ready.len())).copied().unwrap_or_default()
    }

    /// Drives a stream to its end while `beside` runs, and looks at `/readyz` of every replica five times a second.
    pub(super) async fn drive<T>(
        &self,
        admins: Vec<SocketAddr>,
        stream: Stream,
        addresses: &[SocketAddr],
        beside: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<(Tally, T)> {
        let watching = async {
            loop {
                for (ready, admin) in self.0.iter().zip(&admins) {
                    let answer = get(*admin, "/readyz").await;
                    ready.store(answer.is_some_and(|(status, _)| status == 200), Ordering::Relaxed);
                }
                sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::select! {
            (tally, done) = async { tokio::join!(drive_all(Instant::now(), vec![stream], addresses), beside) } => Ok((tally, done?)),
            () = watching => anyhow::bail!("the watch of /readyz ended"),
        }
    }
}

/// Stops a replica to which clients hold a thousand idle, a hundred silent and a hundred half-sent connections.
async fn held_connections(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    rig.start_anew().await?;
    let (replica, grantd) = rig.replica(0)?;
    let mut held = Vec::new();
    let idle = options.lengths().connections.min(1000);
    for number in 0..idle + 200 {
        let mut stream = TcpStream::connect(replica.public).await?;
        if number < idle {
            stream.write_all(b"GET /jwks HTTP/1.1\r\nHost: grantd\r\n\r\n").await?;
        } else if number < idle + 100 {
            stream.write_all(b"POST /token HTTP/1.1\r\nHost:").await?;
        }
        held.push(stream);
    }
    sleep(Duration::from_millis(500)).await;
    let (code, took) = replica.stop_and_start(grantd).await?;
    drop(held);
    let note = format!(
        "{idle} idle, 100 silent and 100 half-sent connections, never closed by their clients; exit code {code:?}"
    );
    report.add("7", "exit with connections that hang on, s", Goal::AtMost(10.0), took.as_secs_f64(), note);
    report.add("7", "its exit code is not 0", Goal::AtMost(0.0), number(usize::from(code != Some(0))), "");
    Ok(())
}

const DRAIN_DELAY: &str = "server.deadlines.drain_delay";
const CLIENTS: usize = 20;
const RATE: f64 = 300.0;

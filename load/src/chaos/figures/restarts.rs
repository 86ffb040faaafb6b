//! Figure 7: replicas are restarted one after the other under load, directly and behind proxies, and none of the requests
//! may fail; and a stop takes its time only, whoever hangs on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::about;
use crate::chaos::chance::below;
use crate::chaos::connection;
use crate::chaos::driver::{Ask, Kind, Record, Stream};
use crate::chaos::options::Options;
use crate::chaos::proxy::{Proxy, Way};
use crate::chaos::report::{Report, Target};
use crate::chaos::rig::{Rig, drive_all};
use crate::chaos::stats::{number, percentile};
use crate::chaos::tally::Tally;

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    for way in Way::ALL {
        restarts(rig, options, report, way).await?;
    }
    rig.cli.drain_delay = "1s";
    clinging(rig, options, report).await?;
    rig.start_anew().await
}

async fn restarts(rig: &mut Rig, options: &Options, report: &mut Report, way: Way) -> anyhow::Result<()> {
    rig.cli.drain_delay = way.drain_delay();
    rig.start_anew().await?;
    let proxy = Proxy::start(way, &rig.cli.room, &rig.replicas).await?;
    let (mut all, mut exits, mut wrong_codes) = (Tally::default(), Vec::new(), 0);
    for number in 0..options.lengths.restarts {
        let rotation = Rotation::default();
        let addresses = proxy.as_ref().map_or_else(|| rig.addresses(), |proxy| vec![proxy.address]);
        let stop_takes = rig.cli.drain_delay.trim_end_matches('s').parse().unwrap_or(1.0);
        let lasts = Duration::from_secs_f64(stop_takes + 2.0) + way.settles();
        let stream = stream(rig, lasts, proxy.is_none().then(|| rotation.clone()));
        let watching = rotation.watch(rig.replicas.iter().map(|replica| replica.admin).collect());
        let which = number % rig.replicas.len().max(1);
        let cli = rig.cli.clone();
        let Some(replica) = rig.replicas.get_mut(which) else { anyhow::bail!("no replica") };
        let restart = async {
            sleep(Duration::from_millis(500)).await;
            let stopped = replica.stop_and_start(&cli, which).await?;
            replica.ready(Duration::from_secs(30)).await?;
            sleep(way.settles()).await;
            anyhow::Ok(stopped)
        };
        let (tally, restarted) = tokio::select! {
            done = async { tokio::join!(drive_all(Instant::now(), vec![stream], &addresses), restart) } => done,
            () = watching => anyhow::bail!("the rotation ended"),
        };
        let (code, took) = restarted?;
        wrong_codes += usize::from(code != Some(0));
        exits.push(took.as_secs_f64());
        all.0.extend(tally.0);
    }
    rig.keep(&format!("restarts-{}", way.name()), &all)?;
    let told = format!(
        "{} restarts, one replica after the other, drain_delay {}; {}",
        options.lengths.restarts,
        rig.cli.drain_delay,
        about(&all)
    );
    let row = |what: &str| format!("{}: {what}", way.name());
    let failed = number(all.count(|record: &Record| !record.is_ok()));
    report.add("7", &row("failed requests"), Target::AtMost(0.0), failed, told);
    report.add("7", &row("exit codes other than 0"), Target::AtMost(0.0), number(wrong_codes), String::new());
    let slowest = percentile(&mut exits, 1.0);
    report.add("7", &row("slowest exit, s"), Target::AtMost(10.0), slowest, String::new());
    Ok(())
}

/// Requests of a few clients: a replica that has just started verifies each secret anew, and with more clients the figure
/// would show how fast secrets are hashed.
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
            Ask { kind: Kind::Warm, replica, bytes }
        }),
    )
}

/// Which replicas a client that looks at `/readyz` sends to.
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

    /// Asks every replica, five times a second, for ever.
    pub(super) async fn watch(&self, admins: Vec<std::net::SocketAddr>) {
        loop {
            for (ready, admin) in self.0.iter().zip(&admins) {
                let answer = connection::get(*admin, "/readyz").await;
                ready.store(answer.is_ok_and(|(status, _)| status == 200), Ordering::Relaxed);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Stops a replica that a thousand idle, a hundred silent and a hundred half-sent connections hang on.
async fn clinging(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    rig.start_anew().await?;
    let cli = rig.cli.clone();
    let Some(replica) = rig.replicas.first_mut() else { anyhow::bail!("no replica") };
    let mut held = Vec::new();
    let idle = options.lengths.connections.min(1000);
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
    let (code, took) = replica.stop_and_start(&cli, 0).await?;
    drop(held);
    let told = format!(
        "{idle} idle, 100 silent and 100 half-sent connections, never closed by their clients; exit code {code:?}"
    );
    report.add("7", "exit with connections that hang on, s", Target::AtMost(10.0), took.as_secs_f64(), told);
    report.add("7", "its exit code is not 0", Target::AtMost(0.0), number(usize::from(code != Some(0))), String::new());
    Ok(())
}

const CLIENTS: usize = 20;
const RATE: f64 = 300.0;

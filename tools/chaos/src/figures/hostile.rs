//! Figure 9: ten thousand connections that say nothing, or too little, all to one replica.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use grantd_kit::report::Goal;
use grantd_kit::stats::{number, percentile};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Base, about};
use crate::options::Options;
use crate::report::Report;
use crate::rig::{Rig, drive_all};

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let mut before = rig.unattacked("hostile-before", options.lengths().base).await?;
    for shape in SHAPES {
        let (Some(idle), Some(target)) = (rig.holdings().first().copied(), rig.addresses().first().copied()) else {
            anyhow::bail!("no replica");
        };
        let lasts = options.lengths().hostile;
        let stream = rig.registrations.warm_stream(rig.honest_rate, lasts);
        let addresses = rig.addresses();
        let both = async {
            tokio::join!(
                drive_all(Instant::now(), vec![stream], &addresses),
                attack(shape, target, options.lengths().connections, lasts)
            )
        };
        let ((tally, attacked), most) = rig.watching(both).await;
        rig.keep(&format!("hostile-{}", shape.name), &tally)?;
        let back = descriptors_back(rig, idle.descriptors).await;
        let after = rig.unattacked("hostile-after", options.lengths().base).await?;
        let base = Base::of(&before, &after);

        let mut rows = report.rows("9", shape.name);
        let AttackResult { mut closed, opened, refused, still_open } = attacked;
        let note = format!(
            "{opened} opened from 20 addresses, {} held at once, opened again when closed; {refused} not accepted; closed after p50 {:.1} s",
            options.lengths().connections,
            percentile(&mut closed, 0.5)
        );
        rows.add("slowest to be closed, s", Goal::AtMost(15.0), percentile(&mut closed, 1.0), note);
        rows.add("open for more than 15 s at the end", Goal::AtMost(0.0), number(still_open), String::new());
        rows.add("goodput of honest clients, % of base", Goal::AtLeast(95.0), base.share(&tally), about(&tally));
        let most = most.first().copied().unwrap_or_default();
        let note = format!(
            "{:.0} MiB before; cleartext; descriptors {} before, {} at most",
            idle.rss_mib, idle.descriptors, most.descriptors
        );
        rows.add("memory of the replica, MiB", Goal::AtMost(512.0), most.rss_mib, note);
        rows.add("s until descriptors are back", Goal::AtMost(30.0), back, "within 16 of before");
        before = after;
    }
    Ok(())
}

/// A way to occupy a connection of the server.
#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    /// Bytes sent at once.
    opening: &'static [u8],
    /// Bytes sent one every five seconds.
    trickle: &'static [u8],
}

const SHAPES: [Shape; 4] = [
    Shape { name: "silent", opening: b"", trickle: b"" },
    Shape { name: "slow header", opening: b"P", trickle: b"OST /token HTTP/1.1\r\nHost: grantd\r\nAccept: all\r\n" },
    Shape {
        name: "slow body",
        opening: b"POST /token HTTP/1.1\r\nHost: grantd\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\n",
        trickle: b"grant_type=client_credentials&client_id=nobody&client_secret=x",
    },
    Shape { name: "h2 preface only", opening: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", trickle: b"" },
];

#[derive(Default)]
struct AttackResult {
    /// Seconds that each lived until the server closed it.
    closed: Vec<f64>,
    opened: usize,
    refused: usize,
    /// Older than 15 s when the attack ended.
    still_open: usize,
}

/// Holds that many connections for that long.
async fn attack(shape: Shape, target: SocketAddr, connections: usize, lasts: Duration) -> AttackResult {
    let until = Instant::now() + lasts;
    let mut tasks = JoinSet::new();
    for n in 0..connections {
        tasks.spawn(hold_on(shape, n, target, until));
        // Five thousand a second, so that the kernel's queue of new connections is not what is measured.
        if n % 50 == 49 {
            sleep(Duration::from_millis(10)).await;
        }
    }
    let mut all = AttackResult::default();
    while let Some(task) = tasks.join_next().await {
        let Ok(one) = task else { continue };
        all.closed.extend(one.closed);
        all.opened += one.opened;
        all.refused += one.refused;
        all.still_open += one.still_open;
    }
    all
}

/// One attacker, which opens a connection again when it was closed.
async fn hold_on(shape: Shape, n: usize, target: SocketAddr, until: Instant) -> AttackResult {
    let source = IpAddr::from([127, 9, 0, u8::try_from(n % 20).unwrap_or(0) + 1]);
    let mut seen = AttackResult::default();
    while Instant::now() < until {
        let opened_at = Instant::now();
        match timeout_at(until, hold(shape, source, target)).await {
            Ok(Ok(())) => {
                seen.opened += 1;
                seen.closed.push(opened_at.elapsed().as_secs_f64());
            }
            Ok(Err(_)) => seen.refused += 1,
            Err(_) => {
                seen.opened += 1;
                seen.still_open += usize::from(opened_at.elapsed() > Duration::from_secs(15));
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    seen
}

/// Holds a connection until the server closes it. An error is a connection that could not be made.
async fn hold(shape: Shape, source: IpAddr, target: SocketAddr) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source, 0))?;
    let (mut reading, mut writing) = socket.connect(target).await?.into_split();
    let sending = async {
        writing.write_all(shape.opening).await?;
        for byte in shape.trickle {
            sleep(Duration::from_secs(5)).await;
            writing.write_all(&[*byte]).await?;
        }
        // Sends no more and does not hang up.
        std::future::pending::<std::io::Result<()>>().await
    };
    let listening = async {
        let mut bytes = [0; 512];
        while matches!(reading.read(&mut bytes).await, Ok(1..)) {}
    };
    tokio::select! {
        _ = sending => {}
        () = listening => {}
    }
    Ok(())
}

/// Seconds until the replica has as many descriptors as before.
async fn descriptors_back(rig: &Rig, before: usize) -> f64 {
    let started = Instant::now();
    while started.elapsed() < Duration::from_mins(1) {
        if rig.holdings().first().is_some_and(|now| now.descriptors <= before + 16) {
            return started.elapsed().as_secs_f64();
        }
        sleep(Duration::from_millis(200)).await;
    }
    f64::INFINITY
}

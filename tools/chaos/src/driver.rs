//! The open-loop driver: requests leave on a fixed schedule, whatever became of those before, and each latency counts
//! from the moment it was scheduled for. Nothing is tried again.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use grantd_kit::connection::{Connection, Failure};
use grantd_kit::stats::{count, number};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::chance::{honest_loopback, salt, scatter};
use crate::pool::Pool;

/// The sort of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A right secret that its replica has seen before.
    Warm,
    /// A right secret that its replica has not seen.
    Cold,
    /// A known client, chosen at random, with a wrong secret.
    WrongSecret,
    /// A client that does not exist.
    UnknownClient,
    /// The client under attack, with a wrong secret.
    Victim,
    /// The client under attack, with its right secret.
    VictimItself,
    /// A token of a trusted issuer.
    Federated,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// An answer, with or without `Retry-After`.
    Status(u16, bool),
    /// No whole answer in time.
    Late,
    /// No connection could be made.
    NotConnected,
    /// The connection ended first.
    Closed,
    /// Not HTTP.
    Malformed,
    /// The driver hung up, on purpose.
    HungUp,
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Closed => Self::Closed,
            Failure::Malformed => Self::Malformed,
        }
    }
}

/// The record of one request.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// Since the origin of the run.
    pub scheduled: Duration,
    pub replica: usize,
    pub kind: Kind,
    pub end: End,
    /// How the first of two attempts ended.
    pub first: Option<End>,
    /// From the moment it was scheduled for.
    pub latency: Duration,
    /// How late the driver itself was.
    pub lag: Duration,
}

impl Record {
    /// A token within 250 ms.
    pub fn is_good(&self) -> bool {
        self.is_ok() && self.latency <= Duration::from_millis(250)
    }

    pub fn is_ok(&self) -> bool {
        matches!(self.end, End::Status(200, _))
    }

    /// 429 or 503 with `Retry-After`.
    pub fn is_polite_refusal(&self) -> bool {
        matches!(self.end, End::Status(429 | 503, true))
    }

    pub fn millis(&self) -> f64 {
        self.latency.as_secs_f64() * 1000.0
    }
}

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    pub kind: Kind,
    /// 0, 1, 2.
    pub replica: usize,
    pub bytes: Arc<[u8]>,
}

/// A stream of requests.
pub struct Stream {
    /// Requests per second.
    pub rate: f64,
    pub lasts: Duration,
    /// Makes the n-th request.
    pub ask: Box<dyn Fn(u64) -> Request + Send + Sync>,
    /// Source address of the n-th connection.
    pub source: fn(u64) -> IpAddr,
    /// From the scheduled moment to giving up.
    pub time_out: Duration,
    /// How long after sending to hang up without waiting for the answer.
    pub hang_up: Option<Duration>,
    /// Most connections to each replica.
    pub connections: usize,
    /// Whether a request that failed is tried once more, at the next replica.
    pub once_more: bool,
}

impl Stream {
    /// A stream of honest requests with the usual bounds.
    pub fn honest(rate: f64, lasts: Duration, ask: Box<dyn Fn(u64) -> Request + Send + Sync>) -> Self {
        let (time_out, connections) = (Duration::from_secs(2), 128);
        Self { rate, lasts, ask, source: honest_loopback, time_out, hang_up: None, connections, once_more: false }
    }
}

/// Runs a stream to its end, and until each of its requests has ended. Times count from `origin`.
pub async fn drive(origin: Instant, stream: Stream, replicas: &[SocketAddr]) -> Vec<Record> {
    let start = Instant::now();
    let total = count(stream.rate * stream.lasts.as_secs_f64());
    let kept: Vec<Pool> = replicas.iter().map(|_| Pool::new(stream.connections)).collect();
    let (salt, records) = (salt(), Mutex::default());
    let shared = Arc::new(Shared { origin, stream, salt, kept, replicas: replicas.to_vec(), records });
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..total {
        let scheduled = start + Duration::from_secs_f64(number(n) / shared.stream.rate);
        if scheduled > Instant::now() {
            sleep_until(scheduled).await;
        } else if n.is_multiple_of(32) {
            // Behind schedule: the requests must get their turn.
            tokio::task::yield_now().await;
        }
        let shared = Arc::clone(&shared);
        tasks.spawn(async move { shared.send(n as u64, scheduled).await });
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
    let mut records = shared.records.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *records)
}

struct Shared {
    origin: Instant,
    stream: Stream,
    /// Gives this stream source addresses of its own.
    salt: u64,
    kept: Vec<Pool>,
    replicas: Vec<SocketAddr>,
    records: Mutex<Vec<Record>>,
}

impl Shared {
    async fn send(&self, n: u64, scheduled: Instant) {
        let ask = (self.stream.ask)(n);
        let lag = scheduled.elapsed();
        let mut end = self.end_by(scheduled, n, &ask).await;
        let mut first = None;
        if self.stream.once_more && !matches!(end, End::Status(200, _)) {
            first = Some(end);
            let elsewhere = Request { replica: (ask.replica + 1) % self.replicas.len().max(1), ..ask.clone() };
            end = self.end_by(Instant::now(), n, &elsewhere).await;
        }
        let record = Record {
            scheduled: scheduled.duration_since(self.origin),
            replica: ask.replica,
            kind: ask.kind,
            end,
            first,
            latency: scheduled.elapsed(),
            lag,
        };
        self.records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    }

    async fn end_by(&self, scheduled: Instant, n: u64, ask: &Request) -> End {
        timeout_at(scheduled + self.stream.time_out, self.end_of(n, ask)).await.unwrap_or(End::Late)
    }

    async fn end_of(&self, n: u64, ask: &Request) -> End {
        let (Some(kept), Some(address)) = (self.kept.get(ask.replica), self.replicas.get(ask.replica)) else {
            return End::NotConnected;
        };
        let Ok(_place) = kept.places.acquire().await else { return End::NotConnected };
        // A tenth of all requests come on new connections.
        let kept_alive = if scatter(n ^ 0x00c0_ffee).is_multiple_of(10) { None } else { kept.take() };
        let mut connection = match kept_alive {
            Some(connection) => connection,
            None => match Connection::open((self.stream.source)(n.wrapping_add(self.salt)), *address).await {
                Ok(connection) => connection,
                Err(_) => return End::NotConnected,
            },
        };
        let exchanged = match self.stream.hang_up {
            None => connection.exchange(&ask.bytes).await,
            Some(patience) => match timeout(patience, connection.exchange(&ask.bytes)).await {
                Ok(exchanged) => exchanged,
                Err(_) => return End::HungUp,
            },
        };
        match exchanged {
            Ok(answer) => {
                if !answer.close {
                    kept.give_back(connection);
                }
                End::Status(answer.status, answer.retry_after.is_some())
            }
            Err(failure) => failure.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each request on each connection after `pause`.
    async fn slow_server(pause: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut bytes = [0; 64];
                    while matches!(stream.read(&mut bytes).await, Ok(1..)) {
                        tokio::time::sleep(pause).await;
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                    }
                });
            }
        });
        address
    }

    fn stream(rate: f64, lasts: Duration) -> Stream {
        Stream::honest(rate, lasts, Box::new(|_| Request { kind: Kind::Warm, replica: 0, bytes: Arc::from(*b"x") }))
    }

    #[tokio::test]
    async fn a_server_that_stalls_does_not_slow_the_schedule_and_waiting_counts() {
        let address = slow_server(Duration::from_millis(30)).await;
        let mut stream = stream(100.0, Duration::from_millis(200));
        stream.connections = 1;
        let records = drive(Instant::now(), stream, &[address]).await;
        assert_eq!(records.len(), 20);
        assert!(records.iter().all(Record::is_ok));
        let last = records.iter().max_by_key(|record| record.scheduled).unwrap();
        assert!(last.scheduled < Duration::from_millis(400), "scheduled at {:?}", last.scheduled);
        // Twenty turns of 30 ms on the one connection, of which 190 ms had passed.
        let slowest = records.iter().map(|record| record.latency).max().unwrap();
        assert!(slowest >= Duration::from_millis(400), "{slowest:?}");
    }

    #[tokio::test]
    async fn a_hang_up_a_timeout_and_a_failed_connection_are_told_apart() {
        let address = slow_server(Duration::from_millis(300)).await;
        let mut rude = stream(50.0, Duration::from_millis(100));
        rude.hang_up = Some(Duration::from_millis(5));
        let mut hasty = stream(50.0, Duration::from_millis(100));
        hasty.time_out = Duration::from_millis(40);
        let rude = drive(Instant::now(), rude, &[address]).await;
        let hasty = drive(Instant::now(), hasty, &[address]).await;
        assert!(rude.iter().all(|record| record.end == End::HungUp), "{rude:?}");
        assert!(hasty.iter().all(|record| record.end == End::Late), "{hasty:?}");
        let nobody =
            drive(Instant::now(), stream(50.0, Duration::from_millis(40)), &[([127, 0, 0, 1], 1).into()]).await;
        assert!(nobody.iter().all(|record| record.end == End::NotConnected), "{nobody:?}");
    }
}

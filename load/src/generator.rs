//! A closed-loop load generator for HTTP/1.1: each connection sends a prepared request, reads the answer, and goes on.
//!
//! It shares a machine with the server that it measures, so it does as little as it can for each request: bytes made
//! beforehand, one write, usually one read, and no more of the answer understood than its status and its length.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::histogram::Histogram;
use crate::stock::Stock;

/// What to send, where, and for how long.
#[derive(Clone)]
pub struct Load {
    /// The server.
    pub address: SocketAddr,
    /// Requests as bytes.
    pub requests: Requests,
    /// The status that is not an error.
    pub expected: u16,
    /// Connections at once.
    pub connections: usize,
    /// Whether a connection is used for one request only. The requests then say `Connection: close`, so that it is the
    /// server that closes first and we that do not run out of ports.
    pub reconnect: bool,
    /// TLS towards a server of that name.
    pub tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Requests a second, each due at its own moment from which its latency counts, whatever became of those before
    /// (an open loop, as long as there are connections enough). Without it, each connection asks as soon as it may.
    pub rate: Option<f64>,
    /// When to stop.
    pub until: Until,
    /// Threads, each with its share of the connections.
    pub threads: usize,
}

/// What is sent.
#[derive(Clone)]
pub enum Requests {
    /// The same ones in turn, again and again.
    InTurn(Arc<[Vec<u8>]>),
    /// Each once.
    Once(Arc<Stock>),
}

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After a time.
    Time(Duration),
    /// After so many requests, or after a time when that is sooner.
    Count(u64, Duration),
}

/// What a run has seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Answers with the expected status.
    pub answers: u64,
    /// Everything else.
    pub errors: u64,
    /// Those of the errors that were answers with the status 503.
    pub unavailable: u64,
    /// What the first error was.
    pub first_error: Option<String>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// From each request, or its connection when it has one of its own, to its answer.
    pub latencies: Histogram,
}

impl Load {
    /// Runs the load on threads of its own, which inherit the caller's processor affinity.
    #[must_use]
    pub fn run(&self) -> Seen {
        let started = Instant::now();
        let (limit, until) = match self.until {
            Until::Time(time) => (u64::MAX, started + time),
            Until::Count(count, time) => (count, started + time),
        };
        let (load, sent, next) = (self.clone(), AtomicU64::new(0), AtomicUsize::new(0));
        let shared = Arc::new(Shared { load, limit, started, until, sent, next });
        let threads: Vec<_> = (0..self.threads.max(1))
            .map(|thread| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.thread(thread))
            })
            .collect();
        let mut all = Seen::default();
        for thread in threads {
            match thread.join() {
                Ok(Ok(seen)) => all.add(&seen),
                Ok(Err(error)) => all.failed(&error),
                Err(_) => all.failed(&io::Error::other("a thread of the generator failed")),
            }
        }
        all.elapsed = started.elapsed();
        all
    }
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.answers += other.answers;
        self.errors += other.errors;
        self.unavailable += other.unavailable;
        self.first_error = self.first_error.take().or_else(|| other.first_error.clone());
        self.latencies.merge(&other.latencies);
    }

    fn failed(&mut self, error: &io::Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }
}

struct Shared {
    load: Load,
    limit: u64,
    started: Instant,
    until: Instant,
    sent: AtomicU64,
    next: AtomicUsize,
}

impl Shared {
    fn thread(self: Arc<Self>, number: usize) -> io::Result<Seen> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let threads = self.load.threads.max(1);
        let mine = self.load.connections / threads + usize::from(number < self.load.connections % threads);
        runtime.block_on(async move {
            let over = Arc::new(AtomicBool::new(false));
            let tasks: Vec<_> =
                (0..mine).map(|_| tokio::spawn(Arc::clone(&self).connection(Arc::clone(&over)))).collect();
            // An answer that never comes is an error, not a reason to wait.
            let patience = self.until.saturating_duration_since(Instant::now()) + PATIENCE;
            let mut seen = Seen::default();
            let collected = tokio::time::timeout(patience, async {
                for task in tasks {
                    match task.await {
                        Ok(one) => seen.add(&one),
                        Err(error) => seen.failed(&io::Error::other(error)),
                    }
                }
            });
            if collected.await.is_err() {
                seen.failed(&io::ErrorKind::TimedOut.into());
            }
            over.store(true, Ordering::Relaxed);
            Ok(seen)
        })
    }

    /// One connection after another, or one that is kept.
    async fn connection(self: Arc<Self>, over: Arc<AtomicBool>) -> Seen {
        let mut seen = Seen::default();
        while !over.load(Ordering::Relaxed) && self.goes_on() {
            let started = Instant::now();
            let done = match &self.load.tls {
                None => match connect(self.load.address).await {
                    Ok(stream) => self.converse(stream, started, &mut seen).await,
                    Err(error) => Err(error),
                },
                Some((tls, name)) => match connect(self.load.address).await {
                    Ok(stream) => match tls.connect(name.clone(), stream).await {
                        Ok(stream) => self.converse(stream, started, &mut seen).await,
                        Err(error) => Err(error),
                    },
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = done {
                seen.failed(&error);
                // A server that is gone stays gone; each further attempt would only count another error.
                if seen.errors > MOST_ERRORS {
                    return seen;
                }
            }
        }
        seen
    }

    /// Whether one more request may be sent, looked at without taking it.
    fn goes_on(&self) -> bool {
        Instant::now() < self.until && self.sent.load(Ordering::Relaxed) < self.limit
    }

    async fn converse<T>(&self, mut stream: T, connected: Instant, seen: &mut Seen) -> io::Result<()>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let mut buffer = vec![0; BUFFER];
        let mut started = if self.load.reconnect { connected } else { Instant::now() };
        loop {
            if self.sent.fetch_add(1, Ordering::Relaxed) >= self.limit {
                return Ok(());
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if let Some(rate) = self.load.rate {
                #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
                let due = self.started + Duration::from_secs_f64(number as f64 / rate);
                if due >= self.until {
                    tokio::time::sleep_until(self.until.into()).await;
                    return Ok(());
                }
                tokio::time::sleep_until(due.into()).await;
                started = due;
            }
            match &self.load.requests {
                Requests::InTurn(requests) => {
                    let request = requests.get(number % requests.len().max(1)).ok_or(io::ErrorKind::InvalidInput)?;
                    stream.write_all(request).await?;
                }
                Requests::Once(stock) => stream.write_all(&stock.take()?).await?,
            }
            stream.flush().await?;
            let status = answer(&mut stream, &mut buffer).await?;
            let now = Instant::now();
            if status == self.load.expected {
                seen.answers += 1;
                seen.latencies.record(now - started);
            } else {
                seen.unavailable += u64::from(status == 503);
                seen.failed(&io::Error::other(format!("status {status}")));
            }
            if self.load.reconnect {
                // The answer is counted; how the server ends, with close_notify or without, is its affair.
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                return Ok(());
            }
            if now >= self.until {
                return Ok(());
            }
            started = now;
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads one answer and returns its status.
async fn answer<T: AsyncRead + Unpin>(stream: &mut T, buffer: &mut [u8]) -> io::Result<u16> {
    let mut filled = 0;
    loop {
        let room = buffer.get_mut(filled..).filter(|room| !room.is_empty());
        let read = stream.read(room.ok_or_else(|| broken("the answer is larger than expected"))?).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        if let Some(head) = Head::parse(buffer.get(..filled).unwrap_or_default())? {
            match filled.cmp(&head.whole) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(head.status),
                std::cmp::Ordering::Greater => return Err(broken("more than one answer came")),
            }
        }
    }
}

/// What has to be known of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// Its status.
    pub status: u16,
    /// Its length with its head.
    pub whole: usize,
}

impl Head {
    /// Reads the head of an answer; `None` when it is not all there.
    ///
    /// # Errors
    /// When this is no HTTP/1.1 answer, or one without `content-length`.
    pub fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let head = bytes.get(..end).unwrap_or_default();
        let digits = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = digits.and_then(number).ok_or_else(|| broken("this is not HTTP/1.1"))?;
        let length = head
            .split(|&byte| byte == b'\n')
            .filter_map(|line| line.split_at_checked(LENGTH.len()))
            .find(|(name, _)| name.eq_ignore_ascii_case(LENGTH))
            .and_then(|(_, value)| number(value.trim_ascii()))
            .ok_or_else(|| broken("an answer without content-length"))?;
        let status = u16::try_from(status).map_err(|_| broken("this is not HTTP/1.1"))?;
        Ok(Some(Self { status, whole: end + 4 + length }))
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const LENGTH: &[u8] = b"content-length:";
/// The largest answer, a key set among them, is far smaller.
const BUFFER: usize = 16 * 1024;
/// How long after the end an answer may still come.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_ERRORS: u64 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_known_by_its_status_and_length() {
        let answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: x\r\nContent-Length:  5\r\n\r\nhello";
        assert_eq!(Head::parse(answer).unwrap(), Some(Head { status: 401, whole: answer.len() }));
        assert_eq!(Head::parse(&answer[..40]).unwrap(), None);
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(Head::parse(b"SSH-2.0\r\n\r\n").is_err());
    }

    #[test]
    fn it_sends_what_it_was_told_and_counts_every_answer() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let socket = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = socket.local_addr().unwrap();
        let signer = Arc::new(crate::limit::Signer::generate("EdDSA").unwrap());
        runtime.spawn(async { axum::serve(socket, crate::limit::router(signer)).await });
        let right = crate::registrations::token_request("a", "b");
        let wrong = b"POST /token HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".to_vec();
        let load = Load {
            address,
            requests: Requests::InTurn([right.clone()].into()),
            rate: None,
            expected: 200,
            connections: 3,
            reconnect: false,
            tls: None,
            until: Until::Count(100, Duration::from_secs(20)),
            threads: 2,
        };
        let seen = load.run();
        assert_eq!((seen.answers, seen.errors, seen.first_error), (100, 0, None));
        let closing = Requests::InTurn(crate::registrations::closing(&[right]));
        let seen = Load { reconnect: true, requests: closing, ..load.clone() }.run();
        assert_eq!((seen.answers, seen.errors), (100, 0));
        let until = Until::Time(Duration::from_millis(500));
        let seen = Load { rate: Some(100.0), connections: 4, until, ..load.clone() }.run();
        assert_eq!((seen.answers, seen.errors), (50, 0));
        let wrong = Requests::InTurn([wrong].into());
        let seen = Load { requests: wrong, until: Until::Count(5, Duration::from_secs(20)), ..load }.run();
        assert_eq!((seen.answers, seen.errors, seen.first_error.as_deref()), (0, 5, Some("status 400")));
    }
}

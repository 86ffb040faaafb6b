//! A closed-loop load generator for HTTP/1.1: each connection sends a prepared request, reads the answer, and goes on.
//!
//! It shares a machine with the server that it measures, so it does as little as it can for each request: bytes made
//! beforehand, one write, usually one read, and no more of the answer understood than its status and its length.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use grantd_kit::connection::Connection;
use grantd_kit::stats::{number, percentile};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::stock::Stock;

/// A load: what to send, how, and for how long.
#[derive(Clone)]
pub struct Load {
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
    /// Ends the run sooner, when it is set.
    pub stop: Arc<AtomicBool>,
    /// Threads, each with its share of the connections.
    pub threads: usize,
}

/// The requests of a load.
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
    Count(usize, Duration),
}

/// The result of a run.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Answers with the expected status.
    pub answers: usize,
    /// Everything else.
    pub errors: usize,
    /// Those of the errors that were answers with the status 503.
    pub unavailable: usize,
    /// The first error.
    pub first_error: Option<String>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// From each request, or its connection when it has one of its own, to its answer, in microseconds.
    pub latencies: Vec<f64>,
}

impl Load {
    /// Runs the load on threads of its own, which inherit the caller's processor affinity.
    pub fn run(&self, address: SocketAddr) -> Outcome {
        let started = Instant::now();
        let (limit, until) = match self.until {
            Until::Time(time) => (usize::MAX, started + time),
            Until::Count(count, time) => (count, started + time),
        };
        let (load, sent) = (self.clone(), AtomicUsize::new(0));
        let shared = Arc::new(Shared { load, address, limit, started, until, sent });
        let threads: Vec<_> = (0..self.threads.max(1))
            .map(|thread| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.thread(thread))
            })
            .collect();
        let mut all = Outcome::default();
        for thread in threads {
            match thread.join() {
                Ok(Ok(seen)) => all.add(&seen),
                Ok(Err(error)) => all.failed(&error),
                Err(_) => all.failed("a thread of the generator failed"),
            }
        }
        all.elapsed = started.elapsed();
        all
    }
}

impl Outcome {
    /// Adds the result of another run.
    pub fn add(&mut self, other: &Self) {
        self.answers += other.answers;
        self.errors += other.errors;
        self.unavailable += other.unavailable;
        self.first_error = self.first_error.take().or_else(|| other.first_error.clone());
        self.latencies.extend(&other.latencies);
    }

    /// A percentile of the latencies, in microseconds.
    pub fn percentile(&mut self, share: f64) -> f64 {
        percentile(&mut self.latencies, share)
    }

    fn failed(&mut self, error: impl Display) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }
}

struct Shared {
    load: Load,
    address: SocketAddr,
    limit: usize,
    started: Instant,
    until: Instant,
    sent: AtomicUsize,
}

impl Shared {
    fn thread(self: Arc<Self>, number: usize) -> io::Result<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let threads = self.load.threads.max(1);
        let mine = self.load.connections / threads + usize::from(number < self.load.connections % threads);
        runtime.block_on(async move {
            let over = Arc::new(AtomicBool::new(false));
            let tasks: Vec<_> =
                (0..mine).map(|_| tokio::spawn(Arc::clone(&self).connection(Arc::clone(&over)))).collect();
            // An answer that never comes is an error, not a reason to wait.
            let patience = self.until.saturating_duration_since(Instant::now()) + PATIENCE;
            let mut seen = Outcome::default();
            let collected = tokio::time::timeout(patience, async {
                for task in tasks {
                    match task.await {
                        Ok(one) => seen.add(&one),
                        Err(error) => seen.failed(error),
                    }
                }
            });
            if collected.await.is_err() {
                seen.failed(io::ErrorKind::TimedOut);
            }
            over.store(true, Ordering::Relaxed);
            Ok(seen)
        })
    }

    /// One connection after another, or one that is kept.
    async fn connection(self: Arc<Self>, over: Arc<AtomicBool>) -> Outcome {
        let mut seen = Outcome::default();
        while !over.load(Ordering::Relaxed) && self.goes_on() {
            let started = Instant::now();
            if let Err(error) = self.on_new_connection(started, &mut seen).await {
                seen.failed(error);
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
        !self.is_over(Instant::now()) && self.sent.load(Ordering::Relaxed) < self.limit
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.until || self.load.stop.load(Ordering::Relaxed)
    }

    async fn on_new_connection(&self, started: Instant, seen: &mut Outcome) -> io::Result<()> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        match &self.load.tls {
            None => self.converse(Connection::new(stream), started, seen).await,
            Some((tls, name)) => {
                let stream = tls.connect(name.clone(), stream).await?;
                self.converse(Connection::new(stream), started, seen).await
            }
        }
    }

    async fn converse<T>(&self, mut connection: Connection<T>, opened: Instant, seen: &mut Outcome) -> io::Result<()>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let mut started = if self.load.reconnect { opened } else { Instant::now() };
        loop {
            let number_sent = self.sent.fetch_add(1, Ordering::Relaxed);
            if number_sent >= self.limit {
                return Ok(());
            }
            if let Some(rate) = self.load.rate {
                let due = self.started + Duration::from_secs_f64(number(number_sent) / rate);
                if due >= self.until {
                    tokio::time::sleep_until(self.until.into()).await;
                    return Ok(());
                }
                tokio::time::sleep_until(due.into()).await;
                started = due;
            }
            let answer = match &self.load.requests {
                Requests::InTurn(requests) => {
                    let turn = number_sent % requests.len().max(1);
                    connection.exchange(requests.get(turn).ok_or(io::ErrorKind::InvalidInput)?).await
                }
                Requests::Once(stock) => connection.exchange(&stock.take()?).await,
            };
            let (status, now) = (answer.map_err(io::Error::other)?.status, Instant::now());
            if status == self.load.expected {
                seen.answers += 1;
                seen.latencies.push((now - started).as_secs_f64() * 1e6);
            } else {
                seen.unavailable += usize::from(status == 503);
                seen.failed(format_args!("status {status}"));
            }
            if self.load.reconnect {
                // The answer is counted; how the server ends, with close_notify or without, does not matter.
                connection.closed().await;
                return Ok(());
            }
            if self.is_over(now) {
                return Ok(());
            }
            started = now;
        }
    }
}

/// How long after the end an answer may still come.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_ERRORS: usize = 20;

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use grantd_kit::http::{token_request, with_field};

    use super::*;

    #[test]
    fn the_generator_sends_its_load_and_counts_every_answer() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let socket = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = socket.local_addr().unwrap();
        let token = async |body: String| if body.is_empty() { Err(StatusCode::BAD_REQUEST) } else { Ok(body) };
        let router = axum::Router::new().route("/token", axum::routing::post(token));
        runtime.spawn(async { axum::serve(socket, router).await });
        let right = token_request("a", "b");
        let wrong = b"POST /token HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".to_vec();
        let load = Load {
            requests: Requests::InTurn([right.clone()].into()),
            rate: None,
            expected: 200,
            connections: 3,
            reconnect: false,
            tls: None,
            until: Until::Count(100, Duration::from_secs(20)),
            stop: Arc::default(),
            threads: 2,
        };
        let seen = load.run(address);
        assert_eq!((seen.answers, seen.errors, seen.first_error), (100, 0, None));
        let closing = Requests::InTurn([with_field(&right, "Connection", "close")].into());
        let seen = Load { reconnect: true, requests: closing, ..load.clone() }.run(address);
        assert_eq!((seen.answers, seen.errors), (100, 0));
        let until = Until::Time(Duration::from_millis(500));
        let seen = Load { rate: Some(100.0), connections: 4, until, ..load.clone() }.run(address);
        assert_eq!((seen.answers, seen.errors), (50, 0));
        let wrong = Requests::InTurn([wrong].into());
        let seen = Load { requests: wrong, until: Until::Count(5, Duration::from_secs(20)), ..load }.run(address);
        assert_eq!((seen.answers, seen.errors, seen.first_error.as_deref()), (0, 5, Some("status 400")));
    }
}

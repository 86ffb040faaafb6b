//! The accept loop, on hyper: every connection has a deadline for its first byte, its head, its pauses and its stop.
//!
//! `axum::serve` has none of these, and a silent or half-sent connection would hold up a stop for ever.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};

use crate::http::Caller;
use crate::tls::Tls;
use crate::tls::clients::Shown;

/// How long each part of a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// From the connection to its first byte; a TLS handshake has as long.
    pub first_byte: Duration,
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// While the far end does not take what we send.
    pub write: Duration,
    /// From the signal to stop until connections are cut.
    pub drain: Duration,
}

impl Deadlines {
    /// Where connections are short: what asks nothing is closed after two seconds, what has asked after ten.
    fn crowded(self) -> Self {
        let soon = Duration::from_secs(2);
        Self {
            first_byte: self.first_byte.min(soon),
            head: self.head.min(soon),
            idle: self.idle.min(Duration::from_secs(10)),
            ..self
        }
    }
}

/// A bound address and how its connections are treated.
#[derive(Debug)]
pub struct Listener {
    /// Bound.
    pub socket: TcpListener,
    /// TLS in process, or cleartext.
    pub tls: Option<Arc<Tls>>,
    /// How long each part may take.
    pub deadlines: Deadlines,
    /// Most connections at once; further ones wait in the kernel's queue.
    pub max_connections: u32,
}

impl Listener {
    /// Accepts until `stop` turns true, then lets requests in flight finish, until the deadline at the latest.
    pub async fn run<A, F>(self, answer: A, mut stop: watch::Receiver<bool>)
    where
        A: Fn(Caller, Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let slots = Arc::new(Semaphore::new(self.max_connections as usize));
        let connections = Arc::new(Connections { answer, tls: self.tls, stop: stop.clone() });
        while !*stop.borrow() {
            let accepted = tokio::select! {
                accepted = accept(&self.socket, &slots) => accepted,
                _ = stop.changed() => break,
            };
            match accepted {
                Ok((stream, address, slot)) => {
                    let connections = Arc::clone(&connections);
                    // Where places are short, who has nothing to ask has to go soon: others wait in the kernel's queue.
                    let crowded = slots.available_permits() < self.max_connections as usize / 4;
                    let deadlines = if crowded { self.deadlines.crowded() } else { self.deadlines };
                    tokio::spawn(async move {
                        connections.serve(stream, address, deadlines).await;
                        drop(slot);
                    });
                }
                // The process is out of descriptors, or the far end has gone already. Neither is cured by haste.
                Err(error) => {
                    tracing::warn!(event = "listener.accept_failed", %error, "pausing before the next connection is taken");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.socket);
        // Every slot back means every connection closed. A second more than connections give themselves.
        let all =
            timeout(self.deadlines.drain + Duration::from_secs(1), slots.acquire_many(self.max_connections)).await;
        if all.is_err() {
            tracing::warn!(event = "listener.cut", "connections were cut at the drain deadline");
        }
    }
}

async fn accept(
    socket: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = socket.accept().await?;
    Ok((stream, address, slot))
}

struct Connections<A> {
    answer: A,
    tls: Option<Arc<Tls>>,
    stop: watch::Receiver<bool>,
}

impl<A, F> Connections<A>
where
    A: Fn(Caller, Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    async fn serve(&self, stream: TcpStream, address: SocketAddr, deadlines: Deadlines) {
        // Answers are written at once: with TLS, Nagle's algorithm would hold them back for milliseconds.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
        let connected_at = Instant::now();
        let mut stop = self.stop.clone();
        let served = match &self.tls {
            // Boxed, each for itself: a connection in cleartext has no room for TLS.
            None => Box::pin(self.serve_http(stream, (address, None), deadlines, connected_at)).await,
            Some(tls) => {
                let shaken = tokio::select! {
                    shaken = timeout(deadlines.first_byte, Box::pin(tls.accept(stream))) => Some(shaken),
                    () = async { drop(stop.wait_for(|stop| *stop).await) } => None,
                };
                match shaken {
                    Some(Ok(Ok(stream))) => {
                        let shown = tls.shown(&stream);
                        Box::pin(self.serve_http(stream, (address, shown), deadlines, connected_at)).await
                    }
                    Some(Ok(Err(error))) => Err(error.into()),
                    Some(Err(_)) => Err("the TLS handshake did not finish in time".into()),
                    None => Err("stopped before the TLS handshake was done".into()),
                }
            }
        };
        if let Err(error) = served {
            tracing::debug!(event = "connection.closed", remote_addr = %address.ip(), reason = %error);
        }
    }

    async fn serve_http<T>(
        &self,
        stream: T,
        (address, shown): (SocketAddr, Option<Shown>),
        deadlines: Deadlines,
        connected_at: Instant,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let turns = Arc::new(Turns::default());
        let service = service_fn(|request| {
            turns.begin();
            let certificate = shown.as_ref().map(Shown::peer_certificate);
            let answer = (self.answer)(Caller { address, certificate }, request);
            let turns = Arc::clone(&turns);
            async move {
                let answer = answer.await;
                turns.end();
                Ok::<_, Infallible>(answer)
            }
        });
        let stream = Timed::new(stream, Arc::clone(&turns), deadlines, connected_at);
        let mut connection = pin!(
            http1::Builder::new()
                .header_read_timeout(None)
                .max_buf_size(MAX_HEAD * 2)
                .max_header_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), service)
        );
        let mut stop = self.stop.clone();
        tokio::select! {
            done = connection.as_mut() => return Ok(done?),
            _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
        }
        let until = Instant::now() + deadlines.drain;
        // Whoever has not finished sending a head by now has asked nothing yet.
        if let Ok(done) = timeout(Duration::from_millis(500), connection.as_mut()).await {
            return Ok(done?);
        }
        if !turns.answering() {
            return Ok(());
        }
        Ok(timeout_at(until, connection).await.map_err(|_| "cut at the drain deadline")??)
    }
}

/// Whose turn it is on a connection: the far end's to ask, or ours to answer.
#[derive(Debug)]
struct Turns {
    /// Odd while a request is being answered.
    count: AtomicU32,
    connected_at: Instant,
    /// Milliseconds after `connected_at` when the last answer was ready.
    answered_at: AtomicU64,
}

impl Default for Turns {
    fn default() -> Self {
        Self { count: AtomicU32::new(0), connected_at: Instant::now(), answered_at: AtomicU64::new(0) }
    }
}

impl Turns {
    fn begin(&self) {
        self.count.fetch_add(1, Ordering::Release);
    }

    fn end(&self) {
        let answered_at = u64::try_from(self.connected_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.answered_at.store(answered_at, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Release);
    }

    fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    fn answering(&self) -> bool {
        !self.count().is_multiple_of(2)
    }

    fn answered_at(&self) -> Instant {
        self.connected_at + Duration::from_millis(self.answered_at.load(Ordering::Relaxed))
    }
}

/// A stream that gives up on the far end.
struct Timed<T> {
    stream: T,
    turns: Arc<Turns>,
    deadlines: Deadlines,
    /// What is being waited for, as (turn, whether bytes of the next head have come), and until when.
    waiting: (u32, bool),
    until: Instant,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Option<Pin<Box<Sleep>>>,
}

impl<T> Timed<T> {
    fn new(stream: T, turns: Arc<Turns>, deadlines: Deadlines, connected_at: Instant) -> Self {
        // The handshake, the first byte and the first head share one deadline, or each would start another.
        let until = connected_at + deadlines.first_byte;
        Self {
            stream,
            turns,
            deadlines,
            waiting: (0, false),
            until,
            read_timer: Box::pin(sleep_until(until)),
            write_timer: None,
        }
    }

    /// The far end has sent nothing: is its time over?
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let turn = self.turns.count();
        if self.turns.answering() {
            // It owes us nothing (a body has a deadline of its own, where it is read). The timer runs all the same:
            // when the answer is out nobody may ask again, and it has to wake us.
            self.until = Instant::now() + self.deadlines.idle;
        } else if self.waiting.0 != turn {
            self.waiting = (turn, false);
            self.until = self.turns.answered_at() + self.deadlines.idle;
        }
        // A timer that fires early is cheaper than one that is moved on every request.
        if self.read_timer.deadline() > self.until {
            let until = self.until;
            self.read_timer.as_mut().reset(until);
        }
        loop {
            ready!(self.read_timer.as_mut().poll(cx));
            if Instant::now() >= self.until {
                return Poll::Ready(());
            }
            let until = self.until;
            self.read_timer.as_mut().reset(until);
        }
    }

    fn came(&mut self) {
        let turn = self.turns.count();
        if turn.is_multiple_of(2) && self.waiting != (turn, true) {
            self.waiting = (turn, true);
            if turn > 0 {
                self.until = Instant::now() + self.deadlines.head;
            }
        }
    }

    /// The far end does not take bytes: is its time over?
    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let until = Instant::now() + self.deadlines.write;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the far end does not read")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Timed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(done) => {
                if buffer.filled().len() > before {
                    self.came();
                }
                Poll::Ready(done)
            }
            Poll::Pending => {
                ready!(self.poll_overdue(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the far end does not send")))
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Timed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Poll::Ready(done) = Pin::new(&mut self.stream).poll_write(cx, bytes) else { return self.poll_stuck(cx) };
        self.write_timer = None;
        Poll::Ready(done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(done) = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes) else {
            return self.poll_stuck(cx);
        };
        self.write_timer = None;
        Poll::Ready(done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => self.poll_stuck(cx).map_ok(drop),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => self.poll_stuck(cx).map_ok(drop),
        }
    }
}

/// Largest head of a request; above it the answer is 431.
const MAX_HEAD: usize = 16 * 1024;

//! The accept loop, on hyper: every connection has deadlines for its first byte, its head, its pauses and the stop.
//!
//! `axum::serve` has no deadlines: a silent or half-sent connection would stay open and hold up a stop for ever.

pub mod connection_rate;
pub mod refusals;
pub(crate) mod timed_stream;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::server::TlsStream;

use crate::http::Caller;
use crate::http::error;
use crate::model::event::Event;
use crate::transport::tls::Tls;
use crate::transport::tls::clients::HandshakeCertificate;
use connection_rate::ConnectionRate;
use refusals::{RefusalReason, Refusals};
use timed_stream::{ConnectionState, GRACE, Socket, TimedStream};

/// Deadlines of the parts of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// From the connection to its first byte. A TLS handshake has as long.
    pub first_byte: Duration,
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// While the peer does not read the response.
    pub write: Duration,
    /// From the close of the listener until connections are cut.
    pub drain: Duration,
}

impl Deadlines {
    /// Shortens the deadlines when connections are scarce: a connection without a request is closed after two seconds,
    /// an idle one after ten.
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

/// Bound socket, with the settings of its connections.
#[derive(Debug)]
pub struct Listener {
    /// The bound socket.
    pub socket: TcpListener,
    /// TLS in process, or cleartext.
    pub tls: Option<Arc<Tls>>,
    /// The deadlines of a connection.
    pub deadlines: Deadlines,
    /// Maximum number of connections; further ones wait in the kernel's queue.
    pub max_connections: u32,
    /// Set on the signal to stop. From then on each response closes its connection.
    pub draining: Arc<AtomicBool>,
    /// Counts and logs connections and requests that are refused before a handler.
    pub refusals: Arc<Refusals>,
    /// Rate of new connections per address.
    pub pace: ConnectionRate,
}

impl Listener {
    /// Accepts connections until `stop` turns true, then waits for requests in flight, up to the drain deadline.
    pub async fn run<A, F>(mut self, answer: A, mut stop: watch::Receiver<bool>)
    where
        A: Fn(Caller, Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let slots = Arc::new(Semaphore::new(self.max_connections as usize));
        let (draining, refusals) = (Arc::clone(&self.draining), self.refusals);
        let connections = Arc::new(Connections { answer, tls: self.tls, stop: stop.clone(), draining, refusals });
        while !*stop.borrow() {
            let accepted = tokio::select! {
                accepted = accept(&self.socket, &slots) => accepted,
                _ = stop.changed() => break,
            };
            match accepted {
                Ok((_, address, _)) if self.pace.exceeds(address.ip(), std::time::Instant::now()) => {
                    connections.refusals.note(RefusalReason::TooManyConnections, address.ip(), None, None);
                }
                Ok((stream, address, slot)) => {
                    let connections = Arc::clone(&connections);
                    // When slots are scarce, idle connections are closed sooner: others wait in the kernel's queue.
                    let crowded = slots.available_permits() < self.max_connections as usize / 4;
                    let deadlines = if crowded { self.deadlines.crowded() } else { self.deadlines };
                    tokio::spawn(async move {
                        connections.serve(stream, address, deadlines).await;
                        drop(slot);
                    });
                }
                // The process has no free descriptor, or the peer has left. A pause helps in both cases.
                Err(error) => {
                    tracing::warn!(event = Event::ListenerAcceptFailed.as_str(), %error, "a connection could not be accepted; pausing for 50 ms");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        self.draining.store(true, Ordering::Relaxed);
        let mut waiting = JoinSet::new();
        for (stream, address) in accept_waiting(self.socket) {
            let connections = Arc::clone(&connections);
            waiting.spawn(async move { connections.serve(stream, address, self.deadlines).await });
        }
        // When every slot is back, every connection is closed. Connections give themselves a second less.
        let all = async {
            while waiting.join_next().await.is_some() {}
            drop(slots.acquire_many(self.max_connections).await);
        };
        if timeout(self.deadlines.drain + GRACE, all).await.is_err() {
            tracing::warn!(event = Event::ListenerCut.as_str(), "connections were cut at the drain deadline");
        }
    }
}

async fn accept(
    socket: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = socket.accept().await?;
    Ok((stream, address, slot))
}

/// Accepts the connections in the kernel's queue, which closing the socket would reset, and closes the socket.
fn accept_waiting(socket: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    let mut waiting = Vec::new();
    // Asks the kernel, since the runtime may not know of all waiting connections.
    let Ok(socket) = socket.into_std() else { return waiting };
    while waiting.len() < MOST_WAITING {
        let accepted = socket.accept().and_then(|(stream, address)| {
            stream.set_nonblocking(true)?;
            Ok((TcpStream::from_std(stream)?, address))
        });
        match accepted {
            Ok(accepted) => waiting.push(accepted),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => break,
        }
    }
    waiting
}

struct Connections<A> {
    answer: A,
    tls: Option<Arc<Tls>>,
    stop: watch::Receiver<bool>,
    draining: Arc<AtomicBool>,
    refusals: Arc<Refusals>,
}

/// Error that ended a connection.
type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

/// Peer of a connection, as known before its first request.
struct Peer {
    address: SocketAddr,
    certificate: Option<HandshakeCertificate>,
    /// Whether it speaks HTTP without TLS to a port with TLS.
    misdirected: bool,
}

impl<A, F> Connections<A>
where
    A: Fn(Caller, Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    async fn serve(&self, stream: TcpStream, address: SocketAddr, deadlines: Deadlines) {
        // Responses are written at once: with TLS, Nagle's algorithm would delay them by milliseconds.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
        let connected_at = Instant::now();
        let served = match &self.tls {
            // Boxed separately, so that a cleartext connection needs no memory for TLS.
            None => {
                let peer = Peer { address, certificate: None, misdirected: false };
                Box::pin(self.serve_http(stream, peer, deadlines, connected_at)).await
            }
            Some(tls) => Box::pin(self.serve_tls(tls, stream, address, deadlines, connected_at)).await,
        };
        if let Err(error) = served {
            tracing::debug!(event = Event::ConnectionClosed.as_str(), remote_addr = %address.ip(), reason = %error);
        }
    }

    async fn serve_tls(
        &self,
        tls: &Arc<Tls>,
        stream: TcpStream,
        address: SocketAddr,
        deadlines: Deadlines,
        connected_at: Instant,
    ) -> Result<(), ConnectionError> {
        let mut stop = self.stop.clone();
        let stopped = async {
            drop(stop.wait_for(|stop| *stop).await);
            // The peer may have connected before it learnt that the server stops.
            sleep_until(connected_at + GRACE).await;
        };
        let handshake = tokio::select! {
            handshake = timeout(deadlines.first_byte, handshake(tls, stream)) => handshake,
            () = stopped => return Err("stopped before the TLS handshake was done".into()),
        };
        match handshake {
            Ok(Ok(Handshake::Tls(stream))) => {
                let peer = Peer { address, certificate: tls.client_certificate(&stream), misdirected: false };
                self.serve_http(*stream, peer, deadlines, connected_at).await
            }
            Ok(Ok(Handshake::Cleartext(stream))) => {
                let peer = Peer { address, certificate: None, misdirected: true };
                self.serve_http(stream, peer, deadlines, connected_at).await
            }
            Ok(Err(error)) => {
                if let Some(refused) = RefusalReason::by_handshake(&error) {
                    self.refusals.note(refused, address.ip(), None, Some(&error));
                }
                Err(error.into())
            }
            Err(_) => Err("the TLS handshake did not finish in time".into()),
        }
    }

    async fn serve_http<T: Socket>(
        &self,
        stream: T,
        peer: Peer,
        deadlines: Deadlines,
        connected_at: Instant,
    ) -> Result<(), ConnectionError> {
        let state = ConnectionState::new(connected_at);
        let state = &state;
        let service = service_fn(|request: Request<Incoming>| {
            state.begin();
            let has_body = !request.body().is_end_stream();
            let answer = if peer.misdirected {
                Err(self.misdirected(peer.address))
            } else {
                let certificate = peer.certificate.as_ref().map(HandshakeCertificate::peer_certificate);
                Ok((self.answer)(Caller { address: peer.address, certificate }, request))
            };
            async move {
                let mut answer = match answer {
                    Ok(answer) => answer.await,
                    Err(answer) => answer,
                };
                let unread = has_body && !answer.status().is_success();
                if unread {
                    // hyper notices that the body is not read any more, and adds `close` unless the rest of the body is
                    // here.
                    tokio::task::yield_now().await;
                }
                // RFC 9112 section 9.6: "A server that intends to close a connection after sending a response SHOULD send
                // a "close" connection option in that response."
                if self.draining.load(Ordering::Relaxed) {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                state.end(unread);
                Ok::<_, Infallible>(answer)
            }
        });
        let stream = TimedStream::new(stream, state, (&self.draining, &self.refusals), peer.address.ip(), deadlines);
        let mut connection = pin!(
            http1::Builder::new()
                .header_read_timeout(None)
                .max_buf_size(MAX_HEAD * 2)
                .max_header_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), service)
        );
        let mut stop = self.stop.clone();
        let stopped = async { drop(stop.wait_for(|stop| *stop).await) };
        let done = tokio::select! {
            done = connection.as_mut() => done,
            () = stopped => {
                // The stream ends a connection without a request.
                state.close();
                timeout_at(Instant::now() + deadlines.drain, connection).await.map_err(|_| "cut at the drain deadline")?
            }
        };
        if let Err(error) = &done
            && !state.refused()
            && let Some(refused) = RefusalReason::by_http(error, state.opening())
        {
            self.refusals.note(refused, peer.address.ip(), None, Some(error));
        }
        Ok(done?)
    }

    /// Returns the response to a request without TLS on a port with TLS.
    fn misdirected(&self, address: SocketAddr) -> Response {
        let request_id = self.refusals.request_id();
        self.refusals.note(RefusalReason::CleartextOnTls, address.ip(), Some(request_id), None);
        let mut answer = error::plain(StatusCode::BAD_REQUEST, "this port speaks TLS; use https");
        let headers = answer.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        if let Ok(id) = HeaderValue::from_str(request_id.as_str()) {
            headers.insert("x-request-id", id);
        }
        answer
    }
}

/// Result of the handshake on a port with TLS.
enum Handshake {
    Tls(Box<TlsStream<TcpStream>>),
    /// The first byte is a capital letter, as of an HTTP method, so there was no handshake.
    Cleartext(TcpStream),
}

async fn handshake(tls: &Tls, stream: TcpStream) -> io::Result<Handshake> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first.first().is_some_and(u8::is_ascii_uppercase) {
        return Ok(Handshake::Cleartext(stream));
    }
    Ok(Handshake::Tls(Box::new(tls.accept(stream).await?)))
}

/// Maximum size of request line and header fields; above it the status is 431.
pub(crate) const MAX_HEAD: usize = 16 * 1024;
/// Maximum number of connections that are accepted from the kernel's queue when the listener closes; the queue is
/// shorter.
const MOST_WAITING: usize = 8192;

//! Stream of one connection with deadlines: ends the connection when the peer is too slow, and in an orderly way when
//! the server stops.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;

use super::Deadlines;
use super::refusals::{RefusalReason, Refusals, explained};

/// Stream over TCP.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// State of a connection, shared by its stream, its service and its task.
#[derive(Debug)]
pub(super) struct ConnectionState {
    /// Number of starts and ends of requests: odd while a request is being answered.
    count: AtomicU32,
    connected_at: Instant,
    /// Time at which the last response was ready, in milliseconds after `connected_at`.
    answered_at: AtomicU64,
    /// Time at which the listener closed, in milliseconds after `connected_at` plus one; 0 before.
    closing_at: AtomicU64,
    /// Whether the last response refused a request whose body may not have been read to its end.
    unread: AtomicBool,
    /// The first eight bytes that the peer sent.
    opening: AtomicU64,
    /// Whether a response that hyper made by itself was counted.
    refused: AtomicBool,
}

impl ConnectionState {
    pub(super) fn new(connected_at: Instant) -> Self {
        Self {
            count: AtomicU32::new(0),
            connected_at,
            answered_at: AtomicU64::new(0),
            closing_at: AtomicU64::new(0),
            unread: AtomicBool::new(false),
            opening: AtomicU64::new(0),
            refused: AtomicBool::new(false),
        }
    }

    pub(super) fn begin(&self) {
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Records that the response is ready. `unread` is whether the rest of the body may still arrive.
    pub(super) fn end(&self, unread: bool) {
        self.unread.store(unread, Ordering::Relaxed);
        self.answered_at.store(self.elapsed(), Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Records that the listener has closed.
    pub(super) fn close(&self) {
        self.closing_at.store(self.elapsed() + 1, Ordering::Relaxed);
    }

    /// The first eight bytes that the peer sent.
    pub(super) fn opening(&self) -> [u8; 8] {
        self.opening.load(Ordering::Relaxed).to_be_bytes()
    }

    /// Whether a response that hyper made by itself was counted.
    pub(super) fn refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.connected_at.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
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

    fn closing_at(&self) -> Option<Instant> {
        let millis = self.closing_at.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.connected_at + Duration::from_millis(millis))
    }
}

/// Stream that ends on a slow peer, and gives every peer time to read its last response.
pub(super) struct TimedStream<'a, T> {
    stream: T,
    state: &'a ConnectionState,
    draining: &'a AtomicBool,
    refusals: &'a Refusals,
    peer: IpAddr,
    deadlines: Deadlines,
    /// The awaited input, as (request count, whether bytes of the next head have arrived).
    waiting: (u32, bool),
    until: Instant,
    /// Number of bytes of `ConnectionState::opening` that have arrived.
    opened: usize,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    /// The unwritten rest of a response in place of one that hyper made by itself.
    replacement: Vec<u8>,
    /// Whether this side ended an idle connection.
    ended: bool,
    /// After the last response: time limit and byte limit for reading and dropping the peer's data.
    lingering: Option<(Instant, usize)>,
}

impl<'a, T: Socket> TimedStream<'a, T> {
    pub(super) fn new(
        stream: T,
        state: &'a ConnectionState,
        (draining, refusals): (&'a AtomicBool, &'a Refusals),
        peer: IpAddr,
        deadlines: Deadlines,
    ) -> Self {
        // Handshake, first byte and first head share one deadline; otherwise each would start another.
        let until = state.connected_at + deadlines.first_byte;
        Self {
            stream,
            state,
            draining,
            refusals,
            peer,
            deadlines,
            waiting: (0, false),
            until,
            opened: 0,
            read_timer: Box::pin(sleep_until(until)),
            write_timer: None,
            replacement: Vec::new(),
            ended: false,
            lingering: None,
        }
    }

    /// Whether bytes of the head of an unanswered request have arrived.
    fn has_begun(&self) -> bool {
        self.waiting == (self.state.count(), true)
    }

    /// Returns ready when the deadline for the peer's data has passed.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let turn = self.state.count();
        if self.state.answering() {
            // The peer owes no data (a body has its own deadline where it is read). The timer runs all the same, so
            // that it wakes this task when no request follows the response.
            self.until = Instant::now() + self.deadlines.idle;
        } else {
            if self.waiting.0 != turn {
                self.waiting = (turn, false);
                self.until = self.state.answered_at() + self.deadlines.idle;
            }
            if let Some(closing_at) = self.state.closing_at() {
                let last = if self.has_begun() {
                    closing_at + GRACE
                } else if turn == 0 {
                    // The peer may have connected before it learnt that the server stops.
                    closing_at.max(self.state.connected_at + GRACE)
                } else {
                    closing_at
                };
                self.until = self.until.min(last);
            }
        }
        // A timer that fires early is cheaper than one that is reset at every request.
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

    /// Records bytes that have arrived.
    fn note_input(&mut self, bytes: &[u8]) {
        let turn = self.state.count();
        if turn == 0 && self.opened < 8 {
            let mut opening = self.state.opening();
            opening.iter_mut().skip(self.opened).zip(bytes).for_each(|(to, from)| *to = *from);
            self.opened += bytes.len();
            self.state.opening.store(u64::from_be_bytes(opening), Ordering::Relaxed);
        }
        if turn.is_multiple_of(2) && self.waiting != (turn, true) {
            self.waiting = (turn, true);
            if turn > 0 {
                self.until = Instant::now() + self.deadlines.head;
            }
        }
    }

    /// Returns an error when the deadline for the peer's reading has passed.
    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let until = Instant::now() + self.deadlines.write;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the far end does not read")))
    }

    /// Whether `head` is a response that hyper made by itself; then prepares one with an id and a reason in its place.
    fn replaces(&mut self, head: &[u8]) -> bool {
        // Few responses of handlers get past this comparison.
        if head.get(9) != Some(&b'4') {
            return false;
        }
        let Some((replacement, id)) = explained(head, || self.refusals.request_id()) else { return false };
        self.refusals.note(RefusalReason::by_answer(head, self.state.opening()), self.peer, Some(id), None);
        self.state.refused.store(true, Ordering::Relaxed);
        self.replacement = replacement;
        true
    }

    /// Writes the rest of the replacing response.
    fn poll_replacement(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.replacement.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.replacement) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => drop(self.replacement.drain(..written)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.poll_stuck(cx).map_ok(drop),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// RFC 9112 section 9.6: "If a server performs an immediate close of a TCP connection, there is a significant risk
    /// that the client will not be able to read the last HTTP response." So "it continues reading from the connection
    /// until it receives a corresponding close by the client".
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (last, mut left) = *self.lingering.get_or_insert_with(|| (Instant::now() + LINGER, LINGER_BYTES));
        loop {
            let mut dropped = [0; 8192];
            let mut buffer = ReadBuf::new(&mut dropped);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && buffer.filled().len() < left => {
                    left -= buffer.filled().len();
                    let until = last.min(Instant::now() + LINGER_PAUSE);
                    self.lingering = Some((last, left));
                    self.read_timer.as_mut().reset(until);
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return self.read_timer.as_mut().poll(cx).map(Ok),
            }
        }
    }
}

/// Whether the kernel holds unread bytes of the peer, also those that the runtime has not noticed yet.
fn has_input(stream: &TcpStream) -> bool {
    rustix::io::ioctl_fionread(stream).is_ok_and(|bytes| bytes > 0)
}

impl<T: Socket> AsyncRead for TimedStream<'_, T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(done) => {
                if let Some(bytes) = buffer.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
                    self.note_input(bytes);
                }
                Poll::Ready(done)
            }
            Poll::Pending => {
                ready!(self.poll_overdue(cx));
                if self.has_begun() {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the far end does not send")));
                }
                // No byte of a request has arrived. Bytes that arrive at this moment are still answered.
                if has_input(self.stream.tcp()) {
                    return Poll::Pending;
                }
                self.ended = self.state.count() > 0;
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<T: Socket> AsyncWrite for TimedStream<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.replaces(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let Poll::Ready(done) = Pin::new(&mut self.stream).poll_write(cx, bytes) else { return self.poll_stuck(cx) };
        self.write_timer = None;
        Poll::Ready(done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [head] = bytes
            && self.replaces(head)
        {
            return Poll::Ready(Ok(head.len()));
        }
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
        ready!(self.poll_replacement(cx))?;
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => self.poll_stuck(cx).map_ok(drop),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_some() {
            return self.poll_linger(cx);
        }
        ready!(self.poll_replacement(cx))?;
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return self.poll_stuck(cx).map_ok(drop),
        }
        let more_may_come = self.ended
            || self.has_begun()
            || self.state.unread.load(Ordering::Relaxed)
            || self.draining.load(Ordering::Relaxed)
            || has_input(self.stream.tcp());
        if !more_may_come {
            return Poll::Ready(Ok(()));
        }
        let until = Instant::now() + LINGER_PAUSE;
        self.read_timer.as_mut().reset(until);
        self.poll_linger(cx)
    }
}

/// Time for a peer that has just connected, or is sending a head, when the listener closes.
pub(super) const GRACE: Duration = Duration::from_secs(1);
/// Maximum time for which the rest of a refused request is read and dropped.
pub(crate) const LINGER: Duration = Duration::from_secs(5);
/// Maximum number of bytes of it.
pub(crate) const LINGER_BYTES: usize = 8 << 20;
/// Maximum pause in it.
const LINGER_PAUSE: Duration = Duration::from_secs(1);

//! The HTTP/1 client: one connection, on TCP or on another stream, and single requests.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::http::{self, Answer, Parsed};

/// An open connection to a server.
#[derive(Debug)]
pub struct Connection<T = TcpStream> {
    stream: T,
    buffer: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The connection ended before the answer did.
    Closed,
    /// The bytes received are not one HTTP/1 answer.
    Malformed,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the connection ended before the answer did",
            Self::Malformed => "the bytes received are not one HTTP/1 answer",
        })
    }
}

impl std::error::Error for Failure {}

impl Connection {
    /// Connects from `source`, with a port that the kernel picks.
    pub async fn open(source: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source, 0))?;
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self::new(stream))
    }

    /// Whether the server has left the connection open, as far as is known without asking.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let mut byte = [0];
        matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// A connection on an open stream.
    pub fn new(stream: T) -> Self {
        Self { stream, buffer: Vec::with_capacity(2048) }
    }

    /// Sends a request and receives its answer. The body stays readable until the next request.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        self.send(request).await?;
        self.answer().await
    }

    /// Sends a request.
    pub async fn send(&mut self, request: &[u8]) -> Result<(), Failure> {
        self.buffer.clear();
        self.stream.write_all(request).await.map_err(|_| Failure::Closed)?;
        self.stream.flush().await.map_err(|_| Failure::Closed)
    }

    /// Receives the answer to the request that was sent last.
    pub async fn answer(&mut self) -> Result<Answer, Failure> {
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.map_err(|_| Failure::Closed)?;
            match http::parse(&self.buffer, read == 0) {
                Parsed::Whole(answer) => return Ok(answer),
                Parsed::Malformed => return Err(Failure::Malformed),
                Parsed::Partial if read == 0 => return Err(Failure::Closed),
                Parsed::Partial => {}
            }
        }
    }

    /// The body of the answer that was received last.
    #[must_use]
    pub fn body(&self, answer: &Answer) -> &[u8] {
        self.buffer.get(answer.body.clone()).unwrap_or_default()
    }

    /// Waits until the server has closed the connection, in whatever way.
    pub async fn closed(mut self) {
        while self.stream.read_buf(&mut self.buffer).await.is_ok_and(|read| read > 0) {}
    }
}

/// Sends one request on a connection of its own: the answer and its body, or `None` when there is none within that time.
pub async fn ask(source: IpAddr, to: SocketAddr, request: &[u8], within: Duration) -> Option<(Answer, String)> {
    let asking = async {
        let mut connection = Connection::open(source, to).await.ok()?;
        let answer = connection.exchange(request).await.ok()?;
        let body = String::from_utf8_lossy(connection.body(&answer)).into_owned();
        Some((answer, body))
    };
    timeout(within, asking).await.ok()?
}

/// Fetches a path: the status and the body, or `None` when there is no answer within two seconds.
pub async fn get(to: SocketAddr, path: &str) -> Option<(u16, String)> {
    let request = http::get_request(path, &[("Connection", "close")]);
    let (answer, body) = ask(LOCALHOST, to, &request, Duration::from_secs(2)).await?;
    Some((answer.status, body))
}

/// The address from which requests come that no figure counts.
pub const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

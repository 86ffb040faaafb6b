//! One connection from a chosen source address, and the few that are kept alive for a stream of requests.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use super::http::{self, Answer, Parsed};

/// An open connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The connection ended before the answer did.
    Closed,
    /// What came is not HTTP.
    Malformed,
}

impl Connection {
    /// Connects from `source`, with a port that the kernel picks.
    pub async fn open(source: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source, 0))?;
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(2048) })
    }

    /// Sends a request and waits for its answer. The body stays readable until the next request.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        self.send(request).await?;
        self.answer().await
    }

    /// Sends a request.
    pub async fn send(&mut self, request: &[u8]) -> Result<(), Failure> {
        self.buffer.clear();
        self.stream.write_all(request).await.map_err(|_| Failure::Closed)
    }

    /// Waits for the answer to the request sent last.
    pub async fn answer(&mut self) -> Result<Answer, Failure> {
        loop {
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return Err(Failure::Closed),
                Ok(_) => {}
            }
            match http::parse(&self.buffer) {
                Parsed::Whole(answer) => return Ok(answer),
                Parsed::Malformed => return Err(Failure::Malformed),
                Parsed::Partial => {}
            }
        }
    }

    /// The body of the answer last read.
    pub fn body(&self, answer: &Answer) -> &[u8] {
        self.buffer.get(answer.body.clone()).unwrap_or_default()
    }

    /// Whether the far end has left it open, as far as is known without asking.
    fn is_open(&self) -> bool {
        let mut byte = [0];
        matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Connections to one replica that may be used again, and how many there may be.
pub struct KeptAlive {
    idle: Mutex<VecDeque<Connection>>,
    most: usize,
    /// A permit for each connection that may be open and in use.
    pub places: Semaphore,
}

impl KeptAlive {
    pub fn new(most: usize) -> Self {
        Self { idle: Mutex::default(), most, places: Semaphore::new(most) }
    }

    /// The connection that was used last and that the far end has not closed. A client that looks before it sends does
    /// the same; this is not a retry.
    pub fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop_back() {
            if connection.is_open() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps it for a later request; the one that was idle for longest makes room.
    pub fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push_back(connection);
        if idle.len() > self.most {
            idle.pop_front();
        }
    }
}

/// Asks once on a connection of its own.
pub async fn get(to: SocketAddr, path: &str) -> Result<(u16, String), String> {
    let source = IpAddr::from([127, 0, 0, 1]);
    let mut connection = Connection::open(source, to).await.map_err(|error| error.to_string())?;
    let answer = connection.exchange(&http::get_request(path)).await.map_err(|failure| format!("{failure:?}"))?;
    Ok((answer.status, String::from_utf8_lossy(connection.body(&answer)).into_owned()))
}

/// Asks a server of another kind, whose answer ends with the connection.
pub async fn until_closed(to: SocketAddr, request: &[u8]) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(request).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| anyhow::anyhow!("not HTTP: {text}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, body.to_owned()))
}

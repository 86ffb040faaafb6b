//! Messages to systemd: ready, reloading, stopping (`sd_notify(3)`, `Type=notify`).

use crate::model::event::Event;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// Tells the service manager what the process does.
#[derive(Debug, Default)]
pub struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// A notifier for `NOTIFY_SOCKET`: a path, or `@` and the name of an abstract socket. Without one, nobody is told.
    #[must_use]
    pub fn new(address: Option<&OsStr>) -> Self {
        let Some(address) = address.filter(|address| !address.is_empty()) else { return Self::default() };
        match connect(address) {
            Ok(socket) => Self(Some(socket)),
            Err(error) => {
                warn(&error);
                Self::default()
            }
        }
    }

    /// The process listens. It may still be waiting for the database: `/readyz` tells.
    pub fn ready(&self) {
        self.send("READY=1\nSTATUS=Listening");
    }

    /// The process reads its files again; [`ready`](Self::ready) follows.
    pub fn reloading(&self) {
        // "the monotonic timestamp when the notification message was generated in µs"
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=Reloading"));
    }

    /// The process has been told to stop, and drains.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=Draining");
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.0
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            warn(&error);
        }
    }
}

fn connect(address: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => abstract_address(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract socket")),
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read holds up nobody.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_name: &[u8]) -> io::Result<SocketAddr> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "abstract sockets are a feature of Linux"))
}

fn warn(error: &io::Error) {
    tracing::warn!(event = Event::NotifyFailed.as_str(), reason = %error, "the service manager of NOTIFY_SOCKET was not told");
}

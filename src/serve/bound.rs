//! The second state: the sockets are open, so their addresses are known, and nothing is accepted yet.

use std::io;
use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket};

use super::clients::fetcher;
use super::prepared::Prepared;
use crate::model::issuer::Issuer;
use crate::transport::fetch::Fetcher;

/// The sockets of a daemon.
pub(super) struct Sockets {
    pub(super) public: TcpListener,
    pub(super) admin: TcpListener,
    /// The socket of the listener for clients with certificates.
    pub(super) mtls: Option<TcpListener>,
}

/// A daemon that has its sockets.
pub(super) struct Bound {
    pub(super) prepared: Prepared,
    pub(super) sockets: Sockets,
    pub(super) fetcher: Fetcher,
    pub(super) issuer: Issuer,
}

impl Bound {
    /// Opens the sockets. Where no issuer is configured, that of the public socket's address is used, if `issuer_by_address`.
    pub(super) fn open(mut prepared: Prepared, issuer_by_address: bool) -> anyhow::Result<Self> {
        let config = &mut prepared.config;
        let public = bind("server.listen", config.listen)?;
        let admin = bind("admin.listen", config.admin_listen)?;
        let mtls = match &mut config.client_certificates.mtls {
            Some(mtls) => {
                let socket = bind("server.mtls.listen", mtls.listen)?;
                // Port 0 has become a port that the metadata can name.
                mtls.listen = socket.local_addr()?;
                Some(socket)
            }
            None => None,
        };
        let fetcher = fetcher(config)?;
        let issuer = if issuer_by_address {
            config.issuer_or(public.local_addr()?)
        } else {
            config.issuer.clone().unwrap_or_default()
        };
        Ok(Self { prepared, sockets: Sockets { public, admin, mtls }, fetcher, issuer })
    }
}

fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    listen(address).with_context(|| {
        format!(
            "cannot listen on {address}; is another process there? Set {key} to a free address (port 0 picks a free port)"
        )
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart finds its port free while connections of the former process are still in TIME-WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Connections that the kernel keeps until they are accepted; the kernel lowers it to `net.core.somaxconn`. `bind` of tokio
/// has 128: of more clients that connect at once, the others try again after a second, when their `SYN` was dropped.
const BACKLOG: u32 = 4096;

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn clients_that_connect_at_once_wait_in_the_queue_of_the_kernel() {
        let most =
            std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok().and_then(|text| text.trim().parse().ok());
        let (socket, burst) = (listen(([127, 0, 0, 1], 0).into()).unwrap(), most.unwrap_or(128).min(400));
        let address = socket.local_addr().unwrap();
        // Nothing is accepted. A connection beyond the queue is told nothing, and tries again after a second.
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(900)).unwrap();
        assert_eq!((0..burst).map(connect).collect::<Vec<_>>().len(), burst);
    }
}

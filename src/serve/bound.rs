//! The second state: the sockets are open, so their addresses are known, and nothing is accepted yet.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;

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
    pub(super) async fn open(mut prepared: Prepared, issuer_by_address: bool) -> anyhow::Result<Self> {
        let config = &mut prepared.config;
        let public = bind("server.listen", config.listen).await?;
        let admin = bind("admin.listen", config.admin_listen).await?;
        let mtls = match &mut config.client_certificates.mtls {
            Some(mtls) => {
                let socket = bind("server.mtls.listen", mtls.listen).await?;
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

async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}; is another process there? Set {key} to a free address (port 0 picks a free port)"
        )
    })
}

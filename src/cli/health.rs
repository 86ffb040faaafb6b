//! `grantd health`: asks the admin listener, for container health checks.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::Settings;

pub(super) async fn run(url: Option<&str>, settings: &Settings) -> anyhow::Result<()> {
    let url = match url {
        Some(url) => url.to_owned(),
        None => {
            let mut address: SocketAddr = settings.admin.listen.parse().context("admin.listen")?;
            if address.ip().is_unspecified() {
                address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
            }
            format!("http://{address}/readyz")
        }
    };
    let (status, body) =
        tokio::time::timeout(Duration::from_secs(3), fetch(&url)).await.context("no answer within 3 s")??;
    if status.is_success() { Ok(()) } else { bail!("not ready ({status}): {body}") }
}

async fn fetch(url: &str) -> anyhow::Result<(StatusCode, String)> {
    let uri: Uri = url.parse().context("the URL")?;
    let authority = uri
        .authority()
        .filter(|_| uri.scheme_str() == Some("http"))
        .context("the admin listener is reached by an http:// URL")?;
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(&address).await.with_context(|| format!("connecting to {address}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request =
        Request::get(uri.path_and_query().map_or("/", |path| path.as_str())).header("host", authority.as_str());
    let answer = sender.send_request(request.body(Body::empty())?).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

//! HTTP client of the command line: requests that the operator asks for, to the URL that the operator names.
//!
//! Addresses are not checked, unlike in [`super::fetch`], where the registration of a client names the host.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::header::HOST;
use hyper::http::HeaderValue;
use hyper::{Request, Response, Uri};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::exchange::exchange;
use super::fetch::trusting;

pub use super::exchange::Identity;

/// HTTP client. It follows no redirects, since these could carry a credential to another host.
#[derive(Clone)]
pub struct HttpClient {
    tls: Arc<ClientConfig>,
}

impl HttpClient {
    /// Makes a client that trusts the CAs of the public web and the `further` ones, and shows `identity` to servers that
    /// ask for a certificate.
    ///
    /// # Errors
    /// When a CA cannot be used, or certificate and key do not go together.
    pub fn new(further: Vec<CertificateDer<'static>>, identity: Option<Identity>) -> Result<Self, rustls::Error> {
        Ok(Self { tls: Arc::new(trusting(further, identity)?) })
    }

    /// Sends a request to its URI, which is absolute, and reads the whole response.
    ///
    /// # Errors
    /// The fault of the URI, the connection, the handshake or the response, in words.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Bytes>, String> {
        let answer = tokio::time::timeout(DEADLINE, self.exchange(request)).await;
        answer.unwrap_or_else(|_| Err(format!("no answer within {} s", DEADLINE.as_secs())))
    }

    async fn exchange(&self, mut request: Request<Body>) -> Result<Response<Bytes>, String> {
        let uri = request.uri().clone();
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("not an http or https URL".to_owned()),
        };
        let authority = uri.authority().ok_or("a URL without a host")?;
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let field = HeaderValue::from_str(authority.as_str()).map_err(|_| "a URL whose host is malformed")?;
        request.headers_mut().insert(HOST, field);
        *request.uri_mut() = uri.path_and_query().map_or_else(Uri::default, |path| path.clone().into());
        let stream = TcpStream::connect((host.as_str(), port))
            .await
            .map_err(|error| format!("connecting to {host} port {port}: {error}"))?;
        if !is_https {
            return exchange(stream, request, MAX_BODY).await;
        }
        let name = ServerName::try_from(host).map_err(|_| "the host is not a name or an address")?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
        exchange(stream.map_err(|error| format!("TLS: {error}"))?, request, MAX_BODY).await
    }
}

/// Deadline of a request, from connecting to the end of the response.
const DEADLINE: Duration = Duration::from_secs(10);
/// Maximum size of a response.
const MAX_BODY: usize = 256 * 1024;

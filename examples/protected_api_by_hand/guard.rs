//! The check as a layer of axum: takes from a request what the check needs, and makes an answer of a refusal.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::check::{Caller, Challenge, Checker, Credentials, Request as Facts};
use super::issuer_keys::IssuerKeys;

/// The middleware before every protected route.
#[derive(Debug)]
pub struct Guard {
    pub checker: Checker,
    pub keys: Arc<IssuerKeys>,
    /// The URL of this API as its clients call it, up to the path: `https://api.example.com`.
    pub public_url: String,
    /// Where this API's metadata is (RFC 9728).
    pub metadata_url: String,
    /// Proxies that end TLS and whose `Client-Cert` field is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Seconds since 1970.
    pub clock: fn() -> i64,
}

/// The peer of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// The certificate that the handshake proved, when this process ends TLS.
    pub certificate: Option<Arc<[u8]>>,
}

/// Lets a request through whose token has `scope`; handlers find the [`Caller`] in its extensions.
pub async fn require(
    State((guard, scope)): State<(Arc<Guard>, &'static str)>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let (mut head, body) = request.into_parts();
    match guard.caller(scope, &peer, &head).await {
        Ok(caller) => {
            head.extensions.insert(caller);
            next.run(Request::from_parts(head, body)).await
        }
        Err(challenge) => guard.refusal(&challenge),
    }
}

impl Guard {
    async fn caller(&self, scope: &str, peer: &Peer, head: &Parts) -> Result<Caller, Challenge> {
        let headers = &head.headers;
        let credentials = Credentials::read(&fields(headers, "authorization")?)?;
        // RFC 6750 section 2: "Clients MUST NOT use more than one method to transmit the token in each request." The other
        // methods are not taken at all (RFC 9700 section 4.3.2).
        if head.uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("access_token="))) {
            return Err(Challenge::request("the token is sent twice"));
        }
        let proofs = fields(headers, "dpop")?;
        let certificate = self.certificate(peer, headers)?;
        let keys = self.keys.with(credentials.kid()).await.ok_or_else(Challenge::busy)?;
        let facts = Facts {
            method: head.method.as_str(),
            url: &format!("{}{}", self.public_url, head.uri.path()),
            proofs: &proofs,
            certificate: certificate.as_deref(),
        };
        let caller = self.checker.verify(&credentials, &facts, &keys, (self.clock)())?;
        caller.needs(scope)?;
        Ok(caller)
    }

    /// The certificate of the connection, or the one that a trusted proxy tells of (RFC 9440). From anybody else the field
    /// means nothing; a trusted proxy takes away what its clients send.
    fn certificate(&self, peer: &Peer, headers: &HeaderMap) -> Result<Option<Arc<[u8]>>, Challenge> {
        if !self.trusted_proxies.contains(&peer.address.ip().to_canonical()) {
            return Ok(peer.certificate.clone());
        }
        match fields(headers, "client-cert")?.as_slice() {
            [] => Ok(None),
            [field] => byte_sequence(field).map(Some).ok_or(Challenge::request("Client-Cert is malformed")),
            _ => Err(Challenge::request("more than one Client-Cert field")),
        }
    }

    fn refusal(&self, challenge: &Challenge) -> Response {
        let status = StatusCode::from_u16(challenge.status).unwrap_or(StatusCode::UNAUTHORIZED);
        let mut answer = status.into_response();
        for value in challenge.www_authenticate(&self.metadata_url) {
            if let Ok(value) = HeaderValue::from_str(&value) {
                answer.headers_mut().append(header::WWW_AUTHENTICATE, value);
            }
        }
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        answer
    }
}

fn fields<'a>(headers: &'a HeaderMap, name: &str) -> Result<Vec<&'a str>, Challenge> {
    let texts = headers.get_all(name).into_iter().map(HeaderValue::to_str);
    texts.collect::<Result<_, _>>().map_err(|_| Challenge::request("a header field is not ASCII"))
}

/// RFC 9440 section 2.1, RFC 8941 section 3.3.5: base64 between colons.
fn byte_sequence(field: &str) -> Option<Arc<[u8]>> {
    let inside = field.trim_matches(' ').strip_prefix(':')?.strip_suffix(':')?;
    let bytes = BASE64_STANDARD.decode(inside).ok()?;
    if bytes.is_empty() { None } else { Some(bytes.into()) }
}

//! The surface: every route of the public listener, grouped by who calls it.

pub mod admin;
pub mod client_cert;
pub mod credentials;
pub mod error;
pub mod form;
pub mod log;

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;

use crate::keyring::Document;
use crate::model::certificate::PeerCertificate;
use crate::model::time::Span;
use crate::pressure::Pressure;
use crate::protocol::error::{Error, RequestError, Unavailable};
use crate::protocol::grant::Asked;
use crate::protocol::{AuthorizationServer, Granted, Outcome, TokenRequest};

use credentials::BasicReading;
use form::{Form, FormError};
use log::Log;

/// What handlers share.
#[derive(Debug, Clone)]
pub struct Surface {
    /// The server.
    pub server: Arc<AuthorizationServer>,
    /// How Basic credentials are read.
    pub basic: BasicReading,
    /// How long a body may take.
    pub body_deadline: Duration,
    /// Whether more comes than can be answered in time.
    pub pressure: Arc<Pressure>,
    /// Whether the metadata also stands where OpenID Connect clients look (RFC 8414 section 5).
    pub openid_configuration: bool,
}

/// Who is at the far end of a connection.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its address, or that of the proxy in front of it.
    pub address: SocketAddr,
    /// The certificate that it showed in the handshake, with what was found of it.
    pub certificate: Option<PeerCertificate>,
}

/// The public surface: every path is matched here, by hand, since a token should cost little more than its signature, and a
/// key set little more than its bytes.
#[derive(Debug)]
pub struct App {
    surface: Surface,
    log: Log,
    /// Where the metadata stands.
    metadata: Vec<String>,
    /// Header fields of every answer that does not say otherwise.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl App {
    /// Puts the surface together.
    #[must_use]
    pub fn new(surface: Surface, log: Log) -> Self {
        let issuer = &surface.server.issuer;
        let mut metadata = vec![issuer.well_known("oauth-authorization-server")];
        if surface.openid_configuration {
            metadata.push(format!("{}/.well-known/openid-configuration", issuer.path()));
            metadata.push(issuer.well_known("openid-configuration"));
        }
        let mut headers = vec![
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        if issuer.is_https() {
            headers.push((header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=63072000")));
        }
        Self { surface, log, metadata, headers }
    }

    /// Answers a request, writes its line, and counts it.
    pub async fn answer<B>(&self, caller: &Caller, request: Request<B>) -> Response
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let arrival = self.log.arrival(caller, &request);
        let (mut response, outcome) = AssertUnwindSafe(self.respond(arrival.source, request))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| ((&Error::Internal).into_response(), None));
        self.log.write(&arrival, &response, outcome.as_ref());
        let headers = response.headers_mut();
        headers.reserve(self.headers.len() + 1);
        for (name, value) in &self.headers {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        if let Ok(id) = HeaderValue::from_str(arrival.request_id.as_str()) {
            headers.insert("x-request-id", id);
        }
        response
    }

    async fn respond<B>(&self, source: IpAddr, request: Request<B>) -> (Response, Option<Outcome>)
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // RFC 9112 section 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message
        // that lacks a Host header field and to any request message that contains more than one".
        let hosts = request.headers().get_all(header::HOST).iter().count();
        if request.version() == Version::HTTP_11 && hosts != 1 {
            let refusal = error::plain(StatusCode::BAD_REQUEST, "HTTP/1.1 requests carry one Host header field");
            return (refusal, None);
        }
        let path = request.uri().path();
        match path.strip_prefix(self.surface.server.issuer.path()) {
            // Clients
            Some("/token") if request.method() == Method::POST => {
                let (response, outcome) = self.surface.token(source, request).await;
                (response, Some(outcome))
            }
            Some("/token") => (not_by_this_method("POST"), None),
            // Resource servers
            Some("/jwks" | "/.well-known/jwks.json") => {
                (read_only(&request, |headers| self.surface.jwks(headers)), None)
            }
            // Whoever configures them, or clients
            _ if self.metadata.iter().any(|metadata| metadata == path) => {
                (read_only(&request, |headers| self.surface.metadata(headers)), None)
            }
            _ => (error::plain(StatusCode::NOT_FOUND, "there is nothing here"), None),
        }
    }
}

/// An answer to GET, or to HEAD, which differs by having no body.
fn read_only<B>(request: &Request<B>, answer: impl FnOnce(&HeaderMap) -> Response) -> Response {
    match *request.method() {
        Method::GET => answer(request.headers()),
        Method::HEAD => {
            let mut response = answer(request.headers());
            let length = response.body().size_hint().exact().unwrap_or(0);
            response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
            *response.body_mut() = Body::empty();
            response
        }
        _ => not_by_this_method("GET,HEAD"),
    }
}

fn not_by_this_method(allowed: &'static str) -> Response {
    let mut refusal = error::plain(StatusCode::METHOD_NOT_ALLOWED, "this method is not for this resource");
    refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    refusal
}

/// RFC 6749 section 5.1.
#[derive(Serialize)]
struct TokenResponse<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: i64,
    scope: &'a str,
}

impl Surface {
    fn jwks(&self, headers: &HeaderMap) -> Response {
        if !self.server.knows_anything() {
            return unknown_yet();
        }
        document(&self.server.keyring.jwks(), "application/jwk-set+json", headers)
    }

    fn metadata(&self, headers: &HeaderMap) -> Response {
        if !self.server.knows_anything() {
            return unknown_yet();
        }
        document(&self.server.metadata(), "application/json", headers)
    }

    async fn token<B>(&self, source: IpAddr, request: Request<B>) -> (Response, Outcome)
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let outcome = match read_body(&parts, body, self.body_deadline).await {
            // Before anything costs more than the refusal does.
            Ok(_) if self.pressure.refuses() => Outcome::of(Unavailable::Overloaded),
            Ok(body) => self.outcome(&parts, &body, source).await,
            Err(error) => Outcome::of(error),
        };
        let mut response = match &outcome.result {
            Ok(granted) => token_response(granted),
            Err(error) => error.into_response(),
        };
        // RFC 6749 section 5.1: "Cache-Control" with "no-store" "as well as the "Pragma" response header field with a value
        // of "no-cache"", on refusals too.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        (response, outcome)
    }

    async fn outcome(&self, parts: &Parts, body: &[u8], source: IpAddr) -> Outcome {
        let form = match Form::parse(body) {
            Ok(form) => form,
            Err(FormError::Malformed) => return Outcome::of(RequestError::Form),
            Err(FormError::TooMany) => return Outcome::of(RequestError::TooManyParameters),
        };
        match self.read(parts, &form, source) {
            Ok(request) => self.server.token(request).await,
            Err(error) => Outcome::of(error),
        }
    }

    fn read<'a>(&self, parts: &Parts, form: &'a Form<'_>, source: IpAddr) -> Result<TokenRequest<'a>, RequestError> {
        let one = |name| form.one(name).map_err(|_| RequestError::Repeated);
        Ok(TokenRequest {
            grant_type: one("grant_type")?,
            asked: Asked {
                scope: one("scope")?,
                resources: form.all("resource").chain(form.all("audience")).collect(),
            },
            presented: credentials::presented(&parts.headers, form, self.basic),
            source,
        })
    }
}

fn token_response(granted: &Granted) -> Response {
    let answer = TokenResponse {
        access_token: &granted.access_token.token,
        token_type: "Bearer",
        expires_in: granted.expires_in.seconds(),
        scope: granted.scope.as_str(),
    };
    let mut body = Vec::with_capacity(granted.access_token.token.len() + granted.scope.as_str().len() + 128);
    // What there is to serialize is text and a number.
    if serde_json::to_writer(&mut body, &answer).is_err() {
        return (&Error::Internal).into_response();
    }
    let mut response = Response::new(Body::from(body));
    response.headers_mut().reserve(HEADERS);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Reads the body of a request that carries a form: RFC 6749 section 3.2, "using the "application/x-www-form-urlencoded"
/// format".
async fn read_body<B>(parts: &Parts, body: B, deadline: Duration) -> Result<Bytes, RequestError>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    // RFC 6749 section 2.3.1: "The parameters can only be transmitted in the request-body and MUST NOT be included in the
    // request URI." What else stands there is not looked at.
    if let Some(query) = parts.uri.query() {
        let query = Form::parse(query.as_bytes()).unwrap_or_default();
        if CREDENTIALS.iter().any(|name| query.has(name)) {
            return Err(RequestError::CredentialsInUri);
        }
    }
    let mut media_types = parts.headers.get_all(header::CONTENT_TYPE).iter();
    let media_type = media_types.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if media_types.next().is_some() {
        return Err(RequestError::MediaType);
    }
    let mut codings = parts.headers.get_all(header::CONTENT_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(RequestError::ContentCoding);
    }
    // Most bodies come with their head, and need no clock.
    let mut body = pin!(Limited::new(body, MAX_BODY).collect());
    let body = match body.as_mut().now_or_never() {
        Some(body) => body,
        None => tokio::time::timeout(deadline, body).await.map_err(|_| RequestError::Slow)?,
    };
    let body = body
        .map_err(|error| if error.is::<LengthLimitError>() { RequestError::TooLarge } else { RequestError::BrokenOff })?
        .to_bytes();
    // An empty body has no type that could be wrong: what it lacks is grant_type.
    if !body.is_empty() && !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(RequestError::MediaType);
    }
    Ok(body)
}

/// An empty document would be kept for minutes by whoever fetched it.
fn unknown_yet() -> Response {
    (&Error::Unavailable(Unavailable::Registry)).into_response()
}

/// A document that may be cached, or 304 when the asker has it (RFC 9110 section 13.1.2).
fn document(document: &Document, media_type: &'static str, headers: &HeaderMap) -> Response {
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let matches = |tag: &str| tag.trim() == "*" || tag.trim().trim_start_matches("W/") == document.etag;
    let mut response = Response::new(Body::empty());
    if known.into_iter().any(matches) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        *response.body_mut() = Body::from(document.body.clone());
    }
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(DOCUMENT_CACHING));
    // Hexadecimal between quotes.
    if let Ok(etag) = HeaderValue::from_str(&document.etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// A new key is published this long before it signs: the longest that a verifier may keep the key set (the `max-age` below)
/// and a minute for clocks.
pub const PUBLISH_AHEAD: Span = Span::from_secs(300 + 60);
const DOCUMENT_CACHING: &str = "public, max-age=300";
const CREDENTIALS: [&str; 4] = ["client_id", "client_secret", "client_assertion", "client_assertion_type"];
const MAX_BODY: usize = 16 * 1024;
/// Room for the header fields of a token response, so that none has to move.
const HEADERS: usize = 16;

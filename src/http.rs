//! The surface: every route of the public listener, grouped by who calls it.

pub mod admin;
pub mod client_cert;
pub mod credentials;
pub mod error;
pub mod form;
pub mod log;

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{BoxError, Router};
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use tower::ServiceExt as _;

use crate::keyring::Document;
use crate::model::certificate::PeerCertificate;
use crate::model::time::Span;
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

/// The public surface. Endpoints that clients post to are matched here, by hand, since a token should cost little more than
/// its signature; documents are the router's.
#[derive(Debug)]
pub struct App {
    surface: Surface,
    documents: Router,
    log: Log,
    /// Header fields of every answer that does not say otherwise.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl App {
    /// Puts the surface together.
    #[must_use]
    pub fn new(surface: Surface, log: Log) -> Self {
        let mut headers = vec![
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        if surface.server.issuer.is_https() {
            headers.push((header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=63072000")));
        }
        Self { documents: documents(&surface), surface, log, headers }
    }

    /// The same with other documents, so that a test can put a fault there.
    #[must_use]
    pub fn with_documents(self, documents: Router) -> Self {
        Self { documents, ..self }
    }

    /// Answers a request, writes its line, and counts it.
    pub async fn answer<B>(&self, caller: &Caller, request: Request<B>) -> Response
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let arrival = self.log.arrival(caller, &request);
        let (mut response, outcome) =
            AssertUnwindSafe(self.respond(arrival.source, caller.certificate.as_ref(), request))
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

    async fn respond<B>(
        &self,
        source: IpAddr,
        certificate: Option<&PeerCertificate>,
        request: Request<B>,
    ) -> (Response, Option<Outcome>)
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
        match request.uri().path().strip_prefix(self.surface.server.issuer.path()) {
            Some("/token") if request.method() == Method::POST => {
                let (response, outcome) = self.surface.token(source, certificate, request).await;
                (response, Some(outcome))
            }
            Some("/token") => {
                let mut refusal = not_by_this_method();
                refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
                (refusal, None)
            }
            _ => {
                // A service that cannot fail.
                let Ok(response) = self.documents.clone().oneshot(request.map(Body::new)).await;
                (response, None)
            }
        }
    }
}

/// What may be read.
fn documents(surface: &Surface) -> Router {
    let issuer = &surface.server.issuer;
    let below = |path: &str| format!("{}{path}", issuer.path());
    let mut router = Router::new()
        // Resource servers
        .route(&below("/jwks"), get(jwks))
        .route(&below("/.well-known/jwks.json"), get(jwks))
        // Whoever configures them, or clients
        .route(&issuer.well_known("oauth-authorization-server"), get(server_metadata));
    if surface.openid_configuration {
        router = router.route(&below("/.well-known/openid-configuration"), get(server_metadata));
        if !issuer.path().is_empty() {
            router = router.route(&issuer.well_known("openid-configuration"), get(server_metadata));
        }
    }
    router
        .fallback(async || error::plain(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(async || not_by_this_method())
        .with_state(surface.clone())
}

fn not_by_this_method() -> Response {
    error::plain(StatusCode::METHOD_NOT_ALLOWED, "this method is not for this resource")
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
    async fn token<B>(
        &self,
        source: IpAddr,
        certificate: Option<&PeerCertificate>,
        request: Request<B>,
    ) -> (Response, Outcome)
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let outcome = match read_body(&parts, body, self.body_deadline).await {
            Ok(body) => self.outcome(&parts, &body, source, certificate).await,
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

    async fn outcome(
        &self,
        parts: &Parts,
        body: &[u8],
        source: IpAddr,
        certificate: Option<&PeerCertificate>,
    ) -> Outcome {
        let form = match Form::parse(body) {
            Ok(form) => form,
            Err(FormError::Malformed) => return Outcome::of(RequestError::Form),
            Err(FormError::TooMany) => return Outcome::of(RequestError::TooManyParameters),
        };
        match self.read(parts, &form, source, certificate) {
            Ok(request) => self.server.token(request).await,
            Err(error) => Outcome::of(error),
        }
    }

    fn read<'a>(
        &self,
        parts: &Parts,
        form: &'a Form<'_>,
        source: IpAddr,
        certificate: Option<&PeerCertificate>,
    ) -> Result<TokenRequest<'a>, RequestError> {
        let one = |name| form.one(name).map_err(|_| RequestError::Repeated);
        Ok(TokenRequest {
            grant_type: one("grant_type")?,
            asked: Asked {
                scope: one("scope")?,
                resources: form.all("resource").chain(form.all("audience")).collect(),
            },
            presented: credentials::presented(&parts.headers, form, self.basic, certificate),
            certificate: certificate.cloned(),
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
    let body =
        tokio::time::timeout(deadline, Limited::new(body, MAX_BODY).collect()).await.map_err(|_| RequestError::Slow)?;
    let body = body
        .map_err(|error| if error.is::<LengthLimitError>() { RequestError::TooLarge } else { RequestError::BrokenOff })?
        .to_bytes();
    // An empty body has no type that could be wrong: what it lacks is grant_type.
    if !body.is_empty() && !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(RequestError::MediaType);
    }
    Ok(body)
}

async fn jwks(State(surface): State<Surface>, request: Request<Body>) -> Response {
    if !surface.server.knows_anything() {
        return unknown_yet();
    }
    document(&surface.server.keyring.jwks(), "application/jwk-set+json", request.headers())
}

async fn server_metadata(State(surface): State<Surface>, request: Request<Body>) -> Response {
    if !surface.server.knows_anything() {
        return unknown_yet();
    }
    document(&surface.server.metadata(), "application/json", request.headers())
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

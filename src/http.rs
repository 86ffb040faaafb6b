//! The public listener: the table of its routes, and what stands around each: an id, header fields, one line in the log.

pub mod admin;
mod authentication;
pub(crate) mod body;
pub mod client_cert;
pub mod credentials;
pub(crate) mod documents;
pub mod error;
mod exposition;
pub mod form;
mod introspection;
pub mod log;
mod message;
mod posted;
pub mod refusals;
mod revocation;
mod token;
mod verify;

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{BoxError, Router};
use futures_util::FutureExt as _;
use tower::Service as _;

use crate::model::certificate::PeerCertificate;
use crate::protocol::AuthorizationServer;
use crate::protocol::error::Error;
use crate::state::load_shedding::LoadShedding;

use authentication::Descriptions;
use client_cert::Vouch;
use credentials::BasicReading;
use log::{Log, LogRecord};

/// The settings of the public listener.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The reading of Basic credentials.
    pub basic: BasicReading,
    /// The longest time that a body may take.
    pub body_deadline: Duration,
    /// The judge of certificates in a header field of a trusted proxy; `None` when the field is not read.
    pub client_cert_header: Option<Vouch>,
    /// Whether the metadata also stands where OpenID Connect clients look (RFC 8414 section 5).
    pub openid_configuration: bool,
}

/// The peer of one connection.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its address, or that of the proxy in front of it.
    pub address: SocketAddr,
    /// The certificate that it showed in the handshake, with the verdict of the CAs on it.
    pub certificate: Option<PeerCertificate>,
}

/// The URL under which a listener is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerUrl {
    /// The issuer's URL.
    Issuer,
    /// The URL of the listener for clients with certificates (RFC 8705 section 5).
    MtlsAlias,
}

/// The sender of one request, with trusted proxies taken off, as handlers see it.
#[derive(Debug, Clone)]
struct Sender {
    /// Its address, with the proxies that are trusted taken off.
    source: IpAddr,
    /// Whether the connection is that of a trusted proxy.
    by_proxy: bool,
    /// The certificate of the connection.
    certificate: Option<PeerCertificate>,
    /// The URL under which it sent the request.
    url: ListenerUrl,
}

/// The state that all handlers share.
#[derive(Debug)]
struct AppState {
    server: Arc<AuthorizationServer>,
    settings: HttpSettings,
    load_shedding: Arc<LoadShedding>,
    descriptions: Descriptions,
    /// The signing algorithms of DPoP proofs, for challenges.
    dpop_algs: String,
}

/// The table of routes: every path below the issuer's, and the well-known ones at the root of its host.
fn routes(state: Arc<AppState>) -> Router {
    let (issuer, openid) = (state.server.issuer.clone(), state.settings.openid_configuration);
    let at = |path: &str| format!("{}{path}", issuer.path());
    let mut routes = Router::new()
        .route(&at("/token"), post(token::token))
        .route(&at("/introspect"), post(introspection::introspect))
        .route(&at("/revoke"), post(revocation::revoke))
        // By any method: a gateway asks with the method of the request that it holds back.
        .route(&at("/verify"), any(verify::verify))
        .route(&at("/jwks"), get(documents::jwks).options(documents::preflight))
        .route(&at("/.well-known/jwks.json"), get(documents::jwks).options(documents::preflight))
        .route(&issuer.well_known("oauth-authorization-server"), get(documents::metadata).options(documents::preflight))
        .route(&at("/token-status"), get(documents::status_lists).options(documents::preflight))
        .route(&at("/token-status/{list}"), get(documents::status_list).options(documents::preflight))
        .route(&at("/"), get(documents::index));
    // RFC 8414 section 5: OpenID Connect Discovery appends the name to the issuer, others insert it.
    let appended = at("/.well-known/openid-configuration");
    let inserted = issuer.well_known("openid-configuration");
    if openid && appended != inserted {
        routes = routes.route(&appended, get(documents::openid_configuration).options(documents::preflight));
    }
    if !issuer.path().is_empty() {
        routes = routes.route(issuer.path(), get(documents::index));
    }
    if openid {
        routes = routes.route(&inserted, get(documents::openid_configuration).options(documents::preflight));
    }
    routes
        .fallback(async || error::plain(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(async || {
            error::plain(StatusCode::METHOD_NOT_ALLOWED, "this method is not for this resource")
        })
        .with_state(state)
}

/// The id of a request, in its answer and in its line.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Room for the header fields of an answer, so that none has to move.
const HEADERS: usize = 16;

/// The application behind the public listeners.
#[derive(Debug)]
pub struct App {
    router: Router,
    log: Log,
    /// Header fields of every answer that does not say otherwise.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl App {
    /// The application of `server`.
    #[must_use]
    pub fn new(
        server: Arc<AuthorizationServer>,
        settings: HttpSettings,
        load_shedding: Arc<LoadShedding>,
        log: Log,
    ) -> Self {
        let mut headers = vec![
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        if server.issuer.is_https() {
            headers.push((header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=63072000")));
        }
        let (descriptions, dpop_algs) = (Descriptions::new(&server), server.profile.alg_names().join(" "));
        let state = AppState { server, settings, load_shedding, descriptions, dpop_algs };
        Self { router: routes(Arc::new(state)), log, headers }
    }

    /// Answers a request: gives it an id, routes it, makes a 500 of a panic, writes its line and counts it.
    pub async fn answer<B>(&self, url: ListenerUrl, caller: &Caller, request: Request<B>) -> Response
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut request = request.map(Body::new);
        let arrival = self.log.arrival(caller, &request);
        let mut response = match message::refusal(&request) {
            Some(refusal) => refusal,
            None => {
                request.extensions_mut().insert(Sender {
                    source: arrival.source,
                    by_proxy: self.log.trusts(caller.address.ip()),
                    certificate: caller.certificate.clone(),
                    url,
                });
                let routed = AssertUnwindSafe(self.router.clone().call(request)).catch_unwind().await;
                routed.map_or_else(|_| (&Error::Internal).into_response(), |Ok(response)| response)
            }
        };
        let record = response.extensions_mut().remove::<Arc<LogRecord>>().and_then(Arc::into_inner);
        self.log.write(&arrival, &response, record);
        let headers = response.headers_mut();
        headers.reserve(self.headers.len() + 1);
        for (name, value) in &self.headers {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        // Base64url, which every field may hold.
        if let Ok(id) = HeaderValue::from_str(arrival.request_id.as_str()) {
            headers.insert(X_REQUEST_ID, id);
        }
        response
    }
}

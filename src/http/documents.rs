//! The documents that anybody may read and cache: the key set (RFC 7517), the metadata (RFC 8414) and status lists
//! (draft-ietf-oauth-status-list); and `/`.

use std::fmt::Display;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{AppState, error};
use crate::model::document::Document;
use crate::protocol::error::{Error, Unavailable};
use crate::protocol::status_list::{PublishedLists, claim};
use crate::state::keyring::{self, MAX_AGE};
use crate::state::registry::Freshness;

/// Answers with the key set.
pub(super) async fn jwks(State(app): State<Arc<AppState>>, request: Request) -> Response {
    if !app.server.knows_anything() || app.server.keyring.is_empty() {
        return unknown_yet();
    }
    let caching = match keyring::cacheable_for(app.server.registry.staleness()) {
        MAX_AGE => HeaderValue::from_static(DOCUMENT_CACHING),
        // A shorter time, since the database may hold a newer key that this server has not read.
        shorter => caching(shorter.as_secs()),
    };
    document(&app.server.keyring.jwks(), "application/jwk-set+json", caching, &request)
}

/// Answers with the metadata.
pub(super) async fn metadata(State(app): State<Arc<AppState>>, request: Request) -> Response {
    if !app.server.knows_anything() {
        return unknown_yet();
    }
    document(
        &app.server.metadata().authorization_server,
        "application/json",
        HeaderValue::from_static(DOCUMENT_CACHING),
        &request,
    )
}

/// Answers with the metadata for clients of OpenID Connect.
pub(super) async fn openid_configuration(State(app): State<Arc<AppState>>, request: Request) -> Response {
    if !app.server.knows_anything() {
        return unknown_yet();
    }
    document(
        &app.server.metadata().openid_configuration,
        "application/json",
        HeaderValue::from_static(DOCUMENT_CACHING),
        &request,
    )
}

/// Tells a person who opens the issuer in a browser what this is, and where its metadata stands.
pub(super) async fn index(State(app): State<Arc<AppState>>) -> String {
    let issuer = &app.server.issuer;
    let url = issuer.as_str().trim_end_matches('/');
    let host = url.strip_suffix(issuer.path()).unwrap_or(url);
    let metadata = issuer.well_known("oauth-authorization-server");
    format!("grantd, an OAuth 2.0 authorization server for machines.\nMetadata (RFC 8414): {host}{metadata}\n")
}

/// Answers the preflight request of a browser: pages of any origin may read public documents.
pub(super) async fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let fields = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "accept, if-none-match"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
        (header::ALLOW, "GET, HEAD, OPTIONS"),
    ];
    response.headers_mut().extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

/// Answers with a status list (draft-ietf-oauth-status-list section 8). No request builds one.
pub(super) async fn status_list(
    State(app): State<Arc<AppState>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    // Section 8.4: historical resolution is optional. "If the server does not support the additional request parameter, it
    // SHOULD return a status code of 501 (Not Implemented)".
    let mut parameters = request.uri().query().unwrap_or_default().split('&');
    if parameters.any(|parameter| parameter.split('=').next() == Some("time")) {
        return error::plain(StatusCode::NOT_IMPLEMENTED, "only the present status list is kept");
    }
    if wants_cwt_alone(request.headers()) {
        return error::plain(StatusCode::NOT_ACCEPTABLE, "status lists are application/statuslist+jwt");
    }
    let Some(published) = app.status_lists() else { return unknown_yet() };
    let Some(list) = claim::name(&name).and_then(|name| published.list(name)) else {
        return error::plain(StatusCode::NOT_FOUND, "there is no status list of this name");
    };
    document(list, "application/statuslist+jwt", app.caching_of(&published), &request)
}

/// Answers with the Status List Aggregation (section 9.3).
pub(super) async fn status_lists(State(app): State<Arc<AppState>>, request: Request) -> Response {
    let Some(published) = app.status_lists() else { return unknown_yet() };
    document(&published.aggregation, "application/json", app.caching_of(&published), &request)
}

impl AppState {
    /// The status lists, unless they were not built yet or the registry is too old.
    fn status_lists(&self) -> Option<Arc<PublishedLists>> {
        let is_usable = self.server.registry.freshness() != Freshness::Unusable;
        self.server.status_lists.published().filter(|_| is_usable)
    }

    fn caching_of(&self, published: &PublishedLists) -> HeaderValue {
        caching(published.max_age(self.server.status_lists.ttl, self.server.clock.now()))
    }
}

fn caching(max_age: impl Display) -> HeaderValue {
    // Digits, which every field may hold.
    HeaderValue::try_from(format!("public, max-age={max_age}")).unwrap_or(HeaderValue::from_static("no-cache"))
}

/// Whether `Accept` permits a CWT and nothing else. A list that it does not name is sent all the same (RFC 9110 section 12.4.1).
fn wants_cwt_alone(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges = values.flat_map(|value| value.split(',')).map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        // RFC 9110 section 12.4.2: "a value of 0 means "not acceptable"".
        let is_refused = parts.any(|part| part.to_ascii_lowercase().strip_prefix("q=").is_some_and(is_zero));
        (name, is_refused)
    });
    let mut accepted =
        ranges.filter(|(name, is_refused)| !name.is_empty() && !is_refused).map(|(name, _)| name).peekable();
    accepted.peek().is_some() && accepted.all(|name| name == "application/statuslist+cwt")
}

fn is_zero(weight: &str) -> bool {
    weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0)
}

/// An empty document would be kept for minutes by whoever fetched it.
fn unknown_yet() -> Response {
    (&Error::Unavailable(Unavailable::Registry)).into_response()
}

/// A document that may be cached, or 304 when the asker has it (RFC 9110 section 13.1.2).
fn document(document: &Document, media_type: &'static str, caching: HeaderValue, request: &Request) -> Response {
    let known = request
        .headers()
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let matches = |tag: &str| tag.trim() == "*" || tag.trim().trim_start_matches("W/").as_bytes() == document.etag;
    let mut response = Response::new(Body::empty());
    if known.into_iter().any(matches) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        *response.body_mut() = Body::from(document.body.clone());
    }
    let headers = response.headers_mut();
    headers.reserve(super::HEADERS);
    headers.insert(header::CACHE_CONTROL, caching);
    // Public documents, which no credential protects.
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    // Hexadecimal between quotes.
    if let Ok(etag) = HeaderValue::from_maybe_shared(document.etag.clone()) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// The time for which a verifier may cache the documents: [`MAX_AGE`].
const DOCUMENT_CACHING: &str = "public, max-age=300";

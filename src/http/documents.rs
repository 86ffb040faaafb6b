//! The documents that anybody may read: the key set (RFC 7517) and the metadata (RFC 8414), which may be cached; and `/`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::AppState;
use crate::model::document::Document;
use crate::protocol::error::{Error, Unavailable};
use crate::state::keyring::{self, MAX_AGE};

/// Answers with the key set.
pub(super) async fn jwks(State(app): State<Arc<AppState>>, request: Request) -> Response {
    if !app.server.knows_anything() || app.server.keyring.is_empty() {
        return unknown_yet();
    }
    let caching = match keyring::cacheable_for(app.server.registry.staleness()) {
        MAX_AGE => HeaderValue::from_static(DOCUMENT_CACHING),
        // A shorter time, since the database may hold a newer key that this server has not read.
        shorter => {
            let text = format!("public, max-age={}", shorter.as_secs());
            HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("no-cache"))
        }
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
    // Hexadecimal between quotes.
    if let Ok(etag) = HeaderValue::from_maybe_shared(document.etag.clone()) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// The time for which a verifier may cache the documents: [`MAX_AGE`].
const DOCUMENT_CACHING: &str = "public, max-age=300";

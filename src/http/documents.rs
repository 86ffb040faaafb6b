//! What may be read by whoever asks: the key set (RFC 7517) and the metadata (RFC 8414), cacheable.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::error::{not_by_this_method, plain};
use crate::keyring::Document;
use crate::model::time::Span;
use crate::protocol::AuthorizationServer;
use crate::protocol::error::{Error, Unavailable};

/// Routes to the documents of `server`.
pub fn router(server: &Arc<AuthorizationServer>, openid_configuration: bool) -> Router {
    let issuer = &server.issuer;
    let below = |path: &str| format!("{}{path}", issuer.path());
    let mut router = Router::new()
        // Resource servers
        .route(&below("/jwks"), get(jwks))
        .route(&below("/.well-known/jwks.json"), get(jwks))
        // Whoever configures them, or clients
        .route(&issuer.well_known("oauth-authorization-server"), get(server_metadata));
    if openid_configuration {
        router = router.route(&below("/.well-known/openid-configuration"), get(server_metadata));
        if !issuer.path().is_empty() {
            router = router.route(&issuer.well_known("openid-configuration"), get(server_metadata));
        }
    }
    router
        .fallback(async || plain(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(async || not_by_this_method())
        .with_state(Arc::clone(server))
}

async fn jwks(State(server): State<Arc<AuthorizationServer>>, request: Request<Body>) -> Response {
    if !server.knows_anything() {
        return unknown_yet();
    }
    document(&server.keyring.jwks(), "application/jwk-set+json", request.headers())
}

async fn server_metadata(State(server): State<Arc<AuthorizationServer>>, request: Request<Body>) -> Response {
    if !server.knows_anything() {
        return unknown_yet();
    }
    document(&server.metadata(), "application/json", request.headers())
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
/// Room for the header fields of a document, so that none has to move.
const HEADERS: usize = 16;

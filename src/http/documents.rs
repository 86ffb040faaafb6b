//! What may be read by whoever asks: the key set (RFC 7517) and the metadata (RFC 8414), cacheable.

use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::error::not_by_this_method;
use crate::model::document::Document;
use crate::protocol::AuthorizationServer;
use crate::protocol::error::{Error, Unavailable};

/// The documents and where they stand.
#[derive(Debug)]
pub(super) struct Documents {
    server: Arc<AuthorizationServer>,
    metadata: String,
    openid_configuration: Vec<String>,
    jwks: [String; 2],
}

impl Documents {
    pub(super) fn new(server: &Arc<AuthorizationServer>, openid_configuration: bool) -> Self {
        let issuer = &server.issuer;
        let below = |path: &str| format!("{}{path}", issuer.path());
        let metadata = issuer.well_known("oauth-authorization-server");
        let openid = [below("/.well-known/openid-configuration"), issuer.well_known("openid-configuration")];
        let openid_configuration = openid.into_iter().filter(|_| openid_configuration).collect();
        let jwks = [below("/jwks"), below("/.well-known/jwks.json")];
        Self { server: Arc::clone(server), metadata, openid_configuration, jwks }
    }

    /// The document at `path`, for GET, or for HEAD, which differs by having no body; `None` when none stands there.
    pub(super) fn answer(&self, path: &str, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let there = |paths: &[String]| paths.iter().any(|there| there == path);
        let (is_jwks, is_openid) = (there(&self.jwks), there(&self.openid_configuration));
        if !is_jwks && !is_openid && self.metadata != path {
            return None;
        }
        if *method != Method::GET && *method != Method::HEAD {
            return Some(not_by_this_method("GET,HEAD"));
        }
        let mut response = if !self.server.knows_anything() || is_jwks && self.server.keyring.is_empty() {
            unknown_yet()
        } else if is_jwks {
            document(&self.server.keyring.jwks(), "application/jwk-set+json", headers)
        } else if is_openid {
            document(&self.server.metadata().openid_configuration, "application/json", headers)
        } else {
            document(&self.server.metadata().authorization_server, "application/json", headers)
        };
        if *method == Method::HEAD {
            let length = response.body().size_hint().exact().unwrap_or(0);
            response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
            *response.body_mut() = Body::empty();
        }
        Some(response)
    }
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

/// How long a verifier may keep the key set; [`PUBLISH_AHEAD`](crate::state::keyring::PUBLISH_AHEAD) counts on it.
const DOCUMENT_CACHING: &str = "public, max-age=300";
/// Room for the header fields of a document, so that none has to move.
const HEADERS: usize = 16;

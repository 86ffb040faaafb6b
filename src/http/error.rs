//! The one place that turns a refusal into HTTP (RFC 6749 section 5.2).

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::crypto::json::push_string;
use crate::protocol::error::{Error, ErrorCode, RequestError};

/// An error response (RFC 6749 section 5.2).
fn response(status: StatusCode, error: &str, error_description: &str) -> Response {
    let mut body = Vec::with_capacity(error_description.len() + 64);
    body.extend_from_slice(b"{\"error\":");
    push_string(&mut body, error);
    body.extend_from_slice(b",\"error_description\":");
    push_string(&mut body, error_description);
    body.push(b'}');
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().reserve(super::HEADERS);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The refusal of a request. `basic` says whether a challenge to use Basic makes sense: it is offered, or was tried.
/// `authentication` is what a client reads whose authentication failed.
#[must_use]
pub fn refusal(error: &Error, basic: bool, authentication: &str) -> Response {
    let status = match (error, error.code()) {
        // "If the client attempted to authenticate via the "Authorization" request header field, the authorization
        // server MUST respond with an HTTP 401"; the others may have one too, where there is a challenge to go with it.
        (_, ErrorCode::InvalidClient) if basic => StatusCode::UNAUTHORIZED,
        (Error::Throttled(_), _) => StatusCode::TOO_MANY_REQUESTS,
        (_, ErrorCode::TemporarilyUnavailable) => StatusCode::SERVICE_UNAVAILABLE,
        (_, ErrorCode::ServerError) => StatusCode::INTERNAL_SERVER_ERROR,
        (Error::Request(RequestError::TooLarge), _) => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    let error_description = match error {
        Error::ClientAuth(_) => authentication,
        other => other.description(),
    };
    let mut response = response(status, error.code().as_str(), error_description);
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
    }
    if let Some(wait) = error.retry_after() {
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from(wait.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX)),
        );
    }
    // What is left of the body on this connection is not read: it may never end.
    if matches!(error, Error::Request(RequestError::TooLarge | RequestError::Slow | RequestError::BrokenOff)) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

impl IntoResponse for &Error {
    /// The refusal of what no client has to authenticate for.
    fn into_response(self) -> Response {
        refusal(self, true, self.description())
    }
}

/// An answer to a request for something that is not there, or not by this method.
#[must_use]
pub fn plain(status: StatusCode, error_description: &'static str) -> Response {
    let mut response = response(status, "invalid_request", error_description);
    response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// RFC 7617 section 2: the realm is mandatory.
const CHALLENGE: &str = "Basic realm=\"grantd\", charset=\"UTF-8\"";

//! The body of a request: a form, of the right type and size, in time (RFC 6749 section 3.2).

use std::pin::pin;
use std::time::Duration;

use axum::BoxError;
use axum::body::{Bytes, HttpBody};
use axum::http::header;
use axum::http::request::Parts;
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::form::Form;
use crate::protocol::error::RequestError;

/// Reads the body of a request that carries a form: RFC 6749 section 3.2, "using the "application/x-www-form-urlencoded"
/// format".
pub(super) async fn read_body<B>(parts: &Parts, body: B, deadline: Duration) -> Result<Bytes, RequestError>
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
    // A client that waits for 100 (Continue) need not send a body that will be refused.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(RequestError::TooLarge);
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

const CREDENTIALS: [&str; 4] = ["client_id", "client_secret", "client_assertion", "client_assertion_type"];
/// Most bytes of a request body; above it the answer is 413.
pub(crate) const MAX_BODY: usize = 16 * 1024;

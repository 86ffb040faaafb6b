//! `POST /revoke`: the revocation endpoint (RFC 7009).

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;

use super::form::Form;
use super::introspection::token_query;
use super::log::{LogRecord, Recorded};
use super::posted::{PostAnswer, Posted, answer};
use super::{AppState, Sender};
use crate::protocol::{Attempt, Revocation};

/// Answers a revocation request.
pub(super) async fn revoke(
    State(app): State<Arc<AppState>>,
    Extension(sender): Extension<Sender>,
    request: Request,
) -> Recorded {
    let endpoint = async |posted: &Posted, form: &Form<'_>, attempt: &mut Attempt| {
        let query = token_query(&app, posted, form, false)?;
        *attempt = query.credential.attempt();
        app.server.revoke(query, attempt).await
    };
    let PostAnswer { response, attempt, result } = answer(&app, sender, request, endpoint, success).await;
    Recorded(response, LogRecord::Revocation(attempt, result))
}

/// RFC 7009 section 2.2: "The content of the response body is ignored by the client as all necessary information is conveyed
/// in the response code." Some clients parse it all the same.
fn success(_: &Revocation) -> Response {
    let mut response = Response::new(Body::from("{}"));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

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
use super::posted::{Posted, with_pragma_no_cache};
use super::{AppState, Sender};
use crate::protocol::error::Error;
use crate::protocol::{Attempt, Revocation};

/// Answers a revocation request.
pub(super) async fn revoke(
    State(app): State<Arc<AppState>>,
    Extension(sender): Extension<Sender>,
    request: Request,
) -> Recorded {
    let posted = Posted::read(&app, sender, request).await;
    let (form, mut attempt) = (posted.form(), Attempt::default());
    let revoked = match &form {
        Ok(form) => Box::pin(revocation(&app, &posted, form, &mut attempt)).await,
        Err(error) => Err((*error).into()),
    };
    let response = match &revoked {
        // RFC 7009 section 2.2: "The content of the response body is ignored by the client as all necessary information is
        // conveyed in the response code." Some clients parse it all the same.
        Ok(_) => {
            let mut response = Response::new(Body::from("{}"));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => app.refusal(error, &posted, form.as_ref().ok()),
    };
    Recorded(with_pragma_no_cache(response), LogRecord::Revocation(attempt, revoked))
}

async fn revocation(
    app: &AppState,
    posted: &Posted,
    form: &Form<'_>,
    attempt: &mut Attempt,
) -> Result<Revocation, Error> {
    app.shed_load()?;
    let query = token_query(app, posted, form, false)?;
    *attempt = query.credential.attempt();
    app.server.revoke(query, attempt).await
}

//! `POST /token`: the token endpoint (RFC 6749 section 3.2).

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

use super::form::Form;
use super::log::{LogRecord, Recorded};
use super::posted::{PostAnswer, Posted, answer};
use super::{AppState, ListenerUrl, Sender};
use crate::crypto::json::push_string;
use crate::protocol::error::RequestError;
use crate::protocol::grant::RequestedAccess;
use crate::protocol::{Attempt, TokenRequest, TokenResponse};

/// Answers a token request.
pub(super) async fn token(
    State(app): State<Arc<AppState>>,
    Extension(sender): Extension<Sender>,
    request: Request,
) -> Recorded {
    let endpoint = async |posted: &Posted, form: &Form<'_>, attempt: &mut Attempt| {
        let request = token_request(&app, posted, form)?;
        *attempt = request.credential.attempt();
        app.server.token(request, attempt).await
    };
    let PostAnswer { mut response, attempt, result } = answer(&app, sender, request, endpoint, success).await;
    // RFC 9449 section 8: "The authorization server MAY supply a nonce value", with the refusal that demands one, and when
    // the nonce that was used is about to expire (section 8.2). It is base64url, which every field may hold.
    if let Some(Ok(nonce)) = attempt.dpop_nonce.as_deref().map(HeaderValue::from_str) {
        response.headers_mut().insert("dpop-nonce", nonce);
    }
    Recorded(response, LogRecord::Token(attempt, result))
}

/// Reads a token request (RFC 6749 section 4.4.2).
fn token_request<'a>(app: &AppState, posted: &'a Posted, form: &'a Form<'_>) -> Result<TokenRequest<'a>, RequestError> {
    let (grant_type, scope) = (form.one("grant_type")?, form.one("scope")?);
    let (certificate, credential) = app.identity(posted, form, grant_type)?;
    Ok(TokenRequest {
        grant_type,
        credential,
        access: RequestedAccess { scope, resources: form.all("resource").chain(form.all("audience")).collect() },
        proofs: posted.field(&DPOP),
        certificate,
        by_alias: posted.sender.url == ListenerUrl::MtlsAlias,
        source: posted.sender.source,
    })
}

/// RFC 6749 section 5.1.
fn success(token: &TokenResponse) -> Response {
    let (access_token, scope) = (&token.access_token.token, token.scope.as_str());
    let mut body = Vec::with_capacity(access_token.len() + scope.len() + 128);
    body.extend_from_slice(b"{\"access_token\":");
    push_string(&mut body, access_token);
    body.extend_from_slice(b",\"token_type\":");
    push_string(&mut body, token.token_type);
    body.extend_from_slice(b",\"expires_in\":");
    body.extend_from_slice(token.expires_in.seconds().to_string().as_bytes());
    // A resource without scopes gives tokens without one.
    if !scope.is_empty() {
        body.extend_from_slice(b",\"scope\":");
        push_string(&mut body, scope);
    }
    body.push(b'}');
    let mut response = Response::new(Body::from(body));
    response.headers_mut().reserve(super::HEADERS);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// RFC 9449 section 4.1: the header field of a proof.
const DPOP: HeaderName = HeaderName::from_static("dpop");

//! `POST /introspect`: the introspection endpoint (RFC 7662), with signed answers for those who ask for one (RFC 9701).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::form::Form;
use super::log::{LogRecord, Recorded};
use super::posted::{PostAnswer, Posted, answer};
use super::{AppState, Sender};
use crate::protocol::error::RequestError;
use crate::protocol::introspection::IntrospectionResponse;
use crate::protocol::{Attempt, TokenQuery};

/// Answers an introspection request.
pub(super) async fn introspect(
    State(app): State<Arc<AppState>>,
    Extension(sender): Extension<Sender>,
    request: Request,
) -> Recorded {
    let endpoint = async |posted: &Posted, form: &Form<'_>, attempt: &mut Attempt| {
        let query = token_query(&app, posted, form, wants_jwt(&posted.parts.headers))?;
        *attempt = query.credential.attempt();
        app.server.introspect(query, attempt).await
    };
    let PostAnswer { mut response, attempt, result } = answer(&app, sender, request, endpoint, success).await;
    // RFC 9110 section 12.5.5: the field that decided between the forms.
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Recorded(response, LogRecord::Introspection(attempt, result))
}

/// Reads a request about a token.
pub(super) fn token_query<'a>(
    app: &AppState,
    posted: &Posted,
    form: &'a Form<'_>,
    wants_jwt: bool,
) -> Result<TokenQuery<'a>, RequestError> {
    let token = form.one("token")?;
    let (_, credential) = app.identity(posted, form, None)?;
    Ok(TokenQuery { credential, token, wants_jwt, source: posted.sender.source })
}

fn success(response: &IntrospectionResponse) -> Response {
    let Some(jwt) = &response.jwt else { return Json(&response.members).into_response() };
    let mut response = Response::new(Body::from(jwt.clone()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(SIGNED));
    response
}

/// RFC 9701 section 4: "by including the "Accept" HTTP header field with a value of "application/token-introspection+jwt"".
/// It has to be named: `*/*` is JSON. Where JSON is taken too, by its name or a range, the heavier one counts, and of two
/// alike the JWT. RFC 9110 section 12.5.1: "If more than one media range applies to a given type, the most specific reference
/// has precedence."
fn wants_jwt(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (mut signed, mut json) = (0, [None; JSON.len()]);
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        // RFC 9110 section 12.4.2: from 0 to 1, three digits at most.
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let weight = weight.map_or(1000, |weight| weight.parse::<f32>().map_or(0, thousandths));
        if name.eq_ignore_ascii_case(SIGNED) {
            signed = weight.max(signed);
        } else if let Some(at) = JSON.iter().position(|range| name.eq_ignore_ascii_case(range))
            && let Some(json) = json.get_mut(at)
        {
            *json = Some(weight).max(*json);
        }
    }
    signed > 0 && signed >= json.into_iter().flatten().next().unwrap_or(0)
}

/// The ranges that JSON is in, the most specific first.
const JSON: [&str; 3] = ["application/json", "application/*", "*/*"];

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
fn thousandths(weight: f32) -> u32 {
    (weight.clamp(0.0, 1.0) * 1000.0) as u32
}

const SIGNED: &str = "application/token-introspection+jwt";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signed_form_must_be_named_in_accept_and_weights_count() {
        let wants = |accept: &[&str]| {
            let values = accept.iter().map(|value| (header::ACCEPT, HeaderValue::from_str(value).unwrap()));
            wants_jwt(&values.collect())
        };
        for jwt in [
            "application/token-introspection+jwt",
            "Application/Token-Introspection+JWT",
            "application/json;q=0.5, application/token-introspection+jwt",
            "application/json, application/token-introspection+jwt",
            "application/token-introspection+jwt;q=0.1",
            "application/token-introspection+jwt, */*;q=0.1",
            "application/token-introspection+jwt, */*",
            "*/*, application/json;q=0.2, application/token-introspection+jwt;q=0.5",
        ] {
            assert!(wants(&[jwt]), "{jwt}");
        }
        assert!(wants(&["application/json;q=0.9", "application/token-introspection+jwt"]));
        for json in [
            "*/*",
            "application/*",
            "application/json",
            "application/jwt",
            "text/html",
            "",
            "application/token-introspection+jwt;q=0",
            "application/token-introspection+jwt;q=x",
            "*/*, application/token-introspection+jwt;q=0.5",
            "application/*, */*;q=0.1, application/token-introspection+jwt;q=0.5",
            "application/json, application/token-introspection+jwt;q=0.9",
        ] {
            assert!(!wants(&[json]), "{json}");
        }
        assert!(!wants(&[]));
    }
}

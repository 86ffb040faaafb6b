//! `/verify`: the answer to a gateway that asks whether a request to an API may pass: nginx `auth_request`, Traefik and Caddy
//! `forward_auth` read its status, and hand its challenge to the client.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;

use super::client_cert::client_cert;
use super::form::{Form, FormError, Repeated};
use super::log::{LogRecord, Recorded};
use super::{AppState, Sender};
use crate::model::scope::Scope;
use crate::protocol::error::Unavailable;
use crate::protocol::error::verification::{GatewayError, Refusal};
use crate::protocol::verification::{Requirements, Target, Verification, VerificationOutcome};

/// Trust in what a gateway tells of the request that it holds back.
#[derive(Debug, Clone, Copy)]
struct Trust {
    /// The gateway is one of `server.trusted_proxies`.
    gateway: bool,
    /// `server.client_cert_header` is set: the gateway sends the client's certificate in `Client-Cert`.
    client_cert: bool,
}

/// Answers a gateway.
pub(super) async fn verify(
    State(app): State<Arc<AppState>>,
    Extension(sender): Extension<Sender>,
    request: Request,
) -> Recorded {
    let trust = Trust { gateway: sender.by_proxy, client_cert: app.settings.client_cert_header.is_some() };
    let query = Form::parse(request.uri().query().unwrap_or_default().as_bytes());
    let verification = verification(&query, request.headers(), trust);
    let outcome = if app.load_shedding.refuses() {
        VerificationOutcome { token: None, verdict: Err(Unavailable::Overloaded.into()) }
    } else {
        app.server.verify(&verification)
    };
    let response = response(&outcome, &app.dpop_algs);
    let resource = verification.requirements.ok().map(|requirements| requirements.resource.to_owned());
    Recorded(response, LogRecord::Verification(outcome, resource))
}

/// The request to the API, out of the one that the gateway made.
fn verification<'a>(query: &'a Result<Form<'_>, FormError>, headers: &'a HeaderMap, trust: Trust) -> Verification<'a> {
    let texts = |name: &str| headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    // A malformed one is none: what is bound to a certificate does not pass with it.
    let certificate = (trust.gateway && trust.client_cert).then(|| client_cert(headers).ok().flatten());
    Verification {
        requirements: requirements(query),
        authorizations: texts("authorization"),
        proofs: texts("dpop"),
        target: target(headers).filter(|_| trust.gateway),
        certificate,
    }
}

fn requirements<'a>(query: &'a Result<Form<'_>, FormError>) -> Result<Requirements<'a>, GatewayError> {
    let query = query.as_ref().map_err(|_| GatewayError::Query)?;
    let resource = query.one("resource").map_err(|Repeated| GatewayError::Resource)?.ok_or(GatewayError::Resource)?;
    let scope = query.one("scope").map_err(|Repeated| GatewayError::Scope)?.unwrap_or_default();
    let scope = if scope.is_empty() { Scope::default() } else { scope.parse().map_err(|_| GatewayError::Scope)? };
    Ok(Requirements { resource, scope })
}

/// Reads method and URL of the request from the fields that Traefik and Caddy send by themselves, and nginx by its
/// configuration.
fn target(headers: &HeaderMap) -> Option<Target<'_>> {
    let once = |name: &str| {
        let mut lines = headers.get_all(name).iter();
        let (line, further) = (lines.next()?, lines.next());
        line.to_str().ok().filter(|_| further.is_none())
    };
    Some(Target {
        method: once("x-forwarded-method")?,
        scheme: once("x-forwarded-proto")?,
        host: once("x-forwarded-host")?,
        path: once("x-forwarded-uri")?,
    })
}

/// Builds the answer for the gateway. Every 204 has the three fields, so that they replace those that a client made up.
fn response(verified: &VerificationOutcome, dpop_algs: &str) -> Response {
    let VerificationOutcome { token, verdict } = verified;
    match (verdict, token) {
        (Ok(()), Some(token)) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            let headers = response.headers_mut();
            headers.reserve(super::HEADERS);
            for (name, claim) in [CLIENT_ID, SUBJECT, SCOPE].into_iter().zip(["client_id", "sub", "scope"]) {
                // Ids and scopes are printable ASCII.
                headers.insert(name, HeaderValue::from_str(token.text(claim)).unwrap_or(HeaderValue::from_static("")));
            }
            response
        }
        (Err(refusal), _) => refused(refusal, dpop_algs),
        // No request passes without a token.
        (Ok(()), None) => refused(&Refusal::NoToken, dpop_algs),
    }
}

/// RFC 6750 section 3, RFC 9449 section 7.1.
#[derive(Serialize)]
struct RefusalBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    error_description: &'static str,
}

fn refused(refusal: &Refusal, dpop_algs: &str) -> Response {
    let status = match refusal {
        Refusal::Scope(_) => StatusCode::FORBIDDEN,
        Refusal::Gateway(GatewayError::NoTarget | GatewayError::NoCertificate) | Refusal::Unavailable(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Refusal::Gateway(_) => StatusCode::BAD_REQUEST,
        // Also for a repeated field, where RFC 6750 section 3.1 has 400: gateways make 500 of what is not 401 or 403.
        _ => StatusCode::UNAUTHORIZED,
    };
    let body = RefusalBody { error: refusal.code(), error_description: refusal.description() };
    let mut response = (status, Json(&body)).into_response();
    let headers = response.headers_mut();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        && let Ok(challenge) = HeaderValue::from_str(&challenge(refusal, &body, dpop_algs))
    {
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Builds the challenge as one line, since nginx passes on one: the scheme that the client used comes first, with the error.
fn challenge(refusal: &Refusal, body: &RefusalBody, dpop_algs: &str) -> String {
    let by_dpop = matches!(refusal, Refusal::Proof(_) | Refusal::BoundAsBearer);
    let (mut bearer, mut dpop) = (String::from(BEARER), format!("DPoP realm=\"grantd\", algs=\"{dpop_algs}\""));
    if let Some(error) = body.error {
        let meant = if by_dpop { &mut dpop } else { &mut bearer };
        *meant += &format!(", error=\"{error}\", error_description=\"{}\"", body.error_description);
        if let Refusal::Scope(scope) = refusal {
            *meant += &format!(", scope=\"{scope}\"");
        }
    }
    if by_dpop { format!("{dpop}, {bearer}") } else { format!("{bearer}, {dpop}") }
}

/// RFC 9110 section 11.4: a scheme, and behind it parameters.
const BEARER: &str = "Bearer realm=\"grantd\"";
const CLIENT_ID: HeaderName = HeaderName::from_static("x-auth-client-id");
const SUBJECT: HeaderName = HeaderName::from_static("x-auth-subject");
const SCOPE: HeaderName = HeaderName::from_static("x-auth-scope");

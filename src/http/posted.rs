//! A posted form, as the endpoints for clients and resource servers read it.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Request, header};
use axum::response::Response;

use super::body::read_body;
use super::client_cert::{ClientCertError, peer_certificate};
use super::credentials::{self, Known};
use super::form::Form;
use super::{AppState, Sender, error};
use crate::model::certificate::PeerCertificate;
use crate::model::client::{AuthMethod, JWT_BEARER};
use crate::protocol::Attempt;
use crate::protocol::client_auth::Credential;
use crate::protocol::compared::Repeatable;
use crate::protocol::error::{ClientAuthError, Error, RequestError, Unavailable};

/// A posted request.
pub(super) struct Posted {
    pub(super) parts: Parts,
    pub(super) sender: Sender,
}

/// The answer to a posted request, with the facts for its line in the log.
pub(super) struct PostAnswer<T> {
    pub(super) response: Response,
    pub(super) attempt: Attempt,
    pub(super) result: Result<T, Error>,
}

/// Reads the form of a request, sheds load, lets `endpoint` decide, and writes the answer: `success`, or the refusal.
pub(super) async fn answer<T>(
    app: &AppState,
    sender: Sender,
    request: Request<Body>,
    endpoint: impl AsyncFnOnce(&Posted, &Form<'_>, &mut Attempt) -> Result<T, Error>,
    success: impl FnOnce(&T) -> Response,
) -> PostAnswer<T> {
    let (parts, body) = request.into_parts();
    let body = read_body(&parts, body, app.settings.body_deadline).await;
    let posted = Posted { parts, sender };
    let form = body.as_ref().map_err(|error| *error).and_then(|body| Ok(Form::parse(body)?));
    let mut attempt = Attempt::default();
    let result = match &form {
        Ok(_) if app.load_shedding.refuses() => Err(Unavailable::Overloaded.into()),
        Ok(form) => endpoint(&posted, form, &mut attempt).await,
        Err(error) => Err((*error).into()),
    };
    let mut response = match &result {
        Ok(done) => success(done),
        Err(error) => app.refusal(error, &posted, form.as_ref().ok(), attempt.refused.as_ref()),
    };
    // RFC 6749 section 5.1: "Cache-Control" with "no-store" "as well as the "Pragma" response header field with a value of
    // "no-cache"", on refusals too. Every answer that says nothing else has the first.
    response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    PostAnswer { response, attempt, result }
}

impl Posted {
    /// The values of a header field, one per line. A value that is not ASCII reads as an empty one.
    pub(super) fn field(&self, name: &HeaderName) -> Vec<&str> {
        self.parts.headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect()
    }
}

impl AppState {
    /// The certificate of the client, and its one credential: of the grant, if the grant is one.
    pub(super) fn identity<'a>(
        &self,
        posted: &Posted,
        form: &'a Form<'_>,
        grant_type: Option<&str>,
    ) -> Result<(Option<PeerCertificate>, Credential<'a>), RequestError> {
        let headers = &posted.parts.headers;
        let certificate = match &self.settings.client_cert_header {
            // The connection is the proxy's, and so is a certificate on it.
            Some(vouch) if posted.sender.by_proxy => peer_certificate(headers, vouch),
            _ => Ok(posted.sender.certificate.clone()),
        };
        let certificate = match certificate {
            Ok(certificate) => certificate,
            // One is the proxy's and one came through it; they cannot be told apart.
            Err(ClientCertError::Repeated) => {
                return Ok((None, Credential::Unreadable(ClientAuthError::CertificateRepeated)));
            }
            Err(ClientCertError::Malformed | ClientCertError::Certificate(_)) => return Err(RequestError::ClientCert),
        };
        let is_client = |id: &str| self.server.registry.snapshot().client(id).is_some();
        let token = |jwt: &str, door| self.server.authenticator.known_token(jwt, door, self.server.clock.now());
        let known = Known { client: &is_client, token: &token };
        let credential = match grant_type {
            Some(JWT_BEARER) if self.server.offers_jwt_bearer() => credentials::grant_assertion(headers, form, &known)?,
            _ => credentials::credential(headers, form, self.settings.basic, certificate.as_ref(), &known)?,
        };
        Ok((certificate, credential))
    }

    /// The refusal of a posted request. RFC 6749 section 5.2: 401 "If the client attempted to authenticate via the
    /// "Authorization" request header field"; otherwise where Basic is offered, since a 401 has a challenge that can be met
    /// (RFC 9110 section 15.5.2). An authenticated client reads which of its scopes or resources is refused.
    fn refusal(
        &self,
        refused: &Error,
        posted: &Posted,
        form: Option<&Form<'_>>,
        word: Option<&Repeatable>,
    ) -> Response {
        let headers = &posted.parts.headers;
        let offered = self.server.profile.permits_method(AuthMethod::ClientSecretBasic);
        let certificate = match &self.settings.client_cert_header {
            Some(_) if posted.sender.by_proxy => headers.contains_key("client-cert"),
            _ => posted.sender.certificate.is_some(),
        };
        let description = match (refused, word) {
            (Error::ClientAuth(_), _) => Cow::Borrowed(self.descriptions.of(headers, form, certificate)),
            (Error::Grant(error), Some(word)) => Cow::Owned(format!("{}: {}", error.description(), word.as_str())),
            (other, _) => Cow::Borrowed(other.description()),
        };
        error::refusal(refused, offered || headers.contains_key(header::AUTHORIZATION), &description)
    }
}

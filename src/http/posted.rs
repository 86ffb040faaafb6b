//! A posted form, as the endpoints for clients and resource servers read it.

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request, header};
use axum::response::Response;

use super::body::read_body;
use super::client_cert::{ClientCertError, peer_certificate};
use super::form::Form;
use super::{AppState, Sender, credentials, error};
use crate::model::certificate::PeerCertificate;
use crate::model::client::AuthMethod;
use crate::protocol::client_auth::Credential;
use crate::protocol::error::{ClientAuthError, Error, RequestError};

/// A request with its body.
pub(super) struct Posted {
    pub(super) parts: Parts,
    pub(super) sender: Sender,
    body: Result<Bytes, RequestError>,
}

impl Posted {
    /// Reads the body.
    pub(super) async fn read(app: &AppState, sender: Sender, request: Request<Body>) -> Self {
        let (parts, body) = request.into_parts();
        let body = read_body(&parts, body, app.settings.body_deadline).await;
        Self { parts, sender, body }
    }

    /// The form in the body.
    pub(super) fn form(&self) -> Result<Form<'_>, RequestError> {
        let body = self.body.as_ref().map_err(|error| *error)?;
        Ok(Form::parse(body)?)
    }

    /// The values of a header field, one per line. A value that is not ASCII reads as an empty one.
    pub(super) fn field(&self, name: &str) -> Vec<&str> {
        self.parts.headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect()
    }
}

impl AppState {
    /// The certificate of the client, and its one credential.
    pub(super) fn identity<'a>(
        &self,
        posted: &Posted,
        form: &'a Form<'_>,
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
        let credential = credentials::credential(headers, form, self.settings.basic, certificate.as_ref(), &is_client)?;
        Ok((certificate, credential))
    }

    /// The refusal of a posted request. RFC 6749 section 5.2: 401 "If the client attempted to authenticate via the
    /// "Authorization" request header field"; otherwise where Basic is offered, since a 401 has a challenge that can be met
    /// (RFC 9110 section 15.5.2).
    pub(super) fn refusal(&self, refused: &Error, posted: &Posted, form: Option<&Form<'_>>) -> Response {
        let headers = &posted.parts.headers;
        let offered = self.server.profile.permits_method(AuthMethod::ClientSecretBasic);
        let certificate = match &self.settings.client_cert_header {
            Some(_) if posted.sender.by_proxy => headers.contains_key("client-cert"),
            _ => posted.sender.certificate.is_some(),
        };
        let description = self.descriptions.of(headers, form, certificate);
        error::refusal(refused, offered || headers.contains_key(header::AUTHORIZATION), description)
    }
}

/// Adds `Pragma: no-cache`. RFC 6749 section 5.1: "Cache-Control" with "no-store" "as well as the "Pragma" response
/// header field with a value of "no-cache"", on refusals too. Every answer that says nothing else has the first.
pub(super) fn with_pragma_no_cache(mut response: Response) -> Response {
    response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

//! Feature `axum`: [`AccessToken`] as an extractor, [`Refusal`] as a response.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts, OriginalUri};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::{AccessToken, ClientCertificate, Refusal, Request, Verifier};

impl<S> FromRequestParts<S> for AccessToken
where
    S: Send + Sync,
    Arc<Verifier>: FromRef<S>,
{
    type Rejection = Refusal;

    /// Verifies the request with the [`Verifier`] of the state, and with the [`ClientCertificate`] in its extensions, if any.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let verifier = Arc::<Verifier>::from_ref(state);
        // The URI of a nested router lacks what was called before it.
        let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        verifier
            .verify(&Request {
                method: parts.method.as_str(),
                url: &format!("{}{path}", verifier.public_url()),
                authorization: &fields(&parts.headers, "authorization")?,
                dpop: &fields(&parts.headers, "dpop")?,
                certificate: parts.extensions.get::<ClientCertificate>().map(|certificate| &*certificate.0),
            })
            .await
    }
}

impl ClientCertificate {
    /// [`from_client_cert`](Self::from_client_cert) on the fields of a request.
    ///
    /// # Errors
    /// [`Refusal`] (400).
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, Refusal> {
        Self::from_client_cert(&fields(headers, "client-cert")?)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::UNAUTHORIZED);
        let mut answer = status.into_response();
        let headers = answer.headers_mut();
        for challenge in self.www_authenticate() {
            if let Ok(challenge) = HeaderValue::from_str(&challenge) {
                headers.append(header::WWW_AUTHENTICATE, challenge);
            }
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        answer
    }
}

fn fields<'a>(headers: &'a HeaderMap, name: &str) -> Result<Vec<&'a str>, Refusal> {
    let texts = headers.get_all(name).into_iter().map(HeaderValue::to_str);
    texts.collect::<Result<_, _>>().map_err(|_| Refusal::request("a header field is not ASCII"))
}

//! The surface: every route of the public listener, grouped by who calls it.

pub mod admin;
mod authentication;
pub(crate) mod body;
pub mod client_cert;
pub mod credentials;
pub(crate) mod documents;
pub mod error;
mod exposition;
pub mod form;
mod introspection;
pub mod log;
mod message;
mod verify;

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use serde::Serialize;

use crate::model::certificate::PeerCertificate;
use crate::model::client::AuthMethod;
use crate::protocol::client_auth::Presented;
use crate::protocol::error::{Error, RequestError, Unavailable};
use crate::protocol::grant::Asked;
use crate::protocol::verification::Verified;
use crate::protocol::{AuthorizationServer, Granted, Outcome, TokenQuery, TokenRequest};
use crate::state::load_shedding::LoadShedding;

use authentication::Descriptions;
use body::read_body;
use client_cert::{Vouch, peer_certificate};
use credentials::BasicReading;
use documents::Documents;
use form::{Form, FormError};
use log::{Answered, Log};
use verify::Trust;

/// What handlers share.
#[derive(Debug, Clone)]
pub struct Surface {
    /// The server.
    pub server: Arc<AuthorizationServer>,
    /// How Basic credentials are read.
    pub basic: BasicReading,
    /// How long a body may take.
    pub body_deadline: Duration,
    /// Whether more comes than can be answered in time.
    pub load_shedding: Arc<LoadShedding>,
    /// Whose word on certificates in a header field of a trusted proxy is taken; `None` when the field is not read.
    pub client_cert_header: Option<Vouch>,
    /// Whether the metadata also stands where OpenID Connect clients look (RFC 8414 section 5).
    pub openid_configuration: bool,
}

/// Who is at the far end of a connection.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its address, or that of the proxy in front of it.
    pub address: SocketAddr,
    /// The certificate that it showed in the handshake, with what was found of it.
    pub certificate: Option<PeerCertificate>,
}

/// The URL under which a listener is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// That of the issuer.
    Issuer,
    /// Where clients come with certificates (RFC 8705 section 5).
    Alias,
}

/// The public surface: every path is matched by hand, since a token should cost little more than its signature, and a key
/// set little more than its bytes.
#[derive(Debug)]
pub struct App {
    surface: Surface,
    documents: Documents,
    descriptions: Descriptions,
    log: Log,
    /// Signing algorithms of DPoP proofs, for challenges.
    dpop_algs: String,
    /// Header fields of every answer that does not say otherwise.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl App {
    /// Puts the surface together.
    #[must_use]
    pub fn new(surface: Surface, log: Log) -> Self {
        let mut headers = vec![
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        if surface.server.issuer.is_https() {
            headers.push((header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=63072000")));
        }
        let documents = Documents::new(&surface.server, surface.openid_configuration);
        let descriptions = Descriptions::new(&surface.server);
        let dpop_algs = surface.server.profile.alg_names().join(" ");
        Self { surface, documents, descriptions, log, dpop_algs, headers }
    }

    /// Answers a request, writes its line, and counts it.
    pub async fn answer<B>(&self, door: Door, caller: &Caller, request: Request<B>) -> Response
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let arrival = self.log.arrival(caller, &request);
        let (mut response, answered) = AssertUnwindSafe(self.respond(door, caller, arrival.source, request))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| ((&Error::Internal).into_response(), None));
        self.log.write(&arrival, &response, answered.as_ref());
        let headers = response.headers_mut();
        headers.reserve(self.headers.len() + 1);
        for (name, value) in &self.headers {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        if let Ok(id) = HeaderValue::from_str(arrival.request_id.as_str()) {
            headers.insert("x-request-id", id);
        }
        response
    }

    fn certificate(&self, caller: &Caller, headers: &HeaderMap) -> Certified {
        match &self.surface.client_cert_header {
            // The connection is the proxy's, and so is a certificate on it.
            Some(vouch) if self.log.trusts(caller.address.ip()) => Ok(peer_certificate(headers, vouch)?),
            _ => Ok(caller.certificate.clone()),
        }
    }

    /// By any method: a gateway asks with the method of the request that it holds back.
    fn verify<B>(&self, caller: &Caller, request: &Request<B>) -> (Response, Answered) {
        let trust = Trust {
            gateway: self.log.trusts(caller.address.ip()),
            client_cert: self.surface.client_cert_header.is_some(),
        };
        let query = verify::query(request.uri());
        let asked = verify::verification(&query, request.headers(), trust);
        let server = &self.surface.server;
        let verified = if self.surface.load_shedding.refuses() {
            Verified { token: None, verdict: Err(Unavailable::Overloaded.into()) }
        } else {
            server.verify(&asked)
        };
        let response = verify::response(&verified, &self.dpop_algs);
        let resource = asked.wanted.ok().map(|wanted| wanted.resource.to_owned());
        (response, Answered::Verification(verified, resource))
    }

    async fn respond<B>(
        &self,
        door: Door,
        caller: &Caller,
        source: IpAddr,
        request: Request<B>,
    ) -> (Response, Option<Answered>)
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if let Some(refusal) = message::refusal(&request) {
            return (refusal, None);
        }
        let path = request.uri().path();
        let endpoint = path.strip_prefix(self.surface.server.issuer.path());
        if endpoint == Some("/verify") {
            let (response, answered) = self.verify(caller, &request);
            return (response, Some(answered));
        }
        match endpoint.and_then(Endpoint::at) {
            Some(endpoint) if request.method() == Method::POST => {
                let certificate = self.certificate(caller, request.headers());
                let posted = self.surface.post(endpoint, (door, source), &certificate, &self.descriptions, request);
                let (response, answered) = posted.await;
                (response, Some(answered))
            }
            Some(_) => (error::not_by_this_method("POST"), None),
            None => {
                let document = self.documents.answer(path, request.method(), request.headers());
                (document.unwrap_or_else(|| error::plain(StatusCode::NOT_FOUND, "there is nothing here")), None)
            }
        }
    }
}

/// The certificate of a client, or why it cannot be told.
type Certified = Result<Option<PeerCertificate>, Error>;

/// RFC 6749 section 5.1.
#[derive(Serialize)]
struct TokenResponse<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: i64,
    scope: &'a str,
}

/// The endpoints that clients and resource servers post to.
#[derive(Clone, Copy)]
enum Endpoint {
    Token,
    Introspect,
    Revoke,
}

impl Endpoint {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/token" => Some(Self::Token),
            "/introspect" => Some(Self::Introspect),
            "/revoke" => Some(Self::Revoke),
            _ => None,
        }
    }
}

/// A request that was posted, with its form or why it has none.
struct Posted<'a> {
    headers: &'a HeaderMap,
    form: &'a Result<Form<'a>, RequestError>,
    certificate: &'a Certified,
    door: Door,
    source: IpAddr,
    descriptions: &'a Descriptions,
}

impl Surface {
    async fn post<B>(
        &self,
        endpoint: Endpoint,
        (door, source): (Door, IpAddr),
        certificate: &Certified,
        descriptions: &Descriptions,
        request: Request<B>,
    ) -> (Response, Answered)
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let body = read_body(&parts, body, self.body_deadline).await;
        let form = match &body {
            Ok(body) => Form::parse(body).map_err(|error| match error {
                FormError::Malformed => RequestError::Form,
                FormError::TooMany => RequestError::TooManyParameters,
            }),
            Err(error) => Err(*error),
        };
        let posted = Posted { headers: &parts.headers, form: &form, certificate, door, source, descriptions };
        let (mut response, answered) = match endpoint {
            Endpoint::Token => self.token(&posted).await,
            Endpoint::Introspect => self.introspect(&posted).await,
            Endpoint::Revoke => self.revoke(&posted).await,
        };
        // RFC 6749 section 5.1: "Cache-Control" with "no-store" "as well as the "Pragma" response header field with a value
        // of "no-cache"", on refusals too.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        (response, answered)
    }

    async fn token(&self, posted: &Posted<'_>) -> (Response, Answered) {
        let outcome = match self.token_request(posted) {
            _ if self.load_shedding.refuses() => Outcome::of(Unavailable::Overloaded),
            Ok(request) => self.server.token(request).await,
            Err(error) => Outcome::of(error),
        };
        let mut response = match &outcome.result {
            Ok(granted) => token_response(granted),
            Err(error) => self.refusal(error, posted),
        };
        // RFC 9449 section 8: "The authorization server MAY supply a nonce value", with the demand for one and when the one
        // that was used will soon be over (section 8.2).
        if outcome.nonce_due
            && let Ok(nonce) = self.server.dpop.nonce(self.server.clock.now())
            && let Ok(nonce) = HeaderValue::from_str(&nonce)
        {
            response.headers_mut().insert("dpop-nonce", nonce);
        }
        (response, Answered::Token(outcome))
    }

    async fn introspect(&self, posted: &Posted<'_>) -> (Response, Answered) {
        let mut outcome = match self.token_query(posted) {
            _ if self.load_shedding.refuses() => Outcome::of(Unavailable::Overloaded),
            Ok(request) => self.server.introspect(request).await,
            Err(error) => Outcome::of(error),
        };
        // Signed before the outcome is logged, since a response that cannot be signed is a refusal.
        let signed = match &outcome.result {
            Ok(introspected) if introspection::wants_jwt(posted.headers) => self.server.signed(introspected).map(Some),
            _ => Ok(None),
        };
        let jwt = signed.unwrap_or_else(|error| {
            outcome.result = Err(error);
            None
        });
        let answer = outcome.result.as_ref().map_err(|error| self.refusal(error, posted));
        let response = introspection::response(answer, jwt);
        (response, Answered::Introspection(outcome))
    }

    async fn revoke(&self, posted: &Posted<'_>) -> (Response, Answered) {
        let outcome = match self.token_query(posted) {
            _ if self.load_shedding.refuses() => Outcome::of(Unavailable::Overloaded),
            Ok(request) => self.server.revoke(request).await,
            Err(error) => Outcome::of(error),
        };
        let response = match &outcome.result {
            // RFC 7009 section 2.2: "The content of the response body is ignored by the client as all necessary information
            // is conveyed in the response code."
            // Some clients parse it all the same.
            Ok(_) => {
                let mut response = Response::new(Body::from("{}"));
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Err(error) => self.refusal(error, posted),
        };
        (response, Answered::Revocation(outcome))
    }

    /// RFC 6749 section 5.2: 401 "If the client attempted to authenticate via the "Authorization" request header field";
    /// otherwise where Basic is offered, since a 401 has a challenge that can be met (RFC 9110 section 15.5.2).
    fn refusal(&self, error: &Error, posted: &Posted<'_>) -> Response {
        let offered = self.server.profile.permits_method(AuthMethod::ClientSecretBasic);
        let certificate = posted.certificate.as_ref().is_ok_and(Option::is_some);
        let description = posted.descriptions.of(posted.headers, posted.form.as_ref().ok(), certificate);
        error::refusal(error, offered || posted.headers.contains_key(header::AUTHORIZATION), description)
    }

    fn token_request<'a>(&self, posted: &Posted<'a>) -> Result<TokenRequest<'a>, RequestError> {
        let form = posted.form.as_ref().map_err(|error| *error)?;
        let one = |name| form.one(name).map_err(|_| RequestError::Repeated);
        Ok(TokenRequest {
            grant_type: one("grant_type")?,
            asked: Asked {
                scope: one("scope")?,
                resources: form.all("resource").chain(form.all("audience")).collect(),
            },
            presented: self.presented(posted, form),
            // What is not text is no proof, as nothing is.
            proofs: posted.headers.get_all("dpop").iter().map(|proof| proof.to_str().unwrap_or_default()).collect(),
            certificate: posted.certificate.as_ref().ok().and_then(Option::as_ref),
            by_alias: posted.door == Door::Alias,
            source: posted.source,
        })
    }

    fn presented<'a>(&self, posted: &Posted<'a>, form: &'a Form<'_>) -> Result<Presented<'a>, Error> {
        let certificate = posted.certificate.as_ref().map_err(Error::clone)?;
        let is_client = |id: &str| self.server.authenticator.registry.snapshot().client(id).is_some();
        credentials::presented(posted.headers, form, self.basic, certificate.as_ref(), &is_client)
    }

    fn token_query<'a>(&self, posted: &Posted<'a>) -> Result<TokenQuery<'a>, RequestError> {
        let form = posted.form.as_ref().map_err(|error| *error)?;
        Ok(TokenQuery {
            presented: self.presented(posted, form),
            token: form.one("token").map_err(|_| RequestError::Repeated)?,
            source: posted.source,
        })
    }
}

fn token_response(granted: &Granted) -> Response {
    let answer = TokenResponse {
        access_token: &granted.access_token.token,
        token_type: granted.token_type,
        expires_in: granted.expires_in.seconds(),
        scope: granted.scope.as_str(),
    };
    let mut body = Vec::with_capacity(granted.access_token.token.len() + granted.scope.as_str().len() + 128);
    // What there is to serialize is text and a number.
    if serde_json::to_writer(&mut body, &answer).is_err() {
        return (&Error::Internal).into_response();
    }
    let mut response = Response::new(Body::from(body));
    response.headers_mut().reserve(HEADERS);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Room for the header fields of a token response, so that none has to move.
const HEADERS: usize = 16;

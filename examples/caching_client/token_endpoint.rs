//! One request for a token (RFC 6749 section 4.4): where it goes, how the client shows who it is, what the answer means.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::client_auth::{ClientAuth, JWT_BEARER, form_encode, platform_assertion};
use super::dpop::Dpop;
use super::tokens::Wanted;

/// An issuer, as one client sees it.
#[derive(Debug)]
pub struct TokenEndpoint {
    pub issuer: String,
    pub client_id: String,
    pub auth: ClientAuth,
    pub dpop: Option<Arc<Dpop>>,
    /// Whether `http` shows a certificate to who asks for one.
    pub certified: bool,
    pub http: reqwest::Client,
    pub clock: fn() -> i64,
    /// The endpoint's URL, once it was found in the metadata.
    pub url: OnceCell<String>,
}

/// An access token, as it was handed out.
#[derive(Debug)]
pub struct Token {
    pub text: SecretString,
    /// Whether it is bound to our key (`token_type` is DPoP).
    pub bound: bool,
    /// When it was asked for, by our clock: `expires_in` counts from there at the earliest.
    pub asked_at: Instant,
    pub life: Duration,
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// 4xx: the request or the credential is wrong. Asking again changes nothing.
    Refused { status: u16, error: String },
    /// 429 and 5xx: later.
    Busy { status: u16, retry_after: Option<Duration> },
    /// No answer, or none that can be understood.
    Unreachable(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { status, error } => write!(f, "the token request was refused: {status} {error}"),
            Self::Busy { status, .. } => write!(f, "the token endpoint is busy: {status}"),
            Self::Unreachable(why) => write!(f, "no answer from the issuer: {why}"),
        }
    }
}

impl std::error::Error for Failure {}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    token_endpoint: String,
    #[serde(default)]
    mtls_endpoint_aliases: Aliases,
}

/// RFC 8705 section 5.
#[derive(Default, Deserialize)]
struct Aliases {
    token_endpoint: Option<String>,
}

#[derive(Deserialize)]
struct Issued {
    access_token: SecretString,
    token_type: String,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

impl TokenEndpoint {
    pub async fn ask(&self, wanted: &Wanted) -> Result<Token, Failure> {
        let url = self.url.get_or_try_init(|| self.discover()).await?;
        // RFC 9449 section 8: the one refusal after which the same request is sent again, with the nonce that came along.
        match self.send(url, wanted).await {
            Err(Failure::Refused { error, .. }) if error == "use_dpop_nonce" => self.send(url, wanted).await,
            answer => answer,
        }
    }

    async fn send(&self, url: &str, wanted: &Wanted) -> Result<Token, Failure> {
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(
            [("scope", wanted.scope.as_str()), ("resource", &wanted.resource)].iter().filter(|(_, v)| !v.is_empty()),
        );
        let assertion;
        let mut request = self.http.post(url).timeout(PATIENCE);
        match &self.auth {
            ClientAuth::Secret(secret) => {
                request = request.header(AUTHORIZATION, ClientAuth::basic(&self.client_id, secret));
            }
            ClientAuth::Key(key) => {
                assertion =
                    key.assertion(&self.client_id, &self.issuer, (self.clock)()).map_err(Failure::Unreachable)?;
                form.push(("client_assertion_type", JWT_BEARER));
                form.push(("client_assertion", &assertion));
                form.push(("client_id", &self.client_id));
            }
            ClientAuth::AssertionFile(file) => {
                let assertion_type;
                (assertion, assertion_type) = platform_assertion(file).map_err(Failure::Unreachable)?;
                form.push(("client_assertion_type", assertion_type));
                form.push(("client_assertion", &assertion));
                form.push(("client_id", &self.client_id));
            }
            // RFC 8705 section 2: "the client MUST include the client_id parameter".
            ClientAuth::Certificate => form.push(("client_id", &self.client_id)),
        }
        if let Some(dpop) = &self.dpop {
            let proof = dpop.proof("POST", url, None, (self.clock)()).map_err(Failure::Unreachable)?;
            request = request.header("DPoP", proof);
        }
        let form: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", form_encode(value))).collect();
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form.join("&"));
        let asked_at = Instant::now();
        let answer = request.send().await.map_err(unreachable)?;
        if let Some(dpop) = &self.dpop {
            dpop.note_nonce(url, answer.headers());
        }
        self.understand(answer, asked_at).await
    }

    async fn understand(&self, answer: Response, asked_at: Instant) -> Result<Token, Failure> {
        let status = answer.status();
        let said = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = limited(answer).await?;
        if status == StatusCode::OK {
            let issued: Issued =
                serde_json::from_slice(&body).map_err(|_| Failure::Unreachable("no token answer".into()))?;
            let bound = issued.token_type.eq_ignore_ascii_case("DPoP");
            // RFC 6749 section 7.1: "The client MUST NOT use an access token if it does not understand the token type." A
            // bearer token where one bound to our key was asked for is a downgrade.
            if bound != self.dpop.is_some() || !(bound || issued.token_type.eq_ignore_ascii_case("Bearer")) {
                return Err(Failure::Unreachable("the token is of another type than was asked for".into()));
            }
            let life = Duration::from_secs(issued.expires_in.unwrap_or(LIFE_UNSAID).min(LIFE_MOST));
            if life.is_zero() {
                return Err(Failure::Unreachable("the token has no life".into()));
            }
            return Ok(Token { text: issued.access_token, bound, asked_at, life });
        }
        let code = status.as_u16();
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Err(Failure::Busy { status: code, retry_after: said.map(Duration::from_secs) });
        }
        let error = serde_json::from_slice(&body).map_or_else(|_| String::new(), |Refused { error }| error);
        Err(Failure::Refused { status: code, error })
    }

    /// RFC 8414: the metadata says where the endpoint is.
    async fn discover(&self) -> Result<String, Failure> {
        let answer = self.http.get(metadata_url(&self.issuer)).timeout(PATIENCE).send().await.map_err(unreachable)?;
        if answer.status() != StatusCode::OK {
            return Err(Failure::Unreachable(format!("the metadata answers {}", answer.status())));
        }
        let metadata: Metadata = serde_json::from_slice(&limited(answer).await?)
            .map_err(|error| Failure::Unreachable(format!("metadata: {error}")))?;
        // RFC 8705 section 5: a client that intends to do mutual TLS uses the alias "in preference to" the usual endpoint,
        // where nobody may ask for its certificate.
        let alias = metadata.mtls_endpoint_aliases.token_endpoint.filter(|_| self.certified);
        let endpoint = alias.unwrap_or(metadata.token_endpoint);
        // RFC 8414 section 3.3. Otherwise the credential could be sent to somebody else.
        let same_protection = endpoint.starts_with("https://") || self.issuer.starts_with("http://");
        if metadata.issuer != self.issuer || !same_protection {
            return Err(Failure::Unreachable("the metadata is of another issuer, or its endpoint is not https".into()));
        }
        Ok(endpoint)
    }
}

impl Token {
    /// The value of `Authorization`.
    pub fn authorization(&self) -> String {
        format!("{} {}", if self.bound { "DPoP" } else { "Bearer" }, self.text.expose_secret())
    }
}

async fn limited(mut answer: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() > SIZE_MAX {
            return Err(Failure::Unreachable("the answer is too large".into()));
        }
    }
    Ok(body)
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err hands it over")]
fn unreachable(error: reqwest::Error) -> Failure {
    let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
    Failure::Unreachable(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
}

/// RFC 8414 section 3.1: the well-known part goes between host and path.
fn metadata_url(issuer: &str) -> String {
    let host = issuer.find("://").map_or(0, |at| at + 3);
    let path = issuer.get(host..).and_then(|rest| rest.find('/')).map_or(issuer.len(), |at| host + at);
    let (origin, path) = issuer.split_at(path);
    format!("{origin}/.well-known/oauth-authorization-server{}", path.trim_end_matches('/'))
}

const PATIENCE: Duration = Duration::from_secs(10);

/// Seconds. RFC 6749 section 5.1 lets `expires_in` be left out.
const LIFE_UNSAID: u64 = 60;

const LIFE_MOST: u64 = 86_400;

const SIZE_MAX: usize = 64 * 1024;

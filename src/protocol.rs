//! The protocol: [`AuthorizationServer::token`] is the story of one token request, told in the RFCs' words.

pub mod access_token;
pub mod client_auth;
pub mod client_secret;
pub mod error;
pub mod grant;
pub mod metadata;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::crypto::secret::ClientSecret;
use crate::keyring::{Document, Keyring};
use crate::model::client::AuthMethod;
use crate::model::scope::Scope;
use crate::model::time::{Clock, Span};
use crate::registry::{Freshness, Registry};

use access_token::AccessToken;
use client_auth::{Authenticator, Presented};
use error::{Error, GrantError, RequestError, Unavailable};
use grant::{Asked, Defaults};
use metadata::Issuer;

/// The server: what is configured, what is known, and what signs.
#[derive(Debug)]
pub struct AuthorizationServer {
    /// Who we are, in every token.
    pub issuer: Issuer,
    /// What tokens are like when nothing else says.
    pub defaults: Defaults,
    /// Every client and resource.
    pub registry: Arc<Registry>,
    /// Signing keys.
    pub keyring: Arc<Keyring>,
    /// Checks who asks.
    pub authenticator: Authenticator,
    /// The time.
    pub clock: Clock,
    /// The metadata, made once for each revision of the registry.
    pub metadata: ArcSwap<Described>,
    /// How long signing takes, for `grantd_signing_seconds`.
    pub signing_seconds: Histogram,
}

/// The metadata as of a revision.
#[derive(Debug, Default)]
pub struct Described {
    revision: i64,
    document: Option<Arc<Document>>,
}

/// A token request, parsed.
#[derive(Debug)]
pub struct TokenRequest<'a> {
    /// `grant_type`.
    pub grant_type: Option<&'a str>,
    /// The one credential, or why there is none.
    pub presented: Result<Presented, Error>,
    /// What is asked for.
    pub asked: Asked<'a>,
    /// Where it came from.
    pub source: IpAddr,
}

/// A granted request.
#[derive(Debug)]
pub struct Granted {
    /// The token.
    pub access_token: AccessToken,
    /// What it is good for.
    pub scope: Scope,
    /// How long, in seconds.
    pub expires_in: Span,
    /// Its audience.
    pub aud: Arc<str>,
    /// Whether a Basic secret was right only without form-decoding.
    pub raw_reading: bool,
}

/// An answer, with what the log may say of the request whether or not it succeeded.
#[derive(Debug)]
pub struct Outcome {
    /// The client that the request names, known or not.
    pub client_id: Option<String>,
    /// How it authenticates.
    pub method: Option<AuthMethod>,
    /// The secret that was right, even when it may no longer be used.
    pub credential_id: Option<Arc<str>>,
    /// What came of it.
    pub result: Result<Granted, Error>,
}

impl Outcome {
    /// What came of a request that nobody looked into.
    #[must_use]
    pub fn of(error: impl Into<Error>) -> Self {
        Self { client_id: None, method: None, credential_id: None, result: Err(error.into()) }
    }
}

impl AuthorizationServer {
    /// Answers a token request (RFC 6749 section 4.4).
    pub async fn token(&self, request: TokenRequest<'_>) -> Outcome {
        let mut credential_id = None;
        let result = self.grant_token(&request, &mut credential_id).await;
        let (client_id, method) =
            request.presented.ok().map(|presented| (presented.client_id, presented.method)).unzip();
        Outcome { client_id, method, credential_id, result }
    }

    async fn grant_token(
        &self,
        request: &TokenRequest<'_>,
        credential_id: &mut Option<Arc<str>>,
    ) -> Result<Granted, Error> {
        // A request that carries several credentials is malformed before anything is checked.
        if let Err(error @ Error::Request(_)) = &request.presented {
            return Err(error.clone());
        }
        // Cheap, so before any secret is hashed.
        match request.grant_type {
            None => return Err(RequestError::NoGrantType.into()),
            Some("client_credentials") => {}
            Some(_) => return Err(GrantError::UnsupportedGrantType.into()),
        }
        let now = self.clock.now();
        let presented = request.presented.as_ref().map_err(Error::clone)?;
        let authenticated = self.authenticator.authenticate(presented, request.source, now, credential_id).await?;
        let client = &authenticated.client;
        let grant = grant::decide(client, &self.registry.snapshot(), &self.defaults, &request.asked)?;

        let key = self.keyring.signing(grant.alg, now).ok_or(Unavailable::NoKey)?;
        let started = Instant::now();
        let access_token = access_token::mint(self.issuer.as_str(), client, &grant, key, now)?;
        self.signing_seconds.observe(started.elapsed().as_secs_f64());
        Ok(Granted {
            access_token,
            scope: grant.scope,
            expires_in: grant.ttl,
            aud: grant.aud,
            raw_reading: authenticated.raw_reading,
        })
    }

    /// The metadata as the registry stands.
    #[must_use]
    pub fn metadata(&self) -> Arc<Document> {
        let snapshot = self.registry.snapshot();
        let described = self.metadata.load();
        if described.revision == snapshot.revision
            && let Some(document) = &described.document
        {
            return Arc::clone(document);
        }
        let document = Arc::new(metadata::document(&self.issuer, &snapshot));
        let described = Described { revision: snapshot.revision, document: Some(Arc::clone(&document)) };
        self.metadata.store(Arc::new(described));
        document
    }

    /// Whether anything has been read from the database since the start.
    #[must_use]
    pub fn knows_anything(&self) -> bool {
        self.registry.snapshot().revision > 0
    }

    /// Whether the server can do its work, item by item, with the reason where it cannot.
    #[must_use]
    pub fn readiness(&self) -> Vec<(&'static str, Result<(), String>)> {
        let registry = match self.registry.freshness() {
            Freshness::Unusable => {
                Err(self.registry.trouble().unwrap_or_else(|| "older than registry.max_stale".into()))
            }
            Freshness::Current | Freshness::Stale(_) => Ok(()),
        };
        let key = self.keyring.signing(self.defaults.alg, self.clock.now());
        let keys = key.map(drop).ok_or_else(|| format!("no signing key for {}", self.defaults.alg));
        vec![("registry", registry), ("keys", keys)]
    }
}

/// The buckets of [`AuthorizationServer::signing_seconds`]: from 4 µs to 8 ms.
#[must_use]
pub fn signing_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_004, 2.0, 12))
}

/// A secret in each way its bytes can be read.
#[must_use]
pub fn readings(decoded: String, raw: Option<String>) -> Vec<Arc<ClientSecret>> {
    std::iter::once(decoded).chain(raw).map(ClientSecret::new).map(Arc::new).collect()
}

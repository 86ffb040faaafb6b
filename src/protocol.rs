//! The protocol: [`AuthorizationServer::token`] is the story of one token request, told in the RFCs' words; `introspect`
//! and `revoke` are about tokens that were issued.

pub mod access_token;
pub mod client_assertion;
pub mod client_auth;
pub mod client_certificate;
pub mod client_secret;
pub mod dpop;
pub mod error;
mod exchange;
pub mod grant;
pub mod introspection;
pub mod metadata;
pub mod verification;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::crypto::jwk::Alg;
use crate::crypto::jws::SigningKey;
use crate::crypto::secret::ClientSecret;
use crate::model::certificate::PeerCertificate;
use crate::model::client::AuthMethod;
use crate::model::event::Event;
use crate::model::issuer::Issuer;
use crate::model::profile::Profile;
use crate::model::resource::TokenTyp;
use crate::model::time::{Clock, UnixTime};
use crate::state::keyring::Keyring;
use crate::state::registry::{Freshness, Registry};
use crate::store::Store;
use crate::store::replay_cache::ReplayCache;
use crate::store::spent::{ReplayCheck, SingleUseId, SingleUseKind};

use access_token::Issued;
use client_auth::{Authenticated, Authenticator, Noted, Presented};
use dpop::{Dpop, Proof};
use error::dpop::DpopError;
use error::inactive::Inactive;
use error::{ClientAuthError, Error, RequestError, Unavailable};
use grant::{Binding, Defaults};
use introspection::Introspected;
use metadata::{Metadata, MutualTls};

pub use exchange::{Granted, Outcome, Revocation, TokenQuery, TokenRequest};

/// The server: what is configured, what is known, and what signs.
#[derive(Debug)]
pub struct AuthorizationServer {
    /// Who we are, in every token.
    pub issuer: Issuer,
    /// What it asks beyond the RFCs.
    pub profile: Profile,
    /// What is offered to clients with certificates.
    pub mutual_tls: MutualTls,
    /// What tokens are like when nothing else says.
    pub defaults: Defaults,
    /// Every client and resource.
    pub registry: Arc<Registry>,
    /// Signing keys.
    pub keyring: Arc<Keyring>,
    /// Checks who asks.
    pub authenticator: Authenticator,
    /// Checks what else is proved.
    pub dpop: Dpop,
    /// Proofs that came with tokens to APIs whose gateways ask here.
    pub api_proofs: ReplayCache,
    /// What has to be written down before an answer.
    pub store: Store,
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
    documents: Option<Arc<Metadata>>,
}

impl AuthorizationServer {
    /// Answers a token request (RFC 6749 section 4.4).
    pub async fn token(&self, request: TokenRequest<'_>) -> Outcome<Granted> {
        let (mut noted, mut nonce_due) = (Noted::default(), false);
        let result = self.grant_token(&request, &mut noted, &mut nonce_due).await;
        Outcome { nonce_due, ..Outcome::new(request.presented, noted, result) }
    }

    async fn grant_token(
        &self,
        request: &TokenRequest<'_>,
        noted: &mut Noted,
        nonce_due: &mut bool,
    ) -> Result<Granted, Error> {
        // A request that carries several credentials is malformed before anything is checked.
        if let Err(error @ Error::Request(_)) = &request.presented {
            return Err(error.clone());
        }
        // Cheap, so before any secret is hashed.
        match request.grant_type {
            None => return Err(RequestError::NoGrantType.into()),
            Some("client_credentials") => {}
            Some(other) => return Err(grant::unsupported(other).into()),
        }
        let now = self.clock.now();
        // Before anything is spent: who is asked for a nonce sends the same assertion again (DPO-23).
        let proof = self.dpop.check(&request.proofs, request.by_alias, now);
        let proof = proof.inspect_err(|error| *nonce_due = *error == DpopError::Nonce)?;
        let authenticated = self.authenticated(&request.presented, request.source, now, noted).await?;
        let client = &authenticated.client;
        let binding = binding(self.profile, &authenticated, proof.as_ref(), request.certificate);
        let admitted = grant::admit(self.profile, client, &binding);
        // H40: who has proved itself has used its assertion, whatever is refused then. A proof is used by who is admitted.
        let of_proof = proof.as_ref().filter(|_| admitted.is_ok()).map(Proof::spend);
        self.spend(&authenticated, of_proof, request.source).await?;
        admitted?;
        *nonce_due = proof.as_ref().is_some_and(|proof| proof.nonce_due);
        let mut grant = grant::decide(client, &self.registry.snapshot(), &self.defaults, &request.asked, binding)?;
        if self.profile == Profile::Fapi2 {
            grant.typ = TokenTyp::AtJwt;
        }

        let key = self.signing_key(grant.alg, now)?;
        let started = Instant::now();
        let access_token = access_token::mint(self.issuer.as_str(), client, &grant, key, now)?;
        self.signing_seconds.observe(started.elapsed().as_secs_f64());
        Ok(Granted {
            access_token,
            token_type: grant.binding.token_type(),
            scope: grant.scope,
            expires_in: grant.ttl,
            aud: grant.aud,
            raw_reading: authenticated.raw_reading,
        })
    }

    async fn authenticated(
        &self,
        presented: &Result<Presented<'_>, Error>,
        source: IpAddr,
        now: UnixTime,
        noted: &mut Noted,
    ) -> Result<Authenticated, Error> {
        let presented = presented.as_ref().map_err(Error::clone)?;
        self.authenticator.authenticate(presented, source, now, noted).await
    }

    /// Answers a resource server that asks about a token (RFC 7662).
    pub async fn introspect(&self, request: TokenQuery<'_>) -> Outcome<Introspected> {
        let mut noted = Noted::default();
        let result = self.introspected(&request, &mut noted).await;
        Outcome::new(request.presented, noted, result)
    }

    async fn introspected(&self, request: &TokenQuery<'_>, noted: &mut Noted) -> Result<Introspected, Error> {
        let token = request.token.ok_or(RequestError::NoToken)?;
        let now = self.clock.now();
        let caller = self.authenticated(&request.presented, request.source, now, noted).await?;
        self.spend(&caller, None, request.source).await?;
        let issued = self.issued(token, self.latest(now)).await?;
        let about = issued.as_ref().map_err(|inactive| *inactive);
        let about = about.and_then(|issued| issued.has_begun(now).map(|()| issued));
        let introspected = Introspected::new(&caller.client, about, &self.registry);
        self.confirm(introspected.inactive)?;
        Ok(introspected)
    }

    /// The answer to a resource server as a JWT (RFC 9701).
    ///
    /// # Errors
    /// [`Error`] when nothing can sign.
    pub fn signed(&self, introspected: &Introspected) -> Result<String, Error> {
        let now = self.clock.now();
        // RFC 9701 section 6, introspection_signed_response_alg.
        let key = self.signing_key(introspected.alg.unwrap_or(self.defaults.alg), now)?;
        introspected.signed(self.issuer.as_str(), &key, now)
    }

    /// The key that signs by `alg` now, if the profile permits that.
    fn signing_key(&self, alg: Alg, now: UnixTime) -> Result<Arc<SigningKey>, Unavailable> {
        let key = self.keyring.signing(alg, self.registry.database_time(now));
        let key = key.filter(|_| self.profile.permits_alg(alg));
        key.ok_or(Unavailable::NoKey)
    }

    /// Revokes a token at the wish of the client that has it (RFC 7009).
    pub async fn revoke(&self, request: TokenQuery<'_>) -> Outcome<Revocation> {
        let mut noted = Noted::default();
        let result = self.revoked(&request, &mut noted).await;
        Outcome::new(request.presented, noted, result)
    }

    async fn revoked(&self, request: &TokenQuery<'_>, noted: &mut Noted) -> Result<Revocation, Error> {
        let token = request.token.ok_or(RequestError::NoToken)?;
        let now = self.clock.now();
        let caller = self.authenticated(&request.presented, request.source, now, noted).await?;
        self.spend(&caller, None, request.source).await?;
        let issued = match self.issued(token, self.latest(now)).await? {
            Ok(issued) => issued,
            // RFC 7009 section 2.2: "The authorization server responds with HTTP status code 200 if the token has been
            // revoked successfully or if the client submitted an invalid token."
            Err(inactive) => {
                self.confirm(Some(inactive))?;
                return Ok(Revocation { jti: None, inactive: Some(inactive) });
            }
        };
        // RFC 7009 section 2.1: "verifies whether the token was issued to the client making the revocation request. If this
        // validation fails, the request is refused and the client is informed of the error".
        if issued.client_id != caller.client.client_id.as_str() {
            return Err(Error::OtherClientsToken);
        }
        let done = Revocation { jti: Some(issued.jti.to_string()), inactive: None };
        // Also where it is known to be revoked: what is known here may be from before the database was restored.
        //
        // A task of its own: a client that leaves takes its answer with it, not the write.
        let (store, jti, exp) = (self.store.clone(), issued.jti, issued.exp);
        let written = tokio::spawn(async move { store.revoke_token(&jti, &issued.client_id, exp, now).await }).await;
        if let Err(fault) = written.map_err(|_| Error::Internal)? {
            tracing::error!(event = Event::RevocationNotWritten.as_str(), reason = %fault, "a token was not revoked");
            return Err(Unavailable::RevokedStore.into());
        }
        self.registry.revoked.add(jti, exp);
        Ok(done)
    }

    /// What a token says, if it is one of ours whose time is not over.
    ///
    /// # Errors
    /// [`Unavailable::Unconfirmed`] while its key is in the database and not here yet: what it signed may be good.
    async fn issued(&self, token: &str, now: UnixTime) -> Result<Result<Issued, Inactive>, Error> {
        let issued = access_token::verify(token, self.issuer.as_str(), &self.keyring, now);
        if !matches!(issued, Err(Inactive::Key)) {
            return Ok(issued);
        }
        let unknown = access_token::kid(token).filter(|kid| !self.keyring.knows(kid));
        let Some(unknown) = unknown else { return Ok(issued) };
        // Boxed, like what is spent.
        match Box::pin(self.store.has_key(&unknown)).await {
            Ok(false) => Ok(issued),
            Ok(true) => Err(Unavailable::Unconfirmed.into()),
            Err(fault) => {
                tracing::warn!(event = Event::IntrospectionUnknownKey.as_str(), reason = %fault, "nothing is said of a token whose key is not known here");
                Err(Unavailable::Unconfirmed.into())
            }
        }
    }

    /// Spends what may be used once, the assertion of the client and the proof. One insert decides, after every other
    /// check of who asks and before what is asked for is looked at.
    async fn spend(&self, client: &Authenticated, of_proof: Option<SingleUseId>, source: IpAddr) -> Result<(), Error> {
        let uses: Vec<SingleUseId> = client.spend.clone().into_iter().chain(of_proof).collect();
        if uses.is_empty() {
            return Ok(());
        }
        // Boxed, since every request's future would have room for what only some do.
        match Box::pin(self.store.spend(uses)).await {
            Ok(ReplayCheck::New) => {}
            Ok(ReplayCheck::Replayed(SingleUseKind::Assertion)) => {
                return Err(ClientAuthError::AssertionReplayed.into());
            }
            Ok(ReplayCheck::Replayed(SingleUseKind::DpopProof)) => return Err(DpopError::Replayed.into()),
            Err(error) => {
                tracing::warn!(event = Event::SpentTrouble.as_str(), reason = %error, "what may be used once is refused until the database answers");
                return Err(Unavailable::SpentStore.into());
            }
        }
        if client.spend.is_some() {
            // Not before: an assertion that somebody overheard says nothing good of where it comes from.
            self.authenticator.known_sources.add(source);
        }
        Ok(())
    }

    /// What only the database can tell is not said while it cannot be asked.
    fn confirm(&self, inactive: Option<Inactive>) -> Result<(), Unavailable> {
        match (inactive, self.registry.freshness()) {
            (_, Freshness::Unusable) => Err(Unavailable::Registry),
            (Some(inactive), Freshness::Stale(_)) if !inactive.is_final() => Err(Unavailable::Unconfirmed),
            _ => Ok(()),
        }
    }

    /// The metadata as the registry stands.
    #[must_use]
    pub fn metadata(&self) -> Arc<Metadata> {
        let snapshot = self.registry.snapshot();
        let described = self.metadata.load();
        if described.revision == snapshot.revision
            && let Some(documents) = &described.documents
        {
            return Arc::clone(documents);
        }
        let documents =
            Arc::new(metadata::documents(&self.issuer, self.profile, &self.mutual_tls, &self.keyring, &snapshot));
        let described = Described { revision: snapshot.revision, documents: Some(Arc::clone(&documents)) };
        self.metadata.store(Arc::new(described));
        documents
    }

    /// `now`, or the database's clock if that is ahead: when a token has ended there, its revocation may have been swept.
    fn latest(&self, now: UnixTime) -> UnixTime {
        now.max(self.registry.database_time(now))
    }

    /// The present second by the database's clock.
    #[must_use]
    pub fn database_time(&self) -> UnixTime {
        self.registry.database_time(self.clock.now())
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
            Freshness::Current | Freshness::Stale(_) => self.registry.incomplete().map_or(Ok(()), Err),
        };
        let key = self.keyring.signing(self.defaults.alg, self.database_time());
        let keys = key.map(drop).ok_or_else(|| format!("no signing key for {}", self.defaults.alg));
        vec![("registry", registry), ("keys", keys), ("clock", self.registry.clock_agrees())]
    }
}

/// What a token is bound to: the key of the proof, and the certificate where it authenticated the client or must be bound.
fn binding(
    profile: Profile,
    authenticated: &Authenticated,
    proof: Option<&Proof>,
    certificate: Option<&PeerCertificate>,
) -> Binding {
    // RFC 8705 section 3 binds where the client is registered for it. One that authenticates by its certificate has it there
    // at each request, unless it shows a proof: then its API may be reached without a certificate.
    let by_certificate =
        matches!(authenticated.method, AuthMethod::TlsClientAuth | AuthMethod::SelfSignedTlsClientAuth);
    let registered = by_certificate && proof.is_none() || authenticated.client.require_mtls_binding;
    // Where a token has to be bound to something, the certificate is what there is.
    let binds = registered || profile.needs_binding() && proof.is_none();
    Binding {
        jkt: proof.map(|proof| proof.jkt.clone()),
        x5t_s256: certificate.filter(|_| binds).map(|peer| peer.certificate.x5t_s256()),
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

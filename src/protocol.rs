//! The protocol. [`AuthorizationServer::token`] is one token request, from its first check to the signature; `introspect`
//! and `revoke` are about tokens that were issued.

pub mod access_token;
mod attempt;
pub mod client_assertion;
pub mod client_auth;
pub mod client_certificate;
pub mod client_secret;
pub mod compared;
pub mod dpop;
pub mod error;
pub mod federation;
pub mod grant;
pub mod introspection;
mod messages;
pub mod metadata;
pub mod presented_jwt;
pub mod status_list;
pub mod verification;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::crypto::jwk::Alg;
use crate::crypto::secret::ClientSecret;
use crate::model::client::AuthMethod;
use crate::model::event::Event;
use crate::model::issuer::Issuer;
use crate::model::profile::Profile;
use crate::model::time::{Clock, UnixTime};
use crate::state::keyring::{self, Keyring, Term};
use crate::state::registry::moment::Moment;
use crate::state::registry::{Freshness, Registry};
use crate::state::signer::Signer;
use crate::store::Store;
use crate::store::replay_cache::ReplayCache;
use crate::store::revoked::RevokedToken;
use crate::store::spent::{ReplayCheck, SingleUseId, SingleUseKind};

use access_token::IssuedToken;
use client_auth::{AuthenticatedClient, Authenticator, Credential};
use dpop::{Dpop, Proof};
use error::dpop::DpopError;
use error::federation::FederationError;
use error::inactive::Inactive;
use error::{ClientAuthError, Error, RequestError, Unavailable};
use grant::{Binding, Defaults, Grant, GrantType};
use introspection::IntrospectionResponse;
use metadata::{CachedMetadata, Metadata, MutualTls};
use status_list::StatusLists;

pub use attempt::Attempt;
pub use messages::{Revocation, TokenQuery, TokenRequest, TokenResponse};

/// The server: its configuration, what it knows, and what signs.
#[derive(Debug)]
pub struct AuthorizationServer {
    /// The issuer identifier, which stands in every token.
    pub issuer: Issuer,
    /// The requirements beyond the RFCs.
    pub profile: Profile,
    /// The offer to clients with certificates.
    pub mutual_tls: MutualTls,
    /// The properties of tokens that neither client nor resource sets.
    pub defaults: Defaults,
    /// Every client and resource.
    pub registry: Arc<Registry>,
    /// Signing keys.
    pub keyring: Arc<Keyring>,
    /// Client authentication.
    pub authenticator: Authenticator,
    /// The checks of DPoP proofs.
    pub dpop: Dpop,
    /// Proofs that came with tokens to APIs whose gateways ask here.
    pub api_proofs: ReplayCache,
    /// The database, for what has to be written before an answer.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// The status lists.
    pub status_lists: StatusLists,
    /// The metadata, made once for each revision of the registry.
    pub metadata: ArcSwap<CachedMetadata>,
}

impl AuthorizationServer {
    /// Answers a token request (RFC 6749 section 4.4). The numbers are those of the table in ARCHITECTURE.md.
    ///
    /// # Errors
    /// [`Error`]: the refusal.
    pub async fn token(&self, request: TokenRequest<'_>, attempt: &mut Attempt) -> Result<TokenResponse, Error> {
        // 5. The grant type: cheap, so before any secret is hashed.
        let grant_type = GrantType::read(request.grant_type, || self.offers_jwt_bearer())?;
        // 6. The proof. Nothing is spent before it: a client that is asked for a nonce sends the same assertion again.
        let mut moment = self.moment();
        let proof = self.proof(&request, moment.now, attempt)?;
        // 7. and 8. The client.
        let authenticated = self.authenticate(&request.credential, request.source, &mut moment, attempt).await;
        let authenticated = authenticated.map_err(|error| grant_type.refusal(error))?;
        let client = &authenticated.client;
        // 9. Whether the client may have tokens at all, bound like this. A client that has proved itself has used its
        //    assertion, whatever is refused then; a proof is used by a client that is admitted.
        let binding = Binding::new(self.profile, &authenticated, proof.as_ref(), request.certificate.as_ref());
        let admission = grant::admit(self.profile, client, grant_type, &binding);
        let used_proof = proof.as_ref().filter(|_| admission.is_ok());
        let spent = self.spend(authenticated.assertion.as_ref(), used_proof, request.source).await;
        spent.map_err(|error| grant_type.refusal(error))?;
        admission?;
        if proof.as_ref().is_some_and(|proof| proof.nonce_due) {
            attempt.dpop_nonce = Some(self.dpop.nonce(moment.now)?);
        }
        // 10. Scope, audience, lifetime, algorithm.
        let (access, snapshot) = (&request.access, &moment.snapshot);
        let granted = grant::decide(self.profile, client, snapshot, &self.defaults, access, binding);
        let mut grant = granted.inspect_err(|error| {
            let asked = (access.scope, access.resources.as_slice());
            attempt.refused = attempt.compared.access(*error, client, snapshot, asked);
        })?;
        grant.within_certificate(authenticated.method, request.certificate.as_ref(), moment.now);
        // While a change of many clients is being loaded, the epoch of one may have ended and the next be unknown.
        if grant.status.is_some_and(|index| self.registry.ended.contains(index)) {
            return Err(Unavailable::Registry.into());
        }
        // 11. The token.
        self.issue(&authenticated, grant, moment.now).await
    }

    /// Whether the grant `jwt-bearer` is offered: while the tokens of some trusted issuer can be used for it.
    #[must_use]
    pub fn offers_jwt_bearer(&self) -> bool {
        metadata::offers(self.profile, &self.registry.snapshot(), AuthMethod::FederatedJwt)
    }

    /// The view of one request.
    fn moment(&self) -> Moment {
        Moment::new(&self.registry, self.clock.now())
    }

    /// The DPoP proof of a token request, if it has one. A client that has to show a nonce gets one with the refusal
    /// (RFC 9449 section 8).
    fn proof(&self, request: &TokenRequest<'_>, now: UnixTime, attempt: &mut Attempt) -> Result<Option<Proof>, Error> {
        let proof = self.dpop.check(&request.proofs, request.by_alias, now);
        match (&proof, request.proofs.first()) {
            (Err(DpopError::Nonce), _) => attempt.dpop_nonce = Some(self.dpop.nonce(now)?),
            (Err(error), Some(presented)) => attempt.compared.proof(presented, *error, now),
            _ => {}
        }
        Ok(proof?)
    }

    async fn authenticate(
        &self,
        credential: &Credential<'_>,
        source: IpAddr,
        moment: &mut Moment,
        attempt: &mut Attempt,
    ) -> Result<AuthenticatedClient, Error> {
        self.authenticator.authenticate(credential, source, moment, attempt).await
    }

    /// Signs the token that was granted. It lives no longer than its key is certain to be published.
    async fn issue(
        &self,
        authenticated: &AuthenticatedClient,
        mut grant: Grant,
        now: UnixTime,
    ) -> Result<TokenResponse, Error> {
        let (Term { max_ttl, .. }, key) = self.signer(grant.alg, now)?;
        let longest = keyring::longest_ttl(max_ttl, self.registry.staleness()).ok_or(Unavailable::Registry)?;
        grant.ttl = grant.ttl.min(longest);
        let started = Instant::now();
        let access_token = access_token::mint(self.issuer.as_str(), &authenticated.client, &grant, key, now).await?;
        Ok(TokenResponse {
            signing: started.elapsed(),
            access_token,
            token_type: grant.binding.token_type(),
            scope: grant.scope,
            expires_in: grant.ttl,
            aud: grant.aud,
            raw_reading: authenticated.raw_reading,
        })
    }

    /// Answers a resource server that asks about a token (RFC 7662), with a JWT where it wants one (RFC 9701).
    ///
    /// # Errors
    /// [`Error`]: the refusal.
    pub async fn introspect(
        &self,
        request: TokenQuery<'_>,
        attempt: &mut Attempt,
    ) -> Result<IntrospectionResponse, Error> {
        let token = request.token.ok_or(RequestError::NoToken)?;
        let mut moment = self.moment();
        let caller = self.authenticate(&request.credential, request.source, &mut moment, attempt).await?;
        self.spend(caller.assertion.as_ref(), None, request.source).await?;
        let issued = self.issued(token, self.latest(moment.now)).await?;
        let issued = issued.and_then(|issued| issued.has_begun(moment.now).map(|()| issued));
        let issued = issued.as_ref().map_err(|error| *error);
        let response = IntrospectionResponse::new(&caller.client, issued, &self.registry, moment.now);
        self.confirm(response.inactive)?;
        if !request.wants_jwt {
            return Ok(response);
        }
        // RFC 9701 section 6, introspection_signed_response_alg.
        let alg = caller.client.introspection_signed_response_alg.unwrap_or(self.defaults.alg);
        let (_, key) = self.signer(alg, moment.now)?;
        response.signed(self.issuer.as_str(), &key, moment.now).await
    }

    /// The key that signs by `alg` now, if the profile permits that.
    fn signer(&self, alg: Alg, now: UnixTime) -> Result<(Term, Arc<Signer>), Unavailable> {
        let key = self.keyring.signer(alg, self.registry.database_time(now));
        let key = key.filter(|_| self.profile.permits_alg(alg));
        key.ok_or(Unavailable::NoKey)
    }

    /// Revokes a token at the request of the client that it was issued to (RFC 7009).
    ///
    /// # Errors
    /// [`Error`]: the refusal.
    pub async fn revoke(&self, request: TokenQuery<'_>, attempt: &mut Attempt) -> Result<Revocation, Error> {
        let token = request.token.ok_or(RequestError::NoToken)?;
        let mut moment = self.moment();
        let caller = self.authenticate(&request.credential, request.source, &mut moment, attempt).await?;
        self.spend(caller.assertion.as_ref(), None, request.source).await?;
        let issued = match self.issued(token, self.latest(moment.now)).await? {
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
        // Also where it is known to be revoked: what is known here may be from before the database was restored.
        self.write_revocation(issued, moment.now).await
    }

    /// Writes a revocation in a task of its own, so that it completes even if the client disconnects.
    async fn write_revocation(&self, issued: IssuedToken, now: UnixTime) -> Result<Revocation, Error> {
        let (store, registry, jti) = (self.store.clone(), Arc::clone(&self.registry), issued.jti);
        let token = RevokedToken { jti, client_id: issued.client_id, expires_at: issued.exp, revoked_at: now };
        let written = tokio::spawn(async move {
            let written = store.revoke_in_batch(token).await;
            match &written {
                Ok(()) => registry.note_revoked(jti, issued.exp),
                Err(fault) => {
                    tracing::error!(event = Event::RevocationNotWritten.as_str(), reason = %fault, "a token was not revoked");
                }
            }
            written.is_ok()
        });
        if !written.await.map_err(|_| Error::Internal)? {
            return Err(Unavailable::RevokedStore.into());
        }
        Ok(Revocation { jti: Some(jti.to_string()), inactive: None })
    }

    /// The token, if it is one of ours whose time is not over.
    ///
    /// # Errors
    /// [`Unavailable::Unconfirmed`] while its key is in the database and not here yet: what it signed may be good.
    async fn issued(&self, token: &str, now: UnixTime) -> Result<Result<IssuedToken, Inactive>, Error> {
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

    /// Spends the assertion and the proof in one insert, after every other check of the sender and before scope and resource
    /// are looked at.
    async fn spend(&self, assertion: Option<&SingleUseId>, proof: Option<&Proof>, source: IpAddr) -> Result<(), Error> {
        let uses: Vec<SingleUseId> = assertion.cloned().into_iter().chain(proof.map(Proof::spend)).collect();
        if uses.is_empty() {
            return Ok(());
        }
        // Boxed, to keep the future of other requests small.
        match Box::pin(self.store.spend(uses)).await {
            Ok(ReplayCheck::New) => {}
            Ok(ReplayCheck::Replayed(SingleUseKind::Assertion)) => {
                return Err(ClientAuthError::AssertionReplayed.into());
            }
            Ok(ReplayCheck::Replayed(SingleUseKind::Federated)) => return Err(FederationError::Replayed.into()),
            Ok(ReplayCheck::Replayed(SingleUseKind::DpopProof)) => return Err(DpopError::Replayed.into()),
            Err(error) => {
                tracing::warn!(event = Event::SpentTrouble.as_str(), reason = %error, "what may be used once is refused until the database answers");
                return Err(Unavailable::SpentStore.into());
            }
        }
        if assertion.is_some() {
            // Not before: an assertion that somebody overheard says nothing good of where it comes from.
            self.authenticator.known_sources.add(source);
        }
        Ok(())
    }

    /// Refuses an answer that the database could contradict, unless the snapshot is fresh.
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
        if let Some(documents) = self.metadata.load().at(snapshot.revision) {
            return documents;
        }
        let documents = metadata::documents(&self.issuer, self.profile, &self.mutual_tls, &self.keyring, &snapshot);
        let documents = Arc::new(documents);
        self.metadata.store(Arc::new(CachedMetadata::new(snapshot.revision, Arc::clone(&documents))));
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

/// The readings of a secret: each way in which its bytes can be read.
#[must_use]
pub fn readings(decoded: String, raw: Option<String>) -> Vec<Arc<ClientSecret>> {
    std::iter::once(decoded).chain(raw).map(ClientSecret::new).map(Arc::new).collect()
}

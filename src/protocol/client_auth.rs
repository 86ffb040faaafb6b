//! Client authentication (RFC 6749 section 2.3), by the one credential that a request carries.

mod admission;
mod by_federation;
mod by_key;
mod by_svid;
mod by_verifier;
mod failure;

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

use super::attempt::Attempt;
use super::client_secret::{self, Memory};
use super::error::{ClientAuthError, Error, RequestError, Unavailable};
use super::federation::known_tokens::KnownTokens;
use super::presented_jwt::{PresentedAssertion, PresentedJwt};

use crate::crypto::secret::{ClientSecret, HashParams};
use crate::crypto::secret_tag::TagKid;
use crate::crypto::secret_verifier::VerifierKey;
use crate::model::certificate::PeerCertificate;
use crate::model::client::{AuthMethod, Client};
use crate::model::profile::Profile;
use crate::state::hashing::Lane;
use crate::state::hashing::queue::{Priority, QueueKey};
use crate::state::key_sets::KeySets;
use crate::state::key_sets::source::Source;
use crate::state::registry::moment::Moment;
use crate::state::registry::{Freshness, Registry};
use crate::state::throttle::repeated::RepeatedSecrets;
use crate::state::throttle::{KnownSources, Throttle, Throttled, network};
use crate::store::spent::SingleUseId;

use admission::{may_authenticate, no_such, usable};
pub use by_svid::spiffe_id;
pub use by_verifier::{NextStep, UsedSecret};
pub use failure::OwnerSearches;

/// The credential of a request, read but not checked.
#[derive(Debug)]
pub enum Credential<'a> {
    /// `client_secret_basic` or `client_secret_post`.
    Secret {
        /// The client that it is said to be of.
        client_id: String,
        /// Basic or post.
        method: AuthMethod,
        /// The secret, in each way that its bytes can be read: form-decoded and, where that differs, raw.
        readings: Vec<Arc<ClientSecret>>,
    },
    /// `private_key_jwt`, or a token of a trusted issuer.
    Assertion(PresentedAssertion<'a>),
    /// `tls_client_auth`, `self_signed_tls_client_auth` or `spiffe_x509`: which of them turns out when it matches.
    Certificate {
        /// The client that the body names. An X.509-SVID needs none.
        client_id: Option<String>,
        /// The certificate of the connection.
        certificate: PeerCertificate,
    },
    /// None that can be read. It is refused when its turn comes: after the grant type and the proof.
    Unreadable(ClientAuthError),
}

impl Credential<'_> {
    /// The client that it names, known or not.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        match self {
            Self::Secret { client_id, .. } => Some(client_id),
            Self::Certificate { client_id, .. } => client_id.as_deref(),
            Self::Assertion(assertion) => assertion.client_id(),
            Self::Unreadable(_) => None,
        }
    }

    /// The record of a request that carries it.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        let client_id = match self {
            Self::Unreadable(ClientAuthError::SecretEmpty(client_id)) => Some(&**client_id),
            _ => self.client_id(),
        };
        Attempt { client_id: client_id.map(str::to_owned), method: self.method(), ..Attempt::default() }
    }

    /// The authentication method, as far as it can be told before it is checked.
    #[must_use]
    pub fn method(&self) -> Option<AuthMethod> {
        match self {
            Self::Secret { method, .. } => Some(*method),
            Self::Assertion(assertion) => Some(assertion.method()),
            Self::Certificate { .. } => Some(AuthMethod::TlsClientAuth),
            Self::Unreadable(_) => None,
        }
    }
}

/// A client that has proved who it is.
#[derive(Debug)]
pub struct AuthenticatedClient {
    /// The client.
    pub client: Arc<Client>,
    /// The method that it used.
    pub method: AuthMethod,
    /// Whether the raw reading of a Basic secret was the right one: the client does not form-encode.
    pub raw_reading: bool,
    /// The one use of its assertion. It is not spent yet: that comes after every other check.
    pub assertion: Option<SingleUseId>,
}

/// A secret, and the party that presents it.
struct PresentedSecret<'a> {
    claimant: Claimant<'a>,
    method: AuthMethod,
    readings: &'a [Arc<ClientSecret>],
}

/// The party that says it is a client.
#[derive(Clone, Copy)]
struct Claimant<'a> {
    client_id: &'a str,
    source: IpAddr,
}

/// Owner of a key set that is fetched: a client or an issuer.
#[derive(Clone, Copy)]
struct KeyOwner<'a> {
    sets: &'a KeySets,
    /// The client's id, or the issuer.
    name: &'a str,
    source: &'a Source,
}

/// The state that client authentication needs.
#[derive(Debug)]
pub struct Authenticator {
    /// Which methods and algorithms are taken.
    pub profile: Profile,
    /// The audience of assertions: the issuer.
    pub audience: Arc<str>,
    /// The URLs of the token endpoint, which are accepted for clients that are registered for it.
    pub token_endpoints: Box<[Box<str>]>,
    /// Every client.
    pub registry: Arc<Registry>,
    /// Keys that clients publish.
    pub client_jwks: KeySets,
    /// Keys of trusted issuers.
    pub issuer_keys: KeySets,
    /// Knows tokens of trusted issuers again.
    pub known_tokens: KnownTokens,
    /// Knows secrets again.
    pub memory: Memory,
    /// Checks secrets.
    pub lane: Lane,
    /// Slows down guessing.
    pub throttle: Throttle,
    /// Keeps a share of the hashes for secrets that are presented again while their client is slowed down.
    pub repeated: RepeatedSecrets,
    /// Sources that a right secret has come from.
    pub known_sources: KnownSources,
    /// Limits the searches for the owner of a secret.
    pub owner_searches: OwnerSearches,
    /// Chooses what an unknown client costs, always the same for the same id.
    pub decoys: RandomState,
    /// The configured cost of hashes.
    pub cost: HashParams,
    /// Makes the verifiers of secrets.
    pub verifiers: VerifierKey,
    /// Number of verifiers that accepted what their hash refused, for `grantd_secret_verifier_mismatches_total`.
    pub verifier_mismatches: Counter,
    /// Takes secrets that were used and whose rows need work.
    pub upkeep: mpsc::Sender<UsedSecret>,
}

impl Authenticator {
    /// Authenticates the client of a request that came from `source`, and notes in `attempt` what the log may say.
    ///
    /// A remembered secret costs one MAC. The work of any other attempt depends on what was presented, never on whether the
    /// client exists. `moment` is renewed after each wait.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn authenticate(
        &self,
        credential: &Credential<'_>,
        source: IpAddr,
        moment: &mut Moment,
        attempt: &mut Attempt,
    ) -> Result<AuthenticatedClient, Error> {
        self.within_profile(credential)?;
        let freshness = moment.freshness;
        if freshness == Freshness::Unusable {
            return Err(Unavailable::Registry.into());
        }
        let claimant = |client_id| Claimant { client_id, source };
        let decided = match credential {
            Credential::Secret { client_id, method, readings } => {
                let presented = PresentedSecret { claimant: claimant(client_id), method: *method, readings };
                match self.by_memory(&presented, moment, attempt) {
                    Some(decided) => decided,
                    None => self.by_tag_or_hash(&presented, moment, attempt).await,
                }
            }
            // Boxed, here and below, to keep the future of other requests small.
            Credential::Assertion(assertion) => Box::pin(self.by_jwt(assertion, source, moment, attempt)).await,
            Credential::Certificate { client_id, certificate } => {
                Box::pin(self.by_connection(client_id.as_deref(), source, certificate, moment, attempt)).await
            }
            Credential::Unreadable(error) => return Err(error.clone().into()),
        };
        if let Err(Error::ClientAuth(error)) = &decided {
            match credential {
                Credential::Assertion(assertion) => {
                    if let PresentedJwt::New(jwt) = &assertion.jwt {
                        attempt.compared.assertion(&jwt.unverified, error, &self.audience, moment.now);
                    }
                }
                Credential::Certificate { certificate, .. } => attempt.compared.certificate(certificate),
                _ => {}
            }
        }
        match decided {
            // The credential may be newer than what is known here: that is said, and not that it is wrong.
            Err(Error::ClientAuth(_)) if freshness != Freshness::Current => Err(Unavailable::Unconfirmed.into()),
            decided => decided,
        }
    }

    /// Refuses what nobody may authenticate with here, before anything is looked up.
    fn within_profile(&self, credential: &Credential<'_>) -> Result<(), ClientAuthError> {
        if credential.method().is_some_and(|method| !self.profile.permits_method(method)) {
            return Err(ClientAuthError::MethodNotInProfile);
        }
        match credential {
            Credential::Assertion(assertion) => match &assertion.jwt {
                PresentedJwt::New(jwt) if !self.profile.permits_signature(jwt.unverified.header().alg()) => {
                    Err(ClientAuthError::AssertionAlg)
                }
                PresentedJwt::New(_) | PresentedJwt::Known(_) => Ok(()),
            },
            Credential::Unreadable(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Decides on a secret that is remembered. This stands before the throttle: what others do wrong must not lock out a
    /// client that is known.
    fn by_memory(
        &self,
        presented: &PresentedSecret<'_>,
        moment: &Moment,
        attempt: &mut Attempt,
    ) -> Option<Result<AuthenticatedClient, Error>> {
        let PresentedSecret { claimant: Claimant { client_id, source }, method, readings } = *presented;
        let client = moment.snapshot.client(client_id);
        let matched = self.memory.recall(client.map(|client| &**client), readings)?;
        attempt.credential_id = Some(matched.secret.secret_id.clone());
        if let Err(error) = usable(client?, method, matched.secret, moment) {
            return Some(Err(error.into()));
        }
        self.registry.uses.note_secret(matched.secret, moment.now);
        self.known_sources.add(source);
        self.look_after(client_id, matched.secret, readings.get(matched.reading)?);
        let raw_reading = matched.reading > 0;
        Some(Ok(AuthenticatedClient { client: Arc::clone(client?), method, raw_reading, assertion: None }))
    }

    /// Decides on a secret that is not remembered: by its tag and verifier, or by hashes.
    async fn by_tag_or_hash(
        &self,
        presented: &PresentedSecret<'_>,
        moment: &mut Moment,
        attempt: &mut Attempt,
    ) -> Result<AuthenticatedClient, Error> {
        let PresentedSecret { claimant: Claimant { client_id, source }, readings, .. } = *presented;
        let tagged = client_secret::tagged(&moment.snapshot, client_id, readings);
        if let Some(decided) = tagged.and_then(|tagged| self.by_verifier(presented, tagged, moment, attempt)) {
            return decided;
        }
        let needs_hashes = client_secret::needs_hashes(&moment.snapshot, readings, tagged.is_some());
        // Who shows a secret that was made for this client is not slowed down by those who guess at it, only by itself.
        let guesser = tagged.map_or(client_id, |tagged| tagged.secret_id);
        let admitted = self.throttle.check(guesser, source, Instant::now());
        let decided = match admitted {
            Ok(()) if needs_hashes => {
                Box::pin(self.by_hash(presented, tagged.map(|tagged| tagged.kid), None, moment, attempt)).await
            }
            Ok(()) => Err(self.failure(&moment.snapshot, presented, tagged.is_some(), attempt).into()),
            // It may be the client's own secret, which cannot be told from a guess: see `throttle::repeated`.
            Err(slowed) if needs_hashes && tagged.is_none() => {
                Box::pin(self.by_hash(presented, None, Some(slowed), moment, attempt)).await
            }
            Err(slowed) => return Err(Error::Throttled(slowed)),
        };
        // While the database is away, a client that is new is not to be blamed for our not knowing it.
        if let Err(error @ Error::ClientAuth(_)) = &decided
            && moment.freshness == Freshness::Current
        {
            self.throttle.failed(guesser, source, error.reason().as_str(), Instant::now());
        }
        decided
    }

    /// Decides by hashes. `slowed` is the refusal of the throttle, if any.
    async fn by_hash(
        &self,
        presented: &PresentedSecret<'_>,
        tagged_by: Option<TagKid>,
        slowed: Option<Throttled>,
        moment: &mut Moment,
        attempt: &mut Attempt,
    ) -> Result<AuthenticatedClient, Error> {
        let PresentedSecret { claimant: Claimant { client_id, source }, method, readings } = *presented;
        let before = Arc::clone(&moment.snapshot);
        let priority = match tagged_by {
            Some(_) => Priority::Tagged,
            None if self.known_sources.contains(source) => Priority::KnownSource,
            None => Priority::Unknown,
        };
        let trial = client_secret::UnknownSecret {
            client_id,
            readings,
            tagged_by,
            place: QueueKey {
                priority,
                client: self.decoys.hash_one(client_id),
                source: self.decoys.hash_one(network(source)),
            },
            now: moment.now,
        };
        let client = before.client(client_id).map(|client| &**client);
        let trials = client_secret::trials(&before, &self.memory, client, &trial);
        let value = self.repeated.fingerprint(&trials.attempt, source);
        // The same computation would fail again.
        if self.repeated.was_refused(value) {
            return Err(match slowed {
                Some(slowed) => Error::Throttled(slowed),
                None => self.failure(&before, presented, tagged_by.is_some(), attempt).into(),
            });
        }
        if let Some(Throttled { last, .. }) = slowed {
            let admitted = self.repeated.admit(value, client_id, source, Instant::now());
            admitted.map_err(|wait| Error::Throttled(Throttled { wait, last }))?;
        }
        let matched = match client_secret::verify(&self.lane, trial.place, trials).await {
            Err(error @ Error::Unavailable(_)) => return Err(error),
            // The other error is a wrong secret, of which the cause is looked for below.
            matched => matched.ok(),
        };
        // The queue may have taken seconds: what counts is what is known now.
        moment.renew(&self.registry);
        if matched.is_none() {
            self.repeated.refused(value, Instant::now());
        }
        if let Some((matched, presented)) = matched.and_then(|matched| Some((matched, readings.get(matched.reading)?)))
        {
            self.memory.keep(matched.secret, presented);
        }

        let snapshot = &moment.snapshot;
        let known = snapshot.client(client_id).zip(matched).and_then(|(client, matched)| {
            let secret = client.secrets.iter().find(|secret| secret.is_still(matched.secret))?;
            Some((client, secret, matched.reading))
        });
        let Some((client, secret, reading)) = known else {
            return Err(self.failure(snapshot, presented, tagged_by.is_some(), attempt).into());
        };
        attempt.credential_id = Some(secret.secret_id.clone());
        usable(client, method, secret, moment)?;
        self.throttle.succeeded(client_id, source);
        self.known_sources.add(source);
        self.registry.uses.note_secret(secret, moment.now);
        if let Some(presented) = readings.get(reading) {
            self.look_after(client_id, secret, presented);
        }
        Ok(AuthenticatedClient { client: Arc::clone(client), method, raw_reading: reading > 0, assertion: None })
    }
}

/// Holds a `client_id` in the body against the client that other credentials name.
///
/// # Errors
/// [`RequestError::OtherClientId`].
pub fn same_client(authenticating: Option<&str>, in_body: Option<&str>) -> Result<(), RequestError> {
    match (authenticating, in_body) {
        (Some(one), Some(other)) if one != other => Err(RequestError::OtherClientId),
        _ => Ok(()),
    }
}

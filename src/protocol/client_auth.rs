//! Client authentication (RFC 6749 section 2.3): who asks, by the one credential that the request carries.

mod by_key;

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::client_secret::{self, Memory};
use super::error::{ClientAuthError, Error, RequestError, Unavailable};
use crate::crypto::jose::Unverified;
use crate::crypto::secret::{ClientSecret, HashParams, SecretHash};
use crate::crypto::secret_tag::TagKid;
use crate::model::certificate::PeerCertificate;
use crate::model::client::{AuthMethod, Client};
use crate::model::credential::StoredSecret;
use crate::model::profile::Profile;
use crate::model::time::UnixTime;
use crate::state::client_jwks::ClientJwks;
use crate::state::hashing::Lane;
use crate::state::hashing::queue::{Priority, QueueKey};
use crate::state::registry::snapshot::Snapshot;
use crate::state::registry::{Freshness, Registry};
use crate::state::throttle::repeated::RepeatedSecrets;
use crate::state::throttle::{KnownSources, Throttle, network};
use crate::store::spent::SingleUseId;

/// The credential that a request carries, read but not checked.
#[derive(Debug)]
pub struct Presented<'a> {
    /// Who it says it is.
    pub client_id: String,
    /// How. Which of the two kinds of certificates it is turns out when it matches.
    pub method: AuthMethod,
    /// With what.
    pub credential: Credential<'a>,
}

/// What a client proves itself with.
#[derive(Debug)]
pub enum Credential<'a> {
    /// A secret, in each way that the bytes can be read: form-decoded and, where that differs, raw.
    Secret(Vec<Arc<ClientSecret>>),
    /// A JWT that it signed.
    Assertion(Box<Unverified<'a>>),
    /// The certificate of its connection.
    Certificate(PeerCertificate),
}

/// What the log may say of an attempt, whether or not it succeeds.
#[derive(Debug, Default)]
pub struct Noted {
    /// The credential that was right, even when it may no longer be used.
    pub credential_id: Option<Arc<str>>,
    /// How the client authenticates, as far as it is known.
    pub method: Option<AuthMethod>,
}

/// A client that has proved who it is.
#[derive(Debug)]
pub struct Authenticated {
    /// Who.
    pub client: Arc<Client>,
    /// How.
    pub method: AuthMethod,
    /// Whether the raw reading of a Basic secret was the right one: the client does not form-encode.
    pub raw_reading: bool,
    /// What it proved itself with, if that may be used once. It has not been spent: that comes after every other check.
    pub spend: Option<SingleUseId>,
}

/// What is decided on.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    client_id: &'a str,
    method: AuthMethod,
    source: IpAddr,
    now: UnixTime,
}

/// What authenticating takes.
#[derive(Debug)]
pub struct Authenticator {
    /// Which methods and algorithms are taken.
    pub profile: Profile,
    /// Whom assertions are for: the issuer.
    pub audience: Arc<str>,
    /// The URLs of the token endpoint, which are accepted for clients that are registered for it.
    pub token_endpoints: Box<[Box<str>]>,
    /// Every client.
    pub registry: Arc<Registry>,
    /// Keys that clients publish.
    pub client_jwks: ClientJwks,
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
    /// Chooses what an unknown client costs, always the same for the same id.
    pub decoys: RandomState,
    /// What hashes should cost.
    pub cost: HashParams,
    /// Takes secrets whose hashes cost less.
    pub outdated: mpsc::Sender<Outdated>,
}

impl Authenticator {
    /// Authenticates the client of a request that came from `source`, and notes what the log may say.
    ///
    /// A secret that is known again costs a MAC. Every other failure of a well-formed secret does the same work and has the
    /// same answer, whether or not the client exists.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn authenticate(
        &self,
        presented: &Presented<'_>,
        source: IpAddr,
        now: UnixTime,
        noted: &mut Noted,
    ) -> Result<Authenticated, Error> {
        noted.method = Some(presented.method);
        self.within_profile(presented)?;
        let freshness = self.registry.freshness();
        if freshness == Freshness::Unusable {
            return Err(Unavailable::Registry.into());
        }
        let attempt = Attempt { client_id: &presented.client_id, method: presented.method, source, now };
        let decided = match &presented.credential {
            Credential::Secret(readings) => match self.by_memory(&attempt, readings, noted) {
                Some(decided) => decided,
                None => self.by_proof(&attempt, readings, freshness, noted).await,
            },
            Credential::Assertion(assertion) => Box::pin(self.by_assertion(&attempt, assertion, noted)).await,
            Credential::Certificate(certificate) => Box::pin(self.by_certificate(&attempt, certificate, noted)).await,
        };
        match decided {
            // The credential may be newer than what we know: say so, rather than that it is wrong.
            Err(Error::ClientAuth(_)) if freshness != Freshness::Current => Err(Unavailable::Unconfirmed.into()),
            decided => decided,
        }
    }

    /// Refuses what nobody may authenticate with here, before anything is looked up.
    fn within_profile(&self, presented: &Presented<'_>) -> Result<(), ClientAuthError> {
        if !self.profile.permits_method(presented.method) {
            return Err(ClientAuthError::MethodNotInProfile);
        }
        match &presented.credential {
            Credential::Assertion(jwt) if !self.profile.permits_signature(jwt.header().alg()) => {
                Err(ClientAuthError::AssertionAlg)
            }
            _ => Ok(()),
        }
    }

    /// Decides on a secret that is known again. This stands before the throttle: what others do wrong must not lock out a
    /// client that is known.
    fn by_memory(
        &self,
        attempt: &Attempt<'_>,
        readings: &[Arc<ClientSecret>],
        noted: &mut Noted,
    ) -> Option<Result<Authenticated, Error>> {
        let Attempt { client_id, method, source, now } = *attempt;
        let snapshot = self.registry.snapshot();
        let client = snapshot.client(client_id);
        let matched = self.memory.recall(client.map(|client| &**client), readings)?;
        noted.credential_id = Some(matched.secret.secret_id.clone());
        if let Err(error) = usable(client?, method, matched.secret, now) {
            return Some(Err(error.into()));
        }
        matched.secret.cache.note_use(now);
        self.known_sources.add(source);
        let raw_reading = matched.reading > 0;
        Some(Ok(Authenticated { client: Arc::clone(client?), method, raw_reading, spend: None }))
    }

    /// Decides on a secret that is not known: by its tag, or by hashes.
    async fn by_proof(
        &self,
        attempt: &Attempt<'_>,
        readings: &[Arc<ClientSecret>],
        freshness: Freshness,
        noted: &mut Noted,
    ) -> Result<Authenticated, Error> {
        let Attempt { client_id, source, .. } = *attempt;
        let (tagged, needs_hashes) = {
            let snapshot = self.registry.snapshot();
            let tagged = client_secret::tagged(&snapshot, client_id, readings);
            (tagged, client_secret::needs_hashes(&snapshot, readings, tagged.is_some()))
        };
        // Who shows a secret that was made for this client is not slowed down by those who guess at it, only by itself.
        let guesser = tagged.map_or(client_id, |(_, secret_id)| secret_id);
        let admitted = self.throttle.check(guesser, source, Instant::now());
        let decided = match admitted {
            // Boxed, since every request's future would have room for what only few do.
            Ok(()) if needs_hashes => {
                Box::pin(self.by_hash(attempt, readings, tagged.map(|(kid, _)| kid), None, noted)).await
            }
            Ok(()) => Err(failure(&self.registry.snapshot(), client_id).into()),
            // It may be the client's own secret, which cannot be told from a guess: see `throttle::repeated`.
            Err(wait) if needs_hashes && tagged.is_none() => {
                Box::pin(self.by_hash(attempt, readings, None, Some(wait), noted)).await
            }
            Err(wait) => return Err(Error::Throttled(wait)),
        };
        // While the database is away, a client that is new is not to be blamed for our not knowing it.
        if matches!(decided, Err(Error::ClientAuth(_))) && freshness == Freshness::Current {
            self.throttle.failed(guesser, source, Instant::now());
        }
        decided
    }

    /// Decides by hashes. When the client is slowed down for this source, the time for which it is is `slowed`.
    async fn by_hash(
        &self,
        attempt: &Attempt<'_>,
        readings: &[Arc<ClientSecret>],
        tagged_by: Option<TagKid>,
        slowed: Option<Duration>,
        noted: &mut Noted,
    ) -> Result<Authenticated, Error> {
        let Attempt { client_id, method, source, now } = *attempt;
        let snapshot = self.registry.snapshot().clone();
        let priority = match tagged_by {
            Some(_) => Priority::Tagged,
            None if self.known_sources.contains(source) => Priority::KnownSource,
            None => Priority::Unknown,
        };
        let trial = client_secret::Unverified {
            client_id,
            readings,
            tagged_by,
            place: QueueKey {
                priority,
                client: self.decoys.hash_one(client_id),
                source: self.decoys.hash_one(network(source)),
            },
            now,
        };
        let client = snapshot.client(client_id).map(|client| &**client);
        let trials = client_secret::trials(&snapshot, &self.memory, client, &trial);
        let value = self.repeated.fingerprint(&trials.attempt, source);
        // The same computation would fail again.
        if self.repeated.was_refused(value) {
            return Err(slowed.map_or_else(|| failure(&snapshot, client_id).into(), Error::Throttled));
        }
        if slowed.is_some() {
            self.repeated.admit(value, client_id, source, Instant::now()).map_err(Error::Throttled)?;
        }
        let matched = match client_secret::verify(&self.lane, trial.place, trials).await {
            Err(error @ Error::Unavailable(_)) => return Err(error),
            matched => matched.ok(),
        };
        if matched.is_none() {
            self.repeated.refused(value, Instant::now());
        }
        if let Some((matched, presented)) = matched.and_then(|matched| Some((matched, readings.get(matched.reading)?)))
        {
            self.memory.keep(matched.secret, presented);
        }

        // The queue may have taken seconds: what counts is what is known now.
        let snapshot = self.registry.snapshot().clone();
        let known = snapshot.client(client_id).zip(matched).and_then(|(client, matched)| {
            let secret = client.secrets.iter().find(|secret| secret.is_still(matched.secret))?;
            Some((client, secret, matched.reading))
        });
        let Some((client, secret, reading)) = known else { return Err(failure(&snapshot, client_id).into()) };
        noted.credential_id = Some(secret.secret_id.clone());
        usable(client, method, secret, now)?;
        self.throttle.succeeded(client_id, source);
        self.known_sources.add(source);
        secret.cache.note_use(now);
        if let Some(presented) = readings.get(reading).filter(|_| secret.hash.params().is_cheaper_than(self.cost)) {
            self.raise_cost(secret, presented);
        }
        Ok(Authenticated { client: Arc::clone(client), method, raw_reading: reading > 0, spend: None })
    }

    /// Hands a secret that is hashed more cheaply than configured to whoever hashes it again. When that one is busy, the
    /// next use will do.
    fn raise_cost(&self, secret: &StoredSecret, presented: &Arc<ClientSecret>) {
        let outdated =
            Outdated { secret_id: secret.secret_id.clone(), hash: secret.hash.clone(), secret: Arc::clone(presented) };
        if self.outdated.try_send(outdated).is_err() {
            tracing::debug!(secret_id = &*secret.secret_id, "its hash will be raised at its next use");
        }
    }
}

/// A secret whose hash is cheaper than the configuration asks for, just used and so known in clear for a moment.
#[derive(Debug)]
pub struct Outdated {
    /// Which.
    pub secret_id: Arc<str>,
    /// The hash it has.
    pub hash: SecretHash,
    /// The secret.
    pub secret: Arc<ClientSecret>,
}

/// Why a client is not there.
fn no_such(snapshot: &Snapshot, client_id: &str) -> ClientAuthError {
    if snapshot.is_malformed(client_id) { ClientAuthError::Broken } else { ClientAuthError::Unknown }
}

/// Why a secret that matched nothing did not: for the log, the answer is the same.
fn failure(snapshot: &Snapshot, client_id: &str) -> ClientAuthError {
    snapshot.client(client_id).map_or_else(|| no_such(snapshot, client_id), |_| ClientAuthError::WrongSecret)
}

/// What an administrator decided of a client whose credential is right.
fn may_authenticate(client: &Client, method: AuthMethod) -> Result<(), ClientAuthError> {
    if !client.enabled {
        return Err(ClientAuthError::Disabled);
    }
    if !client.may_use(method) {
        return Err(ClientAuthError::MethodNotAllowed);
    }
    Ok(())
}

fn usable(client: &Client, method: AuthMethod, secret: &StoredSecret, now: UnixTime) -> Result<(), ClientAuthError> {
    may_authenticate(client, method)?;
    client_secret::usable(secret, now)
}

/// A `client_id` in the body beside other credentials names the same client: SEC-12.
///
/// # Errors
/// [`RequestError::OtherClientId`].
pub fn same_client(authenticating: &str, in_body: Option<&str>) -> Result<(), RequestError> {
    if in_body.is_none_or(|client_id| client_id == authenticating) { Ok(()) } else { Err(RequestError::OtherClientId) }
}

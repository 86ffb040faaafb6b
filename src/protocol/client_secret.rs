//! Client secrets (RFC 6749 section 2.3.1): remembered, refused by their tag, accepted by their verifier, or held against
//! hashes, always as many.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;

use super::error::{ClientAuthError, Error, Unavailable};
use crate::crypto::secret::{ClientSecret, SecretHash};
use crate::crypto::secret_tag::TagKid;
use crate::crypto::{NoEntropy, equal, hmac_sha256, random};
use crate::model::client::Client;
use crate::model::credential::{SecretOrigin, SecretState, StoredSecret};
use crate::model::time::UnixTime;
use crate::state::hashing::queue::QueueKey;
use crate::state::hashing::{AttemptId, HashCheck, Lane, LaneFull};
use crate::state::registry::snapshot::Snapshot;

/// Recognises secrets that have matched their hash before, by a MAC under a key that never leaves the process.
///
/// A remembered MAC stands with the stored secret that it matched (`VerificationCache`), so the registry bounds their number,
/// and it goes when the hash changes.
pub struct Memory(hmac::Key);

impl Memory {
    /// A memory under a fresh key.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn new() -> Result<Self, NoEntropy> {
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()?)))
    }

    /// The secret of `client` that one of `readings` has been before. An unknown client has none, and takes as long.
    #[must_use]
    pub fn recall<'a>(&self, client: Option<&'a Client>, readings: &[Arc<ClientSecret>]) -> Option<SecretMatch<'a>> {
        for (reading, presented) in readings.iter().enumerate() {
            let mac = self.mac(presented);
            let id = presented.secret_id();
            let mut secrets = client.into_iter().flat_map(|client| &client.secrets);
            let remembered = secrets.find(|secret| {
                id.is_none_or(|id| *secret.secret_id == *id)
                    && secret.cache.verified_mac().is_some_and(|verified| equal(verified, &mac))
            });
            if let Some(secret) = remembered {
                return Some(SecretMatch { secret, reading });
            }
        }
        None
    }

    /// Tells an attempt from every other: who shows what, and what it is held against.
    fn attempt(&self, client_id: &str, trials: &[HashCheck]) -> AttemptId {
        let hashes: Vec<String> = trials.iter().map(|trial| trial.hash.to_string()).collect();
        let mut parts = vec![client_id.as_bytes()];
        // Neither ids nor secrets nor hashes hold NUL, so parts cannot be shifted into each other.
        for (trial, hash) in trials.iter().zip(&hashes) {
            parts.extend([b"\0", trial.secret.expose().as_bytes(), b"\0", hash.as_bytes()]);
        }
        hmac_sha256(&self.0, &parts)
    }

    /// Remembers that `presented` is `secret`.
    pub fn keep(&self, secret: &StoredSecret, presented: &ClientSecret) {
        secret.cache.remember(self.mac(presented));
    }

    fn mac(&self, presented: &ClientSecret) -> [u8; 32] {
        hmac_sha256(&self.0, &[presented.expose().as_bytes()])
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

/// A stored secret, with the reading of the presented one that it is.
#[derive(Debug, Clone, Copy)]
pub struct SecretMatch<'a> {
    /// The client's.
    pub secret: &'a StoredSecret,
    /// Which of the presented readings.
    pub reading: usize,
}

/// A presented secret with a valid tag: it was generated for the client, though it may be revoked by now.
#[derive(Debug, Clone, Copy)]
pub struct Tagged<'a> {
    /// The tag key under which it was made.
    pub kid: TagKid,
    /// The id of its row.
    pub secret_id: &'a str,
    /// Which of the presented readings it is.
    pub reading: usize,
}

/// Finds the reading that has a valid tag for `client_id`.
#[must_use]
pub fn tagged<'a>(snapshot: &Snapshot, client_id: &str, readings: &'a [Arc<ClientSecret>]) -> Option<Tagged<'a>> {
    readings.iter().enumerate().find_map(|(reading, secret)| {
        let kid = secret.tagged_by(client_id, snapshot.tag_keys())?;
        Some(Tagged { kid, secret_id: secret.secret_id()?, reading })
    })
}

/// Whether any hash is needed to refuse it: none is for what can only be made up. Says nothing of the client.
#[must_use]
pub fn needs_hashes(snapshot: &Snapshot, readings: &[Arc<ClientSecret>], tagged: bool) -> bool {
    let guess = snapshot.guess_cost();
    tagged
        || readings.iter().any(|secret| if secret.secret_id().is_some() { guess.with_id } else { guess.without_id } > 0)
}

/// A secret that is not known again.
#[derive(Debug)]
pub struct UnknownSecret<'a> {
    /// The client that it is said to be of, known or not.
    pub client_id: &'a str,
    /// It, in each way that it can be read.
    pub readings: &'a [Arc<ClientSecret>],
    /// The tag key that it was made under, if it was made by us.
    pub tagged_by: Option<TagKid>,
    /// Where it waits for its hash; the hash of the client in it also chooses what an unknown client costs.
    pub place: QueueKey,
    /// The present.
    pub now: UnixTime,
}

/// The hashes that a presented secret is held against.
#[derive(Debug)]
pub struct Trials<'a> {
    /// Names what is presented, in whose name, and what it is held against.
    pub attempt: AttemptId,
    held_against: Vec<HashCheck>,
    /// The stored secret of each, if it has one, and which reading it is held against.
    positions: Vec<(Option<&'a StoredSecret>, usize)>,
}

/// Chooses the hashes to hold a presented secret against. How many depends on the presented bytes and on the registry as
/// a whole, never on the client: an unknown one is held against hashes that no secret has.
#[must_use]
pub fn trials<'a>(
    snapshot: &Snapshot,
    memory: &Memory,
    client: Option<&'a Client>,
    secret: &UnknownSecret<'_>,
) -> Trials<'a> {
    let UnknownSecret { client_id, readings, tagged_by, place, now } = *secret;
    let secrets = client.map_or(&[][..], |client| &client.secrets);
    let mut held_against = Vec::new();
    let mut positions = Vec::new();
    for (reading, presented) in readings.iter().enumerate() {
        let (candidates, wanted): (Vec<&StoredSecret>, usize) = match presented.secret_id() {
            // It names its row, so there is one to try, if it can be that row's at all.
            Some(id) => {
                let row = secrets.iter().find(|secret| *secret.secret_id == *id);
                (row.into_iter().collect(), if tagged_by.is_some() { 1 } else { snapshot.guess_cost().with_id })
            }
            None => (imported(secrets, snapshot.guess_cost().without_id, now), snapshot.guess_cost().without_id),
        };
        for nth in 0..wanted {
            let candidate = candidates.get(nth).copied();
            let hash = match candidate {
                Some(secret) => secret.hash.clone(),
                None => {
                    SecretHash::decoy(snapshot.decoy_cost(place.client.rotate_left(u32::try_from(nth).unwrap_or(0))))
                }
            };
            held_against.push(HashCheck { secret: Arc::clone(presented), hash });
            positions.push((candidate, reading));
        }
    }
    Trials { attempt: memory.attempt(client_id, &held_against), held_against, positions }
}

/// Finds the client's secret that was presented. Failing computes all of the hashes.
///
/// # Errors
/// [`ClientAuthError::WrongSecret`], or [`Unavailable::Hashing`].
pub async fn verify<'a>(lane: &Lane, place: QueueKey, trials: Trials<'a>) -> Result<SecretMatch<'a>, Error> {
    let Trials { attempt, held_against, positions } = trials;
    let matched = lane.first_match(place, attempt, held_against).await;
    let matched = matched.map_err(|LaneFull { retry_after }| Unavailable::Hashing { retry_after })?;
    match matched.and_then(|trial| positions.get(trial).copied()) {
        Some((Some(secret), reading)) => Ok(SecretMatch { secret, reading }),
        _ => Err(ClientAuthError::WrongSecret.into()),
    }
}

/// The imported secrets to try: those that live first, the newest first.
fn imported(secrets: &[StoredSecret], most: usize, now: UnixTime) -> Vec<&StoredSecret> {
    let mut candidates: Vec<&StoredSecret> =
        secrets.iter().filter(|secret| secret.origin == SecretOrigin::Imported).collect();
    candidates.sort_by_key(|secret| secret.state(now) != SecretState::Live);
    candidates.truncate(most);
    candidates
}

/// Whether a secret that matched may still be used.
///
/// # Errors
/// [`ClientAuthError::SecretRevoked`] or [`ClientAuthError::SecretExpired`].
pub fn usable(secret: &StoredSecret, now: UnixTime) -> Result<(), ClientAuthError> {
    match secret.state(now) {
        SecretState::Live => Ok(()),
        SecretState::Expired => Err(ClientAuthError::SecretExpired),
        SecretState::Revoked => Err(ClientAuthError::SecretRevoked),
    }
}

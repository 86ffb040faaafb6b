//! Client secrets (RFC 6749 section 2.3.1): which hashes a presented secret is held against, always as many.

use std::sync::Arc;

use super::error::{ClientAuthError, Error, Unavailable};
use crate::crypto::secret::{ClientSecret, SecretHash};
use crate::hashing::{Lane, Trial};
use crate::model::client::Client;
use crate::model::credential::{SecretState, StoredSecret};
use crate::model::time::UnixTime;
use crate::registry::Snapshot;

/// A secret that matched, with the reading of it that did.
#[derive(Debug, PartialEq, Eq)]
pub struct Match {
    /// Its position among the client's secrets.
    pub secret: usize,
    /// Which of the presented readings.
    pub reading: usize,
}

/// Finds the client's secret that one of `readings` is. What a failure costs depends on the presented bytes and on the
/// registry as a whole, never on the client: an unknown one is held against hashes that no secret has.
///
/// # Errors
/// [`ClientAuthError::WrongSecret`], or [`Unavailable::Hashing`].
pub async fn verify(
    snapshot: &Snapshot,
    lane: &Lane,
    client: Option<&Client>,
    decoy: u64,
    readings: &[Arc<ClientSecret>],
    now: UnixTime,
) -> Result<Match, Error> {
    let secrets = client.map_or(&[][..], |client| &client.secrets);
    let mut trials = Vec::new();
    let mut positions = Vec::new();
    for (reading, presented) in readings.iter().enumerate() {
        let (candidates, wanted): (Vec<usize>, usize) = match presented.secret_id() {
            // It names its row, so there is one to try.
            Some(id) => (secrets.iter().position(|secret| &*secret.secret_id == id).into_iter().collect(), 1),
            None => (imported(secrets, snapshot.guesses(), now), snapshot.guesses()),
        };
        for nth in 0..wanted {
            let candidate = candidates.get(nth).copied();
            let hash = match candidate.and_then(|position| secrets.get(position)) {
                Some(secret) => secret.hash.clone(),
                None => SecretHash::decoy(snapshot.decoy_cost(decoy.rotate_left(u32::try_from(nth).unwrap_or(0)))),
            };
            trials.push(Trial { secret: Arc::clone(presented), hash });
            positions.push((candidate, reading));
        }
    }
    let matched = lane.first_match(trials).await.map_err(|_| Unavailable::Hashing)?;
    match matched.and_then(|trial| positions.get(trial).copied()) {
        Some((Some(secret), reading)) => Ok(Match { secret, reading }),
        _ => Err(ClientAuthError::WrongSecret.into()),
    }
}

/// The imported secrets to try: those that live first, the newest first.
fn imported(secrets: &[StoredSecret], most: usize, now: UnixTime) -> Vec<usize> {
    let mut candidates: Vec<(usize, &StoredSecret)> =
        secrets.iter().enumerate().filter(|(_, secret)| secret.imported).collect();
    candidates.sort_by_key(|(_, secret)| secret.state(now) != SecretState::Live);
    candidates.into_iter().take(most).map(|(position, _)| position).collect()
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

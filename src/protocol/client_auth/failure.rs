//! The cause of a secret that matches nothing, for the operator. The answer is the same for all causes, and the work depends
//! on the presented bytes, never on whether the client exists.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::super::attempt::Attempt;
use super::super::error::ClientAuthError;
use super::{Authenticator, Claimant, PresentedSecret, no_such};
use crate::crypto::secret::ClientSecret;
use crate::model::client::Client;
use crate::state::registry::snapshot::Snapshot;

impl Authenticator {
    /// The reason why a secret matched nothing. `is_tagged` says that it was generated for this client.
    pub(super) fn failure(
        &self,
        snapshot: &Snapshot,
        presented: &PresentedSecret<'_>,
        is_tagged: bool,
        attempt: &mut Attempt,
    ) -> ClientAuthError {
        let PresentedSecret { claimant: Claimant { client_id, .. }, readings, .. } = *presented;
        // First, since it takes as long for a client that does not exist.
        let fault = self.fault(snapshot, client_id, readings);
        attempt.presented_secret_id = readings.iter().find_map(|secret| secret.secret_id().map(Into::into));
        let Some(client) = snapshot.client(client_id) else { return no_such(snapshot, client_id) };
        if is_tagged && !has_row(client, attempt.presented_secret_id.as_deref()) {
            return ClientAuthError::SecretDeleted;
        }
        if let ClientAuthError::SecretOfOtherClient(owner) = &fault {
            attempt.compared.text("secret_of_client", owner.as_str());
        }
        fault
    }

    /// The fault of a secret as far as its form, its tag and the id in it tell.
    fn fault(&self, snapshot: &Snapshot, client_id: &str, readings: &[Arc<ClientSecret>]) -> ClientAuthError {
        let mut fault = None;
        for secret in readings {
            let unwrapped = secret.unwrapped();
            let (inner, wrapping) = match &unwrapped {
                Some((inner, wrapping)) => (inner, Some(*wrapping)),
                None => (&**secret, None),
            };
            if let Some(wrapping) = wrapping
                && inner.tagged_by(client_id, snapshot.tag_keys()).is_some()
            {
                return ClientAuthError::SecretWrapped(wrapping);
            }
            let other = self.owner(snapshot, inner).filter(|owner| *owner.client_id.as_str() != *client_id);
            let found = other
                .map(|owner| ClientAuthError::SecretOfOtherClient(owner.client_id.clone()))
                .or_else(|| inner.is_truncated().then_some(ClientAuthError::SecretTruncated))
                .or_else(|| wrapping.map(ClientAuthError::SecretLooksWrapped));
            fault = fault.or(found);
        }
        fault.unwrap_or(ClientAuthError::WrongSecret)
    }

    /// The client that a generated secret belongs to: the one with a row of its id, if the tag says so where there is one.
    fn owner<'a>(&self, snapshot: &'a Snapshot, secret: &ClientSecret) -> Option<&'a Client> {
        let id = secret.secret_id()?;
        let owner = self.owner_searches.may_search(Instant::now()).then(|| snapshot.owner_of_secret(id)).flatten()?;
        let is_genuine = !secret.has_tag() || secret.tagged_by(owner.client_id.as_str(), snapshot.tag_keys()).is_some();
        is_genuine.then_some(&**owner)
    }
}

fn has_row(client: &Client, secret_id: Option<&str>) -> bool {
    client.secrets.iter().any(|secret| Some(&*secret.secret_id) == secret_id)
}

/// Limits how often all clients are searched for the owner of a secret, which takes time with their number. A flood of
/// made-up secrets gets no more searches than the limit; for the others the reason is `wrong_secret`.
#[derive(Debug, Default)]
pub struct OwnerSearches(Mutex<Option<Instant>>);

impl OwnerSearches {
    /// Counts a search, and returns whether it may be done.
    fn may_search(&self, now: Instant) -> bool {
        let mut full_until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = full_until.map_or(now, |until| until.max(now));
        let fits = from.saturating_duration_since(now) < SEARCH_INTERVAL * SEARCHES_AT_ONCE;
        if fits {
            *full_until = Some(from + SEARCH_INTERVAL);
        }
        fits
    }
}

/// Average time between two searches, when there are many.
const SEARCH_INTERVAL: Duration = Duration::from_millis(10);
/// Searches that may be done without a pause.
const SEARCHES_AT_ONCE: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_are_limited_however_many_are_wanted() {
        let (searches, now) = (OwnerSearches::default(), Instant::now());
        assert_eq!((0..1000).filter(|_| searches.may_search(now)).count(), 50);
        assert!(searches.may_search(now + SEARCH_INTERVAL), "one more after each interval");
        assert!(!searches.may_search(now + SEARCH_INTERVAL));
        assert_eq!((0..1000).filter(|_| searches.may_search(now + Duration::from_secs(9))).count(), 50);
    }
}

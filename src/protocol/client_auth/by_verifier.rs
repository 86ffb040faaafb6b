//! Authentication by the verifier of a generated secret, before its hash is computed, and the work on the secret's row
//! that follows a use.

use std::sync::Arc;

use super::super::attempt::Attempt;
use super::super::client_secret::Tagged;
use super::super::error::Error;
use super::{AuthenticatedClient, Authenticator, PresentedSecret, usable};
use crate::crypto::secret::ClientSecret;
use crate::crypto::secret_verifier::Verifier;
use crate::model::credential::{SecretOrigin, StoredSecret};
use crate::state::registry::moment::Moment;

/// A secret that was used and whose row needs work: its hash is not confirmed in this process, or costs less than the
/// configuration asks for, or it has no verifier of this deployment. The secret is known in clear for a moment.
#[derive(Debug)]
pub struct UsedSecret {
    /// The client.
    pub client_id: Box<str>,
    /// The row, as it was when the secret was used.
    pub stored: StoredSecret,
    /// The secret.
    pub presented: Arc<ClientSecret>,
}

/// The work on a row that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// To verify the hash: the secret was accepted by its verifier alone.
    Confirm,
    /// To hash the secret at the configured cost.
    RaiseCost,
    /// To write a verifier: there is none, or it is of another sealing key or another hash.
    WriteVerifier,
}

impl Authenticator {
    /// Decides on a tagged secret by the verifier of its row. `None` when the row has none of this deployment, or another
    /// one: the hash decides then. A stranger has no valid tag, so the comparison tells a stranger nothing.
    ///
    /// The MAC of the secret is remembered only once the hash has matched, so that what is remembered is always what
    /// argon2id has accepted.
    pub(super) fn by_verifier(
        &self,
        presented: &PresentedSecret<'_>,
        tagged: Tagged<'_>,
        moment: &Moment,
        attempt: &mut Attempt,
    ) -> Option<Result<AuthenticatedClient, Error>> {
        let client_id = presented.claimant.client_id;
        let client = moment.snapshot.client(client_id)?;
        let secret = client.secrets.iter().find(|secret| *secret.secret_id == *tagged.secret_id)?;
        let stored = secret.verifier.as_ref()?;
        let shown = presented.readings.get(tagged.reading)?;
        let accepted = self.verifiers.accepts(client_id, shown, &secret.hash, stored);
        if !accepted || secret.cache.is_refuted() {
            return None;
        }
        attempt.credential_id = Some(Arc::clone(&secret.secret_id));
        if let Err(error) = usable(client, presented.method, secret, moment) {
            return Some(Err(error.into()));
        }
        self.throttle.succeeded(client_id, presented.claimant.source);
        self.known_sources.add(presented.claimant.source);
        self.registry.uses.note_secret(secret, moment.now);
        self.look_after(client_id, secret, shown);
        let raw_reading = tagged.reading > 0;
        Some(Ok(AuthenticatedClient {
            client: Arc::clone(client),
            method: presented.method,
            raw_reading,
            assertion: None,
        }))
    }

    /// Queues a used secret if its row needs work. If the queue is full, the next use tries again.
    pub(super) fn look_after(&self, client_id: &str, stored: &StoredSecret, presented: &Arc<ClientSecret>) {
        if !stored.cache.begin_upkeep() {
            return;
        }
        let used = UsedSecret { client_id: client_id.into(), stored: stored.clone(), presented: Arc::clone(presented) };
        if self.next_step(&used).is_some() && self.upkeep.try_send(used).is_err() {
            stored.cache.abandon_upkeep();
        }
    }

    /// The work that the row of a secret needs next.
    #[must_use]
    pub fn next_step(&self, used: &UsedSecret) -> Option<NextStep> {
        let stored = &used.stored;
        if stored.cache.verified_mac().is_none() {
            Some(NextStep::Confirm)
        } else if stored.hash.params().is_cheaper_than(self.cost) {
            Some(NextStep::RaiseCost)
        } else if matches!(stored.origin, SecretOrigin::Tagged(_))
            && !stored.verifier.as_ref().is_some_and(|verifier| self.verifier(used).equals(verifier))
        {
            Some(NextStep::WriteVerifier)
        } else {
            None
        }
    }

    /// The verifier of a secret that is stored with `used.stored.hash`.
    #[must_use]
    pub fn verifier(&self, used: &UsedSecret) -> Verifier {
        self.verifiers.verifier(&used.client_id, &used.presented, &used.stored.hash)
    }
}

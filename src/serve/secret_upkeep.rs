//! Looks after the rows of secrets that were used: confirms their hashes, raises the cost of hashes that are cheaper than
//! the configuration asks for, and writes missing verifiers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::model::event::Event;
use crate::protocol::AuthorizationServer;
use crate::protocol::client_auth::{NextStep, UsedSecret};
use crate::state::hashing::HashCheck;
use crate::store::{Store, StoreError};

/// Looks after one secret at a time, after its use.
pub async fn look_after_secrets(
    mut used_secrets: mpsc::Receiver<UsedSecret>,
    server: Arc<AuthorizationServer>,
    store: Store,
) {
    let mut upkeep = Upkeep { server, store, may_write_verifiers: true };
    while let Some(used) = used_secrets.recv().await {
        let cache = Arc::clone(&used.stored.cache);
        if !upkeep.look_after(used).await {
            cache.abandon_upkeep();
        }
    }
}

struct Upkeep {
    server: Arc<AuthorizationServer>,
    store: Store,
    /// Whether the database has not refused a verifier for lack of a right.
    may_write_verifiers: bool,
}

impl Upkeep {
    /// Does all that the row of a secret needs. Returns whether its next use need not try again.
    async fn look_after(&mut self, mut used: UsedSecret) -> bool {
        while let Some(step) = self.server.authenticator.next_step(&used) {
            let done = match step {
                NextStep::Confirm => match self.confirm(&used).await {
                    Some(true) => true,
                    Some(false) => return true,
                    None => false,
                },
                NextStep::RaiseCost => self.raise_cost(&mut used).await,
                NextStep::WriteVerifier => return self.write_verifier(&used).await,
            };
            if !done {
                return false;
            }
        }
        true
    }

    /// Verifies the hash of a secret that was accepted by its verifier. `None` when there was no room for it.
    async fn confirm(&self, used: &UsedSecret) -> Option<bool> {
        let authenticator = &self.server.authenticator;
        let check = HashCheck { secret: Arc::clone(&used.presented), hash: used.stored.hash.clone() };
        let matched = authenticator.lane.confirm(check).await.ok()?;
        if matched {
            authenticator.memory.keep(&used.stored, &used.presented);
        } else {
            used.stored.cache.refute();
            authenticator.verifier_mismatches.inc();
            tracing::error!(
                event = Event::SecretVerifierMismatch.as_str(),
                client_id = &*used.client_id,
                credential_id = &*used.stored.secret_id,
                "a secret was accepted by its verifier and does not match its hash: revoke the secret and the client's tokens, and find out who can read the sealing key and write to the database"
            );
        }
        Some(matched)
    }

    /// Hashes the secret at the configured cost, and stores the hash.
    async fn raise_cost(&self, used: &mut UsedSecret) -> bool {
        let authenticator = &self.server.authenticator;
        let Ok(raised) = authenticator.lane.hash(Arc::clone(&used.presented), authenticator.cost).await else {
            not_raised("the argon2 lane is full");
            return false;
        };
        let secret_id = &*used.stored.secret_id;
        match self.store.rehash_secret(secret_id, &used.stored.hash, &raised).await {
            Ok(()) => {
                tracing::info!(event = Event::SecretRehashed.as_str(), credential_id = secret_id, cost = %raised.params());
                used.stored.hash = raised;
                true
            }
            Err(error) => {
                not_raised(&error.to_string());
                tokio::time::sleep(PAUSE).await;
                false
            }
        }
    }

    /// Writes a verifier. Nothing depends on it but the time of the first request after a start.
    async fn write_verifier(&mut self, used: &UsedSecret) -> bool {
        if !self.may_write_verifiers {
            return true;
        }
        let verifier = self.server.authenticator.verifier(used);
        match self.store.write_verifier(&used.stored.secret_id, &used.stored.hash, &verifier).await {
            Ok(()) => true,
            Err(error) => {
                self.may_write_verifiers = !matches!(error, StoreError::Denied(_));
                tracing::debug!(
                    event = Event::SecretNoVerifier.as_str(),
                    credential_id = &*used.stored.secret_id,
                    reason = %error
                );
                tokio::time::sleep(PAUSE).await;
                !self.may_write_verifiers
            }
        }
    }
}

fn not_raised(reason: &str) {
    tracing::warn!(
        event = Event::SecretNotRehashed.as_str(),
        reason,
        "a hash was not raised; its next use will try again"
    );
}

/// Time after a failed write, so that a database that is away is not asked with each use.
const PAUSE: Duration = Duration::from_secs(1);

//! Raises the cost of hashes that are cheaper than the configuration asks for.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::model::event::Event;
use crate::protocol::AuthorizationServer;
use crate::protocol::client_auth::RehashJob;
use crate::store::Store;

/// Hashes secrets anew whose hashes cost less than the configuration asks for, one at a time, after they were used.
pub async fn raise_costs(mut jobs: mpsc::Receiver<RehashJob>, server: Arc<AuthorizationServer>, store: Store) {
    while let Some(RehashJob { secret_id, hash, secret }) = jobs.recv().await {
        let Ok(raised) = server.authenticator.lane.hash(secret, server.authenticator.cost).await else {
            tracing::warn!(
                event = Event::SecretNotRehashed.as_str(),
                reason = "the argon2 lane is full",
                "a hash was not raised; its next use will try again"
            );
            continue;
        };
        match store.rehash_secret(&secret_id, &hash, &raised).await {
            Ok(()) => {
                tracing::info!(event = Event::SecretRehashed.as_str(), credential_id = &*secret_id, cost = %raised.params());
            }
            Err(error) => {
                tracing::warn!(event = Event::SecretNotRehashed.as_str(), reason = %error, "a hash was not raised; its next use will try again");
            }
        }
    }
}

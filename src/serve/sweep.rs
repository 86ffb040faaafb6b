//! Sweeps: expired ids of assertions, proofs and revoked tokens are deleted.

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::random;
use crate::model::event::Event;
use crate::model::time::UnixTime;
use crate::protocol::AuthorizationServer;
use crate::store::Store;

/// Deletes expired ids of assertions, proofs and revoked tokens, every few seconds.
pub(super) async fn sweep(store: Store, server: Arc<AuthorizationServer>) {
    loop {
        // Replicas that started together do not sweep together.
        let jitter = random::<2>().map_or(0, |bytes| u64::from(u16::from_ne_bytes(bytes) % 5000));
        let pause = SWEEP.max(server.registry.options().poll) + Duration::from_millis(jitter);
        tokio::time::sleep(pause).await;
        // The database's clock decides: by that of a replica that is ahead, what others still need would be gone.
        let now = match store.now().await {
            Ok(now) => now,
            Err(error) => {
                tracing::debug!(event = Event::SpentTrouble.as_str(), reason = %error, "nothing is swept until the database answers");
                continue;
            }
        };
        // Failures are told at debug here: the store counts each failed write, and logs the first in a row.
        match store.sweep_spent(now).await {
            Ok(swept) => tracing::debug!(event = Event::SpentSwept.as_str(), swept),
            Err(error) => {
                tracing::debug!(event = Event::SpentTrouble.as_str(), reason = %error, "expired uses are kept until the next sweep");
            }
        }
        // By every replica's clock the tokens have ended by then.
        let ended = UnixTime(now.0 - SKEW);
        server.registry.revoked.forget(ended);
        match store.sweep_revoked_tokens(ended).await {
            Ok(swept) => tracing::debug!(event = Event::RevokedSwept.as_str(), swept),
            Err(error) => {
                tracing::debug!(event = Event::RevokedTrouble.as_str(), reason = %error, "rows of tokens that ended are kept until the next sweep");
            }
        }
    }
}

/// The interval between sweeps, without the jitter.
const SWEEP: Duration = Duration::from_secs(5);
/// Twice the greatest difference between the clocks of replicas, in seconds.
const SKEW: i64 = 120;

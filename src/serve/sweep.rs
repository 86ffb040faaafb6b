//! Sweeps: what has expired of what may be used once, and of what was revoked, is forgotten.

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::random;
use crate::model::event::Event;
use crate::model::time::UnixTime;
use crate::protocol::AuthorizationServer;
use crate::store::Store;

/// Forgets what has expired of what may be used once, and of what was revoked, every few seconds.
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

/// From one sweep to the next, a little more each time.
const SWEEP: Duration = Duration::from_secs(5);
/// How far apart the clocks of replicas may be, in seconds, and as much again.
const SKEW: i64 = 120;

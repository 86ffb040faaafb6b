//! What a client proves itself with: here, its secrets at rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::time::UnixTime;
use crate::crypto::secret::SecretHash;

/// A secret as the registry knows it: everything but the secret.
#[derive(Debug, Clone)]
pub struct StoredSecret {
    /// Names this secret in commands and logs.
    pub secret_id: Box<str>,
    /// argon2id, within the bounds of cost.
    pub hash: SecretHash,
    /// Chosen elsewhere, so it does not carry its row's id and must be tried.
    pub imported: bool,
    /// From when on it no longer works.
    pub expires_at: Option<UnixTime>,
    /// Since when it no longer works.
    pub revoked_at: Option<UnixTime>,
    /// When it last authenticated its client here, in seconds; 0 for not since we started.
    pub last_used_at: Arc<AtomicI64>,
}

/// What stands against using a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretState {
    /// Nothing.
    Live,
    /// Its time is over.
    Expired,
    /// An administrator took it back.
    Revoked,
}

impl StoredSecret {
    /// Notes a use, to be written down later.
    pub fn used(&self, now: UnixTime) {
        self.last_used_at.store(now.0, Ordering::Relaxed);
    }

    /// The last use that was noted here.
    #[must_use]
    pub fn last_used(&self) -> Option<UnixTime> {
        Some(UnixTime(self.last_used_at.load(Ordering::Relaxed))).filter(|at| at.0 != 0)
    }

    /// Its state at `now`. Revocation is named first, since somebody decided it.
    #[must_use]
    pub fn state(&self, now: UnixTime) -> SecretState {
        if self.revoked_at.is_some() {
            SecretState::Revoked
        } else if self.expires_at.is_some_and(|at| at <= now) {
            SecretState::Expired
        } else {
            SecretState::Live
        }
    }
}

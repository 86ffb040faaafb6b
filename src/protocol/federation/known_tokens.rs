//! Tokens that were verified, known again by a keyed MAC of their bytes until they expire.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::hmac;

use super::VerifiedToken;
use crate::crypto::{NoEntropy, hmac_sha256, random};
use crate::model::time::UnixTime;

/// Verified tokens, by the MAC of their bytes under a key that never leaves the process. Only tokens that are used again
/// by design are kept.
pub struct KnownTokens {
    key: hmac::Key,
    tokens: Mutex<HashMap<[u8; 32], Arc<VerifiedToken>>>,
}

impl KnownTokens {
    /// Makes an empty cache under a fresh key.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn new() -> Result<Self, NoEntropy> {
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()?), tokens: Mutex::default() })
    }

    /// Returns the token with these bytes, unless it has expired.
    #[must_use]
    pub fn find(&self, jwt: &str, now: UnixTime) -> Option<Arc<VerifiedToken>> {
        // While no such token was seen, no MAC is computed.
        if self.lock().is_empty() {
            return None;
        }
        let mac = self.mac(jwt);
        let known = self.lock().get(&mac).cloned()?;
        if known.accepted.has_expired(now) {
            self.lock().remove(&mac);
            return None;
        }
        Some(known)
    }

    /// Remembers a token.
    pub fn keep(&self, jwt: &str, token: Arc<VerifiedToken>, now: UnixTime) {
        let mac = self.mac(jwt);
        let mut tokens = self.lock();
        if tokens.len() >= MOST {
            tokens.retain(|_, known| !known.accepted.has_expired(now));
        }
        // Still full: the cache begins anew, and each token is verified once more.
        if tokens.len() >= MOST {
            tokens.clear();
        }
        tokens.insert(mac, token);
    }

    /// Forgets a token whose issuer or keys have changed.
    pub fn forget(&self, jwt: &str) {
        let mac = self.mac(jwt);
        self.lock().remove(&mac);
    }

    fn mac(&self, jwt: &str) -> [u8; 32] {
        hmac_sha256(&self.key, &[jwt.as_bytes()])
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<VerifiedToken>>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for KnownTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KnownTokens")
    }
}

/// Maximum number of tokens. Each takes about 3 KB.
const MOST: usize = 10_000;

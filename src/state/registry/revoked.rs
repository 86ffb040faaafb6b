//! Revoked tokens in memory. The set only grows until tokens expire, and is split into parts so that adding an id
//! copies nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock};

use crate::model::time::UnixTime;
use crate::model::token_id::TokenId;

/// Ids of revoked tokens, with their expiry. The set is not a part of the snapshot: a revocation stays in force
/// whatever is loaded next.
#[derive(Debug)]
pub struct RevokedTokens {
    parts: Vec<RwLock<HashMap<TokenId, UnixTime>>>,
}

impl Default for RevokedTokens {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| RwLock::default()).collect() }
    }
}

impl RevokedTokens {
    /// Adds a revoked token that expires at `expires_at`.
    pub fn add(&self, jti: TokenId, expires_at: UnixTime) {
        if let Some(part) = self.parts.get(jti.part(PARTS)) {
            part.write().unwrap_or_else(PoisonError::into_inner).insert(jti, expires_at);
        }
    }

    /// Whether a token was revoked.
    #[must_use]
    pub fn contains(&self, jti: &TokenId) -> bool {
        let part = self.parts.get(jti.part(PARTS));
        part.is_some_and(|part| part.read().unwrap_or_else(PoisonError::into_inner).contains_key(jti))
    }

    /// Returns the ids that are not in `others` and expire after `now`.
    #[must_use]
    pub fn missing_from(&self, others: &HashSet<TokenId>, now: UnixTime) -> Vec<(TokenId, UnixTime)> {
        let mut missing = Vec::new();
        for part in &self.parts {
            let part = part.read().unwrap_or_else(PoisonError::into_inner);
            let lost = part.iter().filter(|(jti, expires_at)| **expires_at > now && !others.contains(jti));
            missing.extend(lost.map(|(jti, expires_at)| (*jti, *expires_at)));
        }
        missing
    }

    /// Returns the ids of tokens that expire after `now`.
    #[must_use]
    pub fn living(&self, now: UnixTime) -> Vec<TokenId> {
        self.missing_from(&HashSet::new(), now).into_iter().map(|(jti, _)| jti).collect()
    }

    /// Removes ids of tokens that expired before `ended`.
    pub fn forget(&self, ended: UnixTime) {
        for part in &self.parts {
            let mut part = part.write().unwrap_or_else(PoisonError::into_inner);
            part.retain(|_, expires_at| *expires_at >= ended);
            part.shrink_to_fit();
        }
    }
}

const PARTS: usize = 64;

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;

    fn id(bits: [u8; 16]) -> TokenId {
        BASE64_URL_SAFE_NO_PAD.encode(bits).parse().unwrap()
    }

    #[test]
    fn a_revoked_token_is_known_until_it_expires() {
        let revoked = RevokedTokens::default();
        let count = || revoked.missing_from(&HashSet::new(), UnixTime(-1)).len();
        let ids: Vec<TokenId> = (0..=255).map(|first| id([first; 16])).collect();
        for (at, id) in ids.iter().enumerate() {
            revoked.add(*id, UnixTime(i64::try_from(at).unwrap()));
        }
        assert!(ids.iter().all(|id| revoked.contains(id)) && count() == 256);
        assert!(!revoked.contains(&id([9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6])));
        revoked.forget(UnixTime(100));
        assert_eq!(count(), 156);
        assert!(!revoked.contains(&ids[99]) && revoked.contains(&ids[100]));
        revoked.forget(UnixTime(1000));
        assert_eq!(count(), 0);
    }
}

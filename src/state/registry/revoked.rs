//! Tokens that were revoked, in memory: a set that only grows until tokens end, spread so that adding one copies nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock};

use crate::model::time::UnixTime;
use crate::model::token_id::TokenId;

/// Ids of revoked tokens. It is no part of the snapshot: what was revoked stays so whatever is loaded next.
#[derive(Debug)]
pub struct Revoked {
    parts: Vec<RwLock<HashMap<TokenId, UnixTime>>>,
}

impl Default for Revoked {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| RwLock::default()).collect() }
    }
}

impl Revoked {
    /// Notes a revoked token that ends at `expires_at`.
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

    /// Those that are not among `others` and end after `now`.
    #[must_use]
    pub fn beyond(&self, others: &HashSet<TokenId>, now: UnixTime) -> Vec<(TokenId, UnixTime)> {
        let mut beyond = Vec::new();
        for part in &self.parts {
            let part = part.read().unwrap_or_else(PoisonError::into_inner);
            let lost = part.iter().filter(|(jti, expires_at)| **expires_at > now && !others.contains(jti));
            beyond.extend(lost.map(|(jti, expires_at)| (*jti, *expires_at)));
        }
        beyond
    }

    /// Forgets those that had ended before `ended`.
    pub fn forget(&self, ended: UnixTime) {
        for part in &self.parts {
            let mut part = part.write().unwrap_or_else(PoisonError::into_inner);
            part.retain(|_, expires_at| *expires_at >= ended);
            part.shrink_to_fit();
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

const PARTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revoked_token_is_known_until_it_expires() {
        let revoked = Revoked::default();
        let ids: Vec<TokenId> = (0..=255).map(|first| TokenId::new([first; 16])).collect();
        for (at, id) in ids.iter().enumerate() {
            revoked.add(*id, UnixTime(i64::try_from(at).unwrap()));
        }
        assert!(ids.iter().all(|id| revoked.contains(id)) && revoked.len() == 256);
        assert!(!revoked.contains(&TokenId::new([9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6])));
        revoked.forget(UnixTime(100));
        assert_eq!(revoked.len(), 156);
        assert!(!revoked.contains(&ids[99]) && revoked.contains(&ids[100]));
        revoked.forget(UnixTime(1000));
        assert!(revoked.is_empty());
    }
}

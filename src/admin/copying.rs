//! A copy of the whole database into another one: rows verified by count and contents, keys by a token.

use super::{Admin, AdminError};
use crate::store::copying::CopiedTable;
use crate::store::keys::{OpenedKey, SealedKey};
use crate::store::leases::SWEEP;
use crate::store::{Store, StoreError};

/// Outcome of a copy.
#[derive(Debug)]
pub struct CopyReport {
    /// The tables with the numbers of their rows, which both databases hold.
    pub tables: Vec<CopiedTable>,
    /// Ids of the signing keys of which a token of the source verifies with the target's key.
    pub keys: Vec<String>,
    /// Whether the target held everything already.
    pub was_complete: bool,
}

impl Admin {
    /// Whether a server works on the database, or did within the last minute. While one replica takes the lease over from
    /// another that has ended, which takes a minute at most, none is seen.
    pub async fn has_server(&self) -> Result<bool, AdminError> {
        let end = self.store.end_of_lease(SWEEP).await?;
        Ok(end.is_some_and(|end| end >= self.now()))
    }

    /// Copies everything into `target`, whose schema is this one's. The database takes no writes from then on, so that
    /// nothing is written that the copy lacks; when the copy fails, it takes them again.
    pub async fn copy_into(
        &self,
        target: &Store,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<CopyReport, AdminError> {
        // Before anything is frozen, since a copy without its sealing key is of no use.
        let tokens = self.tokens_of_keys().await?;
        let was_frozen = self.store.is_frozen().await?;
        if !was_frozen {
            self.store.freeze().await?;
        }
        let copied = match self.store.copy_into(target, progress).await {
            Ok(copied) => copied,
            Err(error) => {
                if !was_frozen && let Err(fault) = self.store.unfreeze().await {
                    tracing::warn!(%fault, "the source stays frozen; `grantd database unfreeze` takes that back");
                }
                return Err(error.into());
            }
        };
        let keys = self.verified_tokens(target, tokens).await?;
        Ok(CopyReport { tables: copied.tables, keys, was_complete: copied.was_complete })
    }

    /// Lets the database take writes again. `Ok(false)` when it did.
    pub async fn unfreeze(&self) -> Result<bool, AdminError> {
        let was_frozen = self.store.is_frozen().await?;
        self.store.unfreeze().await?;
        Ok(was_frozen)
    }

    /// Returns a token of each signing key, signed by it; none of a key in a module, which both databases only name.
    async fn tokens_of_keys(&self) -> Result<Vec<(String, Option<String>)>, AdminError> {
        let keys = self.store.keys().await?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (under, now) = (self.sealing_key()?, self.now().0);
        let claims = format!("{{\"iss\":\"grantd database copy\",\"iat\":{now}}}");
        let token = |key: &SealedKey| -> Result<(String, Option<String>), AdminError> {
            let OpenedKey { key: opened, module } = key.open(&under)?;
            let token = opened.sign(claims.as_bytes());
            if token.is_none() && module.is_none() {
                return Err(unusable(&key.kid, "it does not sign").into());
            }
            Ok((key.kid.clone(), token))
        };
        keys.iter().map(token).collect()
    }

    /// Returns the ids of the keys whose tokens verify with the keys of `target`.
    async fn verified_tokens(
        &self,
        target: &Store,
        tokens: Vec<(String, Option<String>)>,
    ) -> Result<Vec<String>, AdminError> {
        let (keys, mut verified) = (target.keys().await?, Vec::new());
        for (kid, token) in tokens {
            let key = keys.iter().find(|key| key.kid == kid);
            let key = key.ok_or_else(|| unusable(&kid, "the target lacks it"))?.open(&*self.sealing_key()?)?.key;
            // Opening has compared the thumbprint of a key in a module with its id.
            if token.is_some_and(|token| !key.verifies(&token)) {
                return Err(unusable(&kid, "the target's key does not verify a token of the source").into());
            }
            verified.push(kid);
        }
        Ok(verified)
    }
}

fn unusable(kid: &str, reason: &str) -> StoreError {
    StoreError::Malformed { kind: "signing key", id: kid.to_owned(), reason: reason.to_owned() }
}

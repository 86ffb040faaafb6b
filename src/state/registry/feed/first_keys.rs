//! First keys: each algorithm in use gets a signing key, and secrets a key that tags them, by the replica that starts first.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::FeedContext;
use crate::crypto::jwk::Alg;
use crate::model::event::Event;
use crate::model::time::Span;
use crate::store::StoreError;
use crate::store::keys::{SealedKey, new_key};
use crate::store::tag_keys::SealedTagKey;

/// State of the generation of first keys.
#[derive(Debug, Default)]
pub(super) struct FirstKeys {
    /// Whether the database has a tag key, also one that does not open.
    has_tag_key: bool,
    /// Algorithms whose missing key has been reported.
    reported_missing: BTreeSet<Alg>,
}

impl FirstKeys {
    /// Notes whether the database has a tag key.
    pub(super) fn note_tag_keys(&mut self, exist: bool) {
        self.has_tag_key = exist;
    }

    /// Makes a first key for each algorithm in use that has none among `keys`. A failure is logged and affects no other
    /// algorithm.
    pub(super) async fn make_missing(&mut self, context: &FeedContext, keys: &[SealedKey]) {
        if !self.has_tag_key {
            // Tried once; the next load of tag keys sets the flag again.
            self.has_tag_key = true;
            if let Err(error) = make_tag_key(context).await {
                tracing::warn!(event = Event::KeyNotMade.as_str(), reason = %error, "new secrets carry no tag");
            }
        }
        let wanted: BTreeSet<Alg> = context.registry.snapshot().algs().chain([context.default_alg]).collect();
        for alg in wanted {
            // Keys that exist and do not open are a fault to be repaired, and are not replaced.
            let has_any = keys.iter().any(|key| key.alg == alg.as_str());
            if has_any || context.keyring.signing(alg, context.database_time()).is_some() {
                continue;
            }
            if let Err(error) = make_signing_key(context, alg).await
                && self.reported_missing.insert(alg)
            {
                tracing::error!(event = Event::KeyNotMade.as_str(), %alg, reason = %error, "no token can be signed with this algorithm");
            }
        }
    }
}

async fn make_signing_key(context: &FeedContext, alg: Alg) -> Result<(), StoreError> {
    let (sealing_key, now) = (Arc::clone(&context.sealing_key), context.database_time());
    // Generating an RSA key takes long.
    let made = tokio::task::spawn_blocking(move || new_key(alg, &sealing_key, now, Span::from_secs(0))).await;
    let key = made.map_err(|error| StoreError::Malformed {
        kind: "signing key",
        id: alg.to_string(),
        reason: error.to_string(),
    })??;
    let key = SealedKey { max_ttl: context.max_ttl(), ..key };
    if context.store.add_first_key(&key).await? {
        tracing::info!(
            event = Event::KeyChanged.as_str(),
            kid = key.kid,
            alg = key.alg,
            what = "made the first of its algorithm"
        );
    }
    Ok(())
}

async fn make_tag_key(context: &FeedContext) -> Result<(), StoreError> {
    let key = SealedTagKey::generate(&context.sealing_key, context.database_time())?;
    if context.store.add_tag_key(&key, true).await? {
        tracing::info!(event = Event::KeyChanged.as_str(), kid = key.kid, what = "made the first that tags secrets");
    }
    Ok(())
}

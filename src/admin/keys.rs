//! Signing keys: generate, rotate, import, remove, list. Their states are computed from times.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Admin, AdminError, AdminResult, Outcome, Warning};
use crate::crypto::jwk::Alg;
use crate::crypto::jws::SigningKey;
use crate::model::time::{Span, UnixTime};
use crate::state::keyring::{KeyState, PUBLISH_AHEAD, Timeline};
use crate::store::StoreError;
use crate::store::keys::{SealedKey, new_key};

/// Signing key with its state, and opened where the sealing key opens it.
#[derive(Debug)]
pub struct ListedKey {
    /// The stored key.
    pub key: SealedKey,
    /// The present state.
    pub state: KeyState,
    /// The opened key.
    pub opened: Option<SigningKey>,
}

impl ListedKey {
    /// Returns the public key as a JWK.
    #[must_use]
    pub fn jwk(&self) -> Option<Value> {
        self.opened.as_ref().map(SigningKey::published)
    }

    /// Returns the key as JSON.
    #[must_use]
    pub fn document(&self) -> Value {
        let Self { key, state, .. } = self;
        json!({
            "kid": key.kid, "alg": key.alg, "state": state, "created_at": key.created_at, "active_at": key.active_at,
            "jwk": self.jwk(),
        })
    }
}

impl Admin {
    /// Generates a key of an algorithm, by default the server's. The first key of an algorithm signs at once; any other
    /// signs once every verifier has had time to fetch it. So generating a key also rotates.
    pub async fn generate_key(&self, alg: Option<Alg>) -> Result<SealedKey, AdminError> {
        let (alg, now) = (alg.unwrap_or(self.policy.defaults.alg), self.now());
        let ahead = ahead(&self.store.keys().await?, alg, now);
        let key = new_key(alg, &*self.sealing_key()?, now, ahead)?;
        self.store.add_key(&key).await?;
        Ok(key)
    }

    /// Imports a private key in PEM. It signs as [`generate_key`](Self::generate_key) says.
    pub async fn import_key(&self, alg: Option<Alg>, pem: &[u8]) -> Result<SealedKey, AdminError> {
        let (alg, now) = (alg.unwrap_or(self.policy.defaults.alg), self.now());
        let (key, pkcs8) = SigningKey::from_pem(alg, pem)?;
        let active_at = now.plus(ahead(&self.store.keys().await?, alg, now));
        let key = SealedKey::seal(&key, &pkcs8, &*self.sealing_key()?, active_at, now)?;
        self.store.add_key(&key).await?;
        Ok(key)
    }

    /// Removes a key at once. When no other key of its algorithm signs, also generates a successor that signs now, so
    /// that an algorithm in use always has a key. Returns the successor.
    pub async fn remove_key(&self, kid: &str) -> Result<Option<SealedKey>, AdminError> {
        let (keys, now) = (self.store.keys().await?, self.now());
        let missing = || AdminError::NoSuchSigningKey(kid.to_owned());
        let removed = keys.iter().find(|key| key.kid == kid).ok_or_else(missing)?;
        let of_alg = keys.iter().filter(|key| key.alg == removed.alg).map(|key| (key.active_at, &key.kid));
        let timeline = Timeline::new(of_alg.collect());
        let mut others_sign = false;
        for (other, state) in timeline.states(now).filter(|(other, _)| ***other != kid) {
            match state {
                KeyState::Active | KeyState::Retiring => others_sign = true,
                // A gone key would sign again once its successor is removed.
                KeyState::Gone => {
                    self.store.remove_key(other, None).await?;
                }
                KeyState::Next => {}
            }
        }
        // A key of an unknown algorithm never signed, so it needs no successor.
        let alg: Option<Alg> = removed.alg.parse().ok();
        let successor = match alg.filter(|_| !others_sign) {
            Some(alg) => Some(new_key(alg, &*self.sealing_key()?, now, Span::from_secs(0))?),
            None => None,
        };
        if self.store.remove_key(kid, successor.as_ref()).await? { Ok(successor) } else { Err(missing()) }
    }

    /// Returns all signing keys with their states, by algorithm.
    pub async fn keys(&self) -> AdminResult<Vec<ListedKey>> {
        let (sealing_key, mut warnings) = match (self.sealing_key)() {
            Ok(key) => (Some(key), Vec::new()),
            Err(error) => (None, vec![Warning::NoPublicKeys(error)]),
        };
        let mut by_alg: BTreeMap<String, Vec<(UnixTime, SealedKey)>> = BTreeMap::new();
        for key in self.store.keys().await? {
            by_alg.entry(key.alg.clone()).or_default().push((key.active_at, key));
        }
        let mut value = Vec::new();
        for timeline in by_alg.into_values().map(Timeline::new) {
            for (key, state) in timeline.states(self.now()) {
                let opened = sealing_key.as_ref().map(|under| key.open(under)).transpose();
                let opened = opened.unwrap_or_else(|fault| {
                    warnings.push(Warning::KeyNotOpened(fault));
                    None
                });
                let opened = opened.map(|key| if self.policy.fully_specified { key.fully_specified() } else { key });
                value.push(ListedKey { key: key.clone(), state, opened });
            }
        }
        Ok(Outcome { value, warnings })
    }

    /// Returns one signing key with its state.
    pub async fn key(&self, kid: &str) -> AdminResult<ListedKey> {
        let Outcome { value, mut warnings } = self.keys().await?;
        warnings
            .retain(|warning| !matches!(warning, Warning::KeyNotOpened(StoreError::Malformed { id, .. }) if id != kid));
        let key = value.into_iter().find(|listed| listed.key.kid == kid);
        let value = key.ok_or_else(|| AdminError::NoSuchSigningKey(kid.to_owned()))?;
        Ok(Outcome { value, warnings })
    }
}

/// Returns the time until a new key signs: until verifiers have fetched it, or none for the first key of its algorithm.
/// No two keys start to sign in the same second, so of two that are made at once the later one signs last.
fn ahead(keys: &[SealedKey], alg: Alg, now: UnixTime) -> Span {
    let taken: Vec<UnixTime> = keys.iter().filter(|key| key.alg == alg.as_str()).map(|key| key.active_at).collect();
    let earliest = if taken.is_empty() { 0 } else { PUBLISH_AHEAD.duration().as_secs() };
    let mut seconds = (earliest..).map(Span::from_secs);
    seconds.find(|ahead| !taken.contains(&now.plus(*ahead))).unwrap_or(PUBLISH_AHEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_that_are_made_at_once_sign_one_after_the_other() {
        let key = |alg: Alg, active_at: UnixTime| SealedKey {
            kid: String::new(),
            alg: alg.to_string(),
            sealed: Vec::new(),
            active_at,
            created_at: active_at,
        };
        let now = UnixTime(1000);
        assert_eq!(ahead(&[], Alg::Es256, now), Span::from_secs(0));
        let mut keys = vec![key(Alg::EdDsa, now), key(Alg::Es256, now)];
        let first = ahead(&keys, Alg::Es256, now);
        assert_eq!(first, PUBLISH_AHEAD);
        keys.push(key(Alg::Es256, now.plus(first)));
        assert_eq!(now.plus(ahead(&keys, Alg::Es256, now)), now.plus(first).plus(Span::from_secs(1)));
    }
}

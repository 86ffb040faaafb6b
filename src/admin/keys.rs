//! Signing keys: generate, rotate, import, attach, remove, list. Their states are computed from times.

use serde_json::{Value, json};

use super::{Admin, AdminError, AdminResult, Outcome, Warning};
use crate::crypto::jwk::Alg;
use crate::crypto::jws::SigningKey;
use crate::model::pkcs11_uri::Pkcs11Uri;
use crate::model::time::{Span, UnixTime};
use crate::state::keyring::{KeyState, PUBLISH_AHEAD, Successor, max_ttl, timelines};
use crate::store::StoreError;
use crate::store::keys::{OpenedKey, SealedKey, new_key};

/// Signing key with its state, and opened where the sealing key opens it.
#[derive(Debug)]
pub struct ListedKey {
    /// The stored key.
    pub key: SealedKey,
    /// The present state.
    pub state: KeyState,
    /// Time at which the state changes, if that is known: for a key that signs, its rotation.
    pub changes_at: Option<UnixTime>,
    /// The opened key.
    pub opened: Option<OpenedKey>,
}

impl ListedKey {
    /// Returns the public key as a JWK.
    #[must_use]
    pub fn jwk(&self) -> Option<Value> {
        self.opened.as_ref().map(|opened| opened.key.published())
    }

    /// Returns the key as JSON.
    #[must_use]
    pub fn document(&self) -> Value {
        let Self { key, state, changes_at, opened } = self;
        let mut document = json!({
            "kid": key.kid, "alg": key.alg, "state": state, "created_at": key.created_at, "active_at": key.active_at,
            "changes_at": changes_at, "max_ttl": key.max_ttl.seconds(), "jwk": self.jwk(),
        });
        let module = opened.as_ref().and_then(|opened| opened.module.as_ref());
        if let (Some(module), Some(members)) = (module, document.as_object_mut()) {
            members.insert("pkcs11".into(), module.to_string().into());
        }
        document
    }
}

impl Admin {
    /// Generates a key of an algorithm, by default the server's. The first key of an algorithm signs at once; any other
    /// signs once every verifier has had time to fetch it. So generating a key also rotates.
    pub async fn generate_key(&self, alg: Option<Alg>) -> Result<SealedKey, AdminError> {
        let (alg, now) = (alg.unwrap_or(self.policy.defaults.alg), self.now());
        let ahead = ahead(&self.store.keys().await?, alg, now);
        let key = new_key(alg, &*self.sealing_key()?, now, ahead)?;
        self.add_key(key).await
    }

    /// Generates the key that follows the last one. Refused where that is in a module, and where it does not open: it may be in
    /// a module.
    pub async fn rotate_key(&self, alg: Option<Alg>) -> Result<SealedKey, AdminError> {
        let of_alg = alg.unwrap_or(self.policy.defaults.alg);
        let keys = self.store.keys().await?;
        if let Some(last) = keys.iter().rfind(|key| key.alg == of_alg.as_str())
            && last.open(&*self.sealing_key()?)?.module.is_some()
        {
            return Err(AdminError::KeyInModule(last.kid.clone()));
        }
        self.generate_key(alg).await
    }

    /// Attaches a private key that stays in a PKCS #11 module; `key` is its public half. It signs as
    /// [`generate_key`](Self::generate_key) says.
    pub async fn attach_key(&self, key: &SigningKey, module: &Pkcs11Uri) -> Result<SealedKey, AdminError> {
        let now = self.now();
        let active_at = now.plus(ahead(&self.store.keys().await?, key.alg(), now));
        self.add_key(SealedKey::seal_reference(key, module, &*self.sealing_key()?, active_at, now)?).await
    }

    /// Imports a private key in PEM. It signs as [`generate_key`](Self::generate_key) says.
    pub async fn import_key(&self, alg: Option<Alg>, pem: &[u8]) -> Result<SealedKey, AdminError> {
        let (alg, now) = (alg.unwrap_or(self.policy.defaults.alg), self.now());
        let (key, pkcs8) = SigningKey::from_pem(alg, pem)?;
        let active_at = now.plus(ahead(&self.store.keys().await?, alg, now));
        self.add_key(SealedKey::seal(&key, &pkcs8, &*self.sealing_key()?, active_at, now)?).await
    }

    async fn add_key(&self, key: SealedKey) -> Result<SealedKey, AdminError> {
        let key = SealedKey { max_ttl: self.max_ttl().await?, ..key };
        self.store.add_key(&key).await?;
        Ok(key)
    }

    /// Returns the longest lifetime of the tokens of a key that is made now.
    async fn max_ttl(&self) -> Result<Span, AdminError> {
        let registered = self.store.longest_registered_ttl().await?;
        Ok(max_ttl(self.policy.defaults.ttl, registered, self.policy.max_stale))
    }

    /// Removes a key at once. An algorithm in use always has a key that signs: when the removed one did, another key of the
    /// algorithm does, and without one a new key; but no key is made in memory to replace one in a module. Returns the successor
    /// of a key that signed.
    pub async fn remove_key(&self, kid: &str) -> Result<Option<Successor<SealedKey>>, AdminError> {
        let (keys, now) = (self.store.keys().await?, self.now());
        let missing = || AdminError::NoSuchSigningKey(kid.to_owned());
        let removed = keys.iter().find(|key| key.kid == kid).ok_or_else(missing)?;
        let timeline = timelines(&keys).remove(removed.alg.as_str()).ok_or_else(missing)?;
        for (gone, _) in timeline.states(now).filter(|(key, state)| *state == KeyState::Gone && key.kid != kid) {
            // It would sign again once its successor is removed.
            self.store.remove_key(&gone.kid, None).await?;
        }
        let signs = timeline.active(now).is_some_and(|(_, key)| key.kid == kid);
        // A key of an unknown algorithm never signed.
        let Some(alg) = removed.alg.parse::<Alg>().ok().filter(|_| signs) else {
            return if self.store.remove_key(kid, None).await? { Ok(None) } else { Err(missing()) };
        };
        let (done, successor) = match timeline.successor(now) {
            Successor::Retiring(key) => {
                (self.store.remove_key(kid, None).await?, Successor::Retiring(SealedKey::clone(key)))
            }
            Successor::Next(key) => {
                (self.store.replace_key(kid, &key.kid, now).await?, Successor::Next(SealedKey::clone(key)))
            }
            Successor::New => {
                // A row that does not open is removed: a server does not start on it.
                if removed.open(&*self.sealing_key()?).is_ok_and(|opened| opened.module.is_some()) {
                    return Err(AdminError::SoleKeyInModule(kid.to_owned()));
                }
                let made = new_key(alg, &*self.sealing_key()?, now, Span::from_secs(0))?;
                let made = SealedKey { max_ttl: self.max_ttl().await?, ..made };
                (self.store.remove_key(kid, Some(&made)).await?, Successor::New)
            }
        };
        if done { Ok(Some(successor)) } else { Err(missing()) }
    }

    /// Returns all signing keys with their states, by algorithm.
    pub async fn keys(&self) -> AdminResult<Vec<ListedKey>> {
        let (sealing_key, mut warnings) = match (self.sealing_key)() {
            Ok(key) => (Some(key), Vec::new()),
            Err(error) => (None, vec![Warning::NoPublicKeys(error)]),
        };
        let (keys, now) = (self.store.keys().await?, self.now());
        let mut value = Vec::new();
        for timeline in timelines(&keys).into_values() {
            let rotation = self.policy.rotate_every.and_then(|every| timeline.next_rotation(now, every));
            for (key, state, changes_at) in timeline.schedule(now) {
                let opened = sealing_key.as_ref().map(|under| key.open(under)).transpose();
                let opened = opened.unwrap_or_else(|fault| {
                    warnings.push(Warning::KeyNotOpened(fault));
                    None
                });
                let opened = opened.map(|key| if self.policy.fully_specified { key.fully_specified() } else { key });
                let due = rotation.filter(|next| next.key.kid == key.kid).map(|next| next.due_at);
                value.push(ListedKey { key: SealedKey::clone(key), state, changes_at: changes_at.or(due), opened });
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
            max_ttl: PUBLISH_AHEAD,
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

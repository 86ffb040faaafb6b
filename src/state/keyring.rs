//! Signing keys in memory. The state of a key (next, active, retiring, gone) is computed from times alone.
//!
//! A key is published as soon as it exists, signs from `active_at` until the next key of its algorithm does, and stays
//! published until the last token it signed has expired. No process has to move it along.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::json;

use crate::crypto::jwk::Alg;
use crate::crypto::jws::SigningKey;
use crate::crypto::seal::SealingKey;
use crate::model::document::Document;
use crate::model::time::{Span, UnixTime};
use crate::store::StoreError;
use crate::store::keys::SealedKey;

/// State of a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// Published, not yet signing.
    Next,
    /// Signing.
    Active,
    /// No longer signing, still published for the tokens it signed.
    Retiring,
    /// Neither signing nor published.
    Gone,
}

/// Keys of one algorithm, with the times from which they sign.
#[derive(Debug, Clone)]
pub struct Timeline<K> {
    /// In the order of `active_at`.
    keys: Vec<(UnixTime, K)>,
}

impl<K> Timeline<K> {
    /// Orders keys by `active_at`.
    #[must_use]
    pub fn new(mut keys: Vec<(UnixTime, K)>) -> Self {
        keys.sort_by_key(|(active_at, _)| *active_at);
        Self { keys }
    }

    /// Returns the key that signs at `now`: the last one whose `active_at` has passed, or else the first.
    #[must_use]
    pub fn active(&self, now: UnixTime) -> Option<&K> {
        self.keys.get(self.position(now)).map(|(_, key)| key)
    }

    /// Returns every key with its state at `now`. A retiring key is kept for the longest possible lifetime of a token,
    /// a day: the lifetimes that were configured when its tokens were issued are not known any more.
    pub fn states(&self, now: UnixTime) -> impl Iterator<Item = (&K, KeyState)> {
        self.schedule(now).map(|(key, state, _)| (key, state))
    }

    /// Returns every key with its state at `now`, and the time at which the state changes, if that is known.
    fn schedule(&self, now: UnixTime) -> impl Iterator<Item = (&K, KeyState, Option<UnixTime>)> {
        let active = self.position(now);
        self.keys.iter().enumerate().map(move |(position, (active_at, key))| {
            let replaced_at = self.keys.get(position + 1).map(|(active_at, _)| *active_at);
            let last_token_ends = replaced_at.map(|at| at.plus(LONGEST_TTL).plus(SKEW));
            if position > active {
                (key, KeyState::Next, Some(*active_at))
            } else if position == active {
                (key, KeyState::Active, replaced_at)
            } else if last_token_ends.is_some_and(|end| end <= now) {
                (key, KeyState::Gone, None)
            } else {
                (key, KeyState::Retiring, last_token_ends)
            }
        })
    }

    fn position(&self, now: UnixTime) -> usize {
        self.keys.iter().rposition(|(active_at, _)| *active_at <= now).unwrap_or(0)
    }
}

/// Returns the stored keys that are not gone at `now`.
pub fn live(keys: &[SealedKey], now: UnixTime) -> impl Iterator<Item = &SealedKey> {
    let mut by_alg: BTreeMap<&str, Vec<(UnixTime, &SealedKey)>> = BTreeMap::new();
    for key in keys {
        by_alg.entry(&key.alg).or_default().push((key.active_at, key));
    }
    by_alg.into_values().flat_map(move |keys| {
        let timeline = Timeline::new(keys);
        let live = timeline.states(now).filter(|(_, state)| *state != KeyState::Gone);
        live.map(|(key, _)| *key).collect::<Vec<_>>()
    })
}

/// Signing keys, replaced as a whole when they change.
#[derive(Debug)]
pub struct Keyring {
    keys: ArcSwap<HashMap<Alg, Timeline<Arc<SigningKey>>>>,
    jwks: ArcSwap<Document>,
    fully_specified: bool,
}

impl Default for Keyring {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Keyring {
    /// Makes an empty keyring. With `fully_specified`, Ed25519 has that name (RFC 9864) instead of `EdDSA`.
    #[must_use]
    pub fn new(fully_specified: bool) -> Self {
        Self {
            fully_specified,
            keys: ArcSwap::default(),
            jwks: ArcSwap::from_pointee(Document::new(&json!({"keys": []}))),
        }
    }
}

impl Keyring {
    /// Opens sealed keys and replaces the former ones by them. Returns the errors of keys that do not open; these are
    /// left out.
    #[must_use]
    pub fn load(&self, sealed: &[SealedKey], under: &SealingKey) -> Vec<StoreError> {
        let known = self.keys.load();
        let known: HashMap<&str, &Arc<SigningKey>> =
            known.values().flat_map(|timeline| &timeline.keys).map(|(_, key)| (key.kid(), key)).collect();
        let mut faults = Vec::new();
        let mut keys: HashMap<Alg, Vec<(UnixTime, Arc<SigningKey>)>> = HashMap::new();
        for row in sealed {
            let key = match known.get(row.kid.as_str()) {
                Some(key) if key.alg().as_str() == row.alg => Ok(Arc::clone(key)),
                _ => row.open(under).map(|key| Arc::new(self.named(key))),
            };
            match key {
                Ok(key) => keys.entry(key.alg()).or_default().push((row.active_at, key)),
                Err(fault) => faults.push(fault),
            }
        }
        self.keys.store(Arc::new(keys.into_iter().map(|(alg, keys)| (alg, Timeline::new(keys))).collect()));
        faults
    }

    fn named(&self, key: SigningKey) -> SigningKey {
        if self.fully_specified { key.fully_specified() } else { key }
    }

    /// The name of an algorithm in headers and in the JWK Set.
    #[must_use]
    pub fn alg_name(&self, alg: Alg) -> &'static str {
        if self.fully_specified && alg == Alg::EdDsa { "Ed25519" } else { alg.as_str() }
    }

    /// Updates the JWK Set to the keys that are not gone at `now`. Cheap when nothing has changed, so that it can run
    /// on every poll.
    pub fn publish(&self, now: UnixTime) {
        let published: BTreeMap<String, serde_json::Value> = self
            .keys
            .load()
            .values()
            .flat_map(|timeline| timeline.states(now))
            .filter(|(_, state)| *state != KeyState::Gone)
            .map(|(key, _)| (key.kid().to_owned(), key.published()))
            .collect();
        let document = Document::new(&json!({"keys": published.into_values().collect::<Vec<_>>()}));
        if document.etag != self.jwks.load().etag {
            self.jwks.store(Arc::new(document));
        }
    }

    /// Returns every published key with its state at `now`, and the time at which the state changes, if that is known.
    #[must_use]
    pub fn schedule(&self, now: UnixTime) -> Vec<(Arc<SigningKey>, KeyState, Option<UnixTime>)> {
        let keys = self.keys.load();
        let all = keys.values().flat_map(|timeline| timeline.schedule(now));
        let published = all.filter(|(_, state, _)| *state != KeyState::Gone);
        let mut published: Vec<_> = published.map(|(key, state, at)| (Arc::clone(key), state, at)).collect();
        published.sort_by(|(one, ..), (other, ..)| one.kid().cmp(other.kid()));
        published
    }

    /// Returns the key that signs with `alg` at `now`.
    #[must_use]
    pub fn signing(&self, alg: Alg, now: UnixTime) -> Option<Arc<SigningKey>> {
        self.keys.load().get(&alg)?.active(now).cloned()
    }

    /// Returns the key with that id while it is published: in the states next, active and retiring.
    #[must_use]
    pub fn published(&self, kid: &str, now: UnixTime) -> Option<Arc<SigningKey>> {
        let keys = self.keys.load();
        let mut all = keys.values().flat_map(|timeline| timeline.states(now));
        all.find(|(key, state)| key.kid() == kid && *state != KeyState::Gone).map(|(key, _)| Arc::clone(key))
    }

    /// Whether there is no key at all. An empty JWK Set must not be served: once cached, it would make every token
    /// invalid.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.load().is_empty()
    }

    /// Whether there is a key with that id, in any state.
    #[must_use]
    pub fn knows(&self, kid: &str) -> bool {
        let keys = self.keys.load();
        keys.values().flat_map(|timeline| timeline.states(UnixTime(0))).any(|(key, _)| key.kid() == kid)
    }

    /// The published JWK Set.
    #[must_use]
    pub fn jwks(&self) -> Arc<Document> {
        self.jwks.load_full()
    }
}

/// Time from the publication of a key until it signs: the `max-age` of the JWK Set, and a minute for clock skew.
pub const PUBLISH_AHEAD: Span = Span::from_secs(300 + 60);
/// Maximum lifetime of any token.
pub const LONGEST_TTL: Span = Span::from_secs(86400);
/// Clock skew of resource servers for which a retiring key stays published.
pub(crate) const SKEW: Span = Span::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_next_then_active_then_retiring_until_its_last_token_has_expired() {
        let timeline = Timeline::new(vec![(UnixTime(1000), "b"), (UnixTime(0), "a")]);
        let states = |now| timeline.states(UnixTime(now)).map(|(key, state)| (*key, state)).collect::<Vec<_>>();
        assert_eq!(states(999), [("a", KeyState::Active), ("b", KeyState::Next)]);
        assert_eq!(states(1000), [("a", KeyState::Retiring), ("b", KeyState::Active)]);
        assert_eq!(states(1000 + 86459), [("a", KeyState::Retiring), ("b", KeyState::Active)]);
        assert_eq!(states(1000 + 86460), [("a", KeyState::Gone), ("b", KeyState::Active)]);
        assert_eq!(timeline.active(UnixTime(999)), Some(&"a"));
        assert_eq!(timeline.active(UnixTime(1000)), Some(&"b"));
    }

    #[test]
    fn before_any_key_has_started_the_first_to_come_signs() {
        let timeline = Timeline::new(vec![(UnixTime(1000), "b"), (UnixTime(2000), "c")]);
        assert_eq!(timeline.active(UnixTime(0)), Some(&"b"));
        assert_eq!(Timeline::<&str>::new(vec![]).active(UnixTime(0)), None);
    }
}

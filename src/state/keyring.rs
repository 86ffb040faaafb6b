//! Signing keys in memory. The state of a key (next, active, retiring, gone) is computed from times alone.
//!
//! A key is published as soon as it exists, signs from `active_at` until the next key of its algorithm does, and stays
//! published until the last token it signed has expired. No process has to move it along.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::json;

use crate::crypto::jwk::Alg;
use crate::crypto::seal::SealingKey;
use crate::model::document::Document;
use crate::model::time::{Span, UnixTime};
use crate::store::StoreError;
use crate::store::keys::{OpenedKey, SealedKey};

use super::pkcs11::{Module, ModuleKey};
use super::signer::Signer;

pub use crate::store::keys::LONGEST_TTL;

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

/// Time from which a key signs, and the longest lifetime of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// Time from which it signs.
    pub active_at: UnixTime,
    /// Longest lifetime of a token that it signs.
    pub max_ttl: Span,
}

impl From<&SealedKey> for Term {
    fn from(key: &SealedKey) -> Self {
        Self { active_at: key.active_at, max_ttl: key.max_ttl }
    }
}

/// Keys of one algorithm, with their terms.
#[derive(Debug, Clone)]
pub struct Timeline<K> {
    /// In the order of `active_at`.
    keys: Vec<(Term, K)>,
}

/// Replacement of the key that signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextRotation<K> {
    /// The key that signs until then.
    pub key: K,
    /// Time from which it signs.
    pub active_at: UnixTime,
    /// Time at which another key signs.
    pub due_at: UnixTime,
    /// Whether the other key is published.
    pub published: bool,
}

/// Key that signs instead of one that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Successor<K> {
    /// The key that signed before signs again, until the next one does. Every verifier knows it.
    Retiring(K),
    /// The next key signs ahead of its time. Every verifier knows it [`PUBLISH_AHEAD`] after it was made.
    Next(K),
    /// A new key, which no verifier knows.
    New,
}

impl<K> Timeline<K> {
    /// Orders keys by `active_at`.
    #[must_use]
    pub fn new(mut keys: Vec<(Term, K)>) -> Self {
        keys.sort_by_key(|(term, _)| term.active_at);
        Self { keys }
    }

    /// Returns the key that signs at `now`, with its term: the last one whose `active_at` has passed, or else the first.
    #[must_use]
    pub fn active(&self, now: UnixTime) -> Option<&(Term, K)> {
        self.keys.get(self.position(now))
    }

    /// Returns every key with its state at `now`. A retiring key is kept for the longest lifetime of its tokens.
    pub fn states(&self, now: UnixTime) -> impl Iterator<Item = (&K, KeyState)> {
        self.schedule(now).map(|(key, state, _)| (key, state))
    }

    /// Returns every key with its state at `now`, and the time at which the state changes, if that is known.
    pub fn schedule(&self, now: UnixTime) -> impl Iterator<Item = (&K, KeyState, Option<UnixTime>)> {
        let active = self.position(now);
        self.keys.iter().enumerate().map(move |(position, (term, key))| {
            let replaced_at = self.keys.get(position + 1).map(|(term, _)| term.active_at);
            let last_token_ends = replaced_at.map(|at| at.plus(term.max_ttl).plus(SKEW));
            if position > active {
                (key, KeyState::Next, Some(term.active_at))
            } else if position == active {
                (key, KeyState::Active, replaced_at)
            } else if last_token_ends.is_some_and(|end| end <= now) {
                (key, KeyState::Gone, None)
            } else {
                (key, KeyState::Retiring, last_token_ends)
            }
        })
    }

    /// Returns the replacement of the key that signs at `now`: by the key that is published, or by one that signs `every`
    /// after the present one began.
    #[must_use]
    pub fn next_rotation(&self, now: UnixTime, every: Span) -> Option<NextRotation<&K>> {
        let position = self.position(now);
        let (Term { active_at, .. }, key) = self.keys.get(position)?;
        let next = self.keys.get(position + 1).map(|(term, _)| term.active_at);
        let due_at = next.unwrap_or(active_at.plus(every));
        Some(NextRotation { key, active_at: *active_at, due_at, published: next.is_some() })
    }

    /// Returns the key that signs instead of the one that signs at `now`, when that is removed.
    #[must_use]
    pub fn successor(&self, now: UnixTime) -> Successor<&K> {
        let (mut retiring, mut next) = (None, None);
        for (key, state) in self.states(now) {
            match state {
                KeyState::Retiring => retiring = Some(key),
                KeyState::Next => next = next.or(Some(key)),
                KeyState::Active | KeyState::Gone => {}
            }
        }
        let retiring = retiring.map(Successor::Retiring);
        retiring.or(next.map(Successor::Next)).unwrap_or(Successor::New)
    }

    fn position(&self, now: UnixTime) -> usize {
        self.keys.iter().rposition(|(term, _)| term.active_at <= now).unwrap_or(0)
    }
}

/// Returns the keys of each algorithm.
#[must_use]
pub fn timelines(keys: &[SealedKey]) -> BTreeMap<&str, Timeline<&SealedKey>> {
    let mut by_alg: BTreeMap<&str, Vec<(Term, &SealedKey)>> = BTreeMap::new();
    for key in keys {
        by_alg.entry(&key.alg).or_default().push((key.into(), key));
    }
    by_alg.into_iter().map(|(alg, keys)| (alg, Timeline::new(keys))).collect()
}

/// Returns the stored keys that are not gone at `now`.
pub fn live(keys: &[SealedKey], now: UnixTime) -> impl Iterator<Item = &SealedKey> {
    timelines(keys).into_values().flat_map(move |timeline| {
        let live = timeline.states(now).filter(|(_, state)| *state != KeyState::Gone);
        live.map(|(key, _)| *key).collect::<Vec<_>>()
    })
}

/// Signing keys, replaced as a whole when they change.
#[derive(Debug)]
pub struct Keyring {
    keys: ArcSwap<HashMap<Alg, Timeline<Arc<Signer>>>>,
    /// Sealed bytes from which each key was opened, by its id.
    opened_from: Mutex<HashMap<String, Vec<u8>>>,
    jwks: ArcSwap<Document>,
    fully_specified: bool,
    /// `keys.rotate_every`: the time for which a key signs; `None` until an administrator rotates it.
    pub rotate_every: Option<Span>,
    /// `keys.pkcs11_module`: the module in which attached keys are.
    module: Option<Arc<Module>>,
}

impl Default for Keyring {
    fn default() -> Self {
        Self::new(false, None, None)
    }
}

impl Keyring {
    /// Makes an empty keyring. With `fully_specified`, Ed25519 has that name (RFC 9864) instead of `EdDSA`. `rotate_every`
    /// is the time for which a key signs, `module` the one in which attached keys are.
    #[must_use]
    pub fn new(fully_specified: bool, rotate_every: Option<Span>, module: Option<Arc<Module>>) -> Self {
        Self {
            fully_specified,
            rotate_every,
            module,
            keys: ArcSwap::default(),
            opened_from: Mutex::default(),
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
        let known: HashMap<&str, &Arc<Signer>> =
            known.values().flat_map(|timeline| &timeline.keys).map(|(_, key)| (key.kid(), key)).collect();
        let mut opened_from = self.opened_from.lock().unwrap_or_else(PoisonError::into_inner);
        let mut faults = Vec::new();
        let mut keys: HashMap<Alg, Vec<(Term, Arc<Signer>)>> = HashMap::new();
        for row in sealed {
            let known = known.get(row.kid.as_str()).filter(|key| key.alg().as_str() == row.alg);
            let key = match known {
                Some(key) if opened_from.get(&row.kid) == Some(&row.sealed) => Ok(Arc::clone(key)),
                // A key whose row was sealed anew may have another place. One that no longer opens signs on.
                _ => match (row.open(under), known) {
                    (Err(_), Some(key)) => Ok(Arc::clone(key)),
                    (Ok(opened), Some(key)) if key.module().map(ModuleKey::uri) == opened.module.as_ref() => {
                        Ok(Arc::clone(key))
                    }
                    (opened, _) => opened.map(|key| Arc::new(Signer::new(self.named(key), self.module.as_ref()))),
                },
            };
            match key {
                Ok(key) => keys.entry(key.alg()).or_default().push((row.into(), key)),
                Err(fault) => faults.push(fault),
            }
        }
        *opened_from = sealed.iter().map(|row| (row.kid.clone(), row.sealed.clone())).collect();
        self.keys.store(Arc::new(keys.into_iter().map(|(alg, keys)| (alg, Timeline::new(keys))).collect()));
        faults
    }

    fn named(&self, opened: OpenedKey) -> OpenedKey {
        if self.fully_specified { opened.fully_specified() } else { opened }
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
    pub fn schedule(&self, now: UnixTime) -> Vec<(Arc<Signer>, KeyState, Option<UnixTime>)> {
        let keys = self.keys.load();
        let all = keys.values().flat_map(|timeline| timeline.schedule(now));
        let published = all.filter(|(_, state, _)| *state != KeyState::Gone);
        let mut published: Vec<_> = published.map(|(key, state, at)| (Arc::clone(key), state, at)).collect();
        published.sort_by(|(one, ..), (other, ..)| one.kid().cmp(other.kid()));
        published
    }

    /// Returns the key that signs with `alg` at `now`.
    #[must_use]
    pub fn signing(&self, alg: Alg, now: UnixTime) -> Option<Arc<Signer>> {
        self.signer(alg, now).map(|(_, key)| key)
    }

    /// Returns the key that signs with `alg` at `now`, with its term.
    #[must_use]
    pub fn signer(&self, alg: Alg, now: UnixTime) -> Option<(Term, Arc<Signer>)> {
        self.keys.load().get(&alg)?.active(now).cloned()
    }

    /// Signs a probe with each key in a module that signs or will sign, when it is in doubt whether it does.
    pub fn probe_modules(&self, now: UnixTime) {
        for (key, state, _) in self.schedule(now) {
            if let Some(module) = key.module().filter(|_| matches!(state, KeyState::Active | KeyState::Next)) {
                module.probe();
            }
        }
    }

    /// Returns the id of a key in a module that has to sign at `now`, or else will have to, and the reason for which it does
    /// not.
    #[must_use]
    pub fn module_trouble(&self, now: UnixTime) -> Option<(String, String)> {
        let keys = self.schedule(now);
        let mut in_turn = [KeyState::Active, KeyState::Next]
            .into_iter()
            .flat_map(|wanted| keys.iter().filter(move |(_, state, _)| *state == wanted).map(|(key, ..)| key));
        in_turn.find_map(|key| Some((key.kid().to_owned(), key.module().and_then(ModuleKey::trouble)?)))
    }

    /// Returns the next rotation of each algorithm; none with `keys.rotate_every = "never"`.
    #[must_use]
    pub fn next_rotations(&self, now: UnixTime) -> BTreeMap<Alg, NextRotation<Arc<Signer>>> {
        let Some(every) = self.rotate_every else { return BTreeMap::new() };
        let keys = self.keys.load();
        let next = keys.iter().filter_map(|(alg, timeline)| Some((*alg, timeline.next_rotation(now, every)?)));
        next.map(|(alg, NextRotation { key, active_at, due_at, published })| {
            (alg, NextRotation { key: Arc::clone(key), active_at, due_at, published })
        })
        .collect()
    }

    /// Returns the key with that id while it is published: in the states next, active and retiring.
    #[must_use]
    pub fn published(&self, kid: &str, now: UnixTime) -> Option<Arc<Signer>> {
        let keys = self.keys.load();
        let mut all = keys.values().flat_map(|timeline| timeline.states(now));
        all.find(|(key, state)| key.kid() == kid && *state != KeyState::Gone).map(|(key, _)| Arc::clone(key))
    }

    /// Returns the ids of the keys that were gone at `then`.
    #[must_use]
    pub fn gone(&self, then: UnixTime) -> Vec<String> {
        let keys = self.keys.load();
        let all = keys.values().flat_map(|timeline| timeline.states(then));
        all.filter(|(_, state)| *state == KeyState::Gone).map(|(key, _)| key.kid().to_owned()).collect()
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

/// Returns the time for which a key set may be cached that is served `staleness` after the database confirmed it. No key
/// that it lacks signs within that time.
#[must_use]
pub fn cacheable_for(staleness: Duration) -> Duration {
    MAX_AGE.min(KNOWN_AHEAD.saturating_sub(staleness))
}

/// Returns the longest lifetime of a token that a key signs `staleness` after the database confirmed it, in whole seconds.
/// The key may have been replaced since; it stays published for its `max_ttl` after that. `None` when every token might
/// outlive it.
#[must_use]
pub fn longest_ttl(max_ttl: Span, staleness: Duration) -> Option<Span> {
    let replaced_for = staleness.saturating_sub(KNOWN_AHEAD);
    let left = max_ttl.duration().saturating_sub(replaced_for).as_secs();
    (left > 0).then(|| Span::from_secs(left))
}

/// Returns the longest lifetime of the tokens of a key that is made now: the longest that is configured, and at least the
/// time for which a replica without the database signs. It may do so by a key that was replaced meanwhile.
#[must_use]
pub fn max_ttl(default: Span, registered: Option<Span>, max_stale: Duration) -> Span {
    let offline = Span::from_secs(max_stale.as_secs());
    registered.into_iter().fold(default.max(offline), Span::max).min(LONGEST_TTL)
}

/// Time for which a verifier may cache the key set.
pub const MAX_AGE: Duration = Duration::from_mins(5);
/// Time from the publication of a key until it signs: the `max-age` of the JWK Set, and a minute for clock skew.
pub const PUBLISH_AHEAD: Span = Span::from_secs(300 + 60);
/// Time after a poll in which no key signs that the poll did not show: the time of publication, without the seconds in
/// which a key was made and written.
const KNOWN_AHEAD: Duration = Duration::from_secs(300 + 30);
/// Clock skew of resource servers for which a retiring key stays published.
pub(crate) const SKEW: Span = Span::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Span = Span::from_secs(3600);

    fn timeline<K>(keys: Vec<(i64, K)>) -> Timeline<K> {
        let term = |active_at| Term { active_at: UnixTime(active_at), max_ttl: HOUR };
        Timeline::new(keys.into_iter().map(|(active_at, key)| (term(active_at), key)).collect())
    }

    #[test]
    fn a_key_is_next_then_active_then_retiring_until_its_last_token_has_expired() {
        let timeline = timeline(vec![(1000, "b"), (0, "a")]);
        let states = |now| timeline.states(UnixTime(now)).map(|(key, state)| (*key, state)).collect::<Vec<_>>();
        assert_eq!(states(999), [("a", KeyState::Active), ("b", KeyState::Next)]);
        assert_eq!(states(1000), [("a", KeyState::Retiring), ("b", KeyState::Active)]);
        assert_eq!(states(1000 + 3659), [("a", KeyState::Retiring), ("b", KeyState::Active)]);
        assert_eq!(states(1000 + 3660), [("a", KeyState::Gone), ("b", KeyState::Active)]);
        assert_eq!(timeline.active(UnixTime(999)).unwrap().1, "a");
        assert_eq!(timeline.active(UnixTime(1000)).unwrap().1, "b");
    }

    #[test]
    fn before_any_key_has_started_the_first_to_come_signs() {
        let two = timeline(vec![(1000, "b"), (2000, "c")]);
        assert_eq!(two.active(UnixTime(0)).unwrap().1, "b");
        assert_eq!(timeline::<&str>(vec![]).active(UnixTime(0)), None);
    }

    #[test]
    fn a_rotation_is_due_by_the_published_key_or_by_time() {
        let due = |timeline: &Timeline<&'static str>, now| {
            let next = timeline.next_rotation(UnixTime(now), HOUR)?;
            Some((*next.key, next.due_at.0, next.published))
        };
        assert_eq!(due(&timeline(vec![]), 0), None);
        assert_eq!(due(&timeline(vec![(0, "a")]), 5000), Some(("a", 3600, false)));
        let both = timeline(vec![(0, "a"), (1000, "b")]);
        assert_eq!(due(&both, 999), Some(("a", 1000, true)));
        assert_eq!(due(&both, 1000), Some(("b", 4600, false)));
    }

    #[test]
    fn a_removed_key_is_followed_by_one_that_verifiers_know() {
        let keys = timeline(vec![(0, "a"), (1000, "b"), (2000, "c"), (3000, "d")]);
        assert_eq!(keys.successor(UnixTime(1000)), Successor::Retiring(&"a"));
        assert_eq!(keys.successor(UnixTime(2500)), Successor::Retiring(&"b"));
        assert_eq!(keys.successor(UnixTime(0)), Successor::Next(&"b"));
        assert_eq!(timeline(vec![(0, "a")]).successor(UnixTime(0)), Successor::New);
        assert_eq!(timeline(vec![(0, "a"), (1000, "b")]).successor(UnixTime(9999)), Successor::New, "a is gone");
    }

    #[test]
    fn a_replica_that_has_not_heard_of_the_database_promises_less() {
        let seconds = Duration::from_secs;
        assert_eq!([0, 30, 31, 330, 9999].map(|age| cacheable_for(seconds(age)).as_secs()), [300, 300, 299, 0, 0]);
        let longest = |age| longest_ttl(Span::from_secs(900), seconds(age)).map(Span::seconds);
        assert_eq!([0, 330, 331, 1229, 1230].map(longest), [Some(900), Some(900), Some(899), Some(1), None]);
        assert_eq!(longest_ttl(HOUR, Duration::MAX), None);
        let made = |default, registered| max_ttl(Span::from_secs(default), registered, seconds(900)).seconds();
        assert_eq!([made(60, None), made(1800, None), made(60, Some(HOUR))], [900, 1800, 3600]);
    }
}

//! JWK Sets that clients publish at their `jwks_uri` (RFC 7517 section 5), and those of trusted issuers: the last fetched
//! set, its age, and the decision when to fetch again.
//!
//! A fetch costs another server work, so each set is fetched at most once in half a minute, whatever is sent in its
//! owner's name. A request whose key is cached never waits for the network, and a slow host delays those whose keys it
//! has only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

pub(crate) mod entry;
mod fetch_slots;
pub mod source;

use entry::{Entry, State, since};
use fetch_slots::{AT_ONCE, FetchSlots};
use source::{Fetch, Source};

use crate::crypto::certificate::path::TrustAnchors;
use crate::model::credential::{KeyCounts, StoredKey};
use crate::model::time::{Span, UnixTime};

/// JWK Sets of all clients with a `jwks_uri`, or of all trusted issuers.
#[derive(Debug)]
pub struct KeySets {
    entries: Mutex<Entries>,
    fetch_slots: FetchSlots,
    key_counts: Arc<Mutex<KeyCounts>>,
    fetches: mpsc::Sender<Fetch>,
}

/// Keys of one JWK Set, as fetched.
pub type Keys = Arc<[StoredKey]>;

/// Reasons for which keys are not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwksError {
    /// No set could be fetched within the last hour, or ever: a fault of its owner or the owner's host.
    Unavailable,
    /// The set was not fetched: a limit of this server.
    Busy,
}

/// Error: the set was not fetched, since the maximum number of fetches is in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyFetches;

#[derive(Debug, Default)]
struct Entries {
    by_owner: HashMap<Box<str>, Arc<Entry>>,
    /// Number of entries that the last prune kept.
    live_at_last_prune: usize,
}

impl KeySets {
    /// Makes an empty cache, and the queue of sets to be fetched.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Fetch>) {
        let (fetches, queue) = mpsc::channel(AT_ONCE);
        (
            Self { entries: Mutex::default(), fetch_slots: FetchSlots::default(), key_counts: Arc::default(), fetches },
            queue,
        )
    }

    /// Makes an empty cache for other owners, with the same queue and the same limits.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self {
            entries: Mutex::default(),
            fetch_slots: self.fetch_slots.clone(),
            key_counts: Arc::default(),
            fetches: self.fetches.clone(),
        }
    }

    /// Returns the keys of `owner`, a client or an issuer, which are at `source`. Fetches them when they are due, and
    /// waits for the result when the cached ones may not be used. Entries of owners for which `is_current` is false are
    /// pruned from time to time.
    ///
    /// # Errors
    /// [`JwksError`].
    pub async fn keys(
        &self,
        owner: &str,
        source: &Source,
        now: UnixTime,
        is_current: impl Fn(&str, &Source) -> bool,
    ) -> Result<Keys, JwksError> {
        let entry = self.entry(owner, source, is_current);
        let pending = {
            let mut state = entry.lock();
            let known = state.usable(now);
            let age = state.good_at.filter(|_| known.is_some()).map(|at| since(at, now));
            let is_old = age.is_none_or(|age| age >= state.refresh);
            let asked = match age {
                Some(age) if age < ahead(state.refresh) => Ok(None),
                _ => self.ask(owner, &entry, &mut state, now),
            };
            match (asked, known) {
                (Err(TooManyFetches), None) => return Err(JwksError::Busy),
                // While fetches fail, the cached keys are used.
                (Ok(Some(pending)), known) if is_old && (known.is_none() || !state.failed) => pending,
                (_, None) => return Err(JwksError::Unavailable),
                (_, Some(known)) => return Ok(known),
            }
        };
        wait(pending).await;
        let state = entry.lock();
        match (state.usable(now), &state.pending) {
            (Some(keys), _) => Ok(keys),
            (None, Some(_)) => Err(JwksError::Busy),
            (None, None) => Err(JwksError::Unavailable),
        }
    }

    /// Returns the keys of `owner` that may be used, without fetching any. They are fetched when they are due by requests
    /// whose token is new.
    #[must_use]
    pub fn known(&self, owner: &str, source: &Source, now: UnixTime) -> Option<Keys> {
        let entry = self.lock().by_owner.get(owner).filter(|entry| entry.source == *source).cloned()?;
        let state = entry.lock();
        let is_new = state.good_at.is_some_and(|at| since(at, now) < ahead(state.refresh));
        state.usable(now).filter(|_| is_new)
    }

    /// Returns the CAs of X.509-SVIDs that came with `keys`, which are those of `owner`.
    #[must_use]
    pub fn authorities(&self, owner: &str, keys: &Keys) -> TrustAnchors {
        let entry = self.lock().by_owner.get(owner).cloned();
        entry.map(|entry| entry.lock().authorities_of(keys)).unwrap_or_default()
    }

    /// Whether fetching the keys of `owner` failed for so long that none is used: then the time of the last good fetch, or
    /// `None` when there was none.
    #[must_use]
    pub fn unusable_since(&self, owner: &str, source: &Source, now: UnixTime) -> Option<Option<UnixTime>> {
        let entry = self.lock().by_owner.get(owner).filter(|entry| entry.source == *source).cloned()?;
        let state = entry.lock();
        (state.failed && state.usable(now).is_none()).then_some(state.good_at)
    }

    /// Returns keys other than `than`, none of which verified the assertion: its key may be new. `None` when there are
    /// no other keys, or the set was fetched within half a minute.
    ///
    /// # Errors
    /// [`TooManyFetches`].
    pub async fn other_keys(
        &self,
        owner: &str,
        source: &Source,
        than: &Keys,
        now: UnixTime,
    ) -> Result<Option<Keys>, TooManyFetches> {
        let Some(entry) = self.lock().by_owner.get(owner).filter(|entry| entry.source == *source).cloned() else {
            return Ok(None);
        };
        let others = |state: &State| state.usable(now).filter(|keys| !Arc::ptr_eq(keys, than));
        let pending = {
            let mut state = entry.lock();
            if let Some(keys) = others(&state) {
                return Ok(Some(keys));
            }
            self.ask(owner, &entry, &mut state, now)?
        };
        let Some(pending) = pending else { return Ok(None) };
        wait(pending).await;
        let state = entry.lock();
        match others(&state) {
            None if state.pending.is_some() => Err(TooManyFetches),
            keys => Ok(keys),
        }
    }

    /// Returns, for each algorithm, the largest number of keys in any set fetched since the start.
    #[must_use]
    pub fn key_counts(&self) -> KeyCounts {
        *self.key_counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, owner: &str, source: &Source, is_current: impl Fn(&str, &Source) -> bool) -> Arc<Entry> {
        let mut entries = self.lock();
        if let Some(entry) = entries.by_owner.get(owner).filter(|entry| entry.source == *source) {
            return Arc::clone(entry);
        }
        // Pruning when the number has doubled costs each new entry a constant.
        if entries.by_owner.len() >= PRUNE_MIN.max(2 * entries.live_at_last_prune) {
            entries.by_owner.retain(|owner, entry| is_current(owner, &entry.source));
            entries.live_at_last_prune = entries.by_owner.len();
        }
        let entry = Arc::new(Entry::new(source));
        entries.by_owner.insert(owner.into(), Arc::clone(&entry));
        entry
    }

    /// Starts a fetch as a task of its own, so that an abandoned request does not stop it for others. Returns the
    /// signal that turns true when the result is in place, or `None` when the set was fetched within half a minute.
    fn ask(
        &self,
        owner: &str,
        entry: &Arc<Entry>,
        state: &mut State,
        now: UnixTime,
    ) -> Result<Option<watch::Receiver<bool>>, TooManyFetches> {
        if state.pending.is_some() {
            return Ok(state.pending.clone());
        }
        if state.asked_at.is_some_and(|at| since(at, now) < PAUSE) {
            return Ok(None);
        }
        let slot = self.fetch_slots.take(entry.source.uri().host()).ok_or(TooManyFetches)?;
        let (done, pending) = watch::channel(false);
        state.asked_at = Some(now);
        state.pending = Some(pending.clone());
        let (entry, owner, key_counts) = (Arc::clone(entry), owner.to_owned(), Arc::clone(&self.key_counts));
        let queue = self.fetches.clone();
        tokio::spawn(async move {
            let fetched = tokio::time::timeout(DEADLINE, entry.source.fetch(&queue, now)).await;
            drop(slot);
            let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {} ms", DEADLINE.as_millis())));
            if let Ok(fetched) = &fetched {
                let mut most = key_counts.lock().unwrap_or_else(PoisonError::into_inner);
                *most = most.max(KeyCounts::of(&fetched.keys));
            }
            entry.lock().update(&owner, &entry.source, fetched, now);
            // Every waiting request may have been abandoned.
            let _: bool = done.send(true).is_ok();
        });
        Ok(Some(pending))
    }
}

/// Waits for the result of a fetch. A dropped sender counts as one.
async fn wait(mut pending: watch::Receiver<bool>) {
    drop(tokio::time::timeout(WAIT, pending.wait_for(|done| *done)).await);
}

/// Returns the age from which on a set is fetched again while it is still used.
fn ahead(refresh: Span) -> Span {
    Span::from_secs(u64::try_from(refresh.seconds() * 4 / 5).unwrap_or_default())
}

/// Minimum time between two fetches of a set.
pub(crate) const PAUSE: Span = Span::from_secs(30);
/// Age from which on a set is fetched again before it is used, unless its host says less.
pub(crate) const REFRESH: Span = Span::from_secs(300);
/// Number of entries below which nothing is pruned.
const PRUNE_MIN: usize = 16;
/// Deadline of fetching a set, its discovery document included.
const DEADLINE: std::time::Duration = std::time::Duration::from_millis(3500);
/// Maximum time that a request waits for a fetch: more than a fetch may take.
const WAIT: std::time::Duration = std::time::Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::key_sets::source::FetchedDocument;

    const KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"k1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    fn set(keys: &[&str]) -> Vec<u8> {
        format!(r#"{{"keys":[{}]}}"#, keys.join(",")).into_bytes()
    }

    /// Host that answers as configured, and counts requests.
    struct FarEnd {
        jwks: Arc<KeySets>,
        queue: mpsc::Receiver<Fetch>,
        source: Source,
    }

    impl FarEnd {
        fn new() -> Self {
            let (jwks, queue) = KeySets::new();
            Self { jwks: Arc::new(jwks), queue, source: Source::Client("https://c.test/jwks".parse().unwrap()) }
        }

        /// The kids that a request at `now` that looks for `kid` ends up with, when each fetch is answered with `answer`.
        /// And how many were.
        async fn ask(&mut self, kid: &str, now: i64, answer: Result<Vec<u8>, String>) -> (Vec<String>, usize) {
            let answer = answer.map(|document| FetchedDocument { document, max_age: None });
            let (jwks, source, now) = (Arc::clone(&self.jwks), self.source.clone(), UnixTime(now));
            let mut asking = Box::pin(async {
                let keys = jwks.keys("c", &source, now, |_, _| true).await?;
                if keys.iter().any(|key| *key.kid == *kid) {
                    return Ok(keys);
                }
                let others = jwks.other_keys("c", &source, &keys, now).await;
                Ok::<_, JwksError>(others.unwrap().unwrap_or(keys))
            });
            let mut fetches = 0;
            let keys = loop {
                tokio::select! {
                    biased;
                    Some(fetch) = self.queue.recv() => {
                        fetches += 1;
                        fetch.reply.send(answer.clone()).unwrap();
                    }
                    keys = &mut asking => break keys,
                }
            };
            // A fetch that no request waited for.
            tokio::task::yield_now().await;
            while let Ok(fetch) = self.queue.try_recv() {
                fetches += 1;
                fetch.reply.send(answer.clone()).unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            (keys.unwrap_or_default().iter().map(|key| key.kid.to_string()).collect(), fetches)
        }
    }

    fn kids(kids: &[&str]) -> Vec<String> {
        kids.iter().map(|&kid| kid.to_owned()).collect()
    }

    #[tokio::test]
    async fn an_unknown_kid_causes_one_fetch_in_half_a_minute() {
        let mut far = FarEnd::new();
        assert_eq!(far.ask("k1", 1000, Ok(set(&[KEY]))).await, (kids(&["k1"]), 1));
        assert_eq!(far.ask("k1", 1100, Ok(set(&[KEY]))).await, (kids(&["k1"]), 0));
        assert_eq!(far.ask("k2", 1101, Ok(set(&[KEY]))).await, (kids(&["k1"]), 1));
        for now in 1102..1131 {
            assert_eq!(far.ask(&format!("k{now}"), now, Ok(set(&[KEY]))).await, (kids(&["k1"]), 0));
        }
        let next = KEY.replace("k1", "k2");
        assert_eq!(far.ask("k2", 1131, Ok(set(&[KEY, &next]))).await, (kids(&["k1", "k2"]), 1));
    }

    #[tokio::test]
    async fn a_removed_key_ends_within_five_minutes_and_a_stale_set_within_an_hour() {
        let mut far = FarEnd::new();
        let next = KEY.replace("k1", "k2");
        assert_eq!(far.ask("k1", 1000, Ok(set(&[KEY]))).await, (kids(&["k1"]), 1));
        assert_eq!(far.ask("k1", 1300, Ok(set(&[&next]))).await, (kids(&["k2"]), 1));
        let gone = || Err("gone".to_owned());
        assert_eq!(far.ask("k2", 1540, gone()).await, (kids(&["k2"]), 1), "before it is due, nobody waits");
        assert_eq!(far.ask("k2", 1600, gone()).await, (kids(&["k2"]), 1));
        assert_eq!(far.ask("k2", 1601, gone()).await, (kids(&["k2"]), 0), "a failure is remembered too");
        assert_eq!(far.ask("k2", 1300 + 3599, gone()).await, (kids(&["k2"]), 1));
        let unusable = |far: &FarEnd, now| far.jwks.unusable_since("c", &far.source, UnixTime(now));
        assert_eq!(unusable(&far, 1300 + 3599), None);
        assert_eq!(far.ask("k2", 1300 + 3600, gone()).await, (kids(&[]), 0));
        assert_eq!(unusable(&far, 1300 + 3600), Some(Some(UnixTime(1300))));
        assert_eq!(far.ask("k2", 1300 + 3630, Ok(set(&[&next]))).await, (kids(&["k2"]), 1));
        assert_eq!(unusable(&far, 1300 + 3630 + 7200), None, "old, but nobody has asked");
    }

    #[tokio::test]
    async fn an_invalid_key_set_replaces_no_valid_one() {
        let mut far = FarEnd::new();
        let many: Vec<String> =
            (0..99).map(|n| KEY.replace("k1", &format!("b{n}")).replace("Ed25519", "X25519")).collect();
        let mut one_good: Vec<&str> = many.iter().map(String::as_str).collect();
        one_good.push(KEY);
        assert_eq!(far.ask("k1", 0, Ok(set(&one_good))).await, (kids(&["k1"]), 1));
        let private = KEY.replace('}', r#","d":"AAAA"}"#);
        let mut now = 0;
        for bad in [
            b"{}".to_vec(),
            set(&[]),
            b"<html>".to_vec(),
            b"{\"keys\":[{\"kty\"".to_vec(),
            set(&[KEY, KEY]),
            set(&[&private]),
            Vec::new(),
        ] {
            now += 300;
            let text = String::from_utf8_lossy(&bad).into_owned();
            assert_eq!(far.ask("k1", now, Ok(bad)).await, (kids(&["k1"]), 1), "{text}");
        }
    }

    #[tokio::test]
    async fn another_uri_is_another_set() {
        let mut far = FarEnd::new();
        assert_eq!(far.ask("k1", 1000, Ok(set(&[KEY]))).await, (kids(&["k1"]), 1));
        far.source = Source::Client("https://c.test/other".parse().unwrap());
        assert_eq!(far.ask("k1", 1001, Err("away".to_owned())).await, (kids(&[]), 1));
    }

    #[tokio::test]
    async fn sets_that_nobody_publishes_any_more_are_forgotten() {
        let (jwks, _queue) = KeySets::new();
        let source = Source::Client("https://c.test/jwks".parse().unwrap());
        let published = |id: usize| (id % 100) < 10;
        let number = |id: &str| id.parse::<usize>().unwrap();
        for id in 0..1000 {
            drop(jwks.entry(&id.to_string(), &source, |id, of| published(number(id)) && *of == source));
            let (all, live) = (jwks.lock().by_owner.len(), (0..=id).filter(|id| published(*id)).count());
            assert!(all <= PRUNE_MIN.max(2 * live + 1), "{all} for {live}");
        }
        let entries = jwks.lock();
        assert!((0..1000).filter(|id| published(*id)).all(|id| entries.by_owner.contains_key(&*id.to_string())));
    }
}

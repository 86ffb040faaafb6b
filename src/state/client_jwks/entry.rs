//! The key set of one client: its keys, how old they are, and what becomes of them when there is an answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Keys;
use crate::crypto::jwk_set::{JwkSet, Skipped};
use crate::model::credential::StoredKey;
use crate::model::event::Event;
use crate::model::jwks_uri::JwksUri;
use crate::model::time::{Span, UnixTime};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) uri: JwksUri,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) keys: Keys,
    /// When the keys were fetched; `None` before they ever were.
    pub(super) good_at: Option<UnixTime>,
    /// When they were last asked for.
    pub(super) asked_at: Option<UnixTime>,
    /// Whether that failed.
    pub(super) failed: bool,
    /// Turns true when the answer is there.
    pub(super) pending: Option<watch::Receiver<bool>>,
}

impl Entry {
    /// A set of which nothing is known yet.
    pub(super) fn new(uri: &JwksUri) -> Self {
        Self { uri: uri.clone(), state: Mutex::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What may still be used of what was fetched.
    pub(super) fn usable(&self, now: UnixTime) -> Keys {
        match self.good_at {
            Some(at) if since(at, now) < STALE => Arc::clone(&self.keys),
            _ => Arc::default(),
        }
    }

    /// M88: the last good set stays until there is another that is good.
    pub(super) fn update(&mut self, client_id: &str, uri: &JwksUri, fetched: Result<ParsedSet, String>, now: UnixTime) {
        self.pending = None;
        self.failed = fetched.is_err();
        match fetched {
            Ok(fetched) => {
                let skipped = fetched.skipped_keys();
                let keys = fetched.keys;
                let kids = |keys: &[StoredKey]| keys.iter().map(|key| Arc::clone(&key.kid)).collect::<Vec<_>>();
                if kids(&keys) != kids(&self.keys) {
                    tracing::info!(event = Event::JwksUriChanged.as_str(), client_id, %uri, keys = keys.len(), skipped);
                    for key in &keys {
                        key.warn_about_certificate(client_id);
                    }
                }
                self.keys = keys.into();
                self.good_at = Some(now);
            }
            Err(reason) => {
                tracing::warn!(event = Event::JwksUriTrouble.as_str(), client_id, %uri, reason, "the keys that were fetched last are used for an hour");
            }
        }
    }
}

/// What a document holds.
#[derive(Debug)]
pub(super) struct ParsedSet {
    /// The keys that can be used.
    pub(super) keys: Vec<StoredKey>,
    /// Those that cannot.
    skipped: Vec<Skipped>,
}

impl ParsedSet {
    /// Returns the keys that cannot be used, with reasons.
    pub(super) fn skipped_keys(&self) -> Option<String> {
        (!self.skipped.is_empty()).then(|| reasons(&self.skipped))
    }
}

/// The keys of a document, read one by one: those that cannot be used are left out.
pub(super) fn read(document: &[u8], now: UnixTime) -> Result<ParsedSet, String> {
    let set = JwkSet::parse(document, None, MOST).map_err(|error| error.to_string())?;
    if set.keys.is_empty() {
        return Err(format!("no usable key among {}: {}", set.skipped.len(), reasons(&set.skipped)));
    }
    let stored = |key: crate::crypto::verifying_key::VerifyingKey| StoredKey {
        kid: key.kid().unwrap_or(key.jkt()).into(),
        key: Arc::new(key),
        created_at: now,
        expires_at: None,
        used: Arc::default(),
    };
    Ok(ParsedSet { keys: set.keys.into_iter().map(stored).collect(), skipped: set.skipped })
}

/// Why each key was left out; of many, the first few.
fn reasons(skipped: &[Skipped]) -> String {
    let told: Vec<String> = skipped.iter().take(8).map(|one| format!("key {}: {}", one.at + 1, one.why)).collect();
    let more = skipped.len().saturating_sub(told.len());
    let told = told.join("; ");
    if more == 0 { told } else { format!("{told}; and {more} more") }
}

/// By how much `now` is later. A clock that was set back makes everything old.
pub(super) fn since(at: UnixTime, now: UnixTime) -> Span {
    Span::from_secs(now.0.abs_diff(at.0))
}

/// Age of a JWK Set from which on it is not used at all.
pub(crate) const STALE: Span = Span::from_secs(3600);
/// M88: most keys of a set.
const MOST: usize = 100;

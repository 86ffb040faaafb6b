//! JWK Set of one client: its keys, their age, and the handling of a fetched document.

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
    /// Time of the last successful fetch; `None` before the first.
    pub(super) good_at: Option<UnixTime>,
    /// Time of the last fetch.
    pub(super) asked_at: Option<UnixTime>,
    /// Whether the last fetch failed.
    pub(super) failed: bool,
    /// Signal of the fetch in progress; turns true when its result is in place.
    pub(super) pending: Option<watch::Receiver<bool>>,
}

impl Entry {
    /// Makes an entry without keys.
    pub(super) fn new(uri: &JwksUri) -> Self {
        Self { uri: uri.clone(), state: Mutex::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the keys unless they are stale.
    pub(super) fn usable(&self, now: UnixTime) -> Keys {
        match self.good_at {
            Some(at) if since(at, now) < STALE => Arc::clone(&self.keys),
            _ => Arc::default(),
        }
    }

    /// Stores the result of a fetch. The last good set is kept until another good one replaces it.
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
                tracing::warn!(event = Event::JwksUriTrouble.as_str(), client_id, %uri, reason, "the last fetched keys are used for up to an hour");
            }
        }
    }
}

/// Keys of a JWK Set document.
#[derive(Debug)]
pub(super) struct ParsedSet {
    /// The usable keys.
    pub(super) keys: Vec<StoredKey>,
    /// The keys that cannot be used.
    skipped: Vec<Skipped>,
}

impl ParsedSet {
    /// Returns the keys that cannot be used, with reasons.
    pub(super) fn skipped_keys(&self) -> Option<String> {
        (!self.skipped.is_empty()).then(|| reasons(&self.skipped))
    }
}

/// Reads the keys of a document one by one. Keys that cannot be used are skipped.
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

/// Lists the reasons for skipped keys, eight at most.
fn reasons(skipped: &[Skipped]) -> String {
    let told: Vec<String> = skipped.iter().take(8).map(|one| format!("key {}: {}", one.at + 1, one.why)).collect();
    let more = skipped.len().saturating_sub(told.len());
    let told = told.join("; ");
    if more == 0 { told } else { format!("{told}; and {more} more") }
}

/// Returns the time between two moments. After a clock was set back, every entry looks old.
pub(super) fn since(at: UnixTime, now: UnixTime) -> Span {
    Span::from_secs(now.0.abs_diff(at.0))
}

/// Age from which on a set is not used at all.
pub(crate) const STALE: Span = Span::from_secs(3600);
/// Maximum number of keys in a set.
const MOST: usize = 100;

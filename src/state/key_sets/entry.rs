//! JWK Set of one owner: its keys, their age, and the handling of a fetched set.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::source::{FetchedSet, Source};
use super::{Keys, REFRESH};
use crate::crypto::certificate::Certificate;
use crate::crypto::certificate::path::TrustAnchors;
use crate::model::credential::StoredKey;
use crate::model::event::Event;
use crate::model::time::{Span, UnixTime};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) source: Source,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    keys: Keys,
    /// The CAs of X.509-SVIDs, which came with the keys.
    authorities: TrustAnchors,
    /// `spiffe_sequence` of the keys, if they have one.
    sequence: Option<u64>,
    /// Age from which on the keys are fetched again before they are used.
    pub(super) refresh: Span,
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
    pub(super) fn new(source: &Source) -> Self {
        let state = State {
            keys: Arc::default(),
            authorities: TrustAnchors::default(),
            sequence: None,
            refresh: REFRESH,
            good_at: None,
            asked_at: None,
            failed: false,
            pending: None,
        };
        Self { source: source.clone(), state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the keys unless they are stale. There may be none: an empty SPIFFE bundle revokes all.
    pub(super) fn usable(&self, now: UnixTime) -> Option<Keys> {
        self.good_at.filter(|at| since(*at, now) < STALE).map(|_| Arc::clone(&self.keys))
    }

    /// Returns the CAs of X.509-SVIDs that came with `keys`; none when there are other keys by now.
    pub(super) fn authorities_of(&self, keys: &Keys) -> TrustAnchors {
        if Arc::ptr_eq(keys, &self.keys) { self.authorities.clone() } else { TrustAnchors::default() }
    }

    /// Stores the result of a fetch. The last good set is kept until another good one replaces it.
    pub(super) fn update(&mut self, owner: &str, source: &Source, fetched: Result<FetchedSet, String>, now: UnixTime) {
        self.pending = None;
        // SPIFFE Trust Domain and Bundle section 4.1.2: a bundle with a lower sequence number is an older one.
        let fetched = fetched.and_then(|fetched| match (fetched.sequence, self.sequence) {
            (Some(new), Some(known)) if new < known => Err(format!("spiffe_sequence {new} is lower than {known}")),
            _ => Ok(fetched),
        });
        self.failed = fetched.is_err();
        match fetched {
            Ok(fetched) => {
                (self.good_at, self.refresh, self.sequence) = (Some(now), fetched.refresh, fetched.sequence);
                // What was verified by these keys stays known while they stay the same.
                if is_same(&fetched.keys, &self.keys) && fetched.authorities == self.authorities {
                    return;
                }
                let skipped = fetched.skipped_keys();
                log_change(owner, source, &fetched.keys, skipped.as_deref());
                (self.keys, self.authorities) = (fetched.keys.into(), fetched.authorities);
            }
            Err(reason) => log_trouble(owner, source, &reason),
        }
    }
}

/// Whether two sets have the same keys, with the same certificates, in the same order.
fn is_same(keys: &[StoredKey], known: &[StoredKey]) -> bool {
    let certificate = |stored: &StoredKey| stored.key.x5c().map(Certificate::x5t_s256);
    let mut pairs = keys.iter().zip(known);
    keys.len() == known.len()
        && pairs.all(|(key, known)| key.key.is_same(&known.key) && certificate(key) == certificate(known))
}

fn log_change(owner: &str, source: &Source, keys: &[StoredKey], skipped: Option<&str>) {
    match source {
        Source::Client(uri) => {
            tracing::info!(event = Event::JwksUriChanged.as_str(), client_id = owner, %uri, keys = keys.len(), skipped);
            for key in keys {
                key.warn_about_certificate(owner);
            }
        }
        Source::Issuer(_) => {
            let uri = source.uri();
            tracing::info!(event = Event::IssuerKeysChanged.as_str(), issuer = owner, %uri, keys = keys.len(), skipped);
        }
    }
}

fn log_trouble(owner: &str, source: &Source, reason: &str) {
    let (uri, kept) = (source.uri(), "the last fetched keys are used for up to an hour");
    match source {
        Source::Client(_) => {
            tracing::warn!(event = Event::JwksUriTrouble.as_str(), client_id = owner, %uri, reason, "{kept}");
        }
        Source::Issuer(_) => {
            tracing::warn!(event = Event::IssuerKeysTrouble.as_str(), issuer = owner, %uri, reason, "{kept}");
        }
    }
}

/// Returns the time between two moments. After a clock was set back, every entry looks old.
pub(super) fn since(at: UnixTime, now: UnixTime) -> Span {
    Span::from_secs(now.0.abs_diff(at.0))
}

/// Age from which on a set is not used at all.
pub(crate) const STALE: Span = Span::from_secs(3600);

//! Uses of credentials that wait to be written: each credential is listed once until then, so writing reads those that
//! were used and no others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::client_id::ClientId;
use crate::model::credential::{LastUsed, StoredCertificate, StoredKey, StoredSecret, VerificationCache};
use crate::model::federation::rule::FederationRule;
use crate::model::time::UnixTime;
use crate::store::last_used::LastUsedTimes;

/// Credentials that were used since the last write.
#[derive(Debug, Default)]
pub struct Uses {
    waiting: Mutex<Vec<Use>>,
}

/// Credential that was used.
#[derive(Debug)]
pub(super) enum Use {
    Secret(Arc<str>, Arc<VerificationCache>),
    Key(ClientId, Arc<str>, Arc<LastUsed>),
    Certificate(Arc<str>, Arc<LastUsed>),
    Rule(Arc<str>, Arc<LastUsed>),
}

impl Use {
    fn last_used(&self) -> &LastUsed {
        match self {
            Self::Secret(_, cache) => cache.used(),
            Self::Key(_, _, used) | Self::Certificate(_, used) | Self::Rule(_, used) => used,
        }
    }
}

impl Uses {
    /// Records the use of a secret.
    pub fn note_secret(&self, secret: &StoredSecret, now: UnixTime) {
        if secret.cache.used().note(now) {
            self.waiting().push(Use::Secret(Arc::clone(&secret.secret_id), Arc::clone(&secret.cache)));
        }
    }

    /// Records the use of a registered key.
    pub fn note_key(&self, client_id: &ClientId, key: &StoredKey, now: UnixTime) {
        if key.used.note(now) {
            self.waiting().push(Use::Key(client_id.clone(), Arc::clone(&key.kid), Arc::clone(&key.used)));
        }
    }

    /// Records the use of a registered certificate.
    pub fn note_certificate(&self, certificate: &StoredCertificate, now: UnixTime) {
        if certificate.used.note(now) {
            self.waiting().push(Use::Certificate(Arc::clone(&certificate.cert_id), Arc::clone(&certificate.used)));
        }
    }

    /// Records the use of a federation rule.
    pub fn note_rule(&self, rule: &FederationRule, now: UnixTime) {
        if rule.used.note(now) {
            self.waiting().push(Use::Rule(Arc::clone(&rule.rule_id), Arc::clone(&rule.used)));
        }
    }

    /// Takes what waits.
    pub(super) fn take(&self) -> Vec<Use> {
        std::mem::take(&mut *self.waiting())
    }

    /// Adds uses that could not be written.
    pub(super) fn add(&self, uses: Vec<Use>) {
        self.waiting().extend(uses);
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Use>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the last-used times of what waits.
    #[must_use]
    pub fn times(&self) -> LastUsedTimes {
        times(&self.waiting(), LastUsed::at)
    }
}

/// Returns the last-used times of credentials, and lists each of them again at its next use.
pub(super) fn begin_to_write(uses: &[Use]) -> LastUsedTimes {
    times(uses, LastUsed::begin_to_write)
}

/// Sorted, so that replicas that write the same rows cannot deadlock.
fn times(uses: &[Use], time: impl Fn(&LastUsed) -> Option<UnixTime>) -> LastUsedTimes {
    let mut times = LastUsedTimes::default();
    for credential in uses {
        let Some(at) = time(credential.last_used()) else { continue };
        match credential {
            Use::Secret(id, _) => times.secrets.push((Arc::clone(id), at)),
            Use::Key(client_id, kid, _) => times.keys.push((client_id.to_string(), Arc::clone(kid), at)),
            Use::Certificate(id, _) => times.certificates.push((Arc::clone(id), at)),
            Use::Rule(id, _) => times.rules.push((Arc::clone(id), at)),
        }
    }
    times.secrets.sort();
    times.secrets.dedup_by(|later, earlier| later.0 == earlier.0);
    times.keys.sort();
    times.keys.dedup_by(|later, earlier| (&later.0, &later.1) == (&earlier.0, &earlier.1));
    times.certificates.sort();
    times.certificates.dedup_by(|later, earlier| later.0 == earlier.0);
    times.rules.sort();
    times.rules.dedup_by(|later, earlier| later.0 == earlier.0);
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_listed_once_until_it_is_written_and_its_latest_use_is_written() {
        let (waiting_uses, last) = (Uses::default(), Arc::new(LastUsed::default()));
        let note = |now| {
            if last.note(UnixTime(now)) {
                waiting_uses.add(vec![Use::Certificate("c1".into(), Arc::clone(&last))]);
            }
        };
        (100..200).for_each(note);
        assert_eq!(waiting_uses.times().certificates, [("c1".into(), UnixTime(199))]);
        let waiting = waiting_uses.take();
        assert_eq!((waiting.len(), waiting_uses.times().certificates.len()), (1, 0));
        note(200);
        assert_eq!(waiting_uses.times().certificates.len(), 0, "it still waits, in what is being written");
        assert_eq!(begin_to_write(&waiting).certificates, [("c1".into(), UnixTime(200))]);
        note(200);
        assert_eq!(
            waiting_uses.times().certificates.len(),
            1,
            "a use in the same second may have come after the write"
        );
    }
}

//! What a client proves itself with, as the registry knows it: secrets at rest, public keys, certificates.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use super::certificate::RegisteredCertificate;
use super::time::UnixTime;
use crate::crypto::certificate::Certificate;
use crate::crypto::jose::TRIED_MAX;
use crate::crypto::secret::SecretHash;
use crate::crypto::secret_tag::TagKid;
use crate::crypto::signature_alg::SignatureAlg;
use crate::crypto::verifying_key::VerifyingKey;
use crate::model::event::Event;

/// A secret as the registry knows it: everything but the secret.
#[derive(Debug, Clone)]
pub struct StoredSecret {
    /// Names this secret in commands and logs.
    pub secret_id: Arc<str>,
    /// argon2id, within the bounds of cost.
    pub hash: SecretHash,
    /// Where it comes from.
    pub origin: SecretOrigin,
    /// From when on it no longer works.
    pub expires_at: Option<UnixTime>,
    /// Since when it no longer works.
    pub revoked_at: Option<UnixTime>,
    /// What this process has seen of it.
    pub cache: Arc<VerificationCache>,
}

/// A public key for `private_key_jwt`.
#[derive(Debug, Clone)]
pub struct StoredKey {
    /// Names this key in commands, and in the header of what it signed.
    pub kid: Arc<str>,
    /// The key.
    pub key: Arc<VerifyingKey>,
    /// When it was registered.
    pub created_at: UnixTime,
    /// From when on it no longer works.
    pub expires_at: Option<UnixTime>,
    /// When this process last saw it used.
    pub used: Arc<LastUsed>,
}

impl StoredKey {
    /// Logs a warning when the certificate beside the key can authenticate nobody here. The key itself works.
    pub fn warn_about_certificate(&self, client_id: &str) {
        if let Some(reason) = self.key.x5c().and_then(Certificate::handshake_fault) {
            let kid = &*self.kid;
            tracing::warn!(
                event = Event::ClientCertificateUnusable.as_str(),
                client_id,
                credential_id = kid,
                reason,
                "no TLS handshake takes the certificate in x5c; the key works"
            );
        }
    }
}

/// How many keys of each algorithm one client has, or the most that any has: what a signature of nobody is tried with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyCounts([usize; SignatureAlg::ALL.len()]);

impl KeyCounts {
    /// Those of `keys`, as far as one signature is tried with them.
    #[must_use]
    pub fn of(keys: &[StoredKey]) -> Self {
        Self(SignatureAlg::ALL.map(|alg| keys.iter().filter(|stored| stored.key.takes(alg)).count().min(TRIED_MAX)))
    }

    /// Of each algorithm the larger.
    #[must_use]
    pub fn max(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(count, other)| *count = other.max(*count));
        self
    }

    /// Of one algorithm, and never none: somebody might have a key.
    #[must_use]
    pub fn with(self, alg: SignatureAlg) -> usize {
        SignatureAlg::ALL.into_iter().zip(self.0).find(|(of, _)| *of == alg).map_or(1, |(_, count)| count.max(1))
    }
}

/// A certificate for `tls_client_auth` or `self_signed_tls_client_auth`.
#[derive(Debug, Clone)]
pub struct StoredCertificate {
    /// Names this registration in commands and logs.
    pub cert_id: Arc<str>,
    /// What is known of it.
    pub registered: RegisteredCertificate,
    /// When it was registered.
    pub created_at: UnixTime,
    /// From when on it no longer counts.
    pub expires_at: Option<UnixTime>,
    /// When this process last saw it used.
    pub used: Arc<LastUsed>,
}

/// Where a secret comes from, and so what a guess at it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecretOrigin {
    /// Made by grantd, with a tag under this key: a guess is told by its tag, without a hash.
    Tagged(TagKid),
    /// Made by grantd without a tag. It carries the id of its row, so there is one hash to try.
    Untagged,
    /// Chosen elsewhere, so it carries nothing and has to be tried.
    Imported,
}

/// What a process has seen of a secret since it started. It belongs to one hash: whoever changes that begins anew.
#[derive(Debug, Default)]
pub struct VerificationCache {
    used: LastUsed,
    /// A MAC of the secret that matched the hash, under a key that lives as long as the process.
    mac: OnceLock<[u8; 32]>,
}

/// When something last authenticated its client here, in seconds; 0 for not since we started.
#[derive(Debug, Default)]
pub struct LastUsed(AtomicI64);

/// What stands against using a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretState {
    /// Nothing.
    Live,
    /// Its time is over.
    Expired,
    /// An administrator took it back.
    Revoked,
}

impl StoredSecret {
    /// Whether this is `earlier` as it stands now: the same row with the same hash.
    #[must_use]
    pub fn is_still(&self, earlier: &Self) -> bool {
        self.secret_id == earlier.secret_id && self.hash == earlier.hash
    }

    /// Its state at `now`. Revocation is named first, since somebody decided it.
    #[must_use]
    pub fn state(&self, now: UnixTime) -> SecretState {
        if self.revoked_at.is_some() {
            SecretState::Revoked
        } else if self.expires_at.is_some_and(|at| at <= now) {
            SecretState::Expired
        } else {
            SecretState::Live
        }
    }
}

impl LastUsed {
    /// Notes a use, to be written down later. Within a second the second use changes nothing, so that cores that serve
    /// the same client do not take the memory from each other.
    pub fn note(&self, now: UnixTime) {
        if self.0.load(Ordering::Relaxed) != now.0 {
            self.0.store(now.0, Ordering::Relaxed);
        }
    }

    /// The last use that was noted here.
    #[must_use]
    pub fn at(&self) -> Option<UnixTime> {
        Some(UnixTime(self.0.load(Ordering::Relaxed))).filter(|at| at.0 != 0)
    }
}

impl VerificationCache {
    /// Notes a use.
    pub fn note_use(&self, now: UnixTime) {
        self.used.note(now);
    }

    /// The last use that was noted here.
    #[must_use]
    pub fn last_used(&self) -> Option<UnixTime> {
        self.used.at()
    }

    /// Remembers the MAC of a secret that matched the hash. There is one such secret, so the first stays.
    pub fn remember(&self, mac: [u8; 32]) {
        self.mac.get_or_init(|| mac);
    }

    /// The MAC of the secret that matched the hash, once one has.
    #[must_use]
    pub fn verified_mac(&self) -> Option<&[u8; 32]> {
        self.mac.get()
    }

    /// The same past for a secret whose hash has changed: what was verified was not this one.
    #[must_use]
    pub fn without_mac(&self) -> Self {
        Self { used: LastUsed(AtomicI64::new(self.used.0.load(Ordering::Relaxed))), mac: OnceLock::new() }
    }
}

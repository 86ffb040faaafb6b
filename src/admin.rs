//! Use cases of administration: typed input, typed results, typed errors. Commands call them, and an HTTP API can.
//!
//! Nothing here prints, reads arguments or knows HTTP. Each use case is a method of [`Admin`], in a file per subject.

mod change;
pub mod checkup;
pub mod client_certs;
pub mod client_keys;
pub mod client_stream;
pub mod clients;
pub mod copying;
mod document;
mod error;
pub mod federation_advice;
pub mod federation_rules;
pub mod federation_test;
pub mod ids;
pub mod import;
pub mod inspection;
pub mod keys;
pub mod lifecycle;
pub mod resources;
pub mod sealing;
pub mod secrets;
pub mod seed;
pub mod tag_keys;
pub mod token_size;
pub mod tokens;
pub mod trusted_issuers;
mod warning;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::crypto::seal::SealingKey;
use crate::crypto::secret::HashParams;
use crate::model::issuer::Issuer;
use crate::model::lifetime::ExpiresIn;
use crate::model::profile::Profile;
use crate::model::time::{Clock, Span, UnixTime};
use crate::protocol::grant::Defaults;
use crate::store::Store;

pub use change::Change;
pub use error::AdminError;
pub use warning::Warning;

/// Administration of one database.
pub struct Admin {
    store: Store,
    clock: Clock,
    policy: Policy,
    sealing_key: Box<SealingKeySource>,
}

/// Source of the sealing key. Only use cases that need the key call it, so other commands read no file and create none.
pub type SealingKeySource = dyn Fn() -> Result<Arc<SealingKey>, Box<dyn Error + Send + Sync>> + Send + Sync;

/// Settings of the server that decide what may be registered, and what an administrator is warned of.
#[derive(Debug)]
pub struct Policy {
    /// The profile in force.
    pub profile: Profile,
    /// The cost of new hashes.
    pub argon2: HashParams,
    /// The longest lifetime of new secrets.
    pub secret_max_age: Option<ExpiresIn>,
    /// The issuer of tokens.
    pub issuer: Issuer,
    /// Defaults of tokens.
    pub defaults: Defaults,
    /// Time for which a key signs; `None` until an administrator rotates it.
    pub rotate_every: Option<Span>,
    /// Time for which a server signs without the database.
    pub max_stale: Duration,
    /// Whether Ed25519 has that name (RFC 9864) instead of `EdDSA`.
    pub fully_specified: bool,
    /// Whether CAs for names in client certificates are configured.
    pub has_client_ca: bool,
    /// Whether a listener asks for client certificates.
    pub has_certificate_listener: bool,
    /// Whether a proxy passes on client certificates. It may accept certificates that grantd's TLS handshake refuses.
    pub certificates_by_proxy: bool,
}

/// Result of a use case, with warnings for the administrator.
#[derive(Debug)]
#[must_use]
pub struct Outcome<T> {
    /// The result.
    pub value: T,
    /// Warnings that do not prevent the change.
    pub warnings: Vec<Warning>,
}

/// Outcome of a use case, or its error.
pub type AdminResult<T> = Result<Outcome<T>, AdminError>;

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Admin({:?})", self.store)
    }
}

impl Admin {
    /// Makes the administration of `store`. The clock follows the database's, so a machine with a wrong clock does not
    /// activate a signing key too early or revoke future tokens.
    #[must_use]
    pub fn new(store: Store, clock: Clock, policy: Policy, sealing_key: Box<SealingKeySource>) -> Self {
        Self { store, clock, policy, sealing_key }
    }

    /// The present second.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        self.clock.now()
    }

    fn sealing_key(&self) -> Result<Arc<SealingKey>, AdminError> {
        (self.sealing_key)().map_err(AdminError::SealingKey)
    }
}

//! The use cases of administration: typed input, typed results, typed refusals. Commands call them, and an HTTP API can.
//!
//! Nothing here prints, reads arguments or knows HTTP. Each use case is a method of [`Admin`], in a file per subject.

mod change;
pub mod checkup;
pub mod client_certs;
pub mod client_keys;
pub mod clients;
mod document;
mod error;
pub mod inspection;
pub mod keys;
pub mod resources;
pub mod secrets;
pub mod seed;
pub mod tag_keys;
pub mod token_size;
pub mod tokens;
mod warning;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::crypto::seal::SealingKey;
use crate::crypto::secret::HashParams;
use crate::model::issuer::Issuer;
use crate::model::profile::Profile;
use crate::model::time::{Clock, UnixTime};
use crate::protocol::grant::Defaults;
use crate::store::changes::Changes;
use crate::store::{Store, StoreError};

pub use change::Change;
pub use error::AdminError;
pub use warning::Warning;

/// Administers one database.
pub struct Admin {
    store: Store,
    clock: Clock,
    policy: Policy,
    sealing_key: Box<SealingKeySource>,
}

/// Returns the sealing key. It is asked for by the use cases that need it and by no other: a command that has no need of the
/// key reads no file, and makes none.
pub type SealingKeySource = dyn Fn() -> Result<Arc<SealingKey>, Box<dyn Error + Send + Sync>> + Send + Sync;

/// Settings of the server that decide what may be registered, and what an administrator is warned of.
#[derive(Debug)]
pub struct Policy {
    /// The profile in force.
    pub profile: Profile,
    /// The cost of new hashes.
    pub argon2: HashParams,
    /// The issuer of tokens.
    pub issuer: Issuer,
    /// Defaults of tokens.
    pub defaults: Defaults,
    /// Whether Ed25519 goes by that name (RFC 9864) and not by `EdDSA`.
    pub fully_specified: bool,
    /// Whether CAs are configured that vouch for names in certificates of clients.
    pub has_client_ca: bool,
    /// Whether a listener of ours asks for certificates of clients.
    pub has_certificate_listener: bool,
    /// Whether a proxy hands over certificates of clients. It may take some that no TLS handshake of ours takes.
    pub certificates_by_proxy: bool,
}

/// The result of a use case, and what the administrator should know beside it.
#[derive(Debug)]
#[must_use]
pub struct Outcome<T> {
    /// The result.
    pub value: T,
    /// Whatever does not keep the change from being made.
    pub warnings: Vec<Warning>,
}

/// An outcome, or why there is none.
pub type AdminResult<T> = Result<Outcome<T>, AdminError>;

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Admin({:?})", self.store)
    }
}

impl Admin {
    /// Administers `store`. The clock tells the database's time, as far as the caller knows it: no machine whose clock is wrong
    /// activates a signing key too early or revokes tokens that are still to be issued.
    #[must_use]
    pub fn new(store: Store, clock: Clock, policy: Policy, sealing_key: Box<SealingKeySource>) -> Self {
        Self { store, clock, policy, sealing_key }
    }

    /// The present second.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// Everything the database holds, read as the server reads it.
    pub async fn everything(&self) -> Result<Changes, StoreError> {
        let mut feed = self.store.change_reader().await?;
        let changes = feed.changes(None, true).await?;
        feed.close().await;
        Ok(changes)
    }

    fn sealing_key(&self) -> Result<Arc<SealingKey>, AdminError> {
        (self.sealing_key)().map_err(AdminError::SealingKey)
    }
}

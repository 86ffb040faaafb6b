//! Errors of administration, each with its values.

use std::error::Error;
use std::sync::Arc;

use crate::crypto::NoEntropy;
use crate::crypto::jwk::KeyError;
use crate::crypto::secret::HashError;
use crate::crypto::secret_tag::TagKid;
use crate::model::client::DefaultScopeError;
use crate::model::client_id::ClientId;
use crate::model::federation::claim_conditions::ClaimConditionsError;
use crate::model::federation::kind::PinFault;
use crate::model::federation::trusted_issuer::TrustedIssuerError;
use crate::model::resource::ResourceId;
use crate::model::time::{Span, UnixTime};
use crate::protocol::error::inactive::Inactive;
use crate::store::copying::CopyError;
use crate::store::{Refusal, StoreError};

/// Error of a use case, which then changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("there is no client {0}")]
    NoSuchClient(ClientId),
    #[error("there is no resource {0}")]
    NoSuchResource(ResourceId),
    #[error("client {client_id} has no secret {secret_id}")]
    NoSuchSecret { client_id: ClientId, secret_id: String },
    #[error("client {client_id} has no key {kid}")]
    NoSuchClientKey { client_id: ClientId, kid: String },
    #[error("client {client_id} has no certificate {cert_id}")]
    NoSuchCertificate { client_id: ClientId, cert_id: String },
    #[error("there is no trusted issuer {0}")]
    NoSuchIssuer(String),
    #[error("client {client_id} has no rule {rule_id}")]
    NoSuchRule { client_id: ClientId, rule_id: String },
    #[error("{0} is the issuer of this server; its own tokens prove nothing")]
    OwnIssuer(String),
    /// An issuer cannot be trusted as it is written.
    #[error(transparent)]
    TrustedIssuer(#[from] TrustedIssuerError),
    /// Claims cannot be named by a rule.
    #[error("claims: {0}")]
    ClaimConditions(#[from] ClaimConditionsError),
    /// A rule does not pin what the kind of its issuer demands.
    #[error(transparent)]
    Pin(#[from] PinFault),
    #[error("there is no key {0}")]
    NoSuchSigningKey(String),
    #[error("key {0}, the last of its algorithm, is in a PKCS #11 module, and no key in memory follows it")]
    KeyInModule(String),
    #[error("key {0} is in a PKCS #11 module and signs alone: no key in memory replaces it")]
    SoleKeyInModule(String),
    #[error("there is no tag key {0}")]
    NoSuchTagKey(TagKid),
    /// The default scope is not a subset of the scope.
    #[error(transparent)]
    DefaultScope(#[from] DefaultScopeError),
    #[error("secret {secret_id} of client {client_id} is in use, last at {last_used_at}: nothing is changed")]
    SecretInUse { client_id: ClientId, secret_id: String, last_used_at: UnixTime },
    #[error(
        "secret {secret_id} of client {client_id} was made at {created_at}, less than {if_unused} ago: nothing is changed"
    )]
    SecretTooYoung { client_id: ClientId, secret_id: String, created_at: UnixTime, if_unused: Span },
    #[error(
        "secret {secret_id} of client {client_id} {}, by another command, before it replaced the others; these are left as they are",
        ended(*.expires_at)
    )]
    RotationOvertaken { client_id: ClientId, secret_id: String, expires_at: Option<UnixTime> },
    #[error("a secret that expires in {requested} is refused: secrets.max_age is {limit}")]
    SecretTooLongLived { requested: Span, limit: Span },
    #[error("{}: {fault}", refused_certificate(.kid.as_deref()))]
    UnusableCertificate { kid: Option<Arc<str>>, fault: String },
    #[error("there is nothing to revoke: {0}")]
    NothingToRevoke(Inactive),
    /// A private key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A secret cannot be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The random generator failed.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
    #[error("{0}")]
    SealingKey(#[source] Box<dyn Error + Send + Sync>),
    #[error("hashing was interrupted: {0}")]
    Hashing(#[from] tokio::task::JoinError),
    /// A database could not be copied.
    #[error("{0}")]
    Copy(#[from] CopyError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl AdminError {
    /// Maps the error of a write to a part of `client_id`.
    pub(super) fn of_client(error: StoreError, client_id: &ClientId) -> Self {
        match error {
            StoreError::Refused(Refusal::NoSuchClient) => Self::NoSuchClient(client_id.clone()),
            other => other.into(),
        }
    }
}

fn ended(expires_at: Option<UnixTime>) -> String {
    expires_at.map_or_else(|| "was revoked".to_owned(), |at| format!("was made to expire at {at}"))
}

fn refused_certificate(kid: Option<&str>) -> String {
    match kid {
        Some(kid) => format!("key {kid}: no TLS handshake accepts the certificate in x5c"),
        None => "no TLS handshake accepts this certificate".to_owned(),
    }
}

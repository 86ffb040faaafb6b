//! Why a token counts for nothing. From outside all of these look the same (RFC 7662 section 2.2).

use super::reason::Reason;
use crate::crypto::jose::JoseError;

/// Why a token counts for nothing, or not for the one who asks.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum Inactive {
    /// No access token of ours by its form.
    #[error("the token: {0}")]
    Malformed(JoseError),
    /// No published key has its `kid`.
    #[error("no published key of this server signed the token")]
    Key,
    /// Altered, or signed by somebody else under our `kid`.
    #[error("the token's signature does not verify")]
    Signature,
    /// Another issuer.
    #[error("the token is from another issuer")]
    Issuer,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is from the future")]
    NotYet,
    /// It was revoked by itself.
    #[error("the token was revoked")]
    Revoked,
    /// It was revoked with others.
    #[error("the token was issued before all tokens of the client, or of all clients, were revoked")]
    CutOff,
    /// Its client is no more.
    #[error("the token's client does not exist")]
    ClientUnknown,
    /// Its client was switched off.
    #[error("the token's client is disabled")]
    ClientDisabled,
    /// The end of its client has come.
    #[error("the token's client has expired")]
    ClientExpired,
    /// The one who asks is none who may.
    #[error("the caller may not introspect tokens for this audience")]
    NotIntrospector,
}

impl Inactive {
    /// Whether it stays so whatever the database would say.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(
            self,
            Self::Key | Self::ClientUnknown | Self::ClientDisabled | Self::ClientExpired | Self::NotIntrospector
        )
    }

    /// The reason code of the log: one of a closed list.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Malformed(_) => Reason::TokenMalformed,
            Self::Key => Reason::TokenKey,
            Self::Signature => Reason::TokenSignature,
            Self::Issuer => Reason::TokenIssuer,
            Self::Expired => Reason::TokenExpired,
            Self::NotYet => Reason::TokenNotYet,
            Self::Revoked => Reason::TokenRevoked,
            Self::CutOff => Reason::TokenCutOff,
            Self::ClientUnknown => Reason::TokenClientUnknown,
            Self::ClientDisabled => Reason::TokenClientDisabled,
            Self::ClientExpired => Reason::TokenClientExpired,
            Self::NotIntrospector => Reason::NotIntrospector,
        }
    }
}

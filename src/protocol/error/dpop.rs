//! Why a DPoP proof was not taken (RFC 9449 section 4.3).

use super::ErrorCode;
use super::reason::Reason;
use crate::crypto::jose::JoseError;

/// Why a DPoP proof was not taken.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum DpopError {
    /// An API wants one beside a token that is bound to a key.
    #[error("the token is bound to a key, and there is no DPoP header field")]
    Absent,
    /// The request has more than one `DPoP` field.
    #[error("there is more than one DPoP header field")]
    Repeated,
    /// The proof's JWT, header, key, signature, or the type of a claim is wrong.
    #[error("the DPoP proof: {0}")]
    Proof(#[from] JoseError),
    /// The profile does not permit the proof's `alg`.
    #[error("the profile does not permit the proof's alg")]
    Alg,
    /// `htm` is not the method of the request.
    #[error("the proof's htm is not the method of the request")]
    Htm,
    /// `htu` is not the URL of the endpoint.
    #[error("the proof's htu is not the URL of the request")]
    Htu,
    /// `iat`, `exp` or `nbf` excludes the current time.
    #[error(
        "the proof's iat is too long ago or too far ahead, or its exp or nbf forbids it; is the client's clock right?"
    )]
    Time,
    /// A nonce is required, and the proof has none, or one that is unknown or expired.
    #[error("the proof has no nonce of this server, or one whose time is over")]
    Nonce,
    /// RFC 9449 section 4.3, item 12.
    #[error("the proof's ath is not the hash of the access token")]
    Ath,
    /// RFC 9449 section 4.3, item 12.
    #[error("the proof is by another key than the one that the token is bound to")]
    OtherKey,
    /// The `jti` was used before under this key.
    #[error("the proof was used before")]
    Replayed,
}

impl DpopError {
    pub(super) fn code(self) -> ErrorCode {
        match self {
            Self::Nonce => ErrorCode::UseDpopNonce,
            _ => ErrorCode::InvalidDpopProof,
        }
    }

    pub(in crate::protocol) fn description(self) -> &'static str {
        match self {
            Self::Absent => "send a proof in the DPoP header field",
            Self::Repeated => "send one DPoP header field",
            Self::Proof(_) => "the DPoP proof is malformed or its signature does not verify",
            Self::Alg => "alg of the DPoP proof is not one that this server supports",
            Self::Htm => "htm of the DPoP proof is not the method of the request",
            Self::Htu => "htu of the DPoP proof is not the URL of the request",
            Self::Time => "the DPoP proof is too old or from the future",
            Self::Nonce => "use the nonce of the DPoP-Nonce header field in the DPoP proof",
            Self::Ath => "ath of the DPoP proof is not the hash of the access token",
            Self::OtherKey => "the DPoP proof is by another key than the one of the access token",
            Self::Replayed => "the DPoP proof was used before",
        }
    }

    pub(in crate::protocol) fn reason(self) -> Reason {
        match self {
            Self::Absent => Reason::DpopAbsent,
            Self::Repeated => Reason::DpopRepeated,
            Self::Proof(JoseError::Signature) => Reason::DpopSignature,
            Self::Alg | Self::Proof(JoseError::Alg | JoseError::Jwk(_)) => Reason::DpopKey,
            Self::Proof(_) => Reason::DpopMalformed,
            Self::Htm => Reason::DpopHtm,
            Self::Htu => Reason::DpopHtu,
            Self::Time => Reason::DpopTime,
            Self::Nonce => Reason::DpopNonce,
            Self::Ath => Reason::DpopAth,
            Self::OtherKey => Reason::DpopOtherKey,
            Self::Replayed => Reason::DpopReplayed,
        }
    }
}

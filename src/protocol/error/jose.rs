//! The reason codes of malformed and wrongly signed JWTs.

use super::reason::Reason;
use crate::crypto::jose::JoseError;

impl From<&JoseError> for Reason {
    fn from(error: &JoseError) -> Self {
        match error {
            JoseError::TooLong | JoseError::NotCompact | JoseError::Encrypted | JoseError::Base64 => Self::JwsMalformed,
            JoseError::Header(_) | JoseError::Member(_) | JoseError::Refused(_) | JoseError::Kid => Self::JwsHeader,
            JoseError::Critical => Self::JwsCrit,
            JoseError::Alg | JoseError::OtherAlg => Self::JwsAlg,
            JoseError::Typ => Self::JwsTyp,
            JoseError::Jwk(_) | JoseError::NoKey => Self::JwsKey,
            JoseError::Signature => Self::JwsSignature,
            JoseError::Claims(_) | JoseError::Claim(_) => Self::ClaimsMalformed,
        }
    }
}

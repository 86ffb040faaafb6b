//! Reasons for refusing a JWT (RFC 7515 section 5.2, RFC 7519 section 7.2): one list for every kind of JWT.

use crate::json::JsonError;
use crate::verifying_key::JwkError;

/// Reasons for refusing a JWT. No message quotes the JWT.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum JoseError {
    /// Longer than the caller allows.
    #[error("the JWT is too long")]
    TooLong,
    /// Not three parts, none of them empty, in base64url's alphabet.
    #[error("not a JWS in compact form")]
    NotCompact,
    /// Five parts. Nothing here decrypts, so there is nothing to decompress or to count iterations for.
    #[error("an encrypted JWT (JWE)")]
    Encrypted,
    /// RFC 7515 section 2: padded, or with bits behind its last octet.
    #[error("a part of the JWT is not base64url in its one spelling")]
    Base64,
    /// The header is not JSON as we read it.
    #[error("the JOSE header is {0}")]
    Header(JsonError),
    /// A header member is missing or has the wrong type.
    #[error("the JOSE header's member {0} is missing or has the wrong type")]
    Member(&'static str),
    /// A header member that would bring or fetch a key, or change what is signed.
    #[error("the JOSE header's member {0} is not accepted here")]
    Refused(&'static str),
    /// RFC 7515 section 4.1.11.
    #[error("the JOSE header has crit; no extension is understood")]
    Critical,
    /// Empty, too long, or with control characters.
    #[error("kid is not a text of 1 to 256 bytes without control characters")]
    Kid,
    /// None of ours; `none` and every HMAC among them.
    #[error("alg is not one of ES256, EdDSA, Ed25519, PS256, RS256")]
    Alg,
    /// Not the one of the key.
    #[error("alg is not the algorithm of this key")]
    OtherAlg,
    /// Another kind of JWT, or no media type.
    #[error("typ names another kind of JWT than is expected here")]
    Typ,
    /// The key in the header of a DPoP proof.
    #[error(transparent)]
    Jwk(#[from] JwkError),
    /// No key of that `kid`.
    #[error("no key of this kid and alg")]
    NoKey,
    /// The signature is not by this key, or not over this text.
    #[error("the signature does not verify")]
    Signature,
    /// The claims are not JSON as we read it.
    #[error("the claims set is {0}")]
    Claims(JsonError),
    /// A claim has the wrong type, or is empty, too long or out of range.
    #[error("the claim {0} has the wrong type, is empty, too long or out of range")]
    Claim(&'static str),
}

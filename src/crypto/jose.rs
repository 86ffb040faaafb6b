//! JWTs that we are sent (RFC 7515 compact form, RFC 7519, RFC 8725): one strict reading of what they say and who said it.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::json::{self, JsonError};
use super::verifying_key::{JwkError, SIGNATURE_MAX, VerifyingKey};

mod claims;
mod header;

pub use claims::{Audience, Claims};
pub use header::{Header, Kind};

/// A JWT that is well formed. Nobody vouches for it until [`Unverified::verify`] gives its claims.
#[derive(Debug)]
pub struct Unverified<'a> {
    header: Header,
    signed: &'a str,
    claims: Claims,
    signature: Vec<u8>,
}

/// Why a JWT was not taken. Nothing of the JWT is repeated.
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
    /// Somebody else, or another text.
    #[error("the signature does not verify")]
    Signature,
    /// The claims are not JSON as we read it.
    #[error("the claims set is {0}")]
    Claims(JsonError),
    /// A claim has the wrong type, or is empty, too long or out of range.
    #[error("the claim {0} has the wrong type, is empty, too long or out of range")]
    Claim(&'static str),
}

impl JoseError {
    /// A stable short name for logs and counts.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLong | Self::NotCompact | Self::Encrypted | Self::Base64 => "jws_malformed",
            Self::Header(_) | Self::Member(_) | Self::Refused(_) | Self::Kid => "jws_header",
            Self::Critical => "jws_crit",
            Self::Alg | Self::OtherAlg => "jws_alg",
            Self::Typ => "jws_typ",
            Self::Jwk(_) | Self::NoKey => "jws_key",
            Self::Signature => "jws_signature",
            Self::Claims(_) | Self::Claim(_) => "claims_malformed",
        }
    }
}

impl<'a> Unverified<'a> {
    /// Reads a JWT of at most `longest` bytes that is to be of one `kind`. No key is looked at, and nothing is fetched.
    ///
    /// # Errors
    /// [`JoseError`].
    pub fn parse(jwt: &'a str, kind: Kind, longest: usize) -> Result<Self, JoseError> {
        if jwt.len() > longest {
            return Err(JoseError::TooLong);
        }
        let (signed, header, payload, signature) = parts(jwt)?;
        if signature.len() > SIGNATURE_TEXT_MAX {
            return Err(JoseError::NotCompact);
        }
        let header = Header::read(json::object(&decode(header)?).map_err(JoseError::Header)?, kind)?;
        let claims = Claims::new(json::object(&decode(payload)?).map_err(JoseError::Claims)?);
        Ok(Self { header, signed, claims, signature: decode(signature)? })
    }

    /// The claims, when the owner of `key` signed them, with the one algorithm of that key.
    ///
    /// # Errors
    /// [`JoseError::OtherAlg`], [`JoseError::Signature`].
    pub fn verify(&self, key: &VerifyingKey) -> Result<&Claims, JoseError> {
        // RFC 8725 section 3.1: "Libraries MUST … not use any other algorithms when performing cryptographic operations."
        if self.header.alg() != key.alg() {
            return Err(JoseError::OtherAlg);
        }
        if key.verifies(self.signed.as_bytes(), &self.signature) { Ok(&self.claims) } else { Err(JoseError::Signature) }
    }

    /// The claims, and which of these keys vouches for them: the one that `kid` names, or without a `kid` those of the
    /// right algorithm, of which a few are tried.
    ///
    /// # Errors
    /// [`JoseError::NoKey`], [`JoseError::OtherAlg`], [`JoseError::Signature`].
    pub fn verify_with_one_of<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k VerifyingKey>,
    ) -> Result<(&Claims, &'k VerifyingKey), JoseError> {
        let named = keys.into_iter().filter(|key| self.header.kid().is_none_or(|kid| key.is_called(kid)));
        let (mut fault, mut tried) = (JoseError::NoKey, 0);
        for key in named {
            if key.alg() != self.header.alg() {
                fault = if tried == 0 { JoseError::OtherAlg } else { fault };
                continue;
            }
            if tried == TRIED_MAX {
                break;
            }
            tried += 1;
            match self.verify(key) {
                Ok(claims) => return Ok((claims, key)),
                Err(error) => fault = error,
            }
        }
        Err(fault)
    }

    /// The claims, and the key in the header that vouches for them: whoever sent this holds that key, and no more is
    /// known of them. For DPoP proofs alone; no other kind has a `jwk` that is read (RFC 8725 section 3.10).
    ///
    /// # Errors
    /// [`JoseError::Jwk`], [`JoseError::Signature`].
    pub fn verify_with_own_key(&self) -> Result<(&Claims, VerifyingKey), JoseError> {
        let jwk = self.header.jwk().ok_or(JoseError::Member("jwk"))?;
        let key = VerifyingKey::from_jwk(jwk, Some(self.header.alg()))?;
        Ok((self.verify(&key)?, key))
    }

    /// The header, for which nobody vouches yet.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The claims, for which nobody vouches yet. They may say whose key to look for, and nothing else.
    #[must_use]
    pub fn claims_nobody_vouches_for(&self) -> &Claims {
        &self.claims
    }
}

/// What is signed, and the three parts.
fn parts(jwt: &str) -> Result<(&str, &str, &str, &str), JoseError> {
    let mut dots = 0;
    for byte in jwt.bytes() {
        match byte {
            b'.' => dots += 1,
            // RFC 7515 section 2: "with all trailing '=' characters omitted … and without the inclusion of any line
            // breaks, whitespace, or other additional characters".
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            _ => return Err(JoseError::NotCompact),
        }
    }
    if dots == 4 {
        return Err(JoseError::Encrypted);
    }
    let (signed, signature) = jwt.rsplit_once('.').ok_or(JoseError::NotCompact)?;
    let (header, payload) = signed.split_once('.').ok_or(JoseError::NotCompact)?;
    if dots != 2 || header.is_empty() || payload.is_empty() || signature.is_empty() {
        return Err(JoseError::NotCompact);
    }
    Ok((signed, header, payload, signature))
}

fn decode(part: &str) -> Result<Vec<u8>, JoseError> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| JoseError::Base64)
}

/// How many keys of the right algorithm are tried when none is named.
const TRIED_MAX: usize = 8;

const SIGNATURE_TEXT_MAX: usize = SIGNATURE_MAX.div_ceil(3) * 4;

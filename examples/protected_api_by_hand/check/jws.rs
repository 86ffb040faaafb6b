//! JWTs in compact form (RFC 7515, RFC 7519), read strictly; and the one way in which a signature is checked.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

/// A JWT that is well formed. Nobody vouches for it yet.
pub(super) struct Jws<'a> {
    pub(super) alg: Algorithm,
    pub(super) typ: Option<String>,
    pub(super) kid: Option<String>,
    pub(super) jwk: Option<serde_json::Value>,
    signed: &'a str,
    signature: &'a str,
}

/// The members of a JOSE header that are read. A member that stands twice is an error; one that is not here decides nothing.
#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    jwk: Option<serde_json::Value>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

impl<'a> Jws<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        if payload.contains('.') || signature.is_empty() {
            return None;
        }
        let Header { alg, typ, kid, jwk, crit } = json(header)?;
        // RFC 7515 section 4.1.11: an extension that is critical and not understood makes it invalid. We know none.
        if crit {
            return None;
        }
        Some(Self { alg: algorithm(&alg)?, typ, kid, jwk, signed, signature })
    }

    /// Whether the media type in `typ` is this one, with or without `application/` (RFC 7515 section 4.1.9).
    pub(super) fn is_a(&self, wanted: &str) -> bool {
        let Some(typ) = self.typ.as_deref() else { return false };
        let name = match typ.split_once('/') {
            Some((top, name)) if top.eq_ignore_ascii_case("application") => name,
            _ => typ,
        };
        name.eq_ignore_ascii_case(wanted)
    }

    /// The claims, when the owner of this key signed them with this algorithm. RFC 8725 section 3.1: the algorithm is
    /// known beforehand, from the key; the header may only agree.
    pub(super) fn claims<T: DeserializeOwned>(&self, key: &DecodingKey, alg: Algorithm) -> Option<T> {
        let verified = self.alg == alg
            && jsonwebtoken::crypto::verify(self.signature, self.signed.as_bytes(), key, alg).unwrap_or(false);
        if verified { json(self.signed.split_once('.')?.1) } else { None }
    }
}

impl fmt::Debug for Jws<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jws({:?} {:?})", self.alg, self.kid)
    }
}

/// The algorithms that are known here, all of them asymmetric. RFC 9864 calls one of them by a second name.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "ES256" => Some(Algorithm::ES256),
        "EdDSA" | "Ed25519" => Some(Algorithm::EdDSA),
        "PS256" => Some(Algorithm::PS256),
        "RS256" => Some(Algorithm::RS256),
        _ => None,
    }
}

/// The SHA-256 hash, in base64url.
pub(super) fn sha256_text(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, bytes))
}

fn json<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// Also when its value is null.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

/// Tokens of grantd are shorter than 2 KiB, unless many claims are registered for a client.
const LONGEST: usize = 8192;

//! Public keys as JWK (RFC 7517, RFC 7518 section 6, RFC 8037) and their thumbprints (RFC 7638).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use serde_json::{Value, json};

/// How access tokens may be signed. Asymmetric only, and one key has one algorithm (RFC 8725 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Alg {
    /// ECDSA over P-256 with SHA-256.
    Es256,
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, which RFC 9068 section 2.1 makes mandatory to support.
    Rs256,
}

impl Alg {
    /// All of them, in the order of preference.
    pub const ALL: [Self; 4] = [Self::Es256, Self::EdDsa, Self::Ps256, Self::Rs256];

    /// The name in a JOSE header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
        }
    }

    pub(super) fn library(self) -> Algorithm {
        match self {
            Self::Es256 => Algorithm::ES256,
            Self::EdDsa => Algorithm::EdDSA,
            Self::Ps256 => Algorithm::PS256,
            Self::Rs256 => Algorithm::RS256,
        }
    }
}

impl fmt::Display for Alg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Alg {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        Self::ALL.into_iter().find(|alg| alg.as_str() == name).ok_or(KeyError::Alg)
    }
}

/// Why a key or an algorithm was not taken.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No algorithm of that name.
    #[error("alg is one of ES256, EdDSA, PS256, RS256, in this spelling; token.alg may also be Ed25519")]
    Alg,
    /// Not a private key in PEM.
    #[error("no private key found; expected PEM, as `openssl genpkey` writes it")]
    NotPem,
    /// The key's type does not go with the algorithm, or it is damaged.
    #[error(
        "this key cannot sign with {0}: ES256 takes P-256, EdDSA takes Ed25519, PS256 and RS256 take RSA of 2048 bits or more"
    )]
    WrongType(Alg),
    /// RFC 7518 section 3.3 asks for 2048 bits; above 4096 a signature takes too long.
    #[error("an RSA signing key has 2048 to 4096 bits")]
    Size,
    /// Every exponent but 65537 is refused.
    #[error("an RSA signing key has the public exponent 65537")]
    Exponent,
    /// The pair parsed but does not work.
    #[error("this key does not verify its own signature")]
    Unusable,
}

/// A public signing key: what a resource server needs to verify, and nothing private.
#[derive(Debug, Clone)]
pub struct PublicKey {
    /// The RFC 7638 SHA-256 thumbprint, which is also our key id.
    pub kid: String,
    /// The bare key, as the library verifies with it.
    pub jwk: Jwk,
    /// The key's own members: `kty`, `crv`, `x`, `y` or `n`, `e`.
    members: Value,
}

impl PublicKey {
    pub(super) fn of_ec(pair: &EcdsaKeyPair) -> Result<Self, KeyError> {
        // RFC 7518 section 6.2.1.2: "The length of this octet string MUST be the full size of a coordinate"
        let point = pair.public_key().as_ref();
        let (Some(4), Some(x), Some(y)) = (point.first(), point.get(1..33), point.get(33..65)) else {
            return Err(KeyError::Unusable);
        };
        Self::new(json!({"kty": "EC", "crv": "P-256", "x": base64url(x), "y": base64url(y)}))
    }

    pub(super) fn of_ed25519(pair: &Ed25519KeyPair) -> Result<Self, KeyError> {
        Self::new(json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key().as_ref())}))
    }

    pub(super) fn of_rsa(pair: &RsaKeyPair) -> Result<Self, KeyError> {
        let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        // RFC 7518 section 2, Base64urlUInt: the minimum number of octets; an exponent below 65537 is refused at import.
        let minimal =
            |bytes: &[u8]| base64url(&bytes.iter().copied().skip_while(|&byte| byte == 0).collect::<Vec<_>>());
        if public.e.iter().copied().skip_while(|&byte| byte == 0).collect::<Vec<_>>() != [1, 0, 1] {
            return Err(KeyError::Exponent);
        }
        Self::new(json!({"kty": "RSA", "n": minimal(&public.n), "e": minimal(&public.e)}))
    }

    fn new(members: Value) -> Result<Self, KeyError> {
        let jwk: Jwk = serde_json::from_value(members.clone()).map_err(|_| KeyError::Unusable)?;
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| KeyError::Unusable)?;
        Ok(Self { kid, jwk, members })
    }

    /// The key as it stands in a JWK Set, with `use` and `alg` so that it is used for nothing else.
    #[must_use]
    pub fn published(&self, alg: &str) -> Value {
        let mut members = self.members.clone();
        if let Value::Object(members) = &mut members {
            members.insert("kid".into(), self.kid.clone().into());
            members.insert("use".into(), "sig".into());
            members.insert("alg".into(), alg.into());
        }
        members
    }
}

fn base64url(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::jws::SigningKey;

    #[test]
    fn v3_jos_19_thumbprints_match_the_vectors_of_rfc_8037_and_rfc_9449() {
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        assert_eq!(PublicKey::new(ed).unwrap().kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let ec = json!({"kty": "EC", "crv": "P-256", "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
                        "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"});
        assert_eq!(PublicKey::new(ec).unwrap().kid, "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    }

    #[test]
    fn jwk_04_coordinates_have_full_length_also_with_leading_zeros() {
        for _ in 0..1000 {
            let (key, _) = SigningKey::generate(Alg::Es256).unwrap();
            let published = key.public().published("ES256");
            for coordinate in ["x", "y"] {
                assert_eq!(published[coordinate].as_str().unwrap().len(), 43, "{published}");
            }
        }
    }
}

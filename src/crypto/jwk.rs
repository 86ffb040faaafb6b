//! Public keys as JWK (RFC 7517, RFC 7518 section 6, RFC 8037) and their thumbprints (RFC 7638).

use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use serde_json::{Value, json};

use super::jws::KeyError;

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
    use crate::crypto::jws::{Alg, SigningKey};

    #[test]
    fn jos_19_thumbprints_match_the_vectors_of_rfc_8037_and_rfc_9449() {
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

//! Private keys as JWK (RFC 7518 section 6, RFC 8037 section 2), as clients keep them.

use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Pair, SigningKey};
use crate::json;
use crate::jwk::{Alg, KeyError};

impl SigningKey {
    /// Reads a private key as a JWK. The algorithm is `alg`, else the JWK's own, else the first that goes with its type.
    /// Also returns the key's `kid`, if it has one.
    ///
    /// # Errors
    /// [`KeyError`] saying what is expected instead.
    pub fn from_private_jwk(text: &[u8], alg: Option<Alg>) -> Result<(Self, Option<String>), KeyError> {
        let jwk = json::object(text).map_err(|_| KeyError::NotPrivateJwk)?;
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| {
            let decoded = text(name).and_then(|value| BASE64_URL_SAFE_NO_PAD.decode(value).ok());
            decoded.map(Zeroizing::new).ok_or(KeyError::NotPrivateJwk)
        };
        let own = match text("alg") {
            None => None,
            // RFC 9864 section 2.2 gives EdDSA with Ed25519 this name.
            Some("Ed25519") => Some(Alg::EdDsa),
            Some(name) => Some(name.parse()?),
        };
        let (fitting, pair): (&[Alg], _) = match (text("kty"), text("crv")) {
            (Some("EC"), Some("P-256")) => {
                let point = [&[4_u8][..], bytes("x")?.as_slice(), bytes("y")?.as_slice()].concat();
                let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &bytes("d")?, &point);
                (&[Alg::Es256], pair.map(Pair::Ec))
            }
            (Some("OKP"), Some("Ed25519")) => {
                let pair = Ed25519KeyPair::from_seed_and_public_key(&bytes("d")?, &bytes("x")?);
                (&[Alg::EdDsa], pair.map(Pair::Ed))
            }
            (Some("RSA"), _) => {
                let components = KeyPairComponents {
                    public_key: PublicKeyComponents { n: bytes("n")?, e: bytes("e")? },
                    d: bytes("d")?,
                    p: bytes("p")?,
                    q: bytes("q")?,
                    dP: bytes("dp")?,
                    dQ: bytes("dq")?,
                    qInv: bytes("qi")?,
                };
                (&[Alg::Ps256, Alg::Rs256], RsaKeyPair::from_components(&components).map(Pair::Rsa))
            }
            _ => return Err(KeyError::NotPrivateJwk),
        };
        let alg = match alg.or(own) {
            None => *fitting.first().ok_or(KeyError::Unusable)?,
            Some(alg) if fitting.contains(&alg) => alg,
            Some(alg) => return Err(KeyError::WrongType(alg)),
        };
        let key = Self::new(alg, pair.map_err(|_| KeyError::NotPrivateJwk)?)?;
        Ok((key, text("kid").map(str::to_owned)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The private keys of RFC 7515 appendix A.3 and of RFC 8037 appendix A.1.
    fn printed() -> [(Value, Alg, &'static str); 2] {
        let ec = json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0", "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"});
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "mine"});
        [(ec, Alg::Es256, ""), (ed, Alg::EdDsa, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k")]
    }

    #[test]
    fn the_private_keys_that_rfcs_print_sign() {
        for (jwk, alg, thumbprint) in printed() {
            let (key, kid) = SigningKey::from_private_jwk(jwk.to_string().as_bytes(), None).unwrap();
            assert_eq!((key.alg(), kid.as_deref()), (alg, jwk["kid"].as_str()));
            assert!(thumbprint.is_empty() || key.kid() == thumbprint);
            assert!(key.verifies(&key.sign(b"{}").unwrap()));
        }
    }

    #[test]
    fn an_rsa_key_signs_by_the_algorithm_that_is_asked_for_or_its_own() {
        // From `openssl genrsa 2048`, for this test alone.
        let mut jwk: Value = serde_json::from_str(include_str!("rsa_private_jwk.json")).unwrap();
        let read =
            |jwk: &Value, alg| SigningKey::from_private_jwk(jwk.to_string().as_bytes(), alg).map(|it| it.0.alg());
        assert_eq!(read(&jwk, None).unwrap(), Alg::Ps256);
        assert_eq!(read(&jwk, Some(Alg::Rs256)).unwrap(), Alg::Rs256);
        assert!(matches!(read(&jwk, Some(Alg::Es256)), Err(KeyError::WrongType(Alg::Es256))));
        jwk["alg"] = "RS256".into();
        assert_eq!(read(&jwk, None).unwrap(), Alg::Rs256);
        jwk["d"] = jwk["p"].clone();
        assert!(matches!(read(&jwk, None), Err(KeyError::NotPrivateJwk)));
    }

    #[test]
    fn a_public_key_and_a_damaged_one_are_refused_with_the_members_that_are_wanted() {
        let [(ec, ..), (ed, ..)] = printed();
        let mut public = ec.clone();
        public.as_object_mut().unwrap().remove("d");
        let mut other = ec;
        other["y"] = other["x"].clone();
        let mut seed = ed;
        seed["d"] = "AAAA".into();
        for jwk in [public, other, seed, json!({"kty": "oct", "k": "AAAA"}), json!([])] {
            let error = SigningKey::from_private_jwk(jwk.to_string().as_bytes(), None).unwrap_err();
            assert!(error.to_string().contains("Ed25519"), "{jwk}: {error}");
        }
    }
}

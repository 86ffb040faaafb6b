//! Tokens of a trusted issuer, in the shape of Kubernetes (RFC 7521 section 4.1, RFC 7523), and its RSA key.

use std::io;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::client_key::{jti, jws, now};

/// An RSA key pair of 2,048 bits that signs with RS256.
pub struct RsaKey(RsaKeyPair);

impl RsaKey {
    /// Generates a key pair.
    pub fn generate() -> io::Result<Self> {
        RsaKeyPair::generate(KeySize::Rsa2048).map(Self).map_err(io::Error::other)
    }

    /// The public key as an `RSAPublicKey` of PKCS #1.
    #[must_use]
    pub fn pkcs1(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// The public key as a JWK with the key id [`KID`].
    #[must_use]
    pub fn jwk(&self) -> String {
        // A sequence of two integers: the heads of both and the sign of the first take 9 bytes, and the second is 65537.
        let modulus = BASE64_URL_SAFE_NO_PAD.encode(self.pkcs1().get(9..265).unwrap_or_default());
        format!(r#"{{"kty":"RSA","use":"sig","alg":"RS256","kid":"{KID}","n":"{modulus}","e":"AQAB"}}"#)
    }

    /// Signs claims.
    pub fn sign(&self, claims: &str) -> io::Result<String> {
        let mut signature = [0; 256];
        let sign = |signed: &[u8]| {
            self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed, &mut signature).map_err(io::Error::other)?;
            Ok(signature.to_vec())
        };
        jws(&format!(r#"{{"alg":"RS256","kid":"{KID}"}}"#), claims, sign)
    }
}

/// Claims of a projected token of the service account `name` in the namespace `pay`, for `audience`, with a fresh `jti`.
pub fn service_account(issuer: &str, name: &str, audience: &str) -> io::Result<String> {
    let (now, jti) = (now()?, jti()?);
    Ok(format!(
        r#"{{"aud":["{audience}"],"exp":{},"iat":{now},"iss":"{issuer}","jti":"{jti}","kubernetes.io":{{"namespace":"pay","node":{{"name":"node-7","uid":"0f3b1c52-6b1e-4c2a-9d0e-5f4b7a1c2d3e"}},"pod":{{"name":"{name}-7d9c5b6f4-x2x9k","uid":"5e2d3c4b-1a09-4f8e-b7d6-c5a4938271f0"}},"serviceaccount":{{"name":"{name}","uid":"9a8b7c6d-5e4f-4a3b-8c2d-1e0f9a8b7c6d"}}}},"nbf":{now},"sub":"{}"}}"#,
        now + LIFETIME,
        subject(name)
    ))
}

/// The subject of the service account `name`.
#[must_use]
pub fn subject(name: &str) -> String {
    format!("system:serviceaccount:pay:{name}")
}

/// The id of the key.
pub const KID: &str = "k1";
/// Seconds until `exp`: less than the hour that grantd accepts, for clocks that differ.
const LIFETIME: u64 = 3500;

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};

    use super::*;

    #[test]
    fn the_jwk_is_the_key_that_signs() {
        let key = RsaKey::generate().unwrap();
        let token = key.sign(&service_account("https://k.test", "app", "https://a.test").unwrap()).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let jwk: serde_json::Value = serde_json::from_str(&key.jwk()).unwrap();
        let part = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
        let components = RsaPublicKeyComponents { n: part("n"), e: part("e") };
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
        components.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature).unwrap();
        let claims = BASE64_URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().1).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["sub"], "system:serviceaccount:pay:app");
    }
}

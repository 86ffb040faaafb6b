//! Signing (RFC 7515 compact form) with key pairs that are parsed once and held.

use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::json::Object;
use super::jwk::{Alg, KeyError};
use super::verifying_key::VerifyingKey;

mod private_jwk;

/// A private key with everything about its tokens that does not change from one to the next.
pub struct SigningKey {
    alg: Alg,
    alg_name: &'static str,
    pair: Pair,
    verifying: VerifyingKey,
    header: String,
    /// With `typ` of `JWT`, for resource servers that take no other.
    header_jwt: String,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl SigningKey {
    /// Makes a key pair; also returns its PKCS#8 document, to be sealed.
    ///
    /// # Errors
    /// [`KeyError::Unusable`] when the generator fails.
    pub fn generate(alg: Alg) -> Result<(Self, Zeroizing<Vec<u8>>), KeyError> {
        let pair = match alg {
            Alg::Es256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Pair::Ec),
            Alg::EdDsa => Ed25519KeyPair::generate().map(Pair::Ed),
            Alg::Ps256 | Alg::Rs256 => RsaKeyPair::generate(KeySize::Rsa2048).map(Pair::Rsa),
        }
        .map_err(|_| KeyError::Unusable)?;
        let document = pair.to_pkcs8()?;
        Ok((Self::new(alg, pair)?, document))
    }

    /// Parses the PKCS#8 document of a stored key.
    ///
    /// # Errors
    /// [`KeyError`], also when the key does not verify its own signature.
    pub fn from_pkcs8(alg: Alg, pkcs8: &[u8]) -> Result<Self, KeyError> {
        let pair = match alg {
            Alg::Es256 => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map(Pair::Ec),
            Alg::EdDsa => Ed25519KeyPair::from_pkcs8(pkcs8).map(Pair::Ed),
            Alg::Ps256 | Alg::Rs256 => RsaKeyPair::from_pkcs8(pkcs8).map(Pair::Rsa),
        };
        Self::new(alg, pair.map_err(|_| KeyError::WrongType(alg))?)
    }

    /// Reads a private key in PEM (PKCS#8, PKCS#1 or SEC 1); also returns its PKCS#8 document.
    ///
    /// # Errors
    /// [`KeyError`] saying what is expected instead.
    pub fn from_pem(alg: Alg, pem: &[u8]) -> Result<(Self, Zeroizing<Vec<u8>>), KeyError> {
        let has = |label: &str| pem.windows(label.len()).any(|part| part == label.as_bytes());
        if has("-----BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        if !has("PRIVATE KEY-----") {
            let others = [("CERTIFICATE-----", "certificate"), ("PUBLIC KEY-----", "public key")];
            let found = others.into_iter().find(|(label, _)| has(label));
            return Err(found.map_or(KeyError::NotPem, |(_, name)| KeyError::NotPrivate(name)));
        }
        // A byte order mark would hide the line behind it.
        let pem = pem.strip_prefix(b"\xef\xbb\xbf").unwrap_or(pem);
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyError::NotPem)?;
        // The library says no more than that it does not take a key; what it would take is what helps.
        let pair = match (alg, &der) {
            (Alg::Es256, _) => EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der())
                .ok()
                .map(Pair::Ec),
            (Alg::EdDsa, _) => Ed25519KeyPair::from_pkcs8(der.secret_der()).ok().map(Pair::Ed),
            (_, PrivateKeyDer::Pkcs1(_)) => RsaKeyPair::from_der(der.secret_der()).ok().map(Pair::Rsa),
            _ => RsaKeyPair::from_pkcs8(der.secret_der()).ok().map(Pair::Rsa),
        }
        .ok_or(KeyError::WrongType(alg))?;
        let document = pair.to_pkcs8()?;
        Ok((Self::new(alg, pair)?, document))
    }

    fn new(alg: Alg, pair: Pair) -> Result<Self, KeyError> {
        let jwk = pair.public_jwk()?.to_string();
        let verifying = VerifyingKey::from_text(jwk.as_bytes(), Some(alg.into())).map_err(|_| KeyError::Unusable)?;
        let alg_name = alg.as_str();
        // RFC 9068 section 2.1: the "typ" header parameter is "at+jwt".
        let header = header("at+jwt", alg_name, verifying.jkt()).ok_or(KeyError::Unusable)?;
        let header_jwt = self::header("JWT", alg_name, verifying.jkt()).ok_or(KeyError::Unusable)?;
        let key = Self { alg, alg_name, pair, verifying, header, header_jwt };
        let probe = key.sign(b"{\"probe\":true}").ok_or(KeyError::Unusable)?;
        if key.verifies(&probe) { Ok(key) } else { Err(KeyError::Unusable) }
    }

    /// The same key, with Ed25519 going by that name (RFC 9864 section 2.2).
    #[must_use]
    pub fn fully_specified(self) -> Self {
        let (alg_name, kid) = ("Ed25519", self.kid());
        match (header("at+jwt", alg_name, kid), header("JWT", alg_name, kid)) {
            (Some(header), Some(header_jwt)) if self.alg == Alg::EdDsa => Self { alg_name, header, header_jwt, ..self },
            _ => self,
        }
    }

    /// The public key as it stands in a JWK Set, with `use` and `alg` so that it is used for nothing else.
    #[must_use]
    pub fn published(&self) -> Value {
        let mut jwk = self.verifying.jwk();
        jwk.insert("kid".into(), self.kid().into());
        jwk.insert("alg".into(), self.alg_name.into());
        jwk.into()
    }

    /// The claims as a JWT in compact form, header `typ: at+jwt`. `None` when the library fails to sign.
    #[must_use]
    pub fn sign(&self, claims: &[u8]) -> Option<String> {
        self.sign_below(&self.header, claims)
    }

    /// The claims as a JWT in compact form, header `typ: at+jwt`, or `typ: JWT` where `plain`. `None` when the library fails to
    /// sign.
    #[must_use]
    pub fn sign_token(&self, plain: bool, claims: &[u8]) -> Option<String> {
        self.sign_below(if plain { &self.header_jwt } else { &self.header }, claims)
    }

    /// The claims as a JWT of another kind. `None` when the library fails to sign.
    #[must_use]
    pub fn sign_as(&self, typ: &str, claims: &[u8]) -> Option<String> {
        self.sign_below(&header(typ, self.alg_name, self.kid())?, claims)
    }

    /// The claims as a JWT below the members of `header`, to which the key's `alg` is added. `None` when the library fails to
    /// sign.
    #[must_use]
    pub fn sign_with(&self, mut header: Object, claims: &[u8]) -> Option<String> {
        header.insert("alg".into(), self.alg_name.into());
        // Writing JSON values into memory does not fail.
        let header = serde_json::to_vec(&header).ok()?;
        self.sign_below(&(BASE64_URL_SAFE_NO_PAD.encode(header) + "."), claims)
    }

    fn sign_below(&self, header: &str, claims: &[u8]) -> Option<String> {
        // To the byte, or nearly: what is larger than a kilobyte is dear to allocate.
        let signature = match &self.pair {
            Pair::Ec(_) | Pair::Ed(_) => 64,
            Pair::Rsa(pair) => pair.public_modulus_len(),
        };
        let mut jws = String::with_capacity(header.len() + (claims.len() + signature) * 4 / 3 + 8);
        jws.push_str(header);
        BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut jws);
        let mut rsa = [0; 512];
        let signature = match &self.pair {
            Pair::Ec(pair) => pair.sign(&SystemRandom::new(), jws.as_bytes()).ok()?,
            Pair::Ed(pair) => pair.try_sign(jws.as_bytes()).ok()?,
            Pair::Rsa(pair) => {
                let padding = if self.alg == Alg::Ps256 { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let signature = rsa.get_mut(..pair.public_modulus_len())?;
                pair.sign(padding, &SystemRandom::new(), jws.as_bytes(), signature).ok()?;
                jws.push('.');
                BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut jws);
                return Some(jws);
            }
        };
        jws.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut jws);
        Some(jws)
    }

    /// Whether this key made the signature of a JWS in compact form. Says nothing of its header or claims.
    #[must_use]
    pub fn verifies(&self, jws: &str) -> bool {
        let Some((signed, signature)) = jws.rsplit_once('.') else { return false };
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature);
        signature.is_ok_and(|signature| self.verifying.verifies(self.alg.into(), signed.as_bytes(), &signature))
    }

    /// The key's algorithm.
    #[must_use]
    pub fn alg(&self) -> Alg {
        self.alg
    }

    /// The public half, to verify with.
    #[must_use]
    pub fn verifying(&self) -> &VerifyingKey {
        &self.verifying
    }

    /// The key id: the RFC 7638 thumbprint of the public half.
    #[must_use]
    pub fn kid(&self) -> &str {
        self.verifying.jkt()
    }

    /// The public key in PEM (RFC 7468 section 13). `None` when the library cannot encode it.
    #[must_use]
    pub fn public_pem(&self) -> Option<String> {
        let der: PublicKeyX509Der<'_> = match &self.pair {
            Pair::Ec(pair) => pair.public_key().as_der(),
            Pair::Ed(pair) => pair.public_key().as_der(),
            Pair::Rsa(pair) => pair.public_key().as_der(),
        }
        .ok()?;
        let text = BASE64_STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        Some(format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n")))
    }
}

impl Pair {
    /// The members of the public key as a JWK (RFC 7518 section 6, RFC 8037 section 2).
    fn public_jwk(&self) -> Result<Value, KeyError> {
        let base64url = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        Ok(match self {
            Self::Ec(pair) => {
                // RFC 7518 section 6.2.1.2: "The length of this octet string MUST be the full size of a coordinate"
                let point = pair.public_key().as_ref();
                let (Some(4), Some(x), Some(y)) = (point.first(), point.get(1..33), point.get(33..65)) else {
                    return Err(KeyError::Unusable);
                };
                json!({"kty": "EC", "crv": "P-256", "x": base64url(x), "y": base64url(y)})
            }
            Self::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key().as_ref())}),
            Self::Rsa(pair) if !(256..=512).contains(&pair.public_modulus_len()) => return Err(KeyError::Size),
            Self::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                if public.e.iter().skip_while(|byte| **byte == 0).ne(&[1, 0, 1]) {
                    return Err(KeyError::Exponent);
                }
                json!({"kty": "RSA", "n": base64url(&public.n), "e": "AQAB"})
            }
        })
    }

    fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let der: Pkcs8V1Der<'_> = match self {
            // aws-lc-rs writes EC and Ed25519 keys as PKCS#8 version 1, which every other tool reads.
            Self::Ec(pair) => {
                return Ok(Zeroizing::new(pair.to_pkcs8v1().map_err(|_| KeyError::Unusable)?.as_ref().to_vec()));
            }
            Self::Ed(pair) => {
                return Ok(Zeroizing::new(pair.to_pkcs8v1().map_err(|_| KeyError::Unusable)?.as_ref().to_vec()));
            }
            Self::Rsa(pair) => pair.as_der().map_err(|_| KeyError::Unusable)?,
        };
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({} {})", self.alg, self.kid())
    }
}

/// The encoded header with the dot behind it.
fn header(typ: &str, alg: &'static str, kid: &str) -> Option<String> {
    #[derive(Serialize)]
    struct Header<'a> {
        typ: &'a str,
        alg: &'static str,
        kid: &'a str,
    }
    let header = serde_json::to_vec(&Header { typ, alg, kid }).ok()?;
    Some(BASE64_URL_SAFE_NO_PAD.encode(header) + ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_signs_verifies_and_survives_storage() {
        for alg in Alg::ALL {
            let (key, document) = SigningKey::generate(alg).unwrap();
            let stored = SigningKey::from_pkcs8(alg, &document).unwrap();
            assert_eq!(stored.kid(), key.kid(), "{alg}");
            let jws = key.sign(br#"{"sub":"a"}"#).unwrap();
            assert!(stored.verifies(&jws), "{alg}");
            let (header, rest) = jws.split_once('.').unwrap();
            assert!(!stored.verifies(&format!("{header}.e30.{}", rest.split_once('.').unwrap().1)), "{alg}");
        }
    }

    #[test]
    fn a_key_of_the_wrong_type_is_refused_with_what_is_expected() {
        let (_, ec) = SigningKey::generate(Alg::Es256).unwrap();
        for alg in [Alg::EdDsa, Alg::Ps256, Alg::Rs256] {
            assert!(matches!(SigningKey::from_pkcs8(alg, &ec), Err(KeyError::WrongType(_))), "{alg}");
        }
        assert!(SigningKey::from_pem(Alg::Es256, b"hello").unwrap_err().to_string().contains("openssl genpkey"));
    }

    #[test]
    fn coordinates_have_full_length_also_with_leading_zeros() {
        for _ in 0..1000 {
            let published = SigningKey::generate(Alg::Es256).unwrap().0.published();
            for coordinate in ["x", "y"] {
                assert_eq!(published[coordinate].as_str().unwrap().len(), 43, "{published}");
            }
        }
    }

    #[test]
    fn names_are_case_sensitive() {
        assert!("es256".parse::<Alg>().is_err());
        assert!("none".parse::<Alg>().is_err());
        assert!("HS256".parse::<Alg>().is_err());
    }
}

//! Signing (RFC 7515 compact form) with key pairs that are parsed once and held.

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::json::Object;
use super::jwk::{Alg, KeyError};
use super::verifying_key::{JwkError, SIGNATURE_MAX, VerifyingKey};

mod private_jwk;

/// A private key with everything about its tokens that does not change from one to the next. The private half may be elsewhere,
/// such as in a hardware module.
pub struct SigningKey {
    alg: Alg,
    alg_name: &'static str,
    /// `None` when the private half is elsewhere.
    pair: Option<Pair>,
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

    /// Makes a key whose private half is elsewhere: [`unsigned`](Self::unsigned) returns what is to be signed there, and
    /// [`complete`](Self::complete) takes the signature.
    ///
    /// # Errors
    /// [`JwkError`], also when the public key does not go with `alg`.
    pub fn from_public_jwk(alg: Alg, jwk: &Object) -> Result<Self, JwkError> {
        let verifying = VerifyingKey::from_jwk(jwk, Some(alg.into()))?;
        Self::with_verifying(alg, None, verifying).ok_or(JwkError::Kty)
    }

    fn new(alg: Alg, pair: Pair) -> Result<Self, KeyError> {
        let jwk = pair.public_jwk()?.to_string();
        let verifying = VerifyingKey::from_text(jwk.as_bytes(), Some(alg.into())).map_err(|_| KeyError::Unusable)?;
        let key = Self::with_verifying(alg, Some(pair), verifying).ok_or(KeyError::Unusable)?;
        let probe = key.sign(b"{\"probe\":true}").ok_or(KeyError::Unusable)?;
        if key.verifies(&probe) { Ok(key) } else { Err(KeyError::Unusable) }
    }

    fn with_verifying(alg: Alg, pair: Option<Pair>, verifying: VerifyingKey) -> Option<Self> {
        let alg_name = alg.as_str();
        let header = header(AT_JWT, alg_name, verifying.jkt())?;
        let header_jwt = self::header(JWT, alg_name, verifying.jkt())?;
        Some(Self { alg, alg_name, pair, verifying, header, header_jwt })
    }

    /// The same key, with Ed25519 going by that name (RFC 9864 section 2.2).
    #[must_use]
    pub fn fully_specified(self) -> Self {
        let (alg_name, kid) = ("Ed25519", self.kid());
        match (header(AT_JWT, alg_name, kid), header(JWT, alg_name, kid)) {
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

    /// The claims as a JWT in compact form, header `typ: at+jwt`. `None` when the library fails to sign, or the private half is
    /// elsewhere.
    #[must_use]
    pub fn sign(&self, claims: &[u8]) -> Option<String> {
        self.sign_as(AT_JWT, claims)
    }

    /// The claims as a JWT with that `typ`. `None` as of [`sign`](Self::sign).
    #[must_use]
    pub fn sign_as(&self, typ: &str, claims: &[u8]) -> Option<String> {
        self.sign_below(&self.header_of(typ)?, claims)
    }

    /// Encodes the header and the claims of a JWT with that `typ`, as they are signed. `None` when they cannot be encoded.
    #[must_use]
    pub fn unsigned(&self, typ: &str, claims: &[u8]) -> Option<String> {
        Some(self.signing_input(&self.header_of(typ)?, claims))
    }

    /// Appends a signature that was made elsewhere to what [`unsigned`](Self::unsigned) returned. `None` when the signature is
    /// not this key's.
    #[must_use]
    pub fn complete(&self, unsigned: String, signature: &[u8]) -> Option<String> {
        let is_own = self.verifying.verifies(self.alg.into(), unsigned.as_bytes(), signature);
        is_own.then(|| with_signature(unsigned, signature))
    }

    /// The claims as a JWT below the members of `header`, to which the key's `alg` is added. `None` as of [`sign`](Self::sign).
    #[must_use]
    pub fn sign_with(&self, mut header: Object, claims: &[u8]) -> Option<String> {
        header.insert("alg".into(), self.alg_name.into());
        // Writing JSON values into memory does not fail.
        let header = serde_json::to_vec(&header).ok()?;
        self.sign_below(&(BASE64_URL_SAFE_NO_PAD.encode(header) + "."), claims)
    }

    /// The encoded header of that `typ` with the dot behind it.
    fn header_of(&self, typ: &str) -> Option<Cow<'_, str>> {
        match typ {
            AT_JWT => Some(Cow::Borrowed(&self.header)),
            JWT => Some(Cow::Borrowed(&self.header_jwt)),
            _ => header(typ, self.alg_name, self.kid()).map(Cow::Owned),
        }
    }

    /// RFC 7515 section 7.1: the encoded header, a dot, the encoded payload. Has room for the signature.
    fn signing_input(&self, header: &str, claims: &[u8]) -> String {
        // To the byte, or nearly: what is larger than a kilobyte is dear to allocate.
        let signature = match (self.alg, &self.pair) {
            (Alg::Es256 | Alg::EdDsa, _) => 64,
            (_, Some(Pair::Rsa(pair))) => pair.public_modulus_len(),
            _ => SIGNATURE_MAX,
        };
        let mut jws = String::with_capacity(header.len() + (claims.len() + signature) * 4 / 3 + 8);
        jws.push_str(header);
        BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut jws);
        jws
    }

    fn sign_below(&self, header: &str, claims: &[u8]) -> Option<String> {
        let pair = self.pair.as_ref()?;
        let jws = self.signing_input(header, claims);
        let mut rsa = [0; SIGNATURE_MAX];
        let signature = match pair {
            Pair::Ec(pair) => pair.sign(&SystemRandom::new(), jws.as_bytes()).ok()?,
            Pair::Ed(pair) => pair.try_sign(jws.as_bytes()).ok()?,
            Pair::Rsa(pair) => {
                let padding = if self.alg == Alg::Ps256 { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let signature = rsa.get_mut(..pair.public_modulus_len())?;
                pair.sign(padding, &SystemRandom::new(), jws.as_bytes(), signature).ok()?;
                return Some(with_signature(jws, signature));
            }
        };
        Some(with_signature(jws, signature.as_ref()))
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

fn with_signature(mut jws: String, signature: &[u8]) -> String {
    jws.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut jws);
    jws
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

/// RFC 9068 section 2.1: the "typ" header parameter is "at+jwt".
const AT_JWT: &str = "at+jwt";
/// Media type of a JWT of any kind (RFC 7519 section 5.1).
const JWT: &str = "JWT";

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
    fn a_key_whose_private_half_is_elsewhere_takes_its_own_signatures_alone() {
        let signature_of = |jws: &str| BASE64_URL_SAFE_NO_PAD.decode(jws.rsplit_once('.').unwrap().1).unwrap();
        for alg in Alg::ALL {
            let (held, _) = SigningKey::generate(alg).unwrap();
            let absent = SigningKey::from_public_jwk(alg, &held.verifying().jwk()).unwrap();
            assert_eq!((absent.kid(), absent.sign(b"{}")), (held.kid(), None), "{alg}");
            let jws = held.sign_as("JWT", br#"{"sub":"a"}"#).unwrap();
            let unsigned = absent.unsigned("JWT", br#"{"sub":"a"}"#).unwrap();
            assert_eq!(absent.complete(unsigned.clone(), &signature_of(&jws)), Some(jws), "{alg}");
            let other = held.sign_as("JWT", br#"{"sub":"b"}"#).unwrap();
            assert_eq!(absent.complete(unsigned, &signature_of(&other)), None, "{alg}");
        }
        let (ec, _) = SigningKey::generate(Alg::Es256).unwrap();
        assert!(SigningKey::from_public_jwk(Alg::Ps256, &ec.verifying().jwk()).is_err());
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

//! Signers of assertions, one for each algorithm, and requests with their assertions.

use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd::crypto::random_id;
use grantd::crypto::verifying_key::VerifyingKey;
use grantd::model::credential::StoredKey;
use grantd::model::time::{Clock, UnixTime};
use serde_json::{Value, json};

use crate::harness::{Answer, ISS, Server};

/// A signer: one key of one algorithm.
pub struct Signer {
    pair: Pair,
    pub kid: Option<&'static str>,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair, &'static str),
}

impl Signer {
    pub fn es256() -> Self {
        Self { pair: Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()), kid: None }
    }

    pub fn es384() -> Self {
        Self { pair: Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap()), kid: None }
    }

    pub fn es512() -> Self {
        Self { pair: Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap()), kid: None }
    }

    /// With a key that certificates were made with too.
    pub fn of(key: &rcgen::KeyPair) -> Self {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der()).unwrap();
        Self { pair: Pair::Ec(pair), kid: None }
    }

    pub fn ed25519() -> Self {
        Self { pair: Pair::Ed(Ed25519KeyPair::generate().unwrap()), kid: None }
    }

    pub fn rsa(alg: &'static str) -> Self {
        Self { pair: Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap(), alg), kid: None }
    }

    /// An RSA key whose JWK names no algorithm, as directories publish them.
    pub fn any_rsa() -> Self {
        Self { pair: Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap(), ANY), kid: None }
    }

    pub fn named(self, kid: &'static str) -> Self {
        Self { kid: Some(kid), ..self }
    }

    pub fn alg(&self) -> &'static str {
        match &self.pair {
            Pair::Ec(pair) => curve(pair).0,
            Pair::Ed(_) => "EdDSA",
            Pair::Rsa(_, ANY) => "PS256",
            Pair::Rsa(_, alg) => alg,
        }
    }

    pub fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.pair {
            Pair::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(curve(pair).2);
                json!({"kty": "EC", "crv": curve(pair).1, "x": text(x), "y": text(y)})
            }
            Pair::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())}),
            // RFC 8017 appendix A.1.1: a sequence of two integers, here of 257 and 3 octets.
            Pair::Rsa(pair, _) => json!({"kty": "RSA", "n": text(&pair.public_key().as_ref()[9..265]), "e": "AQAB"}),
        };
        if !matches!(self.pair, Pair::Rsa(_, ANY)) {
            jwk["alg"] = self.alg().into();
        }
        if let Some(kid) = self.kid {
            jwk["kid"] = kid.into();
        }
        jwk
    }

    /// The public key as X.509 has it: a `SubjectPublicKeyInfo` in DER.
    pub fn spki(&self) -> Vec<u8> {
        let der: Result<PublicKeyX509Der<'_>, _> = match &self.pair {
            Pair::Ec(pair) => pair.public_key().as_der(),
            Pair::Ed(pair) => pair.public_key().as_der(),
            Pair::Rsa(pair, _) => pair.public_key().as_der(),
        };
        der.unwrap().as_ref().to_vec()
    }

    pub fn stored(&self) -> StoredKey {
        let key = VerifyingKey::from_text(self.jwk().to_string().as_bytes(), None).unwrap();
        let kid = key.kid().unwrap_or(key.jkt()).into();
        StoredKey { kid, key: Arc::new(key), created_at: UnixTime(1), expires_at: None, used: Arc::default() }
    }

    pub fn header(&self) -> Value {
        let mut header = json!({"alg": self.alg()});
        if let Some(kid) = self.kid {
            header["kid"] = kid.into();
        }
        header
    }

    pub fn sign(&self, header: &str, claims: &str) -> String {
        self.sign_by(self.alg(), header, claims)
    }

    /// Signs as `alg` asks for, as far as the key can.
    pub fn sign_by(&self, alg: &str, header: &str, claims: &str) -> String {
        let signed = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
        let (random, message) = (SystemRandom::new(), signed.as_bytes());
        let signature = match &self.pair {
            Pair::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair, _) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let padding: &'static dyn RsaEncoding = match alg {
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
        };
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// An assertion with these claims.
    pub fn assert(&self, claims: &Value) -> String {
        self.sign(&self.header().to_string(), &claims.to_string())
    }

    /// A proof for the token endpoint by this key and `alg`, never used before.
    pub fn proof_by(&self, alg: &str) -> String {
        let mut jwk = self.jwk();
        jwk.as_object_mut().unwrap().remove("alg");
        let (header, of_client) = (json!({"typ": "dpop+jwt", "alg": alg, "jwk": jwk}), claims("x"));
        let claims =
            json!({"htm": "POST", "htu": format!("{ISS}/token"), "jti": of_client["jti"], "iat": of_client["iat"]});
        self.sign_by(alg, &header.to_string(), &claims.to_string())
    }

    /// An assertion of `id` that was never used before.
    pub fn fresh(&self, id: &str) -> String {
        self.assert(&claims(id))
    }
}

const ANY: &str = "any";

/// The algorithm of a key, its curve, and how long a coordinate is.
fn curve(pair: &EcdsaKeyPair) -> (&'static str, &'static str, usize) {
    match pair.public_key().as_ref().len() {
        65 => ("ES256", "P-256", 32),
        97 => ("ES384", "P-384", 48),
        _ => ("ES512", "P-521", 66),
    }
}

/// Claims as a client should send them.
pub fn claims(id: &str) -> Value {
    claims_at(id, Clock::System.now().0)
}

/// As of a moment.
pub fn claims_at(id: &str, now: i64) -> Value {
    let jti = BASE64_URL_SAFE_NO_PAD.encode(random_id().unwrap());
    json!({"iss": id, "sub": id, "aud": ISS, "exp": now + 60, "iat": now, "jti": jti})
}

pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

pub async fn ask(server: &Server, assertion: &str) -> Answer {
    ask_at(server, "/token", "grant_type=client_credentials", assertion).await
}

pub async fn ask_at(server: &Server, path: &str, form: &str, assertion: &str) -> Answer {
    server.post_to(path, &[], format!("{form}&client_assertion_type={TYPE}&client_assertion={assertion}")).await
}

/// A JWT whose signature is a MAC.
pub fn mac(alg: &str, secret: &[u8], claims: &Value) -> String {
    let header = json!({"alg": alg}).to_string();
    let signed = [header, claims.to_string()].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
    let hash = match alg {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        other => panic!("{other} is no MAC"),
    };
    let mac = hmac::sign(&hmac::Key::new(hash, secret), signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac))
}

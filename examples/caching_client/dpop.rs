//! DPoP (RFC 9449): a key of this process's own, a proof for each request, and the nonces that servers ask for.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{CommonParameters, Jwk};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::header::HeaderMap;
use serde::Serialize;

use super::client_auth::random_id;

/// The key lives as long as the process, and so do the tokens that are bound to it.
pub struct Dpop {
    key: EncodingKey,
    jwk: Jwk,
    nonces: Mutex<HashMap<String, String>>,
}

#[derive(Serialize)]
struct Proof<'a> {
    jti: String,
    htm: &'a str,
    htu: &'a str,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
}

impl Dpop {
    pub fn generate() -> Result<Self, String> {
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let key = EncodingKey::from_ec_der(pair.map_err(|_| "no key could be made")?.as_ref());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).map_err(|error| error.to_string())?;
        let jwk = Jwk { common: CommonParameters::default(), ..jwk };
        Ok(Self { key, jwk, nonces: Mutex::default() })
    }

    /// A proof for one request; with the token, when it goes to an API (RFC 9449 section 7).
    pub fn proof(&self, method: &str, url: &str, token: Option<&str>, now: i64) -> Result<String, String> {
        let hash = |token: &str| BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, token.as_bytes()));
        let nonce = self.nonces.lock().unwrap_or_else(PoisonError::into_inner).get(origin(url)).cloned();
        let htu = url.split(['?', '#']).next().unwrap_or(url);
        let claims = Proof { jti: random_id()?, htm: method, htu, iat: now, ath: token.map(hash), nonce };
        let header =
            Header { typ: Some("dpop+jwt".into()), jwk: Some(self.jwk.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(|error| error.to_string())
    }

    /// RFC 9449 section 8.2: a new nonce may come with any answer, and counts for the server that sent it.
    pub fn note_nonce(&self, url: &str, headers: &HeaderMap) {
        if let Some(nonce) = headers.get("dpop-nonce").and_then(|value| value.to_str().ok()) {
            let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
            nonces.insert(origin(url).to_owned(), nonce.to_owned());
        }
    }
}

impl fmt::Debug for Dpop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dpop")
    }
}

fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(host..).and_then(|rest| rest.find(['/', '?', '#'])).map_or(url.len(), |at| host + at);
    url.get(..end).unwrap_or(url)
}

//! A public key in PEM (RFC 7468 section 13), as administrators have it, turned into the JWK that it is.

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::Jwk;
use serde_json::Value;

use super::JwkError;
use crate::crypto::json::Object;

/// The JWK of one key. White space and comment lines around it do not matter; its label does, and what it holds.
pub(super) fn jwk(pem: &[u8]) -> Result<Object, JwkError> {
    let text = std::str::from_utf8(pem).map_err(|_| JwkError::Pem)?;
    if text.contains("PRIVATE KEY-----") {
        return Err(JwkError::PrivatePem);
    }
    // The library would take a certificate too, and of several blocks the first.
    let labelled = LABELS.into_iter().any(|label| text.contains(label)) && text.matches("-----BEGIN ").count() == 1;
    if !labelled || text.len() > PEM_MAX {
        return Err(JwkError::Pem);
    }
    [DecodingKey::from_ec_pem, DecodingKey::from_ed_pem, DecodingKey::from_rsa_pem]
        .into_iter()
        .filter_map(|read| Jwk::from_decoding_key(&read(pem).ok()?, None).ok())
        .find_map(|jwk| match serde_json::to_value(jwk) {
            Ok(Value::Object(members)) => Some(members),
            _ => None,
        })
        .ok_or(JwkError::Pem)
}

const LABELS: [&str; 2] = ["-----BEGIN PUBLIC KEY-----", "-----BEGIN RSA PUBLIC KEY-----"];

const PEM_MAX: usize = 4096;

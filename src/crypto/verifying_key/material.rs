//! What a key consists of (RFC 7518 section 6, RFC 8037 section 2), checked for being what it should be, and parsed.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, EllipticCurveKeyParameters, EllipticCurveKeyType, OctetKeyPairParameters,
    OctetKeyPairType, RSAKeyParameters, RSAKeyType,
};
use serde_json::Value;

use super::{JwkError, weak};
use crate::crypto::json::Object;
use crate::crypto::jwk::Alg;

pub(super) fn ec(jwk: &Object) -> Result<(ParsedPublicKey, AlgorithmParameters), JwkError> {
    if text(jwk, "crv")? != "P-256" {
        return Err(JwkError::Crv);
    }
    // RFC 7518 section 6.2.1.2: "The length of this octet string MUST be the full size of a coordinate for the curve"
    let mut point = [4; 65];
    let (_, coordinates) = point.split_at_mut(1);
    let (x, y) = coordinates.split_at_mut(32);
    x.copy_from_slice(&octets::<32>(jwk, "x")?);
    y.copy_from_slice(&octets::<32>(jwk, "y")?);
    let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| JwkError::Point)?;
    let (key_type, curve) = (EllipticCurveKeyType::EC, EllipticCurve::P256);
    let (x, y) = (text(jwk, "x")?.to_owned(), text(jwk, "y")?.to_owned());
    Ok((parsed, AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters { key_type, curve, x, y })))
}

pub(super) fn okp(jwk: &Object) -> Result<(ParsedPublicKey, AlgorithmParameters), JwkError> {
    if text(jwk, "crv")? != "Ed25519" {
        return Err(JwkError::Crv);
    }
    let point = octets::<32>(jwk, "x")?;
    if weak::is_weak_ed25519(&point) {
        return Err(JwkError::Ed25519Weak);
    }
    let parsed = ParsedPublicKey::new(&ED25519, point).map_err(|_| JwkError::Member("x"))?;
    let (key_type, curve) = (OctetKeyPairType::OctetKeyPair, EllipticCurve::Ed25519);
    let x = text(jwk, "x")?.to_owned();
    Ok((parsed, AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters { key_type, curve, x })))
}

pub(super) fn rsa(jwk: &Object, alg: Alg) -> Result<(ParsedPublicKey, AlgorithmParameters), JwkError> {
    // Bounds before anything is computed: a modulus of a million bits is not even decoded.
    if text(jwk, "n")?.len() > MODULUS_TEXT_MAX {
        return Err(JwkError::RsaSize);
    }
    if text(jwk, "e")? != "AQAB" {
        return Err(JwkError::RsaExponent);
    }
    let n = BASE64_URL_SAFE_NO_PAD.decode(text(jwk, "n")?).map_err(|_| JwkError::Member("n"))?;
    let Some(first) = n.first().filter(|&&first| first != 0) else {
        // RFC 7518 section 2, Base64urlUInt: "the minimum number of octets necessary"
        return Err(JwkError::Member("n"));
    };
    let bits = n.len() * 8 - first.leading_zeros() as usize;
    if !(2048..=4096).contains(&bits) {
        return Err(JwkError::RsaSize);
    }
    if weak::is_weak_modulus(&n) {
        return Err(JwkError::RsaWeak);
    }
    let padding = if alg == Alg::Ps256 { &RSA_PSS_2048_8192_SHA256 } else { &RSA_PKCS1_2048_8192_SHA256 };
    let components = RsaPublicKeyComponents { n: &n[..], e: &[1, 0, 1][..] };
    let parsed = components.to_parsed_public_key(padding).map_err(|_| JwkError::Member("n"))?;
    let (key_type, n, e) = (RSAKeyType::RSA, text(jwk, "n")?.to_owned(), "AQAB".to_owned());
    Ok((parsed, AlgorithmParameters::RSA(RSAKeyParameters { key_type, n, e })))
}

pub(super) fn text<'a>(jwk: &'a Object, member: &'static str) -> Result<&'a str, JwkError> {
    jwk.get(member).and_then(Value::as_str).ok_or(JwkError::Member(member))
}

/// Exactly `N` octets in base64url, in their one spelling.
fn octets<const N: usize>(jwk: &Object, member: &'static str) -> Result<[u8; N], JwkError> {
    let mut octets = [0; N];
    match BASE64_URL_SAFE_NO_PAD.decode_slice(text(jwk, member)?, &mut octets) {
        Ok(length) if length == N => Ok(octets),
        _ => Err(JwkError::Member(member)),
    }
}

/// 4096 bits in base64url.
const MODULUS_TEXT_MAX: usize = 683;

//! The certificate of a key (RFC 7517 section 4.7): the first of its `x5c`, which has to be about that key.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::{JwkError, VerifyingKey};
use crate::certificate::Certificate;
use crate::json::Object;

/// The certificate, if the JWK of `key` has one. The others of its chain are not looked at: nobody is asked to
/// vouch for it.
pub(super) fn certificate(jwk: &Object, key: &VerifyingKey) -> Result<Option<Box<Certificate>>, JwkError> {
    let Some(x5c) = jwk.get("x5c") else { return Ok(None) };
    // "The PKIX certificate containing the key value MUST be the first certificate."
    let first =
        x5c.as_array().and_then(|chain| chain.first()).and_then(Value::as_str).ok_or(JwkError::Member("x5c"))?;
    if first.len() > TEXT_MAX {
        return Err(JwkError::X5c);
    }
    // "Each string in the array is a base64-encoded (… not base64url-encoded) DER … PKIX certificate value."
    let der = BASE64_STANDARD.decode(first).map_err(|_| JwkError::Member("x5c"))?;
    let certificate = Certificate::parse(&der).map_err(|_| JwkError::X5c)?;
    // "The key in the first certificate MUST match the public key represented by other members of the JWK."
    let spki = BASE64_STANDARD.encode(certificate.spki());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n");
    match VerifyingKey::from_pem(pem.as_bytes(), key.alg()) {
        Ok(of_certificate) if of_certificate.jkt() == key.jkt() => Ok(Some(certificate.into())),
        _ => Err(JwkError::X5cKey),
    }
}

/// A certificate as `x5c` has it.
pub(super) fn text(certificate: &Certificate) -> Value {
    vec![BASE64_STANDARD.encode(certificate.der())].into()
}

const TEXT_MAX: usize = Certificate::MAX_DER.div_ceil(3) * 4;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::signature_alg::SignatureAlg;

    #[test]
    fn the_first_certificate_is_about_the_key_whatever_kind_it_is() {
        for (kind, crv) in
            [(&rcgen::PKCS_ECDSA_P256_SHA256, "EC"), (&rcgen::PKCS_ED25519, "OKP"), (&rcgen::PKCS_RSA_SHA256, "RSA")]
        {
            let (own, other) = (made(kind), made(kind));
            let jwk = |x5c: &[&Made]| {
                let mut jwk = own.jwk.clone();
                jwk.insert("x5c".into(), x5c.iter().map(|made| BASE64_STANDARD.encode(&made.der)).collect());
                Value::Object(jwk).to_string()
            };
            let read = |x5c: &[&Made]| VerifyingKey::from_text(jwk(x5c).as_bytes(), None);
            let key = read(&[&own, &other]).unwrap();
            assert_eq!(key.x5c().map(Certificate::der), Some(&own.der[..]), "{crv}");
            let again = VerifyingKey::from_text(Value::Object(key.jwk()).to_string().as_bytes(), None).unwrap();
            assert_eq!((again.x5c().map(Certificate::der), again.jwk()), (Some(&own.der[..]), key.jwk()));
            assert_eq!(read(&[&other, &own]).unwrap_err(), JwkError::X5cKey);
            assert_eq!(read(&[]).unwrap_err(), JwkError::Member("x5c"));
        }
    }

    #[test]
    fn an_x5c_certificate_is_bounded_before_it_is_parsed() {
        let own = made(&rcgen::PKCS_ECDSA_P256_SHA256);
        for (x5c, error) in [
            (json!(["A".repeat(TEXT_MAX + 4)]), JwkError::X5c),
            (json!(["AAAA"]), JwkError::X5c),
            (json!(["_-_-"]), JwkError::Member("x5c")),
            (json!("AAAA"), JwkError::Member("x5c")),
            (json!(null), JwkError::Member("x5c")),
        ] {
            let mut jwk = own.jwk.clone();
            jwk.insert("x5c".into(), x5c);
            assert_eq!(
                VerifyingKey::from_text(Value::Object(jwk.clone()).to_string().as_bytes(), None).unwrap_err(),
                error
            );
            // A DPoP proof is about the key alone (RFC 9449 section 4.2).
            assert!(VerifyingKey::from_jwk(&jwk, Some(SignatureAlg::Es256)).is_ok_and(|key| key.x5c().is_none()));
        }
    }

    struct Made {
        der: Vec<u8>,
        jwk: Object,
    }

    fn made(kind: &'static rcgen::SignatureAlgorithm) -> Made {
        let key = rcgen::KeyPair::generate_for(kind).unwrap();
        let pem = rcgen::PublicKeyData::subject_public_key_info(&key);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64_STANDARD.encode(pem));
        let der = rcgen::CertificateParams::default().self_signed(&key).unwrap().der().to_vec();
        Made { der, jwk: VerifyingKey::from_pem(pem.as_bytes(), None).unwrap().jwk() }
    }
}

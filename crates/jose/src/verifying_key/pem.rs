//! A public key in PEM (RFC 7468 section 13), as administrators have it, turned into the JWK that it is.

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::Jwk;
use serde_json::Value;

use super::JwkError;
use crate::json::Object;

/// The JWK of one key. White space and comment lines around it do not matter; its label does, and what it holds.
pub(super) fn jwk(pem: &[u8]) -> Result<Object, JwkError> {
    let text = std::str::from_utf8(pem).map_err(|_| JwkError::Pem)?;
    if text.contains("PRIVATE KEY-----") {
        return Err(JwkError::PrivatePem);
    }
    if CERTIFICATES.into_iter().any(|label| text.contains(label)) {
        return Err(JwkError::CertificatePem);
    }
    // Before it may stand a byte order mark, or the attributes that `openssl pkcs12` prints.
    let text = text.find("-----BEGIN ").and_then(|at| text.get(at..)).unwrap_or(text);
    let pem = text.as_bytes();
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

const CERTIFICATES: [&str; 2] = ["-----BEGIN CERTIFICATE-----", "-----BEGIN TRUSTED CERTIFICATE-----"];

const PEM_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RsaKeyPair,
    };
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;

    use super::*;
    use crate::signature_alg::SignatureAlg;
    use crate::verifying_key::VerifyingKey;

    fn pem(der: &[u8]) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64_STANDARD.encode(der))
    }

    #[test]
    fn a_pem_key_is_the_same_key_however_it_is_wrapped() {
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let ed = Ed25519KeyPair::generate().unwrap();
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let p256_der: PublicKeyX509Der<'_> = ec.public_key().as_der().unwrap();
        let ed_der: PublicKeyX509Der<'_> = ed.public_key().as_der().unwrap();
        let rsa_der: PublicKeyX509Der<'_> = rsa.public_key().as_der().unwrap();
        let signature = ed.sign(b"text");
        for (der, alg) in [
            (p256_der.as_ref(), SignatureAlg::Es256),
            (ed_der.as_ref(), SignatureAlg::EdDsa),
            (rsa_der.as_ref(), SignatureAlg::Ps384),
        ] {
            let text = pem(der);
            let key = VerifyingKey::from_pem(text.as_bytes(), None).unwrap();
            assert!(key.takes(alg) && key.kid().is_none());
            assert_eq!(key.verifies(alg, b"text", signature.as_ref()), alg == SignatureAlg::EdDsa);
            let wrapped = [
                format!("  \n{text}"),
                text.replace('\n', "\r\n"),
                format!("\u{feff}{text}"),
                format!("# mine\n{text}# end\n"),
                format!("Bag Attributes\n    friendlyName: mine\n{text}"),
            ];
            for wrapped in wrapped {
                let again = VerifyingKey::from_pem(wrapped.as_bytes(), None).unwrap();
                assert_eq!(again.jkt(), key.jkt(), "{wrapped}");
            }
            assert_eq!(VerifyingKey::from_pem(format!("{text}{text}").as_bytes(), None).unwrap_err(), JwkError::Pem);
            assert_eq!(
                VerifyingKey::from_pem(text.replace("PUBLIC", "PRIVATE").as_bytes(), None).unwrap_err(),
                JwkError::PrivatePem
            );
            let certificate = text.replace("PUBLIC KEY", "CERTIFICATE");
            assert_eq!(VerifyingKey::from_pem(certificate.as_bytes(), None).unwrap_err(), JwkError::CertificatePem);
        }
        let rs256 = VerifyingKey::from_pem(pem(rsa_der.as_ref()).as_bytes(), Some(SignatureAlg::Rs256)).unwrap();
        assert_eq!(rs256.alg(), Some(SignatureAlg::Rs256));
    }

    #[test]
    fn a_text_that_is_no_supported_public_key_is_refused() {
        let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let p384: PublicKeyX509Der<'_> = p384.public_key().as_der().unwrap();
        let key = VerifyingKey::from_pem(pem(p384.as_ref()).as_bytes(), None).unwrap();
        assert_eq!(key.alg(), Some(SignatureAlg::Es384));
        for text in ["", "hello", &pem(b""), &pem(b"hello"), &pem(&[0x30; 2000]), &pem(&[0; 4000])] {
            assert_eq!(VerifyingKey::from_pem(text.as_bytes(), None).unwrap_err(), JwkError::Pem, "{text}");
        }
        assert_eq!(VerifyingKey::from_pem(b"\xff", None).unwrap_err(), JwkError::Pem);
    }
}

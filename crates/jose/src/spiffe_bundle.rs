//! Trust bundles of SPIFFE (SPIFFE Trust Domain and Bundle section 4): a JWK Set with the keys of JWT-SVIDs, the CAs of
//! X.509-SVIDs, and hints when to fetch it again.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::certificate::Certificate;
use super::certificate::path::TrustAnchors;
use super::json::{self, Object};
use super::jwk_set::{JwkSet, KeyUse, Skipped};
use super::verifying_key::{JwkError, VerifyingKey};

/// The bundle of one trust domain.
#[derive(Debug, Default)]
pub struct SpiffeBundle {
    /// `spiffe_sequence`: a bundle with a lower number is an older one.
    pub sequence: Option<u64>,
    /// `spiffe_refresh_hint`, in seconds.
    pub refresh_hint: Option<u64>,
    /// The keys of JWT-SVIDs.
    pub jwt_keys: Vec<VerifyingKey>,
    /// The CAs of X.509-SVIDs.
    pub x509_authorities: TrustAnchors,
    /// Keys and CAs that cannot be used. Entries of another `use` are ignored.
    pub skipped: Vec<Skipped>,
}

impl SpiffeBundle {
    /// Reads a bundle of at most `most` entries.
    ///
    /// Section 4.1.3: an empty `keys` means that all earlier keys are revoked, so it is a bundle like others.
    ///
    /// # Errors
    /// [`JwkError`] when it is no bundle, or too large.
    pub fn parse(text: &[u8], most: usize) -> Result<Self, JwkError> {
        let JwkSet { keys: jwt_keys, mut skipped } = JwkSet::parse_for(text, KeyUse::JwtSvid, most)?;
        skipped.retain(|entry| entry.why != JwkError::Use);
        let document = json::object(text)?;
        let mut authorities = Vec::new();
        let entries = document.get("keys").and_then(Value::as_array).into_iter().flatten();
        for (at, jwk) in entries.enumerate().filter(|(_, jwk)| jwk.get("use").is_some_and(|what| what == "x509-svid")) {
            match authority(jwk) {
                Ok(der) => authorities.push(der),
                Err(why) => skipped.push(Skipped { at, why }),
            }
        }
        let x509_authorities = TrustAnchors::new(authorities.iter().map(Vec::as_slice));
        Ok(Self {
            sequence: number(&document, "spiffe_sequence")?,
            refresh_hint: number(&document, "spiffe_refresh_hint")?,
            jwt_keys,
            x509_authorities: x509_authorities.map_err(|_| JwkError::SpiffeAuthority)?,
            skipped,
        })
    }
}

/// A member that is a whole number, if it is there.
fn number(document: &Object, name: &'static str) -> Result<Option<u64>, JwkError> {
    document.get(name).map(|value| value.as_u64().ok_or(JwkError::Member(name))).transpose()
}

/// X.509-SVID section 6.1: "the x5c parameter … MUST contain exactly one" certificate.
fn authority(jwk: &Value) -> Result<Vec<u8>, JwkError> {
    let Some(Value::Array(chain)) = jwk.get("x5c") else { return Err(JwkError::SpiffeAuthority) };
    let [Value::String(certificate)] = chain.as_slice() else { return Err(JwkError::SpiffeAuthority) };
    if certificate.len() > Certificate::MAX_DER.div_ceil(3) * 4 {
        return Err(JwkError::SpiffeAuthority);
    }
    let der = BASE64_STANDARD.decode(certificate).map_err(|_| JwkError::SpiffeAuthority)?;
    TrustAnchors::new([der.as_slice()]).map_err(|_| JwkError::SpiffeAuthority)?;
    Ok(der)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use serde_json::json;

    use super::*;
    use crate::jwk::Alg;
    use crate::jws::SigningKey;

    fn jwt_entry() -> Value {
        let mut jwk = SigningKey::generate(Alg::Es256).unwrap().0.published();
        jwk["use"] = "jwt-svid".into();
        jwk.as_object_mut().unwrap().remove("alg");
        jwk
    }

    fn certificate(is_ca: bool) -> String {
        let mut params = CertificateParams::default();
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        BASE64_STANDARD.encode(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    fn x509_entry(certificates: &[String]) -> Value {
        json!({"kty": "EC", "use": "x509-svid", "crv": "P-256", "x": "AA", "y": "AA", "x5c": certificates})
    }

    fn read(document: &Value) -> Result<SpiffeBundle, JwkError> {
        SpiffeBundle::parse(document.to_string().as_bytes(), 8)
    }

    #[test]
    fn keys_and_authorities_are_told_apart_by_use() {
        let (key, mut signing) = (jwt_entry(), jwt_entry());
        signing["use"] = "sig".into();
        let bundle = read(&json!({
            "keys": [key, x509_entry(&[certificate(true)]), signing, {"kty": "EC"}, {"kty": "X", "use": "jwt-svid"}],
            "spiffe_sequence": 7,
            "spiffe_refresh_hint": 300,
        }))
        .unwrap();
        assert_eq!((bundle.sequence, bundle.refresh_hint), (Some(7), Some(300)));
        assert_eq!(bundle.jwt_keys.iter().map(VerifyingKey::kid).collect::<Vec<_>>(), [key["kid"].as_str()]);
        assert_eq!(bundle.x509_authorities.len(), 1);
        assert_eq!(bundle.skipped, [Skipped { at: 4, why: JwkError::Kty }]);
    }

    #[test]
    fn an_authority_is_one_certificate_of_a_ca() {
        for chain in [vec![], vec![certificate(false)], vec![certificate(true), certificate(true)], vec!["AAAA".into()]]
        {
            let bundle = read(&json!({"keys": [x509_entry(&chain)]})).unwrap();
            assert!(bundle.x509_authorities.is_empty());
            assert_eq!(bundle.skipped, [Skipped { at: 0, why: JwkError::SpiffeAuthority }]);
        }
    }

    #[test]
    fn an_empty_bundle_is_one_and_a_document_without_keys_is_none() {
        let empty = read(&json!({"keys": []})).unwrap();
        assert!(empty.jwt_keys.is_empty() && empty.x509_authorities.is_empty() && empty.sequence.is_none());
        assert_eq!(read(&json!({})).unwrap_err(), JwkError::Member("keys"));
        assert_eq!(read(&json!({"keys": [1]})).unwrap_err(), JwkError::Member("keys"));
        assert_eq!(read(&json!({"keys": vec![json!({}); 9]})).unwrap_err(), JwkError::SetSize);
        for wrong in [json!("1"), json!(-1), json!(1.5), json!(null)] {
            let (sequence, hint) =
                (json!({"keys": [], "spiffe_sequence": wrong}), json!({"keys": [], "spiffe_refresh_hint": wrong}));
            assert_eq!(read(&sequence).unwrap_err(), JwkError::Member("spiffe_sequence"), "{wrong}");
            assert_eq!(read(&hint).unwrap_err(), JwkError::Member("spiffe_refresh_hint"), "{wrong}");
        }
    }
}

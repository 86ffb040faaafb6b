//! JWK Sets of others (RFC 7517 section 5): which keys of a set can be used, why the rest cannot, and which to try.

use serde_json::Value;

use super::json::{self, Object};
use super::signature_alg::SignatureAlg;
use super::verifying_key::{JwkError, VerifyingKey};

/// The keys of a set that can be used, and what became of the others.
#[derive(Debug)]
pub struct JwkSet {
    /// The usable keys, in the order of the set.
    pub keys: Vec<VerifyingKey>,
    /// The keys that cannot be used.
    pub skipped: Vec<Skipped>,
}

/// The `use` that the keys of a set declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// RFC 7517 section 4.2: `sig`, or none.
    Sig,
    /// SPIFFE Trust Domain and Bundle section 4.2.2: `jwt-svid`, which is required there.
    JwtSvid,
}

/// A key of a set that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// Its place in the set, from 0.
    pub at: usize,
    /// The reason.
    pub why: JwkError,
}

impl JwkSet {
    /// Reads a set of at most `most` keys.
    ///
    /// RFC 7517 section 5: "Implementations SHOULD ignore JWKs within a JWK Set that use "kty" (key type) values that
    /// are not understood by them, that are missing required members, or for which values are out of the supported
    /// ranges." They are [`Skipped`]; whoever registers keys by hand asks for a set in which none is.
    ///
    /// A private or a secret key is skipped too: whoever has read the set could sign with it. Keys may share a `kid`: RFC 7517
    /// section 4.5 says that they "SHOULD use distinct" ones, and those that can be used are tried one after the other.
    ///
    /// # Errors
    /// [`JwkError`] when it is no set, or too large.
    pub fn parse(text: &[u8], registered: Option<SignatureAlg>, most: usize) -> Result<Self, JwkError> {
        let read = |jwk: &Object| VerifyingKey::from_jwk(jwk, registered).and_then(|key| key.with_x5c(jwk));
        Self::read(text, most, read)
    }

    /// Reads a set of at most `most` keys that sign JWTs of one use. Keys of another use are [`Skipped`], and certificates
    /// are not read.
    ///
    /// # Errors
    /// [`JwkError`] when it is no set, or too large.
    pub fn parse_for(text: &[u8], key_use: KeyUse, most: usize) -> Result<Self, JwkError> {
        Self::read(text, most, |jwk| match key_use {
            KeyUse::Sig => VerifyingKey::from_jwk(jwk, None),
            KeyUse::JwtSvid if jwk.get("use").is_none_or(|what| what != "jwt-svid") => Err(JwkError::Use),
            KeyUse::JwtSvid => {
                let mut jwk = jwk.clone();
                jwk.remove("use");
                VerifyingKey::from_jwk(&jwk, None)
            }
        })
    }

    fn read(
        text: &[u8],
        most: usize,
        read_key: impl Fn(&Object) -> Result<VerifyingKey, JwkError>,
    ) -> Result<Self, JwkError> {
        let set = json::object(text)?;
        let Some(Value::Array(members)) = set.get("keys") else { return Err(JwkError::Member("keys")) };
        if members.len() > most {
            return Err(JwkError::SetSize);
        }
        let (mut keys, mut skipped): (Vec<VerifyingKey>, _) = (Vec::new(), Vec::new());
        for (at, member) in members.iter().enumerate() {
            let Value::Object(jwk) = member else { return Err(JwkError::Member("keys")) };
            match read_key(jwk) {
                // The same key again says nothing new.
                Ok(key) if keys.iter().any(|known| known.is_same(&key)) => {}
                Ok(key) => keys.push(key),
                Err(why) => skipped.push(Skipped { at, why }),
            }
        }
        Ok(Self { keys, skipped })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::jwk::Alg;
    use crate::jws::SigningKey;

    fn public(alg: Alg) -> Value {
        SigningKey::generate(alg).unwrap().0.published()
    }

    fn read(keys: &[Value]) -> Result<JwkSet, JwkError> {
        JwkSet::parse(json!({"keys": keys, "also": 1}).to_string().as_bytes(), None, 4)
    }

    #[test]
    fn usable_keys_are_used_and_the_rest_is_reported() {
        let (ec, ed) = (public(Alg::Es256), public(Alg::EdDsa));
        let other = json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"});
        let mut encrypts = public(Alg::Es256);
        encrypts["use"] = "enc".into();
        let set = read(&[ec.clone(), other, encrypts, ed.clone()]).unwrap();
        assert_eq!(
            set.keys.iter().map(VerifyingKey::kid).collect::<Vec<_>>(),
            [ec["kid"].as_str(), ed["kid"].as_str()]
        );
        assert_eq!(set.skipped, [Skipped { at: 1, why: JwkError::Kty }, Skipped { at: 2, why: JwkError::Use }]);
        assert!(read(&[]).unwrap().keys.is_empty());
    }

    #[test]
    fn private_and_secret_keys_are_skipped_and_keys_may_share_a_kid() {
        let (ec, mut other, mut ed) = (public(Alg::Es256), public(Alg::Es256), public(Alg::EdDsa));
        let secret = json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T"});
        let mut private = public(Alg::Es256);
        private["d"] = "yy49oPcINGK2ps0LmtxpB6UTEOiITghHBif6wDqmJ3c".into();
        let set = read(&[secret, ec.clone(), private]).unwrap();
        assert_eq!(set.keys.len(), 1);
        assert_eq!(
            set.skipped,
            [Skipped { at: 0, why: JwkError::Private("k") }, Skipped { at: 2, why: JwkError::Private("d") }]
        );
        (other["kid"], ed["kid"]) = (ec["kid"].clone(), ec["kid"].clone());
        let mut encrypts = ed.clone();
        encrypts["use"] = "enc".into();
        let set = read(&[ec.clone(), other.clone(), encrypts, ec.clone()]).unwrap();
        assert_eq!((set.keys.len(), set.skipped.len()), (2, 1), "the same key twice is one key");
        assert_eq!(read(&[ec, other, ed]).unwrap().keys.len(), 3);
    }

    #[test]
    fn the_keys_of_a_set_have_its_use() {
        let (plain, mut svid, mut x509) = (public(Alg::Es256), public(Alg::Es256), public(Alg::Es256));
        (svid["use"], x509["use"]) = ("jwt-svid".into(), "x509-svid".into());
        let mut none = public(Alg::Es256);
        none.as_object_mut().unwrap().remove("use");
        let text = json!({"keys": [plain, svid, x509, none]}).to_string();
        let kids = |key_use| {
            let set = JwkSet::parse_for(text.as_bytes(), key_use, 4).unwrap();
            set.keys.iter().map(|key| key.kid().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(kids(KeyUse::Sig), [plain["kid"].as_str().unwrap(), none["kid"].as_str().unwrap()]);
        assert_eq!(kids(KeyUse::JwtSvid), [svid["kid"].as_str().unwrap()]);
    }

    #[test]
    fn an_invalid_or_oversized_key_set_is_refused() {
        for text in ["{}", r#"{"keys":{}}"#, r#"{"keys":[1]}"#, r#"{"keys":null}"#] {
            assert_eq!(JwkSet::parse(text.as_bytes(), None, 4).unwrap_err(), JwkError::Member("keys"), "{text}");
        }
        assert!(matches!(JwkSet::parse(b"[]", None, 4), Err(JwkError::Json(_))));
        assert!(matches!(JwkSet::parse(br#"{"keys":[],"keys":[]}"#, None, 4), Err(JwkError::Json(_))));
        assert!(matches!(JwkSet::parse(br#"{"keys":[{"kty":"EC","kty":"RSA"}]}"#, None, 4), Err(JwkError::Json(_))));
        let five: Vec<Value> = (0..5).map(|_| public(Alg::EdDsa)).collect();
        assert_eq!(read(&five).unwrap_err(), JwkError::SetSize);
        assert_eq!(read(five.get(..4).unwrap()).unwrap().keys.len(), 4);
    }
}

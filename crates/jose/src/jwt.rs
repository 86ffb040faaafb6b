//! JWTs that we are sent (RFC 7515 compact form, RFC 7519, RFC 8725): one strict reading of what they say and who said it.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::json;
use super::verifying_key::{SIGNATURE_MAX, VerifyingKey};

mod claims;
mod error;
mod header;

pub use claims::{Audience, Claims};
pub use error::JoseError;
pub use header::{Header, Kind};

/// A JWT that is well formed. Nobody vouches for it until [`Unverified::verify`] gives its claims.
#[derive(Debug)]
pub struct Unverified<'a> {
    header: Header,
    signed: &'a str,
    claims: Claims,
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Reads a JWT of at most `longest` bytes that is to be of one `kind`. No key is looked at, and nothing is fetched.
    ///
    /// # Errors
    /// [`JoseError`].
    pub fn parse(jwt: &'a str, kind: Kind, longest: usize) -> Result<Self, JoseError> {
        if jwt.len() > longest {
            return Err(JoseError::TooLong);
        }
        let (signed, header, payload, signature) = parts(jwt)?;
        if signature.len() > SIGNATURE_TEXT_MAX {
            return Err(JoseError::NotCompact);
        }
        let header = Header::read(json::object(&decode(header)?).map_err(JoseError::Header)?, kind)?;
        let claims = Claims::new(json::object(&decode(payload)?).map_err(JoseError::Claims)?);
        Ok(Self { header, signed, claims, signature: decode(signature)? })
    }

    /// The claims, when the owner of `key` signed them, with an algorithm of that key.
    ///
    /// # Errors
    /// [`JoseError::OtherAlg`], [`JoseError::Signature`].
    pub fn verify(&self, key: &VerifyingKey) -> Result<&Claims, JoseError> {
        // RFC 8725 section 3.1: "Libraries MUST … not use any other algorithms when performing cryptographic operations."
        if !key.takes(self.header.alg()) {
            return Err(JoseError::OtherAlg);
        }
        if key.verifies(self.header.alg(), self.signed.as_bytes(), &self.signature) {
            Ok(&self.claims)
        } else {
            Err(JoseError::Signature)
        }
    }

    /// The claims to keep, when the owner of `key` signed them, with an algorithm of that key.
    ///
    /// # Errors
    /// [`JoseError::OtherAlg`], [`JoseError::Signature`].
    pub fn into_verified(self, key: &VerifyingKey) -> Result<Claims, JoseError> {
        self.verify(key)?;
        Ok(self.claims)
    }

    /// The claims, and which of these keys vouches for them: the one that `kid` names, or without a `kid` those of the
    /// right algorithm, of which a few are tried.
    ///
    /// # Errors
    /// [`JoseError::NoKey`], [`JoseError::OtherAlg`], [`JoseError::Signature`].
    pub fn verify_with_one_of<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k VerifyingKey>,
    ) -> Result<(&Claims, &'k VerifyingKey), JoseError> {
        let named = keys.into_iter().filter(|key| self.header.kid().is_none_or(|kid| key.is_called(kid)));
        let (mut fault, mut tried) = (JoseError::NoKey, 0);
        for key in named {
            if !self.header.may_be_by(key) {
                fault = if tried == 0 { JoseError::OtherAlg } else { fault };
                continue;
            }
            if tried == TRIED_MAX {
                break;
            }
            tried += 1;
            match self.verify(key) {
                Ok(claims) => return Ok((claims, key)),
                Err(error) => fault = error,
            }
        }
        Err(fault)
    }

    /// The claims, and the key in the header that vouches for them: whoever sent this holds that key, and no more is
    /// known of them. For DPoP proofs alone; no other kind has a `jwk` that is read (RFC 8725 section 3.10).
    ///
    /// # Errors
    /// [`JoseError::Jwk`], [`JoseError::Signature`].
    pub fn verify_with_own_key(&self) -> Result<(&Claims, VerifyingKey), JoseError> {
        let jwk = self.header.jwk().ok_or(JoseError::Member("jwk"))?;
        let key = VerifyingKey::from_jwk(jwk, Some(self.header.alg()))?;
        Ok((self.verify(&key)?, key))
    }

    /// The header, for which nobody vouches yet.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The claims, for which nobody vouches yet. They may say whose key to look for, and nothing else.
    #[must_use]
    pub fn claims_nobody_vouches_for(&self) -> &Claims {
        &self.claims
    }
}

/// Returns the signing input and the three parts of a JWS.
fn parts(jwt: &str) -> Result<(&str, &str, &str, &str), JoseError> {
    let mut dots = 0;
    for byte in jwt.bytes() {
        match byte {
            b'.' => dots += 1,
            // RFC 7515 section 2: "with all trailing '=' characters omitted … and without the inclusion of any line
            // breaks, whitespace, or other additional characters".
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            _ => return Err(JoseError::NotCompact),
        }
    }
    if dots == 4 {
        return Err(JoseError::Encrypted);
    }
    let (signed, signature) = jwt.rsplit_once('.').ok_or(JoseError::NotCompact)?;
    let (header, payload) = signed.split_once('.').ok_or(JoseError::NotCompact)?;
    if dots != 2 || header.is_empty() || payload.is_empty() || signature.is_empty() {
        return Err(JoseError::NotCompact);
    }
    Ok((signed, header, payload, signature))
}

fn decode(part: &str) -> Result<Vec<u8>, JoseError> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| JoseError::Base64)
}

/// How many keys of the right algorithm are tried when none is named.
pub const TRIED_MAX: usize = 8;

const SIGNATURE_TEXT_MAX: usize = SIGNATURE_MAX.div_ceil(3) * 4;

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        RSA_PKCS1_SHA256, RsaKeyPair,
    };
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::json::JsonError;
    use crate::jwk::Alg;
    use crate::jws::SigningKey;
    use crate::signature_alg::SignatureAlg;

    const LONGEST: usize = 8192;

    /// A client's key: its private half as a document, its public half as we hold it.
    struct Signer(Vec<u8>, Value);

    impl Signer {
        fn new(alg: Alg) -> Self {
            let (key, document) = SigningKey::generate(alg).unwrap();
            Self(document.to_vec(), key.published())
        }

        fn key(&self) -> VerifyingKey {
            VerifyingKey::from_text(self.1.to_string().as_bytes(), None).unwrap()
        }

        fn sign(&self, header: &Value, claims: &str) -> String {
            self.sign_text(&header.to_string(), claims)
        }

        fn sign_text(&self, header: &str, claims: &str) -> String {
            let signed = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(claims));
            let (random, message) = (SystemRandom::new(), signed.as_bytes());
            let signature = match self.1["kty"].as_str().unwrap() {
                "EC" => {
                    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.0).unwrap();
                    pair.sign(&random, message).unwrap().as_ref().to_vec()
                }
                "OKP" => Ed25519KeyPair::from_pkcs8(&self.0).unwrap().sign(message).as_ref().to_vec(),
                _ => {
                    let pair = RsaKeyPair::from_pkcs8(&self.0).unwrap();
                    let mut signature = vec![0; pair.public_modulus_len()];
                    pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                    signature
                }
            };
            format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
        }
    }

    fn parse(jwt: &str) -> Result<Unverified<'_>, JoseError> {
        Unverified::parse(jwt, Kind::ClientAssertion, LONGEST)
    }

    fn verdict(jwt: &str, key: &VerifyingKey) -> Result<(), JoseError> {
        parse(jwt)?.verify(key).map(drop)
    }

    #[test]
    fn only_canonical_compact_serialization_is_parsed() {
        let signer = Signer::new(Alg::EdDsa);
        let (key, jwt) = (signer.key(), signer.sign(&json!({"alg": "EdDSA"}), r#"{"sub":"pk"}"#));
        assert_eq!(verdict(&jwt, &key), Ok(()));
        assert_eq!(parse(&jwt).unwrap().claims_nobody_vouches_for().string("sub", 9), Ok(Some("pk")));
        let parts: Vec<&str> = jwt.split('.').collect();
        let (head, body, tail) = (parts[0], parts[1], parts[2]);
        for bad in [
            format!(" {jwt}"),
            format!("{jwt}\n"),
            format!("{jwt}="),
            format!("{head}=.{body}.{tail}"),
            format!("{head}. {body}.{tail}"),
            format!("{head}.{body}"),
            format!("{jwt}.{tail}"),
            format!("..{tail}"),
            format!("{head}..{tail}"),
            format!("{head}.{body}."),
            json!({"payload": body, "protected": head, "signature": tail}).to_string(),
            "\u{e9}.a.b".into(),
            String::new(),
            "..".into(),
            format!("{head}.{body}.{}", "A".repeat(SIGNATURE_TEXT_MAX + 1)),
            ".".repeat(LONGEST),
            jwt.replace('-', "+") + "/",
        ] {
            assert_eq!(verdict(&bad, &key), Err(JoseError::NotCompact), "{bad}");
        }
        // 64 octets leave four bits in the last of 86 characters.
        let loose = format!("{}{}", &jwt[..jwt.len() - 1], if jwt.ends_with('A') { 'B' } else { 'f' });
        assert_eq!(verdict(&loose, &key), Err(JoseError::Base64));
        assert_eq!(verdict("a.b.c.d.e", &key), Err(JoseError::Encrypted));
        assert_eq!(verdict("....", &key), Err(JoseError::Encrypted));
        assert_eq!(verdict(&"a".repeat(LONGEST + 1), &key), Err(JoseError::TooLong));
        assert_eq!(Unverified::parse(&jwt, Kind::ClientAssertion, jwt.len() - 1).unwrap_err(), JoseError::TooLong);
    }

    #[test]
    fn duplicate_header_members_and_claims_are_refused() {
        let signer = Signer::new(Alg::Es256);
        for header in [
            r#"{"alg":"ES256","alg":"ES256"}"#,
            r#"{"alg":"ES256","typ":"JWT","typ":"JWT"}"#,
            r#"{"alg":"ES256","\u0061lg":"none"}"#,
        ] {
            assert_eq!(
                parse(&signer.sign_text(header, "{}")).unwrap_err(),
                JoseError::Header(JsonError::Duplicate),
                "{header}"
            );
        }
        for claims in [
            r#"{"aud":"a","aud":"a"}"#,
            r#"{"sub":"a","sub":"b"}"#,
            r#"{"jti":"a","jti":"a"}"#,
            r#"{"cnf":{"jkt":"a","jkt":"a"}}"#,
        ] {
            assert_eq!(
                parse(&signer.sign(&json!({"alg": "ES256"}), claims)).unwrap_err(),
                JoseError::Claims(JsonError::Duplicate),
                "{claims}"
            );
        }
        for claims in ["[]", "\"a\"", "foo", ""] {
            assert!(parse(&signer.sign(&json!({"alg": "ES256"}), claims)).is_err(), "{claims}");
        }
    }

    #[test]
    fn a_signature_verifies_only_under_the_algorithm_of_the_key() {
        let signers = [Signer::new(Alg::Es256), Signer::new(Alg::EdDsa), Signer::new(Alg::Rs256)];
        for signer in &signers {
            let key = signer.key();
            for name in ["ES256", "EdDSA", "Ed25519", "PS256", "RS256"] {
                let jwt = signer.sign(&json!({"alg": name}), r#"{"sub":"a"}"#);
                let expected = if SignatureAlg::named(name) == key.alg() { Ok(()) } else { Err(JoseError::OtherAlg) };
                assert_eq!(verdict(&jwt, &key), expected, "{name} by {key:?}");
            }
        }
        // RFC 7515 section 4.1.1 lets a MAC be named; no key here can be a MAC's, whatever text of it is the secret.
        let key = signers[0].key();
        let texts = [
            signers[0].1.to_string(),
            signers[0].1["x"].as_str().unwrap().into(),
            Value::Object(key.jwk()).to_string(),
        ];
        for (secret, name) in texts.iter().flat_map(|text| ["HS256", "HS384", "HS512"].map(|name| (text, name))) {
            let signed = format!("{}.e30", BASE64_URL_SAFE_NO_PAD.encode(json!({"alg": name}).to_string()));
            let mac = aws_lc_rs::hmac::sign(
                &aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes()),
                signed.as_bytes(),
            );
            assert_eq!(verdict(&format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac)), &key), Err(JoseError::Alg));
        }
    }

    #[test]
    fn an_es256_signature_is_64_octets_with_r_and_s_in_range() {
        let signer = Signer::new(Alg::Es256);
        let jwt = signer.sign(&json!({"alg": "ES256"}), "{}");
        let (input, good) = jwt.rsplit_once('.').unwrap();
        let good = BASE64_URL_SAFE_NO_PAD.decode(good).unwrap();
        let der = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &signer.0)
            .unwrap()
            .sign(&SystemRandom::new(), input.as_bytes())
            .unwrap();
        let order = BASE64_URL_SAFE_NO_PAD.decode("_____wAAAAD__________7zm-q2nF56E87nKwvxjJVE").unwrap();
        let (r, s, zero, ones) = (&good[..32], &good[32..], [0; 32], [0xff; 32]);
        let mut one = zero;
        one[31] = 1;
        let hostile: Vec<Vec<u8>> = vec![
            der.as_ref().to_vec(),
            [zero, zero].concat(),
            [r, &zero].concat(),
            [&zero, s].concat(),
            [&order, s].concat(),
            [r, &order].concat(),
            [ones, ones].concat(),
            [one, one].concat(),
            [one, zero].concat(),
            [&order[..], &order].concat(),
            good[..63].to_vec(),
            [&good[..], &[0]].concat(),
            [&[0][..], &good].concat(),
            [s, r].concat(),
            vec![0],
            [&zero[..], r, &zero, s].concat(),
        ];
        for signature in hostile {
            let jwt = format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(&signature));
            assert_eq!(verdict(&jwt, &signer.key()), Err(JoseError::Signature), "{signature:?}");
        }
        assert_eq!(verdict(&jwt, &signer.key()), Ok(()));
    }

    #[test]
    fn the_key_named_by_kid_or_a_bounded_number_of_candidates_is_tried() {
        let (a, b, ed) = (Signer::new(Alg::Es256), Signer::new(Alg::Es256), Signer::new(Alg::EdDsa));
        let keys = [ed.key(), a.key(), b.key()];
        let who = |jwt: &str| parse(jwt).unwrap().verify_with_one_of(&keys).map(|(_, key)| key.jkt().to_owned());
        let named = |kid: &str| json!({"alg": "ES256", "kid": kid});
        assert_eq!(who(&b.sign(&json!({"alg": "ES256"}), "{}")), Ok(keys[2].jkt().into()));
        assert_eq!(who(&b.sign(&named(keys[2].jkt()), "{}")), Ok(keys[2].jkt().into()));
        assert_eq!(who(&b.sign(&named(keys[1].jkt()), "{}")), Err(JoseError::Signature));
        assert_eq!(who(&b.sign(&named(keys[0].jkt()), "{}")), Err(JoseError::OtherAlg));
        assert_eq!(who(&b.sign(&named("' OR 1=1--"), "{}")), Err(JoseError::NoKey));
        assert_eq!(who(&Signer::new(Alg::Es256).sign(&json!({"alg": "ES256"}), "{}")), Err(JoseError::Signature));
        assert_eq!(
            parse(&a.sign(&json!({"alg": "ES256"}), "{}")).unwrap().verify_with_one_of([]).unwrap_err(),
            JoseError::NoKey
        );
        let many: Vec<VerifyingKey> = (0..TRIED_MAX).map(|_| Signer::new(Alg::Es256).key()).chain([a.key()]).collect();
        assert_eq!(
            parse(&a.sign(&json!({"alg": "ES256"}), "{}")).unwrap().verify_with_one_of(&many).unwrap_err(),
            JoseError::Signature
        );
    }

    #[test]
    fn access_tokens_and_dpop_proofs_are_refused_as_client_assertions() {
        let (own, _) = SigningKey::generate(Alg::Es256).unwrap();
        let token = own.sign(br#"{"sub":"a"}"#).unwrap();
        let key = VerifyingKey::from_text(own.published().to_string().as_bytes(), None).unwrap();
        assert!(Unverified::parse(&token, Kind::AccessToken, LONGEST).unwrap().verify(&key).is_ok());
        for kind in [Kind::ClientAssertion, Kind::DpopProof] {
            assert_eq!(Unverified::parse(&token, kind, LONGEST).unwrap_err(), JoseError::Typ);
        }
        let signer = Signer::new(Alg::Es256);
        let assertion = signer.sign(&json!({"alg": "ES256", "typ": "JWT"}), "{}");
        assert_eq!(Unverified::parse(&assertion, Kind::DpopProof, LONGEST).unwrap_err(), JoseError::Typ);
        assert_eq!(parse(&assertion).unwrap().verify_with_own_key().unwrap_err(), JoseError::Member("jwk"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), parts in "[A-Za-z0-9_-]{0,20}\\.[A-Za-z0-9_-]{0,20}\\.[A-Za-z0-9_-]{0,90}") {
            for text in [text, parts] {
                prop_assert!(parse(&text).is_err());
            }
        }

        #[test]
        fn no_altered_byte_is_accepted(at in any::<proptest::sample::Index>(), to in 0u8..128, ed in any::<bool>()) {
            let alg = if ed { Alg::EdDsa } else { Alg::Es256 };
            let signer = Signer::new(alg);
            let jwt = signer.sign(&json!({"alg": alg.as_str(), "typ": "JWT"}), r#"{"iss":"pk","sub":"pk","exp":1700000000}"#);
            let mut altered = jwt.clone().into_bytes();
            let at = at.index(altered.len());
            prop_assume!(altered[at] != to);
            altered[at] = to;
            prop_assert!(verdict(std::str::from_utf8(&altered).unwrap(), &signer.key()).is_err());
        }
    }
}

//! Public keys of others, to verify with: a JWK (RFC 7517, RFC 7518 section 6, RFC 8037) read strictly, parsed once, held.

use std::fmt;
use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::signature::ParsedPublicKey;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::jwk::{CommonParameters, Jwk, ThumbprintHash};
use serde_json::Value;

use super::certificate::Certificate;
use super::json::{self, JsonError, Object};
use super::signature_alg::SignatureAlg;

mod material;
mod pem;
mod weak;
mod x5c;

use material::text;

/// A public key with the algorithms that it verifies: the one that it names or that was registered, since "each key MUST be
/// used with exactly one algorithm" (RFC 8725 section 3.1); for an RSA key that names none, those that go with RSA, as the
/// key sets of directories are published.
pub struct VerifyingKey {
    /// Each parsed when it is first needed, but for the first.
    algs: Box<[(SignatureAlg, OnceLock<ParsedPublicKey>)]>,
    kid: Option<String>,
    jkt: String,
    public: Jwk,
    x5c: Option<Box<Certificate>>,
}

/// Reasons for refusing a key. No message quotes the key.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum JwkError {
    /// Not JSON as we read it.
    #[error("the JWK is {0}")]
    Json(#[from] JsonError),
    /// A member is missing, has the wrong type, or is not base64url of the right length.
    #[error("the JWK's member {0} is missing or malformed")]
    Member(&'static str),
    /// RFC 9449 section 4.3: "does not contain a private key". No key that we are sent may.
    #[error("the JWK has the private or secret member {0}: send the public key only, and replace the one you sent")]
    Private(&'static str),
    /// As [`JwkError::Private`], in PEM.
    #[error("this is a private key: send the public key only, and replace the one you sent")]
    PrivatePem,
    /// A certificate in PEM, where a key is wanted.
    #[error(
        "this is a certificate, and a public key is wanted; `openssl x509 -in FILE -pubkey -noout` prints the key in it, and `grantd client cert add` registers certificates"
    )]
    CertificatePem,
    /// Not one public key in PEM.
    #[error("no public key found; expected one in PEM, as `openssl pkey -pubout` writes it")]
    Pem,
    /// `oct` among them: nothing here verifies with a shared secret.
    #[error("kty is one of EC, OKP, RSA")]
    Kty,
    /// The curve is none of ours, or of another kty.
    #[error("crv is P-256 or P-384 for EC and Ed25519 for OKP")]
    Crv,
    /// `alg` is none of ours, or does not go with the key.
    #[error(
        "alg is ES256 for P-256, ES384 for P-384, EdDSA or Ed25519 for OKP, one of PS256, PS384, PS512, RS256, RS384, RS512 for RSA"
    )]
    Alg,
    /// The algorithm that was registered is another than the key names.
    #[error("the JWK's alg is another than the one registered")]
    OtherAlg,
    /// RFC 7517 section 4.2.
    #[error("use is another than sig")]
    Use,
    /// RFC 7517 section 4.3.
    #[error("key_ops does not hold verify, or repeats a value")]
    KeyOps,
    /// Empty, too long, or with control characters.
    #[error("kid is a text of 1 to 256 bytes without control characters")]
    Kid,
    /// RFC 7518 section 3.3: "A key of size 2048 bits or larger MUST be used". Larger than 4096 costs too much.
    #[error("an RSA key has 2048 to 4096 bits")]
    RsaSize,
    /// Every exponent but 65537 is refused.
    #[error("an RSA key has the public exponent 65537")]
    RsaExponent,
    /// An even modulus, or one from a generator that is known to be broken (ROCA, CVE-2017-15361).
    #[error("the RSA modulus is even or comes from a broken generator (ROCA)")]
    RsaWeak,
    /// RFC 7518 section 6.2.1: the coordinates are no point of the curve.
    #[error("the coordinates are no point of the curve")]
    Point,
    /// A point of small order: everyone can sign for it.
    #[error("the Ed25519 key is a point of small order or not in its one encoding")]
    Ed25519Weak,
    /// RFC 7517 section 4.7.
    #[error("x5c begins with what is no certificate that is taken: DER in base64, at most 16 KiB, a key as in a JWK")]
    X5c,
    /// RFC 7517 section 4.7: "The key in the first certificate MUST match the public key" of the JWK.
    #[error("the first certificate of x5c is about another key")]
    X5cKey,
    /// SPIFFE Trust Domain and Bundle section 4.2.2: "exactly one" certificate, of a CA.
    #[error("x5c of an X.509 authority has exactly one certificate, a CA's, in base64")]
    SpiffeAuthority,
    /// More keys than we read.
    #[error("the JWK Set has too many keys")]
    SetSize,
}

impl VerifyingKey {
    /// Reads a JWK from its text, with its certificate.
    ///
    /// # Errors
    /// [`JwkError`], saying what to send instead.
    pub fn from_text(text: &[u8], registered: Option<SignatureAlg>) -> Result<Self, JwkError> {
        let jwk = json::object(text)?;
        Self::from_jwk(&jwk, registered)?.with_x5c(&jwk)
    }

    /// Reads a public key in PEM. It has no `kid`.
    ///
    /// # Errors
    /// [`JwkError`], saying what to send instead.
    pub fn from_pem(pem: &[u8], registered: Option<SignatureAlg>) -> Result<Self, JwkError> {
        Self::from_jwk(&pem::jwk(pem)?, registered)
    }

    /// Reads a JWK that the strict reader has read, without its certificate. The algorithm is the JWK's own, else the one
    /// registered, else any that goes with the key.
    ///
    /// # Errors
    /// [`JwkError`], saying what to send instead.
    pub fn from_jwk(jwk: &Object, registered: Option<SignatureAlg>) -> Result<Self, JwkError> {
        if let Some(member) = PRIVATE.into_iter().find(|member| jwk.contains_key(*member)) {
            return Err(JwkError::Private(member));
        }
        let kid = kid(jwk)?;
        honours_use(jwk)?;
        let fitting: &[SignatureAlg] = match text(jwk, "kty")? {
            "EC" => material::curve(jwk)?,
            "OKP" => &[SignatureAlg::EdDsa],
            "RSA" => &SignatureAlg::OF_RSA,
            _ => return Err(JwkError::Kty),
        };
        let named = match given(jwk, "alg") {
            None => None,
            Some(alg) => Some(alg.as_str().and_then(SignatureAlg::named).ok_or(JwkError::Alg)?),
        };
        if named.is_some() && registered.is_some() && named != registered {
            return Err(JwkError::OtherAlg);
        }
        let algs: &[SignatureAlg] = match named.or(registered) {
            None => fitting,
            Some(alg) => fitting.iter().find(|one| **one == alg).map(std::slice::from_ref).ok_or(JwkError::Alg)?,
        };
        let first = *algs.first().ok_or(JwkError::Alg)?;
        let (parsed, algorithm) = match first {
            SignatureAlg::Es256 => material::p256(jwk)?,
            SignatureAlg::Es384 => material::p384(jwk)?,
            SignatureAlg::EdDsa => material::okp(jwk)?,
            _ => material::rsa(jwk, first)?,
        };
        let mut algs: Box<[_]> = algs.iter().map(|alg| (*alg, OnceLock::new())).collect();
        if let Some((_, slot)) = algs.first_mut() {
            *slot = parsed.into();
        }
        let public = Jwk { common: CommonParameters::default(), algorithm };
        let jkt = public.thumbprint(ThumbprintHash::SHA256).map_err(|_| JwkError::Kty)?;
        Ok(Self { algs, kid: kid.map(str::to_owned), jkt, public, x5c: None })
    }

    /// The key with the certificate that its `jwk` has, if any.
    ///
    /// # Errors
    /// [`JwkError`] when that is none, or about another key.
    pub fn with_x5c(self, jwk: &Object) -> Result<Self, JwkError> {
        Ok(Self { x5c: x5c::certificate(jwk, &self)?, ..self })
    }

    /// The certificate about this key that came with it. It may prove who has a connection, and nothing else.
    #[must_use]
    pub fn x5c(&self) -> Option<&Certificate> {
        self.x5c.as_deref()
    }

    /// Whether this key's owner signed `message` by `alg`. RFC 7518 section 3.4: an ECDSA signature is R and S, no DER.
    #[must_use]
    pub fn verifies(&self, alg: SignatureAlg, message: &[u8], signature: &[u8]) -> bool {
        let length_fits = match alg {
            SignatureAlg::Es256 | SignatureAlg::EdDsa => signature.len() == 64,
            SignatureAlg::Es384 => signature.len() == 96,
            _ => signature.len() <= SIGNATURE_MAX,
        };
        let Some((_, slot)) = self.algs.iter().find(|(own, _)| *own == alg) else { return false };
        length_fits && self.parsed(alg, slot).is_some_and(|parsed| parsed.verify_sig(message, signature).is_ok())
    }

    fn parsed<'k>(&self, alg: SignatureAlg, slot: &'k OnceLock<ParsedPublicKey>) -> Option<&'k ParsedPublicKey> {
        if let Some(parsed) = slot.get() {
            return Some(parsed);
        }
        let parsed = material::rsa(&self.jwk(), alg).ok()?.0;
        Some(slot.get_or_init(|| parsed))
    }

    /// The algorithms that it verifies; one, unless it is an RSA key that names none.
    pub fn algs(&self) -> impl Iterator<Item = SignatureAlg> + '_ {
        self.algs.iter().map(|(alg, _)| *alg)
    }

    /// Whether it verifies what is signed by `alg`.
    #[must_use]
    pub fn takes(&self, alg: SignatureAlg) -> bool {
        self.algs().any(|own| own == alg)
    }

    /// The algorithm that it is bound to, if it is bound to one.
    #[must_use]
    pub fn alg(&self) -> Option<SignatureAlg> {
        self.algs().next().filter(|_| self.algs.len() == 1)
    }

    /// Its algorithms as text, for people.
    #[must_use]
    pub fn alg_text(&self) -> String {
        self.algs().map(SignatureAlg::as_str).collect::<Vec<_>>().join(" ")
    }

    /// The id that its owner gave it.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether a header's `kid` can mean this key: by its own id, by its thumbprint, or because it came without an id.
    #[must_use]
    pub fn is_called(&self, kid: &str) -> bool {
        self.kid.as_deref().is_none_or(|own| own == kid) || self.jkt == kid
    }

    /// Whether it is the same key for the same use.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.jkt == other.jkt && self.kid == other.kid && self.algs().eq(other.algs())
    }

    /// The RFC 7638 SHA-256 thumbprint, as in `cnf.jkt` of a token bound to this key.
    #[must_use]
    pub fn jkt(&self) -> &str {
        &self.jkt
    }

    /// The key in PEM (RFC 7468 section 13). `None` when the library cannot encode it.
    #[must_use]
    pub fn pem(&self) -> Option<String> {
        let (alg, slot) = self.algs.first()?;
        let der: PublicKeyX509Der<'_> = self.parsed(*alg, slot)?.as_der().ok()?;
        let text = BASE64_STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        Some(format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n")))
    }

    /// The key as we store it: its own members, `use`, `alg`, and its `kid` and certificate, if it has them. Reads as the
    /// same key again.
    #[must_use]
    pub fn jwk(&self) -> Object {
        let mut members = match serde_json::to_value(&self.public) {
            Ok(Value::Object(members)) => members,
            _ => Object::new(),
        };
        members.insert("use".into(), "sig".into());
        if let Some(alg) = self.alg() {
            members.insert("alg".into(), alg.as_str().into());
        }
        if let Some(kid) = &self.kid {
            members.insert("kid".into(), kid.as_str().into());
        }
        if let Some(certificate) = &self.x5c {
            members.insert("x5c".into(), x5c::text(certificate));
        }
        members
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({} {})", self.alg_text(), self.jkt)
    }
}

/// An optional member. One that is null or empty, as some libraries write it, says nothing.
fn given<'a>(members: &'a Object, name: &str) -> Option<&'a Value> {
    members.get(name).filter(|value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    })
}

/// A key id within its bounds; hostile input until it is compared (RFC 8725 section 3.10).
pub(super) fn kid(members: &Object) -> Result<Option<&str>, JwkError> {
    match given(members, "kid") {
        None => Ok(None),
        Some(Value::String(kid)) if (1..=KID_MAX).contains(&kid.len()) && !kid.contains(char::is_control) => {
            Ok(Some(kid))
        }
        Some(_) => Err(JwkError::Kid),
    }
}

fn honours_use(jwk: &Object) -> Result<(), JwkError> {
    if given(jwk, "use").is_some_and(|what| what != "sig") {
        return Err(JwkError::Use);
    }
    // RFC 7517 section 4.3: "Duplicate key operation values MUST NOT be present in the array."
    match given(jwk, "key_ops") {
        None => Ok(()),
        Some(Value::Array(ops)) if ops.iter().filter(|op| *op == "verify").count() == 1 => {
            let distinct = ops
                .iter()
                .enumerate()
                .all(|(at, op)| op.is_string() && !ops.iter().skip(at + 1).any(|other| other == op));
            if distinct { Ok(()) } else { Err(JwkError::KeyOps) }
        }
        Some(_) => Err(JwkError::KeyOps),
    }
}

/// RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

const KID_MAX: usize = 256;

/// The signature of an RSA key of 4096 bits, the longest there is.
pub(super) const SIGNATURE_MAX: usize = 512;

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::vectors::{ec, ed, read, refused, rsa, with};
    use super::*;
    use crate::jwk::Alg;
    use crate::jws::SigningKey;

    #[test]
    fn thumbprints_match_the_rfc_vectors_whatever_other_members_a_key_has() {
        for (jwk, alg, jkt) in [
            (ec(), Some(SignatureAlg::Es256), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"),
            (ed(), Some(SignatureAlg::EdDsa), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
            (rsa(), None, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
        ] {
            let key = read(&jwk).unwrap();
            assert_eq!((key.jkt(), key.alg(), key.kid()), (jkt, alg, None));
            let named = read(&with(&with(&jwk, "kid", "2011-04-29"), "anything", json!({"a": [1]}))).unwrap();
            assert_eq!((named.jkt(), named.kid()), (jkt, Some("2011-04-29")));
            assert!(
                named.is_called("2011-04-29") && named.is_called(jkt) && !named.is_called("x") && key.is_called("x")
            );
            let stored = read(&Value::Object(named.jwk())).unwrap();
            assert_eq!((stored.jkt(), stored.kid(), stored.alg()), (named.jkt(), named.kid(), named.alg()));
            assert_eq!(stored.jwk(), named.jwk());
        }
    }

    #[test]
    fn a_key_verifies_the_algorithm_it_names_or_those_of_its_type() {
        let text = |jwk: &Value| jwk.to_string().into_bytes();
        let algs = |jwk: &Value, registered| {
            VerifyingKey::from_text(&text(jwk), registered).map(|key| key.algs().collect::<Vec<_>>())
        };
        assert_eq!(algs(&rsa(), None), Ok(SignatureAlg::OF_RSA.to_vec()));
        assert_eq!(algs(&ec(), None), Ok(vec![SignatureAlg::Es256]));
        for alg in SignatureAlg::OF_RSA {
            assert_eq!(algs(&rsa(), Some(alg)), Ok(vec![alg]));
            assert_eq!(algs(&with(&rsa(), "alg", alg.as_str()), None), Ok(vec![alg]));
        }
        assert_eq!(algs(&with(&rsa(), "alg", "RS256"), Some(SignatureAlg::Ps256)), Err(JwkError::OtherAlg));
        assert_eq!(algs(&with(&ed(), "alg", "Ed25519"), Some(SignatureAlg::EdDsa)), Ok(vec![SignatureAlg::EdDsa]));
        for (jwk, registered) in [
            (ec(), SignatureAlg::EdDsa),
            (ec(), SignatureAlg::Es384),
            (ec(), SignatureAlg::Ps256),
            (ed(), SignatureAlg::Es256),
            (rsa(), SignatureAlg::Es256),
        ] {
            assert_eq!(algs(&jwk, Some(registered)), Err(JwkError::Alg), "{jwk} {registered}");
        }
        for alg in ["ES384", "ES521", "ES224", "HS256", "none", "es256", "PS256", "EdDSA", "RSA1_5"] {
            assert_eq!(refused(&with(&ec(), "alg", alg)), JwkError::Alg, "{alg}");
        }
    }

    #[test]
    fn null_and_empty_members_count_as_absent() {
        for jwk in [ec(), ed(), rsa()] {
            let bare = read(&jwk).unwrap();
            for member in ["use", "key_ops", "alg", "kid"] {
                for nothing in [json!(null), json!(""), json!([])] {
                    assert!(read(&with(&jwk, member, nothing)).unwrap().is_same(&bare), "{member}");
                }
            }
        }
    }

    #[test]
    fn use_and_key_ops_are_honoured() {
        for what in [json!("enc"), json!("SIG"), json!(["sig"])] {
            assert_eq!(refused(&with(&ec(), "use", what)), JwkError::Use);
        }
        for ops in [
            json!(["encrypt"]),
            json!(["sign"]),
            json!("verify"),
            json!(["verify", "verify"]),
            json!(["verify", 1]),
            json!(["verify", "sign", "sign"]),
        ] {
            assert_eq!(refused(&with(&ec(), "key_ops", ops.clone())), JwkError::KeyOps, "{ops}");
        }
        assert!(read(&with(&with(&ec(), "use", "sig"), "key_ops", json!(["sign", "verify"]))).is_ok());
    }

    #[test]
    fn private_and_secret_keys_are_refused() {
        for member in PRIVATE {
            for jwk in [ec(), ed(), rsa(), json!({"kty": "oct"})] {
                assert_eq!(refused(&with(&jwk, member, "AA")), JwkError::Private(member));
                assert_eq!(refused(&with(&jwk, member, Value::Null)), JwkError::Private(member));
            }
        }
        assert_eq!(refused(&json!({"kty": "oct"})), JwkError::Kty);
        for kid in [json!(1), json!("a\nb"), json!("x".repeat(257))] {
            assert_eq!(refused(&with(&ec(), "kid", kid)), JwkError::Kid);
        }
        assert_eq!(refused(&json!({})), JwkError::Member("kty"));
        assert_eq!(
            VerifyingKey::from_text(br#"{"kty":"EC","kty":"RSA"}"#, None).unwrap_err(),
            JwkError::Json(JsonError::Duplicate)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_key_of_ours_is_taken_for_a_weak_one(_ in 0..1) {
            for alg in [Alg::Es256, Alg::EdDsa] {
                let (key, _) = SigningKey::generate(alg).unwrap();
                let read = read(&key.published()).unwrap();
                prop_assert_eq!((read.jkt(), read.alg()), (key.kid(), Some(alg.into())));
            }
        }

        #[test]
        fn no_text_makes_it_panic(member in "kty|crv|x|y|n|e|alg|use|key_ops|kid", value in any::<String>()) {
            for jwk in [ec(), ed(), rsa()] {
                if let Ok(key) = read(&with(&jwk, &member, value.clone())) {
                    prop_assert!(read(&Value::Object(key.jwk())).is_ok());
                }
            }
        }
    }
}

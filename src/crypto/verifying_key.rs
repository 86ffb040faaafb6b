//! Public keys of others, to verify with: a JWK (RFC 7517, RFC 7518 section 6, RFC 8037) read strictly, parsed once, held.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, EllipticCurveKeyParameters, EllipticCurveKeyType, Jwk,
    OctetKeyPairParameters, OctetKeyPairType, RSAKeyParameters, RSAKeyType, ThumbprintHash,
};
use serde_json::Value;

use super::json::{self, JsonError, Object};
use super::jwk::Alg;

mod weak;

/// A public key with the one algorithm it verifies: "each key MUST be used with exactly one algorithm" (RFC 8725 section 3.1).
pub struct VerifyingKey {
    alg: Alg,
    kid: Option<String>,
    jkt: String,
    public: Jwk,
    parsed: ParsedPublicKey,
}

/// Why a key was not taken. Nothing of the key is repeated.
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
    /// `oct` among them: nothing here verifies with a shared secret.
    #[error("kty is one of EC, OKP, RSA")]
    Kty,
    /// The curve is none of ours, or of another kty.
    #[error("crv is P-256 for EC and Ed25519 for OKP")]
    Crv,
    /// `alg` is none of ours, or does not go with the key.
    #[error("alg is ES256 for EC, EdDSA or Ed25519 for OKP, PS256 or RS256 for RSA")]
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
    #[error("the coordinates are no point of P-256")]
    Point,
    /// A point of small order: everyone can sign for it.
    #[error("the Ed25519 key is a point of small order or not in its one encoding")]
    Ed25519Weak,
    /// More keys than we read.
    #[error("the JWK Set has too many keys")]
    SetSize,
    /// Two keys of a set share a `kid`.
    #[error("two keys of the JWK Set have the same kid")]
    SetKid,
}

impl VerifyingKey {
    /// Reads a JWK from its text.
    ///
    /// # Errors
    /// [`JwkError`], saying what to send instead.
    pub fn from_text(text: &[u8], registered: Option<Alg>) -> Result<Self, JwkError> {
        Self::from_jwk(&json::object(text)?, registered)
    }

    /// Reads a JWK that the strict reader has read. The algorithm is the JWK's own, else the one registered, else the
    /// first that goes with the key; RS256 is never a guess.
    ///
    /// # Errors
    /// [`JwkError`], saying what to send instead.
    pub fn from_jwk(jwk: &Object, registered: Option<Alg>) -> Result<Self, JwkError> {
        if let Some(member) = PRIVATE.into_iter().find(|member| jwk.contains_key(*member)) {
            return Err(JwkError::Private(member));
        }
        let kid = kid(jwk)?;
        honours_use(jwk)?;
        let fitting: &[Alg] = match text(jwk, "kty")? {
            "EC" => &[Alg::Es256],
            "OKP" => &[Alg::EdDsa],
            "RSA" => &[Alg::Ps256, Alg::Rs256],
            _ => return Err(JwkError::Kty),
        };
        let named = match jwk.get("alg") {
            None => None,
            Some(alg) => Some(alg.as_str().and_then(Alg::named).ok_or(JwkError::Alg)?),
        };
        if named.is_some() && registered.is_some() && named != registered {
            return Err(JwkError::OtherAlg);
        }
        let alg = named.or(registered).or(fitting.first().copied()).ok_or(JwkError::Alg)?;
        let (parsed, algorithm) = match alg {
            _ if !fitting.contains(&alg) => return Err(JwkError::Alg),
            Alg::Es256 => ec(jwk)?,
            Alg::EdDsa => okp(jwk)?,
            Alg::Ps256 | Alg::Rs256 => rsa(jwk, alg)?,
        };
        let public = Jwk { common: CommonParameters::default(), algorithm };
        let jkt = public.thumbprint(ThumbprintHash::SHA256).map_err(|_| JwkError::Kty)?;
        Ok(Self { alg, kid: kid.map(str::to_owned), jkt, public, parsed })
    }

    /// Whether this key's owner signed `message`. RFC 7518 section 3.4: an ECDSA signature is R and S, 64 octets, no DER.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let length_fits = match self.alg {
            Alg::Es256 | Alg::EdDsa => signature.len() == 64,
            Alg::Ps256 | Alg::Rs256 => signature.len() <= SIGNATURE_MAX,
        };
        length_fits && self.parsed.verify_sig(message, signature).is_ok()
    }

    /// The key's one algorithm.
    #[must_use]
    pub fn alg(&self) -> Alg {
        self.alg
    }

    /// The id that its owner calls it by; the thumbprint when it came without one.
    #[must_use]
    pub fn kid(&self) -> &str {
        self.kid.as_deref().unwrap_or(&self.jkt)
    }

    /// The RFC 7638 SHA-256 thumbprint, as in `cnf.jkt` of a token bound to this key.
    #[must_use]
    pub fn jkt(&self) -> &str {
        &self.jkt
    }

    /// The key as we store it: its own members, `use`, `alg` and its `kid`. Reads as the same key again.
    #[must_use]
    pub fn jwk(&self) -> Object {
        let mut members = match serde_json::to_value(&self.public) {
            Ok(Value::Object(members)) => members,
            _ => Object::new(),
        };
        members.insert("use".into(), "sig".into());
        members.insert("alg".into(), self.alg.as_str().into());
        members.insert("kid".into(), self.kid().into());
        members
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({} {})", self.alg, self.jkt)
    }
}

/// A key id within its bounds; hostile input until it is compared (RFC 8725 section 3.10).
pub(super) fn kid(members: &Object) -> Result<Option<&str>, JwkError> {
    match members.get("kid") {
        None => Ok(None),
        Some(Value::String(kid)) if (1..=KID_MAX).contains(&kid.len()) && !kid.contains(char::is_control) => {
            Ok(Some(kid))
        }
        Some(_) => Err(JwkError::Kid),
    }
}

fn honours_use(jwk: &Object) -> Result<(), JwkError> {
    if jwk.get("use").is_some_and(|what| what != "sig") {
        return Err(JwkError::Use);
    }
    // RFC 7517 section 4.3: "Duplicate key operation values MUST NOT be present in the array."
    match jwk.get("key_ops") {
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

fn ec(jwk: &Object) -> Result<(ParsedPublicKey, AlgorithmParameters), JwkError> {
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

fn okp(jwk: &Object) -> Result<(ParsedPublicKey, AlgorithmParameters), JwkError> {
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

fn rsa(jwk: &Object, alg: Alg) -> Result<(ParsedPublicKey, AlgorithmParameters), JwkError> {
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

fn text<'a>(jwk: &'a Object, member: &'static str) -> Result<&'a str, JwkError> {
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

/// RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

const KID_MAX: usize = 256;

/// 4096 bits in base64url.
const MODULUS_TEXT_MAX: usize = 683;

/// The signature of an RSA key of 4096 bits, the longest there is.
pub(super) const SIGNATURE_MAX: usize = 512;

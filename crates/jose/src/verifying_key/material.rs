//! The parameters of a public key (RFC 7518 section 6, RFC 8037 section 2), checked and parsed.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, EllipticCurveKeyParameters, EllipticCurveKeyType, OctetKeyPairParameters,
    OctetKeyPairType, RSAKeyParameters, RSAKeyType,
};
use serde_json::Value;

use super::{JwkError, weak};
use crate::json::Object;
use crate::signature_alg::SignatureAlg;

/// The one algorithm of an elliptic curve (RFC 7518 section 3.4).
pub(super) fn curve(jwk: &Object) -> Result<&'static [SignatureAlg], JwkError> {
    match text(jwk, "crv")? {
        "P-256" => Ok(&[SignatureAlg::Es256]),
        "P-384" => Ok(&[SignatureAlg::Es384]),
        _ => Err(JwkError::Crv),
    }
}

pub(super) fn p256(jwk: &Object) -> Result<(ParsedPublicKey, AlgorithmParameters), JwkError> {
    let point = point::<32>(jwk)?;
    let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| JwkError::Point)?;
    Ok((parsed, ec(jwk, EllipticCurve::P256)?))
}

pub(super) fn p384(jwk: &Object) -> Result<(ParsedPublicKey, AlgorithmParameters), JwkError> {
    let point = point::<48>(jwk)?;
    let parsed = ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).map_err(|_| JwkError::Point)?;
    Ok((parsed, ec(jwk, EllipticCurve::P384)?))
}

/// The uncompressed point. RFC 7518 section 6.2.1.2: "The length of this octet string MUST be the full size of a coordinate
/// for the curve".
fn point<const N: usize>(jwk: &Object) -> Result<Vec<u8>, JwkError> {
    let (x, y) = (octets::<N>(jwk, "x")?, octets::<N>(jwk, "y")?);
    Ok([&[4], &x[..], &y[..]].concat())
}

fn ec(jwk: &Object, curve: EllipticCurve) -> Result<AlgorithmParameters, JwkError> {
    let (x, y) = (unpadded(jwk, "x")?.to_owned(), unpadded(jwk, "y")?.to_owned());
    let key_type = EllipticCurveKeyType::EC;
    Ok(AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters { key_type, curve, x, y }))
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
    let x = unpadded(jwk, "x")?.to_owned();
    Ok((parsed, AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters { key_type, curve, x })))
}

pub(super) fn rsa(jwk: &Object, alg: SignatureAlg) -> Result<(ParsedPublicKey, AlgorithmParameters), JwkError> {
    // Bounds before anything is computed: a modulus of a million bits is not even decoded.
    if text(jwk, "n")?.len() > MODULUS_TEXT_MAX {
        return Err(JwkError::RsaSize);
    }
    if text(jwk, "e")?.len() > EXPONENT_TEXT_MAX || number(jwk, "e").is_ok_and(|e| e != [1, 0, 1]) {
        return Err(JwkError::RsaExponent);
    }
    number(jwk, "e")?;
    let n = number(jwk, "n")?;
    let first = n.first().ok_or(JwkError::Member("n"))?;
    let bits = n.len() * 8 - first.leading_zeros() as usize;
    if !(2048..=4096).contains(&bits) {
        return Err(JwkError::RsaSize);
    }
    if weak::is_weak_modulus(&n) {
        return Err(JwkError::RsaWeak);
    }
    let padding = match alg {
        SignatureAlg::Ps256 => &RSA_PSS_2048_8192_SHA256,
        SignatureAlg::Ps384 => &RSA_PSS_2048_8192_SHA384,
        SignatureAlg::Ps512 => &RSA_PSS_2048_8192_SHA512,
        SignatureAlg::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        SignatureAlg::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        SignatureAlg::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        SignatureAlg::Es256 | SignatureAlg::Es384 | SignatureAlg::EdDsa => return Err(JwkError::Alg),
    };
    let components = RsaPublicKeyComponents { n: &n[..], e: &[1, 0, 1][..] };
    let parsed = components.to_parsed_public_key(padding).map_err(|_| JwkError::Member("n"))?;
    let (key_type, n, e) = (RSAKeyType::RSA, BASE64_URL_SAFE_NO_PAD.encode(&n), "AQAB".to_owned());
    Ok((parsed, AlgorithmParameters::RSA(RSAKeyParameters { key_type, n, e })))
}

pub(super) fn text<'a>(jwk: &'a Object, member: &'static str) -> Result<&'a str, JwkError> {
    jwk.get(member).and_then(Value::as_str).ok_or(JwkError::Member(member))
}

/// A number in base64url. RFC 7518 section 2, `Base64urlUInt`: "the minimum number of octets necessary"; zeros before it and
/// padding after it, as some libraries write them, are dropped.
fn number(jwk: &Object, member: &'static str) -> Result<Vec<u8>, JwkError> {
    let mut octets = BASE64_URL_SAFE_NO_PAD.decode(unpadded(jwk, member)?).map_err(|_| JwkError::Member(member))?;
    let zeros = octets.iter().take_while(|octet| **octet == 0).count();
    octets.drain(..zeros);
    Ok(octets)
}

/// A member in base64url without its padding, of at most two signs.
fn unpadded<'a>(jwk: &'a Object, member: &'static str) -> Result<&'a str, JwkError> {
    let padded = text(jwk, member)?;
    let bare = padded.trim_end_matches('=');
    if padded.len() == bare.len() || padded.len().is_multiple_of(4) && padded.len() - bare.len() <= 2 {
        Ok(bare)
    } else {
        Err(JwkError::Member(member))
    }
}

/// Exactly `N` octets in base64url.
fn octets<const N: usize>(jwk: &Object, member: &'static str) -> Result<[u8; N], JwkError> {
    let mut octets = [0; N];
    match BASE64_URL_SAFE_NO_PAD.decode_slice(unpadded(jwk, member)?, &mut octets) {
        Ok(length) if length == N => Ok(octets),
        _ => Err(JwkError::Member(member)),
    }
}

/// 4096 bits in base64url, with a zero before them and padding.
const MODULUS_TEXT_MAX: usize = 688;
/// More than enough for 65537.
const EXPONENT_TEXT_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::verifying_key::vectors::{ec, ed, read, refused, rsa, with};

    #[test]
    fn rsa_keys_have_a_size_that_is_safe_and_cheap() {
        let bits = |bits: usize| {
            let mut n = vec![0xff; bits.div_ceil(8)];
            n[0] = if bits.is_multiple_of(8) { 0xff } else { (1 << (bits % 8)) - 1 };
            with(&rsa(), "n", BASE64_URL_SAFE_NO_PAD.encode(n))
        };
        for size in [8, 512, 1024, 2047, 4097, 8192, 16_384, 1_000_000] {
            assert_eq!(refused(&bits(size)), JwkError::RsaSize, "{size}");
        }
        assert!(read(&bits(2048)).is_ok() && read(&bits(4096)).is_ok());
        for e in ["AQ", "Aw", "AQAA", "AQABAQ", "", &"_".repeat(683)] {
            assert_eq!(refused(&with(&rsa(), "e", e)), JwkError::RsaExponent, "{e}");
        }
        let n = rsa()["n"].as_str().unwrap().to_owned();
        assert_eq!(refused(&with(&rsa(), "n", format!("{}g", &n[..n.len() - 1]))), JwkError::RsaWeak, "even");
        let plain = read(&rsa()).unwrap();
        for (member, text) in
            [("n", format!("AAAA{n}")), ("n", format!("{n}==")), ("e", "AAEAAQ".into()), ("e", "AAAAAQAB".into())]
        {
            let key =
                read(&with(&rsa(), member, &*text)).expect("zeros before a number and padding after it are harmless");
            assert_eq!(key.jkt(), plain.jkt(), "{member}");
        }
        assert_eq!(refused(&with(&rsa(), "n", format!("{n}="))), JwkError::Member("n"), "padding of another length");
        assert_eq!(refused(&with(&rsa(), "e", "AQAB=")), JwkError::Member("e"));
        assert_eq!(refused(&with(&rsa(), "n", "")), JwkError::Member("n"));
        // Two primes made as the broken generator made them.
        let roca = "5Rfn4gGvw7SNihmMKZFrGY9fFNp-Gcms6LMB3bnG8jEJpK-VWkCF_mqYLzEqTr3oX3BF46KvWor1IvDm1opNhv6P3Thqn7omy9Jejbh5jj09z3MBRms2UDkqQY8VFOjxrr8HYS0DBxv6oYyvZrr3A2iDaXW12BmRyME0tLrPBd3hxHatzhl_r7SnjbYIgox87FhEVllFHefQj_vVY1_f_q_-GN9-DZ8G2fF_R7c8dvd4HI3MPmxWf98OV9WxL0pax1DY_KAPLRy9zwmq3ZxsxjhjYQuOmdibCnT7mCju9W7QCp81pXbNkii427LmffW8Tm3noFw70MRmeNU3JkEvFw";
        assert_eq!(refused(&with(&rsa(), "n", roca)), JwkError::RsaWeak, "ROCA");
    }

    #[test]
    fn ec_coordinates_are_a_point_on_the_named_curve() {
        assert_eq!(refused(&with(&ec(), "crv", "P-384")), JwkError::Member("x"));
        for crv in [json!("P-521"), json!("secp256k1"), json!("p-256"), json!("Ed25519")] {
            assert_eq!(refused(&with(&ec(), "crv", crv)), JwkError::Crv);
        }
        for crv in ["Ed448", "X25519", "P-256"] {
            assert_eq!(refused(&with(&ed(), "crv", crv)), JwkError::Crv, "{crv}");
        }
        let (zero, order) = ("A".repeat(43), "_____wAAAAEAAAAAAAAAAAAAAAD_______________8");
        for (x, y) in [(&*zero, &*zero), (order, &*zero), (ec()["y"].as_str().unwrap(), ec()["x"].as_str().unwrap())] {
            assert_eq!(refused(&with(&with(&ec(), "x", x), "y", y)), JwkError::Point, "{x} {y}");
        }
        for x in [
            "",
            "AA",
            &"A".repeat(44),
            "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFt",
            "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs==",
        ] {
            assert_eq!(refused(&with(&ec(), "x", x)), JwkError::Member("x"), "{x}");
            assert_eq!(refused(&with(&ed(), "x", x)), JwkError::Member("x"), "{x}");
        }
        // Order 1, 2, 4, 8, and 1 in a spelling that is beyond p.
        let ff = |first: u8, last: u8| {
            let mut y = [0xff; 32];
            (y[0], y[31]) = (first, last);
            y
        };
        let one = |sign: u8| {
            let mut y = [0; 32];
            (y[0], y[31]) = (1, sign);
            y
        };
        for y in
            [one(0), one(0x80), ff(0xec, 0x7f), ff(0xec, 0xff), [0; 32], ff(0xee, 0x7f), ff(0xed, 0x7f), ff(0xff, 0xff)]
        {
            assert_eq!(refused(&with(&ed(), "x", BASE64_URL_SAFE_NO_PAD.encode(y))), JwkError::Ed25519Weak, "{y:?}");
        }
    }
}

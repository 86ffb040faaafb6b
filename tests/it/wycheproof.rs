//! Signatures and keys that are known to break verifiers, as the Wycheproof project has collected them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd::crypto::jose::{JoseError, Kind, Unverified};
use grantd::crypto::jwk_set::JwkSet;
use grantd::crypto::signature_alg::SignatureAlg;
use grantd::crypto::verifying_key::{JwkError, VerifyingKey};
use serde_json::{Value, json};
use wycheproof::{ecdsa, eddsa, rsa_pkcs1_verify, rsa_pss_verify};

const LONGEST: usize = 8192;

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn base64url(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn decoded(text: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// The results of the vectors of one file: how many hold, how many do not, how many have a key that grantd does not accept.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    holds: usize,
    fails: usize,
    no_key: usize,
}

/// Runs every vector of a file, each of which must be `expected` for its key and its result.
fn run(file: &str, alg: SignatureAlg, expected: impl Fn(&Value) -> bool) -> Tally {
    let (file, mut tally): (Value, Tally) = (serde_json::from_str(file).unwrap(), Tally::default());
    for group in file["testGroups"].as_array().unwrap() {
        let tests = group["tests"].as_array().unwrap();
        let public = &group["publicKey"];
        let jwk = match alg {
            SignatureAlg::Es256 => {
                let point = hex(&public["uncompressed"]);
                json!({"kty": "EC", "crv": "P-256", "x": base64url(&point[1..33]), "y": base64url(&point[33..])})
            }
            SignatureAlg::Es384 => {
                let point = hex(&public["uncompressed"]);
                json!({"kty": "EC", "crv": "P-384", "x": base64url(&point[1..49]), "y": base64url(&point[49..])})
            }
            SignatureAlg::EdDsa => json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(&hex(&public["pk"]))}),
            _ => {
                let minimal = |name: &str| {
                    base64url(&hex(&public[name]).into_iter().skip_while(|&octet| octet == 0).collect::<Vec<_>>())
                };
                json!({"kty": "RSA", "n": minimal("modulus"), "e": minimal("publicExponent")})
            }
        };
        let key = match VerifyingKey::from_text(jwk.to_string().as_bytes(), Some(alg)) {
            Ok(key) => key,
            // Keys that their owner could use elsewhere, and this server does not accept.
            Err(JwkError::RsaExponent | JwkError::RsaSize) => {
                tally.no_key += tests.len();
                continue;
            }
            Err(error) => panic!("{error}: {jwk}"),
        };
        for test in tests {
            let holds = key.verifies(alg, &hex(&test["msg"]), &hex(&test["sig"]));
            assert_eq!(holds, expected(test), "tc{} {}: {}", test["tcId"], test["comment"], test["flags"]);
            *(if holds { &mut tally.holds } else { &mut tally.fails }) += 1;
        }
    }
    tally
}

fn valid(test: &Value) -> bool {
    test["result"] == "valid"
}

fn tally(holds: usize, fails: usize, no_key: usize) -> Tally {
    Tally { holds, fails, no_key }
}

#[test]
fn every_ecdsa_signature_of_r_and_s_has_its_verdict() {
    let file = ecdsa::TestName::EcdsaSecp256r1Sha256P1363.json_data();
    assert_eq!(run(file, SignatureAlg::Es256, valid), tally(173, 89, 0));
    // Small is not wrong: those with a small r or s are among the ones that hold.
    assert!(file.contains("SmallRandS"));
    // RFC 7518 section 3.4: R and S, no DER. So none of these holds, whatever it says in its own encoding.
    let der = ecdsa::TestName::EcdsaSecp256r1Sha256.json_data();
    assert_eq!(run(der, SignatureAlg::Es256, |_| false), tally(0, 484, 0));
}

#[test]
fn every_ed25519_signature_has_its_verdict() {
    assert_eq!(run(eddsa::TestName::Ed25519.json_data(), SignatureAlg::EdDsa, valid), tally(88, 63, 0));
}

#[test]
fn every_pss_signature_has_its_verdict_and_one_salt_length() {
    use rsa_pss_verify::TestName::{
        RsaPss2048Sha256Mgf1SaltLen0, RsaPss2048Sha256Mgf1SaltLen32, RsaPss2048Sha256Mgf1Sha1_20,
        RsaPss2048Sha384Mgf1SaltLen48, RsaPss3072Sha256Mgf1SaltLen32, RsaPss4096Sha256Mgf1SaltLen32,
    };
    for name in [RsaPss2048Sha256Mgf1SaltLen32, RsaPss3072Sha256Mgf1SaltLen32, RsaPss4096Sha256Mgf1SaltLen32] {
        assert_eq!(run(name.json_data(), SignatureAlg::Ps256, valid), tally(63, 45, 0), "{name:?}");
    }
    // Good signatures by other parameters, which are none by ours (RFC 7518 section 3.5).
    for (name, all) in [(RsaPss2048Sha256Mgf1Sha1_20, 108), (RsaPss2048Sha384Mgf1SaltLen48, 141)] {
        assert_eq!(run(name.json_data(), SignatureAlg::Ps256, |_| false), tally(0, all, 0), "{name:?}");
    }
    // Here those with a salt of 32 octets are the wrong ones.
    let ours = |test: &Value| !valid(test) && test["comment"].as_str().unwrap().contains("32");
    let without_salt = run(RsaPss2048Sha256Mgf1SaltLen0.json_data(), SignatureAlg::Ps256, ours);
    assert_eq!(without_salt.holds + without_salt.fails, 103);
}

#[test]
fn every_pkcs1_signature_has_its_verdict_and_odd_keys_are_refused() {
    use rsa_pkcs1_verify::TestName::{Rsa2048Sha256, Rsa2048Sha512, Rsa3072Sha256, Rsa4096Sha256, Rsa8192Sha256};
    // "acceptable" are those without the NULL of RFC 8017 appendix A.2.4; we do not accept them. The exponent 3 is no key.
    for (name, told) in [
        (Rsa2048Sha256, tally(7, 250, 2)),
        (Rsa3072Sha256, tally(7, 251, 1)),
        (Rsa4096Sha256, tally(7, 251, 0)),
        (Rsa8192Sha256, tally(0, 0, 258)),
    ] {
        assert_eq!(run(name.json_data(), SignatureAlg::Rs256, valid), told, "{name:?}");
    }
    // By another hash, of which those are right that are wrong there.
    let ours = |test: &Value| test["comment"].as_str().unwrap().contains("hashed with SHA-256");
    assert_eq!(run(Rsa2048Sha512.json_data(), SignatureAlg::Rs256, ours), tally(1, 257, 1));
}

/// Whether a set of keys accepts a JWS, short of its payload: most vectors sign a text and no claims.
fn accepts(keys: &[Value], jws: &str) -> bool {
    let Ok(set) = JwkSet::parse(json!({"keys": keys}).to_string().as_bytes(), None, 9) else { return false };
    match Unverified::parse(jws, Kind::ClientAssertion, LONGEST) {
        Err(JoseError::Claims(_)) => {}
        Err(_) => return false,
        Ok(_) => panic!("{jws} has claims"),
    }
    let (signed, signature) = jws.rsplit_once('.').unwrap();
    // With claims in place of its payload, so that header, keys and signature are read as ever.
    let emptied = format!("{}.e30.{signature}", signed.split_once('.').unwrap().0);
    let Ok(read) = Unverified::parse(&emptied, Kind::ClientAssertion, LONGEST) else { return false };
    match read.verify_with_one_of(&set.keys) {
        Err(JoseError::Signature) => {}
        Err(_) => return false,
        Ok(_) => panic!("nobody signed {emptied}"),
    }
    let named = set.keys.iter().filter(|key| read.header().kid().is_none_or(|kid| key.is_called(kid)));
    named.into_iter().any(|key| key.verifies(read.header().alg(), signed.as_bytes(), &decoded(signature)))
}

fn with(jwk: &Value, name: &str, value: impl Into<Value>) -> Value {
    let mut jwk = jwk.clone();
    jwk[name] = value.into();
    jwk
}

fn ec_key() -> Value {
    json!({"alg": "ES256", "use": "sig", "crv": "P-256", "kid": "kid-ec-sign", "kty": "EC",
           "x": "04N0xi21hshyvBp7I167sbE_bXqyqkAPfefdklMO7wY", "y": "UI8exy-C06a7DUnjIdENkxeFtHM4-l_41LqEw9nVgmw"})
}

fn rsa_key() -> Value {
    json!({"alg": "RS256", "use": "sig", "e": "AQAB", "kid": "kid-rsa-sign", "kty": "RSA", "n": RSA_N})
}

/// A key of a secret, which no verifier here can be made of.
fn secret_key(alg: &str, k: &str) -> Value {
    json!({"alg": alg, "use": "sig", "k": k, "kid": "kid-aes-sign", "kty": "oct"})
}

const EC_SIGNED: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImtpZC1lYy1zaWduIn0.Zm9v";
const EC_SIGNATURE: &str = "5cA0OHyMP7ezamUd5c9kV-FrGxdx4hbGXOdplQkutrqWrte5P-pAvsE3Ve6xSyU3YDQwUHjVVOtvcrEbbnZ8yA";
const HS_JWS: &str =
    "eyJhbGciOiJIUzI1NiIsImtpZCI6ImtpZC1hZXMtc2lnbiJ9.Zm9v.TD37p4c_0jmreSrBSDmE0F3mYSPtkZ3WrSyI5wb_KTg";
const HS_KEY: &str = "-ebuDNsVZ2iJtoZ-akfXTSCt4UO2cruLCsbWlBinggE";
const RSA_SIGNED: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImtpZC1yc2Etc2lnbiJ9.Zm9v";

/// `json_web_key_test.json`, by its numbers. Where the key is refused, its signature is not looked at.
#[test]
fn every_key_has_its_verdict() {
    let ec_jws = format!("{EC_SIGNED}.{EC_SIGNATURE}");
    let rsa_jws = format!("{RSA_SIGNED}.{RSA_SIGNATURE}");
    assert!(accepts(&[ec_key()], &ec_jws) && accepts(&[rsa_key()], &rsa_jws), "tc5, and what tc19 to tc24 alter");

    // tc1, tc4, tc10 to tc18, tc25, tc26. Valid in the vectors, and refused here, are tc2 and tc13 to tc15: MACs.
    let oct = secret_key("HS256", HS_KEY);
    let other = with(&secret_key("HS256", "-xbuDNsVZ2iJtoZ-akfXTSCt4UO2cruLCsbWlBinggE"), "kid", "kid-aes-sign-2");
    let sets = [vec![oct.clone(), ec_key()], vec![oct.clone(), other], vec![oct.clone(), oct]];
    let more = ["HS256", "HS384", "HS512", "A256GCM", "A256KW"];
    let more =
        more.into_iter().flat_map(|alg| ["", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg", HS_KEY].map(|k| (alg, k)));
    for set in sets.into_iter().chain(more.map(|(alg, k)| vec![secret_key(alg, k)])) {
        let text = json!({"keys": set}).to_string();
        let read = JwkSet::parse(text.as_bytes(), None, 9).unwrap();
        let secret = set.iter().filter(|jwk| jwk["kty"] == "oct").count();
        assert_eq!(read.skipped.iter().filter(|one| one.why == JwkError::Private("k")).count(), secret);
        assert!(!accepts(&set, HS_JWS) && accepts(&set, &ec_jws) == (set.len() > secret));
    }

    let enc = with(&with(&rsa_key(), "use", "enc"), "alg", "RSA1_5");
    for (number, jwk, why, jws) in [
        (6, enc, JwkError::Use, &rsa_jws),
        (7, with(&rsa_key(), "n", ROCA_N), JwkError::RsaWeak, &rsa_jws),
        (8, with(&rsa_key(), "n", SHORT_N), JwkError::RsaSize, &rsa_jws),
        (9, with(&rsa_key(), "e", "AQ"), JwkError::RsaExponent, &rsa_jws),
        (19, with(&ec_key(), "alg", "ES521"), JwkError::Alg, &ec_jws),
        (20, with(&ec_key(), "alg", "ES224"), JwkError::Alg, &ec_jws),
        (21, with(&ec_key(), "use", "enc"), JwkError::Use, &ec_jws),
        (22, with(&ec_key(), "y", "UI8exy-C06a7DUnjIdENkxeFtHM4-l_41LqEw9nVgnw"), JwkError::Point, &ec_jws),
        (23, with(&ec_key(), "crv", "P-384"), JwkError::Alg, &ec_jws),
        (24, with(&ec_key(), "kty", "RSA"), JwkError::Alg, &ec_jws),
    ] {
        assert_eq!(VerifyingKey::from_text(jwk.to_string().as_bytes(), None).unwrap_err(), why, "tc{number}");
        assert!(!accepts(&[jwk], jws), "tc{number}");
    }
}

/// `json_web_signature_test.json`, tc18 to tc44 and what there is of them for other keys: a JWS that is cut and altered.
#[test]
fn an_altered_or_incomplete_jws_is_refused() {
    let none = base64url(br#"{"alg":"none","kid":"kid-ec-sign"}"#);
    for (key, signed, signature) in [(ec_key(), EC_SIGNED, EC_SIGNATURE), (rsa_key(), RSA_SIGNED, RSA_SIGNATURE)] {
        let (header, payload) = signed.split_once('.').unwrap();
        let renamed = String::from_utf8(decoded(header)).unwrap().replace("kid-", "Xid-");
        let macs = json!({"alg": "HS256", "kid": key["kid"]}).to_string();
        let attacker = json!({"alg": key["alg"], "kid": key["kid"], "jwk": key}).to_string();
        assert!(accepts(std::slice::from_ref(&key), &format!("{signed}.{signature}")));
        for altered in [
            format!("{signed}.X{}", &signature[1..]),
            format!("{signed}."),
            signed.to_owned(),
            format!("{header}.WG9v.{signature}"),
            format!("{header}..{signature}"),
            format!("{header}.{signature}"),
            format!("{}.{payload}.{signature}", base64url(renamed.as_bytes())),
            format!(".{payload}.{signature}"),
            format!("{payload}.{signature}"),
            format!(".{payload}."),
            payload.to_owned(),
            String::new(),
            format!("{signed}.{signature}."),
            format!("{signed}.{signature}.foo"),
            format!("{none}.{payload}."),
            format!("{}.{payload}.TgWtz2FIRukBQ_mA5sgHa0Ybtgn7bl-YBPAi7Z0XdHU", base64url(macs.as_bytes())),
            format!("{}.{payload}.{signature}", base64url(attacker.as_bytes())),
            json!({"payload": payload, "signatures": [{"protected": header, "signature": signature}]}).to_string(),
        ] {
            assert!(!accepts(std::slice::from_ref(&key), &altered), "{altered}");
        }
    }
    for none in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOT05FIn0", "eyJhbGciOiJub25lIiwia2lkIjoibm9uZSJ9"] {
        assert!(!accepts(&[ec_key()], &format!("{none}.MTIzNDAw.")), "tc341 to tc344");
    }
}

/// tc345 to tc356: the signatures of RFC 7520, and keys that say what they are for.
#[test]
fn a_key_verifies_for_its_declared_use_and_algorithm_only() {
    let key = json!({"kty": "RSA", "alg": "RS256", "kid": "bilbo.baggins@hobbiton.example", "e": "AQAB", "n": BILBO_N});
    let jws = format!("{BILBO_SIGNED}.{BILBO_SIGNATURE}");
    for good in [with(&key, "use", "sig"), with(&key, "key_ops", json!(["verify"])), key.clone()] {
        assert!(accepts(&[good], &jws), "tc345, tc349");
    }
    for bad in [with(&key, "use", "enc"), with(&key, "key_ops", json!(["encrypt"])), with(&key, "alg", "PS256")] {
        assert!(!accepts(&[bad], &jws), "tc353 to tc356");
    }
    // Valid in the vectors and refused here: tc346 and tc350, PS384 by a key of PS256 (RFC 8725 section 3.1: one key, one
    // algorithm), tc347 and tc351, which are ES512, and every MAC.
    let header = base64url(br#"{"alg":"PS384","kid":"bilbo.baggins@hobbiton.example"}"#);
    let ps384 = format!("{header}.{}.{BILBO_SIGNATURE}", BILBO_SIGNED.split_once('.').unwrap().1);
    assert!(!accepts(&[with(&key, "alg", "PS256")], &ps384));
    let p521 = json!({"kty": "EC", "alg": "ES521", "crv": "P-521",
        "x": "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
        "y": "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1"});
    assert_eq!(VerifyingKey::from_text(p521.to_string().as_bytes(), None).unwrap_err(), JwkError::Crv);
}

/// tc357 to tc377 with ES256 in place of a MAC: what is signed is the odd text itself, so that only its spelling is wrong.
#[test]
fn a_signed_jws_that_is_not_base64url_is_refused() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    let key = json!({"kty": "EC", "crv": "P-256", "x": base64url(&point[1..33]), "y": base64url(&point[33..])});
    let sign = |signed: &str| {
        let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        (format!("{signed}.{}", base64url(signature.as_ref())), base64url(signature.as_ref()))
    };
    let header = base64url(br#"{"alg":"ES256"}"#);
    // tc376, tc377: white space within the JSON is the sender's own business.
    for spaced in [&header, &base64url(b"{ \"alg\" : \"ES256\" }"), &base64url(b"{\n\t\"alg\":\"ES256\"}")] {
        assert!(accepts(std::slice::from_ref(&key), &sign(&format!("{spaced}.VGVzdA")).0));
    }
    for signed in [
        format!("{header}    .VGVzdA"),
        format!("{header}####.VGVzdA"),
        format!("{header}=.VGVzdA"),
        format!("{header}.    VGVzdA"),
        format!("{header}.####VGVzdA"),
        format!("{header}.?VGVzdA"),
        format!("{header}.VGVzdA=="),
        // Valid in the vectors, tc372 and tc373. RFC 7515 section 2: "without … other additional characters".
        format!("{}?{}.VGVzdA", &header[..9], &header[9..]),
        format!("{header}.VGVzdA?"),
        // tc374, tc375: one octet has four bits behind it, and here they are not zero.
        format!("{header}.AB"),
    ] {
        let (jws, _) = sign(&signed);
        let refused = Unverified::parse(&jws, Kind::ClientAssertion, LONGEST).unwrap_err();
        assert!(matches!(refused, JoseError::NotCompact | JoseError::Base64), "{signed}: {refused}");
        assert!(!accepts(std::slice::from_ref(&key), &jws), "{signed}");
    }
    let (_, signature) = sign(&format!("{header}.VGVzdA"));
    for odd in [format!("    {signature}"), format!("?{signature}"), format!("{signature}?"), format!("{signature}==")]
    {
        assert!(!accepts(std::slice::from_ref(&key), &format!("{header}.VGVzdA.{odd}")), "{odd}");
    }
}

/// tc378 to tc401, `SpecialCaseEs256`.
#[test]
fn special_signatures_over_p_256_have_their_verdict() {
    let accepts = |signature: &[u8]| accepts(&[ec_key()], &format!("{EC_SIGNED}.{}", base64url(signature)));
    let good = decoded(EC_SIGNATURE);
    let (r, s) = good.split_at(32);
    assert!(accepts(&good));
    // tc378: n - s signs the same.
    let negative = "5cA0OHyMP7ezamUd5c9kV-FrGxdx4hbGXOdplQkutrppUShFwBW_Qj7IqhFOtNrIXLLKXS5CSZmERxmnjeyoiQ";
    assert!(accepts(&decoded(negative)));
    for (number, signature) in [
        (379, [&[0], r, &[0], s].concat()),
        (380, [r, &[0], s, &[0]].concat()),
        (381, decoded("AeXANDd8jD-4s2plHeXPZFeeUhXFGPm1S1ChNFgFkdwLAJau17k_6kC-wTdV7rFLJTdgNDBQeNVU629ysRtudnzI")),
        (382, decoded("AOXANDh8jD-3s2plHeXPZFfhaxsXceIWxlznaZUJLra6AZau17g_6kC_wTdV7rFLJTcdGyr-H-zzcGMse95q2aIZ")),
        (383, [&[1], r, &[0], s].concat()),
        (384, [&[0], r, &[1], s].concat()),
        (385, [&[0; 225], r, &[0; 225], s].concat()),
    ] {
        assert!(!accepts(&signature), "tc{number}");
    }
    let order = decoded("_____wAAAAD__________7zm-q2nF56E87nKwvxjJVE");
    let (mut one, mut below) = (vec![0; 32], order.clone());
    (one[31], below[31]) = (1, below[31] - 1);
    for r in [&vec![0; 32], &one, &below, &order] {
        for s in [&vec![0; 32], &one, &below, &order] {
            assert!(!accepts(&[&r[..], s].concat()), "tc386 to tc401: {r:?} {s:?}");
        }
    }
}

const RSA_N: &str = "kqGboBfAWttWPCA-0cGRgsY6SaYoIARt0B_PkaEcIq9HPYNdu9n6UuWHuuTHrjF_ZoQW97r5HaAorNvrMEGTGdxCHZdEtkHvNVVmrtxTBLiQ\
                     CbCozXhFoIrVcr3qUBrdGnNn_M3jJi7Wg7p_-x62nS5gNG875oyheRkutHsQXikFZwsN3q_TsPNOVlCiHy8mxzaFTUQGm-X8UYexFyAivlDS\
                     jgDJLAZSWfxd7k9Gxuwa3AUfQqQcVcegmgKGCaErQ3qQbh1x7WB6iopE3_-GZ8HMAVtR9AmrVscqYsnjhaCehfAI0iKKs8zXr8tISc0ORbaa\
                     lrkk03H1ZrsEnDKEWQ";

const RSA_SIGNATURE: &str = "HUwxI1-cZrZgcuOgBQ7G7NE-GrqK79l6GV1KT4DKXnSMFwC8pfZCzE7pmLE7mYpLCIvzC87yuOjuhT0uW5oe6aaAEtR978cm-q8d\
                             fly45flqMrd_ifhi9GCsMlyi8dpQ42Ou1etZljFZuWjfyk8CN1c5DaHRwhqjScAPIFp6xmzKIRUJ_xdQfUSfSlujLaixtScU518E\
                             oNP4oo1v7E8RAz6ZO4g2N4Xqs8OvSxYydcoTEg42QnLHe9JnXgI37Q5gSwinwaPsG3Ry56UYiLoL8mCUa74S51y02VsIgVmmGWga\
                             XjM-i_lCiKQDBiBnvWlka4XhVuvd6ZWibM9cbCPtPg";

/// Of the generator with the ROCA weakness.
const ROCA_N: &str = "AanFpofbj7KjD4Lf-N2hVMKR7yewSyXhhbirIMTGpfYEhZ_lnt5UoK98DnKIgArXGTu3MaW_HhFw16HGaTDUHqPrId7fe4r11CqRw09yBFuW\
                      79V8sYIwHdzCaWflUI6auImYbVfoN9_nD5n8N8SY9DwXw7mwZM9wREPXoDPgOoIWl6q_MPsp7n0zs3Z5ZaiQWOOzl1S9OhwAfSiiOwz6efnX\
                      EaxuTEtPd7BjSx7NaFka8Dx9U7YqXy2RFj1O9PjyaDGuRh7YXsX3iMUSP_wSyHQg_c_qHRtKUsNSGCT7OZg0hzm2KphtjnayKJvC64vAbROB\
                      R4Ubg6Bxg9IQVZ-QYyE";

/// 1024 bits.
const SHORT_N: &str = "rJBIp6T1YK-RtPyvYqFFlcucqewSAA_IReSFchE8qyiQrbARqRlXWkB2DR8j_pJQnIpYELbQWZC5Cd0PTGAU8rMbar2AW6zpmBbi7aQf17lU\
                       Bdt8XI9M9rq7FPVQ1dDdUXm1SVH_9qqWhvMPR422SbfHBEzCAtzK0ANDRo6qz78";

/// RFC 7520 sections 3.3 and 4.1.
const BILBO_N: &str = "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2w\
                       qVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bT\
                       wJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5\
                       iaiQkqgc5gHdrNP5zw";

const BILBO_SIGNED: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c\
                            2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24nd\
                            CBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4";

const BILBO_SIGNATURE: &str = "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi8\
                               4wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocS\
                               adnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJu\
                               shZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg";

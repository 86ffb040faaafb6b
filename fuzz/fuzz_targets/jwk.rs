//! Fuzz target of public keys as a JWK, a JWK Set and in PEM: a parsed key is public, fits its algorithm, and prints as
//! it reads.

#![no_main]

use grantd::crypto::jwk_set::JwkSet;
use grantd::crypto::signature_alg::SignatureAlg;
use grantd::crypto::verifying_key::VerifyingKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    for registered in [None].into_iter().chain(SignatureAlg::ALL.map(Some)) {
        if let Ok(key) = VerifyingKey::from_text(text, registered) {
            assert!(registered.is_none_or(|alg| key.alg() == Some(alg)));
            holds(&key);
        }
        if let Ok(key) = VerifyingKey::from_pem(text, registered) {
            assert!(key.kid().is_none() && registered.is_none_or(|alg| key.alg() == Some(alg)));
            holds(&key);
        }
    }
    if let Ok(set) = JwkSet::parse(text, None, MOST) {
        assert!(set.keys.len() + set.skipped.len() <= MOST);
        set.keys.iter().for_each(holds);
    }
});

fn holds(key: &VerifyingKey) {
    assert_eq!(key.jkt().len(), 43);
    let stored = serde_json::Value::Object(key.jwk());
    for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        assert!(stored.get(private).is_none());
    }
    let again = VerifyingKey::from_text(stored.to_string().as_bytes(), None).expect("what we print, we read");
    assert_eq!((again.jkt(), again.alg(), again.kid()), (key.jkt(), key.alg(), key.kid()));
    for alg in key.algs() {
        assert!(!key.verifies(alg, b"", b"") && !key.verifies(alg, b"", &[0; 64]) && !key.verifies(alg, b"", &[0xff; 512]));
    }
}

const MOST: usize = 16;

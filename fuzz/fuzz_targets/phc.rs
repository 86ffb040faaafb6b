//! Fuzz target of argon2id hashes: a parsed hash is within the bounds of cost, and prints as it reads.
//!
//! Nothing is verified, which would be slow and test argon2 only.

#![no_main]

use grantd::crypto::secret::{HashParams, SecretHash};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(params) = text.parse::<HashParams>() {
        affordable(params);
    }

    let Ok(hash) = text.parse::<SecretHash>() else { return };
    affordable(hash.params());
    assert_eq!(hash.to_string().parse::<SecretHash>().as_ref(), Ok(&hash));
    assert_eq!(format!("{hash:?}"), format!("SecretHash({})", hash.params()), "a log shows the cost and no more");
});

fn affordable(params: HashParams) {
    assert_eq!(params.checked(), Ok(params));
    assert!((12288..=HashParams::MAX_M).contains(&params.m) && (1..=10).contains(&params.t));
    assert!((1..=16).contains(&params.p));
    assert_eq!(params.to_string().parse::<HashParams>(), Ok(params));
}

//! Floor 0: client secrets, their tags and verifiers, sealing of private keys, random bytes. Re-exports JOSE and X.509 of the
//! crate `jose`.

mod hash_params;
pub mod seal;
pub mod secret;
pub mod secret_tag;
pub mod secret_verifier;

pub use ::jose::{
    certificate, json, jwk, jwk_set, jws, jwt as jose, sha256, signature_alg, spiffe_bundle, verifying_key,
};

use std::cell::RefCell;

use aws_lc_rs::{hmac, rand};

/// Failure of the operating system's random generator. The caller refuses its request.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the operating system gave no random bytes")]
pub struct NoEntropy;

/// Returns `N` random bytes of the operating system's generator.
///
/// # Errors
/// [`NoEntropy`] when the generator fails. There is no fallback.
pub fn random<const N: usize>() -> Result<[u8; N], NoEntropy> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| NoEntropy)?;
    Ok(bytes)
}

/// Returns sixteen random bytes that identify something and need not stay secret. They are drawn 64 ids at a time,
/// since one call of the generator costs more than the MAC of a secret.
///
/// # Errors
/// [`NoEntropy`].
pub fn random_id() -> Result<[u8; 16], NoEntropy> {
    thread_local! {
        static DRAWN: RefCell<Vec<[u8; 16]>> = const { RefCell::new(Vec::new()) };
    }
    DRAWN.with_borrow_mut(|drawn| {
        if drawn.is_empty() {
            let bytes = random::<1024>()?;
            drawn.extend_from_slice(bytes.as_chunks().0);
        }
        drawn.pop().ok_or(NoEntropy)
    })
}

/// Compares two byte strings in constant time.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// Returns the first `N` bytes of the HMAC-SHA-256 of the concatenated `parts` (RFC 2104 section 5: truncation keeps
/// the leftmost bits). `key` must be a key of HMAC-SHA-256.
#[must_use]
pub fn hmac_sha256<const N: usize>(key: &hmac::Key, parts: &[&[u8]]) -> [u8; N] {
    const { assert!(N <= 32, "HMAC-SHA-256 has 32 bytes") };
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let mut mac = [0; N];
    mac.copy_from_slice(context.sign().as_ref().split_at(N).0);
    mac
}

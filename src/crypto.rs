//! Floor 0: bytes in, bytes out. Secrets, signatures, keys, certificates, JWTs, sealing; nothing here knows a disk or a
//! request.

pub mod certificate;
pub mod jose;
pub mod json;
pub mod jwk;
pub mod jwk_set;
pub mod jws;
pub mod seal;
pub mod secret;
pub mod secret_tag;
pub mod signature_alg;
pub mod verifying_key;

use std::cell::RefCell;

use aws_lc_rs::rand;

/// The system's random generator failed. Nothing that needs chance may go on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the operating system gave no random bytes")]
pub struct NoEntropy;

/// Fills an array from the operating system's generator.
///
/// # Errors
/// [`NoEntropy`] when the generator fails; callers refuse rather than fall back.
pub fn random<const N: usize>() -> Result<[u8; N], NoEntropy> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| NoEntropy)?;
    Ok(bytes)
}

/// Sixteen random bytes that tell one thing from another. They need not stay secret, so many are drawn at once: asking the
/// generator for each costs more than the MAC of a secret.
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

/// Compares without telling by its time where two byte strings differ.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

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
pub mod verifying_key;

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

/// Compares without telling by its time where two byte strings differ.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

//! Strict readers of JSON, JWT, JWK and X.509 certificates, and signing. Bytes in, bytes out: no clock, disk or network.
//!
//! - [`json`]: JSON objects (RFC 8259) in which no name occurs twice
//! - [`jwt`]: JWTs in compact form (RFC 7515, RFC 7519, RFC 8725)
//! - [`verifying_key`], [`jwk_set`], [`signature_alg`]: public keys as JWK (RFC 7517) and in PEM, to verify with
//! - [`spiffe_bundle`]: trust bundles of SPIFFE
//! - [`jws`], [`jwk`]: private keys, to sign with
//! - [`certificate`]: X.509 certificates and distinguished names (RFC 5280, RFC 4514)
#![forbid(unsafe_code)]

pub mod certificate;
pub mod json;
pub mod jwk;
pub mod jwk_set;
pub mod jws;
pub mod jwt;
pub mod signature_alg;
pub mod spiffe_bundle;
pub mod verifying_key;

use aws_lc_rs::digest::{SHA256, digest};

/// The first `N` bytes of the SHA-256 hash (FIPS 180-4).
#[must_use]
pub fn sha256<const N: usize>(bytes: &[u8]) -> [u8; N] {
    const { assert!(N <= 32, "SHA-256 has 32 bytes") };
    let mut hash = [0; N];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref().split_at(N).0);
    hash
}

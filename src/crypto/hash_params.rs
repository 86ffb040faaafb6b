//! Cost parameters of argon2id, and their bounds.

use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};

use super::NoEntropy;

/// Cost parameters of argon2id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashParams {
    /// Memory in KiB.
    pub m: u32,
    /// Passes over the memory.
    pub t: u32,
    /// Lanes.
    pub p: u32,
}

impl HashParams {
    /// Maximum memory of a stored hash, in KiB. A row above it is refused.
    pub const MAX_M: u32 = 65536;
    /// The default as text.
    pub(super) const DEFAULT: &str = "m=19456,t=2,p=1";

    /// Returns the parameters if a hash of this cost may be stored (OWASP ASVS 5.0, 11.4.2 and appendix C).
    ///
    /// # Errors
    /// [`HashError::TooWeak`] or [`HashError::TooCostly`].
    pub fn checked(self) -> Result<Self, HashError> {
        let Self { m, t, p } = self;
        let strong = (m >= 19456 && t >= 2) || (m >= 47104 && t >= 1) || (m >= 12288 && t >= 3);
        if !strong {
            Err(HashError::TooWeak)
        } else if m > Self::MAX_M || t > 10 || !(1..=16).contains(&p) {
            Err(HashError::TooCostly)
        } else {
            Ok(self)
        }
    }

    /// Whether hashing with these parameters costs less than with `other`.
    #[must_use]
    pub fn is_cheaper_than(self, other: Self) -> bool {
        u64::from(self.m) * u64::from(self.t) < u64::from(other.m) * u64::from(other.t)
    }

    pub(super) fn argon2(self, output_len: usize) -> Result<Argon2<'static>, HashError> {
        let params = Params::new(self.m, self.t, self.p, Some(output_len)).map_err(|_| HashError::TooCostly)?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }
}

impl Default for HashParams {
    fn default() -> Self {
        Self { m: 19456, t: 2, p: 1 }
    }
}

impl FromStr for HashParams {
    type Err = HashError;

    /// Reads the form of a PHC string, such as `m=19456,t=2,p=1`.
    fn from_str(text: &str) -> Result<Self, HashError> {
        let mut fields = text.split(',');
        let mut field = |name: &str| {
            fields
                .next()
                .and_then(|field| field.strip_prefix(name)?.strip_prefix('='))
                .and_then(|number| number.parse().ok())
                .ok_or(HashError::Malformed)
        };
        let params = Self { m: field("m")?, t: field("t")?, p: field("p")? };
        if fields.next().is_some() { Err(HashError::Malformed) } else { params.checked() }
    }
}

impl fmt::Display for HashParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m={},t={},p={}", self.m, self.t, self.p)
    }
}

/// Errors of reading or making a hash.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HashError {
    /// The text is not an argon2id hash: clear text, bcrypt, argon2i or argon2d.
    #[error("not an argon2id hash; store what `grantd hash-secret` prints")]
    NotArgon2id,
    /// The text begins like an argon2id hash and does not parse.
    #[error("not a well-formed argon2id PHC string")]
    Malformed,
    /// The cost is below the minimum.
    #[error("argon2id below the floor of m=19456,t=2,p=1 (or m=47104,t=1; m=12288,t=3)")]
    TooWeak,
    /// The cost is above the maximum.
    #[error("argon2id above the ceiling of m=65536,t=10,p=16")]
    TooCostly,
    /// No random salt could be generated.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
}

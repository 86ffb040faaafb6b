//! The algorithms that we sign with (RFC 7518 section 3.1, RFC 8037), and why a private key is not one of theirs.

use std::fmt;
use std::str::FromStr;

/// The signing algorithms of access tokens. Asymmetric only, and one key has one algorithm (RFC 8725 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Alg {
    /// ECDSA over P-256 with SHA-256.
    Es256,
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, which RFC 9068 section 2.1 makes mandatory to support.
    Rs256,
}

impl Alg {
    /// All of them, in the order of preference.
    pub const ALL: [Self; 4] = [Self::Es256, Self::EdDsa, Self::Ps256, Self::Rs256];

    /// The name in a JOSE header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
        }
    }
}

impl fmt::Display for Alg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Alg {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        Self::ALL.into_iter().find(|alg| alg.as_str() == name).ok_or(KeyError::Alg)
    }
}

/// Reasons for refusing a key or an algorithm.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No algorithm of that name.
    #[error("alg is one of ES256, EdDSA, PS256, RS256, in this spelling; token.alg may also be Ed25519")]
    Alg,
    /// Not a private key in PEM.
    #[error("no private key found; expected PEM, as `openssl genpkey` writes it")]
    NotPem,
    /// A private key with a passphrase.
    #[error("the private key has a passphrase; `openssl pkey -in FILE -out FILE.pem` writes it without one")]
    Encrypted,
    /// A certificate or a public key, where a private key is wanted.
    #[error(
        "this is a {0}, and a private key is wanted; it is in the file that `openssl genpkey` or `openssl req` wrote"
    )]
    NotPrivate(&'static str),
    /// The key's type does not go with the algorithm, or it is damaged.
    #[error(
        "this key cannot sign with {0}: ES256 takes P-256, EdDSA takes Ed25519, PS256 and RS256 take RSA of 2048 bits or more"
    )]
    WrongType(Alg),
    /// A JWK without a private part, or with one that is malformed.
    #[error(
        "the JWK is no private key to sign with: it has kty EC with crv P-256, OKP with Ed25519, or RSA, its public members, and d (for RSA also p, q, dp, dq, qi)"
    )]
    NotPrivateJwk,
    /// RFC 7518 section 3.3 asks for 2048 bits; above 4096 a signature takes too long.
    #[error("an RSA signing key has 2048 to 4096 bits")]
    Size,
    /// Every exponent but 65537 is refused.
    #[error("an RSA signing key has the public exponent 65537")]
    Exponent,
    /// The pair parsed but does not work.
    #[error("this key does not verify its own signature")]
    Unusable,
}

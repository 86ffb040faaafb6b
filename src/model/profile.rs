//! Security profiles: restrictions beyond the RFCs (FAPI 2.0 Security Profile).

use super::client::AuthMethod;
use super::resource::TokenTyp;
use crate::crypto::jwk::Alg;
use crate::crypto::signature_alg::SignatureAlg;

/// Security profile of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// The RFCs, with no further restriction.
    #[default]
    Default,
    /// The FAPI 2.0 Security Profile.
    Fapi2,
}

impl Profile {
    /// The value of `profile` in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Fapi2 => "fapi2",
        }
    }

    /// FAPI 2.0 section 5.3.2.1: "shall authenticate clients using one of the following methods: MTLS as specified in
    /// Section 2 of \[RFC8705\], or `private_key_jwt`".
    #[must_use]
    pub fn permits_method(self, method: AuthMethod) -> bool {
        match method {
            // Assertions of others are none of the named methods. An X.509-SVID is a client certificate.
            AuthMethod::ClientSecretBasic
            | AuthMethod::ClientSecretPost
            | AuthMethod::FederatedJwt
            | AuthMethod::SpiffeJwt => self == Self::Default,
            AuthMethod::PrivateKeyJwt
            | AuthMethod::TlsClientAuth
            | AuthMethod::SelfSignedTlsClientAuth
            | AuthMethod::SpiffeX509 => true,
        }
    }

    /// FAPI 2.0 section 5.4.1: "use PS256, ES256, or EdDSA (using the Ed25519 variant) algorithms".
    #[must_use]
    pub fn permits_alg(self, alg: Alg) -> bool {
        match alg {
            Alg::Es256 | Alg::EdDsa | Alg::Ps256 => true,
            Alg::Rs256 => self == Self::Default,
        }
    }

    /// The same rule for JWTs that clients sign.
    #[must_use]
    pub fn permits_signature(self, alg: SignatureAlg) -> bool {
        self == Self::Default || matches!(alg, SignatureAlg::Es256 | SignatureAlg::EdDsa | SignatureAlg::Ps256)
    }

    /// The names of the algorithms that assertions and proofs may be signed with.
    #[must_use]
    pub fn alg_names(self) -> Vec<&'static str> {
        let permitted = |name: &&str| SignatureAlg::named(name).is_some_and(|alg| self.permits_signature(alg));
        SignatureAlg::NAMES.into_iter().filter(permitted).collect()
    }

    /// The `typ` of access tokens for a resource that asks for `typ`: always `at+jwt` (RFC 9068 section 2.1) in FAPI 2.0.
    #[must_use]
    pub fn token_typ(self, typ: TokenTyp) -> TokenTyp {
        match self {
            Self::Default => typ,
            Self::Fapi2 => TokenTyp::AtJwt,
        }
    }

    /// FAPI 2.0 section 5.3.2.1: "shall only issue sender-constrained access tokens".
    #[must_use]
    pub fn needs_binding(self) -> bool {
        self == Self::Fapi2
    }
}

//! Why a client is not authenticated (RFC 6749 section 5.2, `invalid_client`): many reasons inside, one face outside.

use super::reason::Reason;
use crate::crypto::jose::JoseError;
use crate::model::certificate::CertificateMismatch;

/// The client is not authenticated. All of these look the same from outside.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ClientAuthError {
    /// SEC-13.
    #[error("no client authentication included")]
    Absent,
    /// SEC-09.
    #[error("the authentication scheme is not Basic")]
    Scheme,
    /// SEC-08.
    #[error("the Basic credentials are malformed")]
    Malformed,
    /// No such client.
    #[error("unknown client")]
    Unknown,
    /// The client's row cannot be understood.
    #[error("the client's row is malformed; `grantd doctor` says how")]
    Broken,
    /// The client is disabled.
    #[error("client disabled")]
    Disabled,
    /// The client's `auth_methods` do not list this one.
    #[error("authentication method not allowed for this client")]
    MethodNotAllowed,
    /// FAP-06.
    #[error("the profile does not permit this authentication method")]
    MethodNotInProfile,
    /// No secret matches.
    #[error("wrong secret")]
    WrongSecret,
    /// The secret is right and its time is over.
    #[error("secret expired")]
    SecretExpired,
    /// The secret is right and was revoked.
    #[error("secret revoked")]
    SecretRevoked,
    /// JCA-01.
    #[error("client_assertion_type is not urn:ietf:params:oauth:client-assertion-type:jwt-bearer")]
    AssertionType,
    /// JCA-01: a type without an assertion.
    #[error("client_assertion is missing")]
    AssertionAbsent,
    /// JOS: the JWT is malformed, of another kind, or nobody's whom we know.
    #[error("client assertion: {0}")]
    Assertion(#[from] JoseError),
    /// JCA-14.
    #[error("client assertion: the profile does not permit its alg")]
    AssertionAlg,
    /// JCA-03, JCA-04.
    #[error("client assertion: iss, sub and client_id are not one and the same")]
    AssertionSubject,
    /// JCA-05.
    #[error(
        "client assertion: aud is not the issuer identifier; where a library sends the URL of the token endpoint, `grantd client set ID --assertion-audience token-endpoint` accepts it"
    )]
    AssertionAudience,
    /// JCA-07, JCA-11.
    #[error("client assertion: the claim {0} is missing")]
    AssertionIncomplete(&'static str),
    /// JCA-07.
    #[error("client assertion: expired")]
    AssertionExpired,
    /// JCA-08.
    #[error(
        "client assertion: exp is more than five minutes, or what is registered, after iat, or after now where there is no iat; `grantd client set ID --assertion-lifetime 1h` accepts more"
    )]
    AssertionLifetime,
    /// JCA-09.
    #[error("client assertion: nbf or iat lies in the future")]
    AssertionEarly,
    /// JCA-10.
    #[error("client assertion: iat lies more than a day back")]
    AssertionOld,
    /// JCA-11.
    #[error("client assertion: its jti was used before")]
    AssertionReplayed,
    /// JCA-17: there is no key to check with.
    #[error("the key set at the client's jwks_uri cannot be had; the event jwks_uri.trouble says why")]
    KeySet,
    /// The key is right and its time is over.
    #[error("key expired")]
    KeyExpired,
    /// C19: the proxy's, and one that it let through.
    #[error("the Client-Cert field stands more than once")]
    CertificateRepeated,
    /// MTL-02, MTL-03.
    #[error(transparent)]
    Certificate(#[from] CertificateMismatch),
}

impl ClientAuthError {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Absent => Reason::NoCredentials,
            Self::Scheme => Reason::AuthScheme,
            Self::Malformed => Reason::CredentialsMalformed,
            Self::Unknown => Reason::UnknownClient,
            Self::Broken => Reason::ClientMalformed,
            Self::Disabled => Reason::ClientDisabled,
            Self::MethodNotAllowed => Reason::AuthMethodNotAllowed,
            Self::MethodNotInProfile => Reason::AuthMethodNotInProfile,
            Self::WrongSecret => Reason::WrongSecret,
            Self::SecretExpired => Reason::SecretExpired,
            Self::SecretRevoked => Reason::SecretRevoked,
            Self::AssertionType => Reason::AssertionType,
            Self::AssertionAbsent => Reason::AssertionMissing,
            Self::Assertion(error) => error.into(),
            Self::AssertionAlg => Reason::AssertionAlg,
            Self::AssertionSubject => Reason::AssertionSubject,
            Self::AssertionAudience => Reason::AssertionAudience,
            Self::AssertionIncomplete(_) => Reason::AssertionIncomplete,
            Self::AssertionExpired => Reason::AssertionExpired,
            Self::AssertionLifetime => Reason::AssertionLifetime,
            Self::AssertionEarly => Reason::AssertionEarly,
            Self::AssertionOld => Reason::AssertionOld,
            Self::AssertionReplayed => Reason::AssertionReplayed,
            Self::KeySet => Reason::JwksUriUnavailable,
            Self::KeyExpired => Reason::KeyExpired,
            Self::CertificateRepeated => Reason::ClientCertRepeated,
            Self::Certificate(CertificateMismatch::Other) => Reason::CertificateUnknown,
            Self::Certificate(CertificateMismatch::Untrusted(_)) => Reason::CertificateUntrusted,
            Self::Certificate(CertificateMismatch::Purpose) => Reason::CertificatePurpose,
            Self::Certificate(CertificateMismatch::Expired) => Reason::CertificateExpired,
        }
    }
}

//! Why a client is not authenticated (RFC 6749 section 5.2, `invalid_client`): many reasons inside, one face outside.

use super::federation::FederationError;
use super::reason::Reason;
use crate::crypto::jose::JoseError;
use crate::crypto::secret::Wrapping;
use crate::model::certificate::CertificateMismatch;
use crate::model::client_id::ClientId;

/// The client is not authenticated. All of these look the same from outside.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ClientAuthError {
    /// The request has no client authentication.
    #[error("no client authentication included")]
    Absent,
    /// The scheme of `Authorization` is not `Basic`.
    #[error("the authentication scheme is not Basic")]
    Scheme,
    /// The value after `Basic` is malformed.
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
    /// The end of the client has come.
    #[error("client expired")]
    Expired,
    /// The client's `auth_methods` do not list this one.
    #[error("authentication method not allowed for this client")]
    MethodNotAllowed,
    /// The profile does not permit this authentication method.
    #[error("the profile does not permit this authentication method")]
    MethodNotInProfile,
    /// No secret matches.
    #[error("wrong secret")]
    WrongSecret,
    /// The secret was generated for this client, and its row is gone.
    #[error("wrong secret: grantd generated it for this client, and its row was deleted")]
    SecretDeleted,
    /// The secret has characters around it that come with a copy, and without them a valid tag.
    #[error("the secret has {0} before or behind it; without it, it is one that grantd generated for this client")]
    SecretWrapped(Wrapping),
    /// The secret has characters around it that come with a copy. Whether it is right without them is not known.
    #[error("the secret begins or ends with {0}, and matches no secret of the client")]
    SecretLooksWrapped(Wrapping),
    /// The secret is one of another client.
    #[error("the secret is one of the client {:?}", .0.as_str())]
    SecretOfOtherClient(ClientId),
    /// The secret begins like one that grantd generated, and is too short.
    #[error("the secret lacks its end")]
    SecretTruncated,
    /// The secret of the client of that id is the empty text.
    #[error("the secret is empty")]
    SecretEmpty(Box<str>),
    /// The secret is right and its time is over.
    #[error("secret expired")]
    SecretExpired,
    /// The secret is right and was revoked.
    #[error("secret revoked")]
    SecretRevoked,
    /// `client_assertion_type` is neither that of RFC 7523 nor that of SVIDs.
    #[error("client_assertion_type is neither urn:ietf:params:oauth:client-assertion-type:jwt-bearer nor …:jwt-spiffe")]
    AssertionType,
    /// `client_assertion_type` comes without `client_assertion`.
    #[error("client_assertion is missing")]
    AssertionAbsent,
    /// The assertion's JWT is malformed, of another kind, or not signed by a key of the client.
    #[error("client assertion: {0}")]
    Assertion(#[from] JoseError),
    /// The profile does not permit the assertion's `alg`.
    #[error("client assertion: the profile does not permit its alg")]
    AssertionAlg,
    /// `iss`, `sub` and `client_id` do not all name the same client.
    #[error("client assertion: iss, sub and client_id are not one and the same")]
    AssertionSubject,
    /// `aud` is not the issuer, nor the token endpoint for clients registered so.
    #[error(
        "client assertion: aud is not the issuer identifier; where a library sends the URL of the token endpoint, `grantd client set ID --assertion-audience token-endpoint` accepts it"
    )]
    AssertionAudience,
    /// The claim `exp` or `jti` is missing.
    #[error("client assertion: the claim {0} is missing")]
    AssertionIncomplete(&'static str),
    /// `exp` has passed.
    #[error("client assertion: expired")]
    AssertionExpired,
    /// `exp` is further away than the client's assertion lifetime.
    #[error(
        "client assertion: exp is more than five minutes, or what is registered, after iat, or after now where there is no iat; `grantd client set ID --assertion-lifetime 1h` accepts more"
    )]
    AssertionLifetime,
    /// `nbf` or `iat` is further ahead than clocks may differ.
    #[error("client assertion: nbf or iat lies in the future")]
    AssertionEarly,
    /// `iat` is more than a day back.
    #[error("client assertion: iat lies more than a day back")]
    AssertionOld,
    /// A token of a trusted issuer is not accepted.
    #[error(transparent)]
    Federation(Box<FederationError>),
    /// The `jti` was used before.
    #[error("client assertion: its jti was used before")]
    AssertionReplayed,
    /// The JWK Set at the client's `jwks_uri` could not be fetched.
    #[error("the key set at the client's jwks_uri cannot be had; the event jwks_uri.trouble says why")]
    KeySet,
    /// The key is right and its time is over.
    #[error("key expired")]
    KeyExpired,
    /// The `Client-Cert` field is repeated, so the proxy let through one of the client's.
    #[error("the Client-Cert field stands more than once")]
    CertificateRepeated,
    /// The connection's certificate is not registered for the client, or no CA vouches for it.
    #[error(transparent)]
    Certificate(#[from] CertificateMismatch),
}

impl From<FederationError> for ClientAuthError {
    fn from(error: FederationError) -> Self {
        Self::Federation(Box::new(error))
    }
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
            Self::Expired => Reason::ClientExpired,
            Self::MethodNotAllowed => Reason::AuthMethodNotAllowed,
            Self::MethodNotInProfile => Reason::AuthMethodNotInProfile,
            Self::WrongSecret | Self::SecretDeleted => Reason::WrongSecret,
            Self::SecretWrapped(_) | Self::SecretLooksWrapped(_) => Reason::SecretWhitespace,
            Self::SecretOfOtherClient(_) => Reason::SecretOfOtherClient,
            Self::SecretTruncated => Reason::SecretTruncated,
            Self::SecretEmpty(_) => Reason::SecretEmpty,
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
            Self::Federation(error) => error.reason(),
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

//! Every refusal. Each has two faces: what happened, for the log, and what the client may know, which cannot leak since
//! it is made of `&'static str` alone. One word is added to it elsewhere: an authenticated client reads which of its own
//! scopes or resources was refused (`Attempt::refused`).

mod client_auth;
pub mod dpop;
pub mod federation;
mod grant;
pub mod inactive;
mod jose;
pub mod reason;
pub mod verification;

use std::time::Duration;

pub use client_auth::ClientAuthError;
use dpop::DpopError;
use federation::FederationError;
pub use grant::GrantError;
use reason::Reason;

use crate::crypto::NoEntropy;
use crate::state::pkcs11::ModuleFault;
use crate::state::signer::SigningFault;
use crate::state::throttle::Throttled;

/// The `error` member of an answer (RFC 6749 section 5.2, RFC 8707 section 2, RFC 9449 section 12.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// "The request is missing a required parameter, … repeats a parameter, … or is otherwise malformed."
    InvalidRequest,
    /// "Client authentication failed".
    InvalidClient,
    /// "The authenticated client is not authorized to use this authorization grant type."
    UnauthorizedClient,
    /// "The authorization grant type is not supported by the authorization server."
    UnsupportedGrantType,
    /// "The requested scope is invalid, unknown, malformed".
    InvalidScope,
    /// "The requested resource is invalid, missing, unknown, or malformed."
    InvalidTarget,
    /// The DPoP proof is invalid or missing.
    InvalidDpopProof,
    /// "Authorization server requires nonce in DPoP proof".
    UseDpopNonce,
    /// "… or was issued to another client": what is to be revoked is somebody else's.
    InvalidGrant,
    /// Not the client's fault: try again later (503, or 429 when this caller failed too often).
    TemporarilyUnavailable,
    /// A fault of ours (500).
    ServerError,
}

impl ErrorCode {
    /// As it stands in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidDpopProof => "invalid_dpop_proof",
            Self::UseDpopNonce => "use_dpop_nonce",
            Self::InvalidGrant => "invalid_grant",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::ServerError => "server_error",
        }
    }
}

/// Why a request got no token.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The request itself.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Client authentication.
    #[error(transparent)]
    ClientAuth(#[from] ClientAuthError),
    /// The DPoP proof.
    #[error(transparent)]
    Dpop(#[from] DpopError),
    /// The access that is asked for.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The assertion of the grant `jwt-bearer` (RFC 7523 section 3.1).
    #[error("{0}")]
    Assertion(ClientAuthError),
    /// The token to be revoked was issued to another client.
    #[error("the token was issued to another client")]
    OtherClientsToken,
    /// Nobody's fault that asking again cannot mend.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// This client failed too often from this source.
    #[error("too many failures of this client from this source; the reason of the last one: {}", .0.last)]
    Throttled(Throttled),
    /// A fault of ours.
    #[error("internal fault")]
    Internal,
}

/// The request is malformed.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum RequestError {
    /// The body's media type is not `application/x-www-form-urlencoded`.
    #[error("the body is not application/x-www-form-urlencoded")]
    MediaType,
    /// The body has a content coding, which would have to be decompressed.
    #[error("the body has a content coding")]
    ContentCoding,
    /// A percent escape is malformed, or the decoded text is not UTF-8 or has a NUL.
    #[error("the form is malformed")]
    Form,
    /// The body is longer than its limit.
    #[error("the body is too large")]
    TooLarge,
    /// The form has more parameters than its limit.
    #[error("the form has too many parameters")]
    TooManyParameters,
    /// The body did not arrive within its deadline.
    #[error("the body did not arrive in time")]
    Slow,
    /// The body broke off.
    #[error("the body broke off")]
    BrokenOff,
    /// RFC 6749 section 3.2: "Request and response parameters MUST NOT be included more than once."
    #[error("a parameter is repeated")]
    Repeated,
    /// RFC 6749 section 2.3.1: the credentials "MUST NOT be included in the request URI".
    #[error("credentials stand in the URI")]
    CredentialsInUri,
    /// The request has more than one `Authorization` field.
    #[error("the Authorization field is repeated")]
    SeveralAuthorizations,
    /// RFC 6749 section 2.3: "The client MUST NOT use more than one authentication method in each request."
    #[error("more than one way of authentication")]
    SeveralMethods,
    /// `client_id` in the body names another client than the credentials.
    #[error("client_id in the body differs from the one that authenticates")]
    OtherClientId,
    /// A trusted proxy sent a `Client-Cert` field that is malformed, or a certificate out of bounds.
    #[error("the Client-Cert field is malformed, or no certificate that is taken")]
    ClientCert,
    /// `grant_type` is missing or empty.
    #[error("grant_type is missing")]
    NoGrantType,
    /// `assertion` is missing or empty at the grant `jwt-bearer`.
    #[error("assertion is missing")]
    NoAssertion,
    /// The request has client authentication beside `assertion`.
    #[error("client authentication beside the assertion of the grant")]
    AuthenticationBesideAssertion,
    /// `token` is missing or empty at `/introspect` or `/revoke`.
    #[error("token is missing")]
    NoToken,
}

/// The request cannot be decided now.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum Unavailable {
    /// The registry has not been read, or is older than `registry.max_stale`.
    #[error("the registry is empty or too old; see /readyz")]
    Registry,
    /// The database cannot be asked, and in memory there is no such credential.
    #[error("the database cannot be asked whether this credential is new")]
    Unconfirmed,
    /// The argon2 lane is full.
    #[error("the queue of secrets to check is full")]
    Hashing {
        /// Time after which there is likely to be room.
        retry_after: Duration,
    },
    /// The limit of concurrent fetches of key sets is reached.
    #[error("the client's host was not asked for its key set, since too many are being fetched")]
    KeySets,
    /// More comes than can be answered in time.
    #[error("more requests than can be answered in time; some are refused")]
    Overloaded,
    /// Whether something is used for the first time cannot be told.
    #[error("the database cannot be asked whether this was used before")]
    SpentStore,
    /// The database did not take a revocation.
    #[error("the database did not take the revocation")]
    RevokedStore,
    /// There is no key to sign with.
    #[error("no signing key of the algorithm; see `grantd key list`")]
    NoKey,
    /// The PKCS #11 module in which the signing key is does not sign.
    #[error(transparent)]
    Module(#[from] ModuleFault),
}

impl From<NoEntropy> for Error {
    fn from(NoEntropy: NoEntropy) -> Self {
        Self::Internal
    }
}

impl From<SigningFault> for Error {
    fn from(fault: SigningFault) -> Self {
        match fault {
            SigningFault::Library => Self::Internal,
            SigningFault::Module(fault) => Unavailable::from(fault).into(),
        }
    }
}

impl From<FederationError> for Error {
    fn from(error: FederationError) -> Self {
        Self::ClientAuth(error.into())
    }
}

impl Error {
    /// The same error at the grant `jwt-bearer`, which authenticates no client.
    #[must_use]
    pub fn of_grant(self) -> Self {
        match self {
            Self::ClientAuth(error) => Self::Assertion(error),
            other => other,
        }
    }

    /// The member `error` of the answer.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Request(_) => ErrorCode::InvalidRequest,
            Self::ClientAuth(_) => ErrorCode::InvalidClient,
            Self::Dpop(error) => error.code(),
            Self::Grant(error) => error.code(),
            // RFC 7521 section 4.1.1: "the value of the "error" parameter MUST be the "invalid_grant" error code."
            Self::Assertion(_) | Self::OtherClientsToken => ErrorCode::InvalidGrant,
            Self::Unavailable(_) | Self::Throttled(_) => ErrorCode::TemporarilyUnavailable,
            Self::Internal => ErrorCode::ServerError,
        }
    }

    /// The member `error_description` of the answer: enough to correct the request, nothing about the server or others.
    #[must_use]
    pub fn description(&self) -> &'static str {
        match self {
            Self::Request(error) => error.description(),
            Self::ClientAuth(_) => "client authentication failed",
            Self::Dpop(error) => error.description(),
            Self::Grant(error) => error.description(),
            Self::Assertion(_) => "the assertion is not accepted",
            Self::OtherClientsToken => "the token was issued to another client",
            Self::Unavailable(_) => "the server cannot answer now, try again later",
            Self::Throttled(_) => "too many failures, try again later",
            Self::Internal => "the server failed",
        }
    }

    /// After how long the client should try again, when that can help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled(throttled) => Some(throttled.wait),
            Self::Unavailable(Unavailable::Hashing { retry_after }) => Some(*retry_after),
            Self::Unavailable(
                Unavailable::KeySets | Unavailable::Overloaded | Unavailable::Module(ModuleFault::Busy),
            ) => Some(Duration::from_secs(1)),
            Self::Unavailable(_) => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    /// The reason code of the log and the metrics: one of a closed list.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Request(error) => error.reason(),
            Self::ClientAuth(error) | Self::Assertion(error) => error.reason(),
            Self::Dpop(error) => error.reason(),
            Self::Grant(error) => error.reason(),
            Self::OtherClientsToken => Reason::TokenOfOtherClient,
            Self::Unavailable(unavailable) => unavailable.reason(),
            Self::Throttled(_) => Reason::Throttled,
            Self::Internal => Reason::Internal,
        }
    }
}

impl Unavailable {
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Registry => Reason::RegistryUnusable,
            Self::Unconfirmed => Reason::DatabaseUnavailable,
            Self::Hashing { .. } => Reason::HashingBusy,
            Self::KeySets => Reason::JwksUriBusy,
            Self::Overloaded => Reason::Overloaded,
            Self::SpentStore => Reason::SpentStoreUnavailable,
            Self::RevokedStore => Reason::RevocationNotWritten,
            Self::NoKey => Reason::NoSigningKey,
            Self::Module(_) => Reason::SigningModuleUnavailable,
        }
    }
}

impl RequestError {
    fn description(self) -> &'static str {
        match self {
            Self::MediaType => "the body must be application/x-www-form-urlencoded",
            Self::ContentCoding => "the body must have no content coding",
            Self::Form => "the body must be well-formed, percent-encoded UTF-8",
            Self::TooLarge => "the body is too large",
            Self::TooManyParameters => "the form has too many parameters",
            Self::Slow | Self::BrokenOff => "the body did not arrive",
            Self::Repeated => "a parameter is repeated",
            Self::CredentialsInUri => "credentials must not be sent in the URI",
            Self::SeveralAuthorizations => "the Authorization header field is repeated",
            Self::SeveralMethods => "use one way of client authentication, not several",
            Self::OtherClientId => "client_id is not the client that authenticates",
            Self::ClientCert => "the Client-Cert header field is malformed",
            Self::NoGrantType => "grant_type is missing",
            Self::NoAssertion => "assertion is missing",
            Self::AuthenticationBesideAssertion => {
                "the assertion says which client asks, send no other client authentication"
            }
            Self::NoToken => "token is missing",
        }
    }

    fn reason(self) -> Reason {
        match self {
            Self::MediaType => Reason::MediaType,
            Self::ContentCoding => Reason::ContentCoding,
            Self::Form => Reason::FormMalformed,
            Self::TooLarge => Reason::TooLarge,
            Self::TooManyParameters => Reason::TooManyParameters,
            Self::Slow => Reason::BodySlow,
            Self::BrokenOff => Reason::BodyBrokenOff,
            Self::Repeated => Reason::ParameterRepeated,
            Self::CredentialsInUri => Reason::CredentialsInUri,
            Self::SeveralAuthorizations => Reason::SeveralAuthorizations,
            Self::SeveralMethods | Self::AuthenticationBesideAssertion => Reason::SeveralAuthMethods,
            Self::OtherClientId => Reason::ClientIdDiffers,
            Self::ClientCert => Reason::ClientCertMalformed,
            Self::NoGrantType => Reason::GrantTypeMissing,
            Self::NoAssertion => Reason::AssertionMissing,
            Self::NoToken => Reason::TokenMissing,
        }
    }
}

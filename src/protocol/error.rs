//! Every refusal. Each has two faces: what happened, for the log, and what the client may know, which cannot leak since
//! it is made of `&'static str` alone.

use std::time::Duration;

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
    /// Who asks.
    #[error(transparent)]
    ClientAuth(#[from] ClientAuthError),
    /// What is asked for.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// Nobody's fault that asking again cannot mend.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// This client failed too often from this source.
    #[error("too many failures of this client from this source")]
    Throttled(Duration),
    /// A fault of ours.
    #[error("internal fault")]
    Internal,
}

/// The request is malformed.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum RequestError {
    /// TOK-04.
    #[error("the body is not application/x-www-form-urlencoded")]
    MediaType,
    /// TOK-05.
    #[error("the body has a content coding")]
    ContentCoding,
    /// TOK-13: bad escapes, bad UTF-8, NUL.
    #[error("the form is malformed")]
    Form,
    /// TOK-20.
    #[error("the body is too large")]
    TooLarge,
    /// TOK-20.
    #[error("the form has too many parameters")]
    TooManyParameters,
    /// HTP-08: the body did not arrive in time.
    #[error("the body did not arrive in time")]
    Slow,
    /// The body broke off.
    #[error("the body broke off")]
    BrokenOff,
    /// TOK-08.
    #[error("a parameter is repeated")]
    Repeated,
    /// TOK-17.
    #[error("credentials stand in the URI")]
    CredentialsInUri,
    /// SEC-10.
    #[error("the Authorization field is repeated")]
    SeveralAuthorizations,
    /// SEC-11: "The client MUST NOT use more than one authentication method in each request."
    #[error("more than one way of authentication")]
    SeveralMethods,
    /// SEC-12.
    #[error("client_id in the body differs from the one that authenticates")]
    OtherClientId,
    /// TOK-11.
    #[error("grant_type is missing")]
    NoGrantType,
}

/// The client is not authenticated. All of these look the same from outside.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
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
    /// JCA: signed assertions are not accepted by this server.
    #[error("client assertions are not supported")]
    Assertion,
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
    /// No secret matches.
    #[error("wrong secret")]
    WrongSecret,
    /// The secret is right and its time is over.
    #[error("secret expired")]
    SecretExpired,
    /// The secret is right and was revoked.
    #[error("secret revoked")]
    SecretRevoked,
}

/// The authenticated client does not get this.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum GrantError {
    /// GRT-02.
    #[error("unknown grant type")]
    UnsupportedGrantType,
    /// GRT-03.
    #[error("the client may not use this grant type")]
    GrantNotAllowed,
    /// DPO-19.
    #[error("the client requires DPoP and this server does not offer it")]
    DpopRequired,
    /// MTL-08.
    #[error("the client requires certificate-bound tokens and this server does not offer them")]
    MtlsBindingRequired,
    /// SCP-01, SCP-09.
    #[error("malformed scope")]
    ScopeMalformed,
    /// SCP-04.
    #[error("a scope is not among those the client may ask for")]
    ScopeNotAllowed,
    /// SCP-05.
    #[error("no scope asked for, and no default that applies")]
    ScopeMissing,
    /// SCP-07, ATJ-08.
    #[error("no single resource of the client understands these scopes")]
    ScopeNotForResource,
    /// RES-01.
    #[error("malformed resource")]
    ResourceMalformed,
    /// RES-02.
    #[error("unknown resource, or not allowed for the client")]
    ResourceNotAllowed,
    /// RES-04.
    #[error("several resources asked for; one token has one audience")]
    SeveralResources,
    /// Several of the client's resources understand the scopes and none was named.
    #[error("no resource named and several understand these scopes")]
    ResourceAmbiguous,
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
    Hashing,
    /// More comes than can be answered in time.
    #[error("more requests than can be answered in time; some are refused")]
    Overloaded,
    /// There is no key to sign with.
    #[error("no signing key of the algorithm; see `grantd key list`")]
    NoKey,
}

impl Error {
    /// What the client reads in `error`.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Request(_) => ErrorCode::InvalidRequest,
            Self::ClientAuth(_) => ErrorCode::InvalidClient,
            Self::Grant(error) => error.code(),
            Self::Unavailable(_) | Self::Throttled(_) => ErrorCode::TemporarilyUnavailable,
            Self::Internal => ErrorCode::ServerError,
        }
    }

    /// What the client reads in `error_description`: enough to mend its request, nothing of us or of others.
    #[must_use]
    pub fn description(&self) -> &'static str {
        match self {
            Self::Request(error) => error.description(),
            Self::ClientAuth(_) => "client authentication failed",
            Self::Grant(error) => error.description(),
            Self::Unavailable(_) => "the server cannot answer now, try again later",
            Self::Throttled(_) => "too many failures, try again later",
            Self::Internal => "the server failed",
        }
    }

    /// After how long the client should try again, when that can help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled(wait) => Some(*wait),
            Self::Unavailable(Unavailable::Hashing | Unavailable::Overloaded) => Some(Duration::from_secs(1)),
            Self::Unavailable(_) => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    /// The reason code of the log and the metrics: one of a closed list that the README explains.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Request(error) => error.reason(),
            Self::ClientAuth(error) => error.reason(),
            Self::Grant(error) => error.reason(),
            Self::Unavailable(Unavailable::Registry) => "registry_unusable",
            Self::Unavailable(Unavailable::Unconfirmed) => "database_unavailable",
            Self::Unavailable(Unavailable::Hashing) => "hashing_busy",
            Self::Unavailable(Unavailable::Overloaded) => "overloaded",
            Self::Unavailable(Unavailable::NoKey) => "no_signing_key",
            Self::Throttled(_) => "throttled",
            Self::Internal => "internal",
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
            Self::NoGrantType => "grant_type is missing",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::MediaType => "media_type",
            Self::ContentCoding => "content_coding",
            Self::Form => "form_malformed",
            Self::TooLarge => "too_large",
            Self::TooManyParameters => "too_many_parameters",
            Self::Slow => "body_slow",
            Self::BrokenOff => "body_broken_off",
            Self::Repeated => "parameter_repeated",
            Self::CredentialsInUri => "credentials_in_uri",
            Self::SeveralAuthorizations => "several_authorizations",
            Self::SeveralMethods => "several_auth_methods",
            Self::OtherClientId => "client_id_differs",
            Self::NoGrantType => "grant_type_missing",
        }
    }
}

impl ClientAuthError {
    fn reason(self) -> &'static str {
        match self {
            Self::Absent => "no_credentials",
            Self::Scheme => "auth_scheme",
            Self::Malformed => "credentials_malformed",
            Self::Assertion => "assertion_unsupported",
            Self::Unknown => "unknown_client",
            Self::Broken => "client_malformed",
            Self::Disabled => "client_disabled",
            Self::MethodNotAllowed => "auth_method_not_allowed",
            Self::WrongSecret => "wrong_secret",
            Self::SecretExpired => "secret_expired",
            Self::SecretRevoked => "secret_revoked",
        }
    }
}

impl GrantError {
    fn code(self) -> ErrorCode {
        match self {
            Self::UnsupportedGrantType => ErrorCode::UnsupportedGrantType,
            Self::GrantNotAllowed => ErrorCode::UnauthorizedClient,
            Self::DpopRequired => ErrorCode::InvalidDpopProof,
            Self::MtlsBindingRequired => ErrorCode::InvalidRequest,
            Self::ScopeMalformed | Self::ScopeNotAllowed | Self::ScopeMissing | Self::ScopeNotForResource => {
                ErrorCode::InvalidScope
            }
            Self::ResourceMalformed | Self::ResourceNotAllowed | Self::SeveralResources | Self::ResourceAmbiguous => {
                ErrorCode::InvalidTarget
            }
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::UnsupportedGrantType => "this server supports client_credentials",
            Self::GrantNotAllowed => "this client may not use this grant type",
            Self::DpopRequired => "this client must use DPoP",
            Self::MtlsBindingRequired => "this client must present a certificate",
            Self::ScopeMalformed => "scope is malformed",
            Self::ScopeNotAllowed => "a scope is not allowed for this client",
            Self::ScopeMissing => "name a scope, this client has no default that applies",
            Self::ScopeNotForResource => "these scopes are not for one resource of this client",
            Self::ResourceMalformed => "resource must be an absolute URI without fragment",
            Self::ResourceNotAllowed => "this resource is not allowed for this client",
            Self::SeveralResources => "ask for one resource at a time",
            Self::ResourceAmbiguous => "name the resource, several understand these scopes",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::GrantNotAllowed => "grant_not_allowed",
            Self::DpopRequired => "dpop_required",
            Self::MtlsBindingRequired => "mtls_binding_required",
            Self::ScopeMalformed => "scope_malformed",
            Self::ScopeNotAllowed => "scope_not_allowed",
            Self::ScopeMissing => "scope_missing",
            Self::ScopeNotForResource => "scope_not_for_resource",
            Self::ResourceMalformed => "resource_malformed",
            Self::ResourceNotAllowed => "resource_not_allowed",
            Self::SeveralResources => "several_resources",
            Self::ResourceAmbiguous => "resource_ambiguous",
        }
    }
}

//! Registered clients (RFC 6749 section 2): confidential, each with its own scopes, resources and credentials.

use std::str::FromStr;

use super::claims::RegisteredClaims;
use super::client_id::ClientId;
use super::credential::{StoredCertificate, StoredKey, StoredSecret};
use super::jwks_uri::JwksUri;
use super::lifetime::{AssertionLifetime, TokenTtl};
use super::resource::ResourceId;
use super::scope::Scope;
use super::time::UnixTime;
use crate::crypto::jwk::Alg;

/// How a client proved who it is, by its name in the metadata (RFC 7591 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthMethod {
    /// The secret by HTTP Basic.
    ClientSecretBasic,
    /// The secret in the request body.
    ClientSecretPost,
    /// A JWT that the client signed (RFC 7523).
    PrivateKeyJwt,
    /// A certificate of a CA that we trust (RFC 8705 section 2.1).
    TlsClientAuth,
    /// A certificate that was registered whole (RFC 8705 section 2.2).
    SelfSignedTlsClientAuth,
}

impl AuthMethod {
    /// Those that work, in the order the metadata lists them.
    pub const ALL: [Self; 5] = [
        Self::ClientSecretBasic,
        Self::ClientSecretPost,
        Self::PrivateKeyJwt,
        Self::TlsClientAuth,
        Self::SelfSignedTlsClientAuth,
    ];

    /// The registered name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::TlsClientAuth => "tls_client_auth",
            Self::SelfSignedTlsClientAuth => "self_signed_tls_client_auth",
        }
    }
}

/// Whom an assertion of a client may be addressed to (its `aud`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AssertionAudience {
    /// The issuer, as draft-ietf-oauth-rfc7523bis section 4 wants.
    #[default]
    Issuer,
    /// The issuer or the URL of the token endpoint, as RFC 7523 section 3 allowed.
    TokenEndpoint,
}

impl AssertionAudience {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Issuer, Self::TokenEndpoint];

    /// The value in the database and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::TokenEndpoint => "token-endpoint",
        }
    }
}

/// Not an audience of assertions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("issuer or token-endpoint")]
pub struct AssertionAudienceError;

impl FromStr for AssertionAudience {
    type Err = AssertionAudienceError;

    fn from_str(text: &str) -> Result<Self, AssertionAudienceError> {
        Self::ALL.into_iter().find(|one| one.as_str() == text).ok_or(AssertionAudienceError)
    }
}

/// The scopes of a client: those it may ask for, and a part of them for requests that name none (RFC 6749 section 3.3).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientScope {
    allowed: Scope,
    default: Scope,
}

/// A default scope that the client may not ask for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the default scope `{default}` must be a part of the scope `{allowed}`")]
pub struct DefaultScopeError {
    /// The scopes the client may ask for.
    pub allowed: Scope,
    /// The default that is not a part of them.
    pub default: Scope,
}

impl ClientScope {
    /// Takes the scopes that a client may ask for, and its default.
    ///
    /// # Errors
    /// [`DefaultScopeError`].
    pub fn new(allowed: Scope, default: Scope) -> Result<Self, DefaultScopeError> {
        if default.is_subset_of(&allowed) {
            Ok(Self { allowed, default })
        } else {
            Err(DefaultScopeError { allowed, default })
        }
    }

    /// The scopes the client may ask for.
    #[must_use]
    pub fn allowed(&self) -> &Scope {
        &self.allowed
    }

    /// The scopes of a request that names none.
    #[must_use]
    pub fn default_scope(&self) -> &Scope {
        &self.default
    }
}

/// A registered client with all that a token request needs of it.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its identifier, the token's `sub` and `client_id`.
    pub client_id: ClientId,
    /// The scopes it may ask for, and those it gets when it asks for none.
    pub scopes: ClientScope,
    /// The resources it may ask tokens for; none means the server's default audience.
    pub resources: Vec<ResourceId>,
    /// Whether it may use the `client_credentials` grant.
    pub client_credentials: bool,
    /// When given, the only authentication methods it may use, by name.
    pub auth_methods: Option<Box<str>>,
    /// How long its tokens live; `None` for the resource's or the server's default.
    pub token_ttl: Option<TokenTtl>,
    /// Further claims of its tokens.
    pub claims: RegisteredClaims,
    /// Whether its tokens must be bound to a DPoP key (RFC 9449 section 5.2).
    pub require_dpop: bool,
    /// Whether its tokens must be bound to a certificate (RFC 8705 section 3.4).
    pub require_mtls_binding: bool,
    /// Whether it may authenticate at all.
    pub enabled: bool,
    /// When it was made.
    pub created_at: UnixTime,
    /// Tokens that it was issued then or before count for nothing.
    pub not_before: UnixTime,
    /// Its secrets, dead ones included, so that a log can say which was used.
    pub secrets: Vec<StoredSecret>,
    /// Its public keys, expired ones included.
    pub keys: Vec<StoredKey>,
    /// Where it publishes its keys, when none is registered.
    pub jwks_uri: Option<JwksUri>,
    /// What is known of its certificates.
    pub certificates: Vec<StoredCertificate>,
    /// What signs the introspection responses that it asks for (RFC 9701 section 6); `None` for the server's default.
    pub introspection_signed_response_alg: Option<Alg>,
    /// How long an assertion of the client may live, from its `iat`; `None` for five minutes.
    pub assertion_lifetime: Option<AssertionLifetime>,
    /// Whom an assertion of the client may be addressed to.
    pub assertion_audience: AssertionAudience,
    /// A hash of the rows that it was read from, to tell whether it has changed; 0 when it was not read.
    pub fingerprint: u64,
}

impl Client {
    /// An enabled client for the `client_credentials` grant that has nothing but scopes yet.
    #[must_use]
    pub fn new(client_id: ClientId, scopes: ClientScope, created_at: UnixTime) -> Self {
        Self {
            client_id,
            scopes,
            resources: Vec::new(),
            client_credentials: true,
            auth_methods: None,
            token_ttl: None,
            claims: RegisteredClaims::default(),
            require_dpop: false,
            require_mtls_binding: false,
            enabled: true,
            created_at,
            not_before: UnixTime(0),
            secrets: Vec::new(),
            keys: Vec::new(),
            jwks_uri: None,
            certificates: Vec::new(),
            introspection_signed_response_alg: None,
            assertion_lifetime: None,
            assertion_audience: AssertionAudience::default(),
            fingerprint: 0,
        }
    }

    /// Whether the client may authenticate by `method`. RFC 7591 section 2, `token_endpoint_auth_method`.
    #[must_use]
    pub fn may_use(&self, method: AuthMethod) -> bool {
        self.auth_methods.as_deref().is_none_or(|names| names.split(' ').any(|name| name == method.as_str()))
    }
}

//! Registered clients (RFC 6749 section 2): confidential, each with its own scopes, resources and credentials.

use std::str::FromStr;

use super::claims::RegisteredClaims;
use super::client_id::ClientId;
use super::credential::{StoredCertificate, StoredKey, StoredSecret};
use super::federation::rule::Rules;
use super::jwks_uri::JwksUri;
use super::lifetime::{AssertionLifetime, TokenTtl};
use super::resource::ResourceId;
use super::scope::Scope;
use super::time::{Expiry, UnixTime};
use crate::crypto::jwk::Alg;

/// Client authentication method, by its name in the metadata (RFC 7591 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthMethod {
    /// Client secret by HTTP Basic.
    ClientSecretBasic,
    /// Client secret in the request body.
    ClientSecretPost,
    /// Client assertion: a JWT signed by the client (RFC 7523).
    PrivateKeyJwt,
    /// Certificate of a trusted CA (RFC 8705 section 2.1).
    TlsClientAuth,
    /// Registered self-signed certificate (RFC 8705 section 2.2).
    SelfSignedTlsClientAuth,
    /// Token of a trusted issuer, at either door (RFC 7523). `auth_methods` names it as `private_key_jwt`.
    FederatedJwt,
    /// JWT-SVID (draft-ietf-oauth-spiffe-client-auth).
    SpiffeJwt,
    /// X.509-SVID (draft-ietf-oauth-spiffe-client-auth).
    SpiffeX509,
}

impl AuthMethod {
    /// All methods, in the order of the metadata.
    pub const ALL: [Self; 8] = [
        Self::ClientSecretBasic,
        Self::ClientSecretPost,
        Self::PrivateKeyJwt,
        Self::TlsClientAuth,
        Self::SelfSignedTlsClientAuth,
        Self::FederatedJwt,
        Self::SpiffeJwt,
        Self::SpiffeX509,
    ];

    /// The registered name; of a federated token, the name in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::TlsClientAuth => "tls_client_auth",
            Self::SelfSignedTlsClientAuth => "self_signed_tls_client_auth",
            Self::FederatedJwt => "federated_jwt",
            Self::SpiffeJwt => "spiffe_jwt",
            Self::SpiffeX509 => "spiffe_x509",
        }
    }
}

/// Accepted audience (`aud`) of a client's assertions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AssertionAudience {
    /// The issuer (draft-ietf-oauth-rfc7523bis section 4).
    #[default]
    Issuer,
    /// The issuer or the URL of the token endpoint, which RFC 7523 section 3 allowed.
    TokenEndpoint,
}

impl AssertionAudience {
    /// Both audiences.
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

/// Error for a text that is not an audience of assertions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("issuer or token-endpoint")]
pub struct AssertionAudienceError;

impl FromStr for AssertionAudience {
    type Err = AssertionAudienceError;

    fn from_str(text: &str) -> Result<Self, AssertionAudienceError> {
        Self::ALL.into_iter().find(|one| one.as_str() == text).ok_or(AssertionAudienceError)
    }
}

/// Grants that a client may use (RFC 7591 section 2, `grant_types`); possibly none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantTypes(Box<str>);

/// Error for a text that does not name grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{CLIENT_CREDENTIALS} and {JWT_BEARER}, both separated by a space, or neither")]
pub struct GrantTypesError;

impl GrantTypes {
    /// Sets the grants of a client.
    pub fn apply(&self, client: &mut Client) {
        client.set_grant_types(&self.0);
    }
}

impl FromStr for GrantTypes {
    type Err = GrantTypesError;

    fn from_str(text: &str) -> Result<Self, GrantTypesError> {
        let is_known = |name: &str| name == CLIENT_CREDENTIALS || name == JWT_BEARER;
        if text.is_empty() || text.split(' ').all(is_known) { Ok(Self(text.into())) } else { Err(GrantTypesError) }
    }
}

/// Scopes of a client: the allowed scope, and the default scope of requests that name none (RFC 6749 section 3.3).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientScope {
    allowed: Scope,
    default: Scope,
}

/// Error for a default scope that is not a subset of the allowed scope.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the default scope `{default}` is not a subset of the scope `{allowed}`")]
pub struct DefaultScopeError {
    /// The allowed scope.
    pub allowed: Scope,
    /// The default scope.
    pub default: Scope,
}

impl ClientScope {
    /// Makes the scopes of a client from its allowed and its default scope.
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

    /// The allowed scope.
    #[must_use]
    pub fn allowed(&self) -> &Scope {
        &self.allowed
    }

    /// The scope of a request that names none.
    #[must_use]
    pub fn default_scope(&self) -> &Scope {
        &self.default
    }
}

/// Texts about a client that administrators read. No token request depends on them, so no registry holds them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    /// Purpose of the client, at most 512 characters.
    pub description: String,
    /// Team or person that answers for the client, at most 128 characters.
    pub owner: String,
}

/// Registered client, with everything that a token request needs of it.
#[derive(Debug, Clone)]
pub struct Client {
    /// The client's identifier: `sub` and `client_id` of its tokens.
    pub client_id: ClientId,
    /// The client's allowed and default scope.
    pub scopes: ClientScope,
    /// Resources that the client may ask tokens for. Empty: the server's default audience.
    pub resources: Box<[ResourceId]>,
    /// Whether the client may use the `client_credentials` grant.
    pub client_credentials: bool,
    /// Whether the client may use the `urn:ietf:params:oauth:grant-type:jwt-bearer` grant (RFC 7523 section 2.1).
    pub jwt_bearer: bool,
    /// Names of the only authentication methods that the client may use, separated by spaces; `None` for any.
    pub auth_methods: Option<Box<str>>,
    /// Lifetime of the client's tokens; `None` for the resource's or the server's default.
    pub token_ttl: Option<TokenTtl>,
    /// Further claims of the client's tokens.
    pub claims: RegisteredClaims,
    /// Whether the client's tokens must be bound to a DPoP key (RFC 9449 section 5.2).
    pub require_dpop: bool,
    /// Whether the client's tokens must be bound to a certificate (RFC 8705 section 3.4).
    pub require_mtls_binding: bool,
    /// Whether the client may authenticate.
    pub enabled: bool,
    /// End of the client: it may not authenticate from then on.
    pub expires_at: Option<Expiry>,
    /// Time of registration.
    pub created_at: UnixTime,
    /// Cut-off: tokens that the client was issued at this second or earlier are revoked.
    pub not_before: UnixTime,
    /// The client's secrets. Expired and revoked ones are included, so that the log can name them.
    pub secrets: Box<[StoredSecret]>,
    /// The client's public keys. Expired ones are included.
    pub keys: Box<[StoredKey]>,
    /// URL of the client's JWK Set; only for clients without registered keys.
    pub jwks_uri: Option<JwksUri>,
    /// Registrations of the client's certificates.
    pub certificates: Box<[StoredCertificate]>,
    /// Algorithm of signed introspection responses to the client (RFC 9701 section 6); `None` for the server's default.
    pub introspection_signed_response_alg: Option<Alg>,
    /// Longest lifetime of the client's assertions, from their `iat`; `None` for five minutes.
    pub assertion_lifetime: Option<AssertionLifetime>,
    /// Accepted audience of the client's assertions.
    pub assertion_audience: AssertionAudience,
    /// Rules for tokens of trusted issuers. Expired ones are included.
    pub federation: Rules,
    /// Number of the client's epoch, from which its status index is computed; 0 for a client that was not read from rows.
    pub status_index: i64,
    /// Hash of the database rows of the client, to detect changes; 0 for a client that was not read from them.
    pub fingerprint: u64,
}

impl Client {
    /// Makes an enabled client for the `client_credentials` grant, with scopes and no credential.
    #[must_use]
    pub fn new(client_id: ClientId, scopes: ClientScope, created_at: UnixTime) -> Self {
        Self {
            client_id,
            scopes,
            resources: Box::default(),
            client_credentials: true,
            jwt_bearer: false,
            auth_methods: None,
            token_ttl: None,
            claims: RegisteredClaims::default(),
            require_dpop: false,
            require_mtls_binding: false,
            enabled: true,
            expires_at: None,
            created_at,
            not_before: UnixTime(0),
            secrets: Box::default(),
            keys: Box::default(),
            jwks_uri: None,
            certificates: Box::default(),
            introspection_signed_response_alg: None,
            assertion_lifetime: None,
            assertion_audience: AssertionAudience::default(),
            federation: Rules::default(),
            status_index: 0,
            fingerprint: 0,
        }
    }

    /// Whether the end of the client has come.
    #[must_use]
    pub fn has_expired(&self, now: UnixTime) -> bool {
        self.expires_at.is_some_and(|end| end.is_over(now))
    }

    /// The client's `grant_types` (RFC 7591 section 2), separated by spaces.
    #[must_use]
    pub fn grant_types(&self) -> String {
        let names = [(self.client_credentials, CLIENT_CREDENTIALS), (self.jwt_bearer, JWT_BEARER)];
        names.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect::<Vec<_>>().join(" ")
    }

    /// Sets the client's grants. Names that are not known are no grants.
    pub fn set_grant_types(&mut self, names: &str) {
        let has = |grant| names.split(' ').any(|name| name == grant);
        (self.client_credentials, self.jwt_bearer) = (has(CLIENT_CREDENTIALS), has(JWT_BEARER));
    }

    /// Whether the client may authenticate by `method`. RFC 7591 section 2, `token_endpoint_auth_method`.
    #[must_use]
    pub fn may_use(&self, method: AuthMethod) -> bool {
        // A federated token is an assertion that somebody else signed.
        let method = if method == AuthMethod::FederatedJwt { AuthMethod::PrivateKeyJwt } else { method };
        self.auth_methods.as_deref().is_none_or(|names| names.split(' ').any(|name| name == method.as_str()))
    }
}

/// RFC 6749 section 4.4.
pub const CLIENT_CREDENTIALS: &str = "client_credentials";
/// RFC 7523 section 2.1.
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

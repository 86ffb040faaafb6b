//! Refusals of requests to APIs (RFC 6750 section 3.1, RFC 9449 section 7.1).

use super::Unavailable;
use super::dpop::DpopError;
use super::inactive::Inactive;
use super::reason::Reason;
use crate::model::scope::Scope;

/// A reason for refusing a request to an API.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// No `Authorization` header field of a scheme that carries a token.
    #[error("the request has no access token")]
    NoToken,
    /// Several `Authorization` header fields.
    #[error("the Authorization field is repeated")]
    Repeated,
    /// The token counts for nothing.
    #[error(transparent)]
    Token(Inactive),
    /// The token is for another API.
    #[error("the token's aud is not the resource that the gateway named")]
    Audience,
    /// A token that is bound to a key came as a bearer token.
    #[error("the token is bound to a key of DPoP and came as a bearer token")]
    BoundAsBearer,
    /// The scheme says DPoP, and the token is bound to no key.
    #[error("the token came with the scheme DPoP and is bound to no key")]
    NotBound,
    /// The proof of the key.
    #[error(transparent)]
    Proof(#[from] DpopError),
    /// The certificate.
    #[error("the token is bound to a certificate, and the client showed none, or another")]
    Certificate,
    /// The token grants less than this.
    #[error("the token does not grant all of: {0}")]
    Scope(Scope),
    /// The gateway's question, or its configuration.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The token cannot be checked now.
    #[error(transparent)]
    Unavailable(Unavailable),
}

/// A fault of the gateway's configuration.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum GatewayError {
    /// Bad escapes, bad UTF-8, too many parameters.
    #[error("the query of /verify is malformed")]
    Query,
    /// `resource` is missing or stands twice.
    #[error("the query of /verify has no resource, or several")]
    Resource,
    /// `scope` is no scope, or stands twice.
    #[error("scope in the query of /verify is not a list of scopes, or stands twice")]
    Scope,
    /// A proof cannot be checked.
    #[error(
        "the token is bound to a key of DPoP, and the gateway is not in server.trusted_proxies or does not send X-Forwarded-Method, X-Forwarded-Proto, X-Forwarded-Host and X-Forwarded-Uri once each"
    )]
    NoTarget,
    /// A certificate cannot be checked.
    #[error(
        "the token is bound to a certificate, and the gateway is not in server.trusted_proxies, or server.client_cert_header is not set"
    )]
    NoCertificate,
}

impl Refusal {
    /// `error` of a challenge; `None` where the request has no token: "the resource server SHOULD NOT include an error code
    /// or other error information."
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::NoToken => None,
            Self::Repeated | Self::Gateway(_) => Some("invalid_request"),
            Self::Token(_) | Self::Audience | Self::BoundAsBearer | Self::NotBound | Self::Certificate => {
                Some("invalid_token")
            }
            Self::Proof(_) => Some("invalid_dpop_proof"),
            Self::Scope(_) => Some("insufficient_scope"),
            Self::Unavailable(_) => Some("temporarily_unavailable"),
        }
    }

    /// The `error_description` for the client of the API.
    #[must_use]
    pub fn description(&self) -> &'static str {
        match self {
            Self::NoToken => "send an access token in the Authorization header field",
            Self::Repeated => "send one Authorization header field",
            Self::Token(Inactive::Expired) => "the access token has expired",
            Self::Token(_) => "the access token is malformed, revoked, or not of this issuer",
            Self::Audience => "the access token is for another resource",
            Self::BoundAsBearer => "the access token is bound to a key: use the scheme DPoP, with a proof",
            Self::NotBound => "the access token is not bound to a key: use the scheme Bearer",
            Self::Proof(error) => error.description(),
            Self::Certificate => "the access token is bound to another client certificate",
            Self::Scope(_) => "the access token does not grant the scope that this needs",
            Self::Gateway(GatewayError::Resource) => "resource must stand once in the query",
            Self::Gateway(GatewayError::Scope) => {
                "scope must stand at most once in the query, as names with single spaces"
            }
            Self::Gateway(GatewayError::Query) => "the query must be well-formed, percent-encoded UTF-8",
            Self::Gateway(GatewayError::NoTarget | GatewayError::NoCertificate) | Self::Unavailable(_) => {
                "the server cannot answer now, try again later"
            }
        }
    }

    /// The reason code of the log and the metric.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoToken => Reason::TokenMissing,
            Self::Repeated => Reason::SeveralAuthorizations,
            Self::Token(inactive) => inactive.reason(),
            Self::Audience => Reason::TokenAudience,
            Self::BoundAsBearer => Reason::TokenBoundAsBearer,
            Self::NotBound => Reason::TokenNotBound,
            Self::Proof(error) => error.reason(),
            Self::Certificate => Reason::TokenCertificate,
            Self::Scope(_) => Reason::TokenScope,
            Self::Gateway(GatewayError::Query | GatewayError::Resource | GatewayError::Scope) => Reason::VerifyQuery,
            Self::Gateway(GatewayError::NoTarget) => Reason::VerifyNoTarget,
            Self::Gateway(GatewayError::NoCertificate) => Reason::VerifyNoCertificate,
            Self::Unavailable(unavailable) => unavailable.reason(),
        }
    }
}

//! Requests as they were parsed, and answers as they are to be written.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::access_token::AccessToken;
use super::client_auth::Credential;
use super::error::inactive::Inactive;
use super::grant::RequestedAccess;
use crate::model::certificate::PeerCertificate;
use crate::model::scope::Scope;
use crate::model::time::Span;

/// A token request (RFC 6749 section 4.4.2).
#[derive(Debug)]
pub struct TokenRequest<'a> {
    /// `grant_type`.
    pub grant_type: Option<&'a str>,
    /// The one credential.
    pub credential: Credential<'a>,
    /// `scope`, `resource` and `audience`.
    pub access: RequestedAccess<'a>,
    /// Every `DPoP` header field.
    pub proofs: Vec<&'a str>,
    /// The certificate of its connection.
    pub certificate: Option<PeerCertificate>,
    /// Whether it came by the listener that asks for certificates, under the URL of that one.
    pub by_alias: bool,
    /// The address of its sender.
    pub source: IpAddr,
}

/// An introspection request (RFC 7662 section 2.1) or a revocation request (RFC 7009 section 2.1).
#[derive(Debug)]
pub struct TokenQuery<'a> {
    /// The one credential.
    pub credential: Credential<'a>,
    /// `token`. A `token_type_hint` decides nothing, since there is one type.
    pub token: Option<&'a str>,
    /// Whether the answer to an introspection is a JWT (RFC 9701 section 4).
    pub wants_jwt: bool,
    /// The address of its sender.
    pub source: IpAddr,
}

/// An access token response (RFC 6749 section 5.1).
#[derive(Debug)]
pub struct TokenResponse {
    /// `access_token`.
    pub access_token: AccessToken,
    /// `scope`.
    pub scope: Scope,
    /// `expires_in`.
    pub expires_in: Span,
    /// The audience of the token.
    pub aud: Arc<str>,
    /// `token_type`: `DPoP` or `Bearer`.
    pub token_type: &'static str,
    /// Whether a Basic secret was right only without form-decoding.
    pub raw_reading: bool,
    /// The time that signing took, for `grantd_signing_seconds`.
    pub signing: Duration,
}

/// The outcome of a revocation request.
#[derive(Debug)]
pub struct Revocation {
    /// The id of the token that is revoked now.
    pub jti: Option<String>,
    /// The reason why there was nothing to revoke.
    pub inactive: Option<Inactive>,
}

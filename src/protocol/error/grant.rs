//! Why an authenticated client does not get what it asks for (RFC 6749 section 5.2, RFC 8707 section 2).

use super::ErrorCode;
use super::reason::Reason;

/// The authenticated client does not get this.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum GrantError {
    /// `grant_type` is not `client_credentials`, the only grant that is offered.
    #[error("unknown grant type")]
    UnsupportedGrantType,
    /// `grant_type` is none of the two grants that are offered while a trusted issuer is enabled.
    #[error("unknown grant type")]
    NeitherGrantType,
    /// `grant_type` is `client_credentials` with blanks around it or in another case.
    #[error("grant_type is client_credentials with blanks, line ends or capitals")]
    GrantTypeSpelling,
    /// The client is not registered for the grant.
    #[error("the client may not use this grant type")]
    GrantNotAllowed,
    /// The client requires DPoP, and the request has no proof.
    #[error("the client requires DPoP, and the request has no proof")]
    DpopRequired,
    /// The client requires certificate-bound tokens, and the connection has no certificate.
    #[error("the client requires certificate-bound tokens, and the connection has no certificate")]
    MtlsBindingRequired,
    /// The profile issues bound tokens only, and the request has neither proof nor certificate.
    #[error("the profile has bound tokens only, and the request has neither a proof nor a certificate")]
    BindingRequired,
    /// The scope does not follow the grammar of RFC 6749 section 3.3.
    #[error("malformed scope")]
    ScopeMalformed,
    /// The scope has a blank too many, a tab or a line end.
    #[error("malformed scope: a blank too many, a tab or a line end")]
    ScopeBlank,
    /// The scope has more tokens or bytes than its limit.
    #[error("malformed scope: more than 100 tokens or 4096 bytes")]
    ScopeTooLong,
    /// The scope is not allowed, and has commas between scopes that would be.
    #[error("scopes are separated by commas, so they are one scope, which the client may not ask for")]
    ScopeSeparator,
    /// The scope is not among those the client may request.
    #[error("a scope is not among those the client may ask for")]
    ScopeNotAllowed,
    /// No scope was requested, and no default applies.
    #[error("no scope asked for, and no default that applies")]
    ScopeMissing,
    /// No single resource of the client understands all requested scopes.
    #[error("no single resource of the client understands these scopes")]
    ScopeNotForResource,
    /// `resource` has a blank or a line end.
    #[error("malformed resource: a blank or a line end")]
    ResourceBlank,
    /// `resource` is not an absolute URI without a fragment.
    #[error("malformed resource")]
    ResourceMalformed,
    /// `resource` is unknown or not allowed for the client.
    #[error("unknown resource, or not allowed for the client")]
    ResourceNotAllowed,
    /// Several resources were requested, and a token has one audience.
    #[error("several resources asked for; one token has one audience")]
    SeveralResources,
    /// Several of the client's resources understand the scopes and none was named.
    #[error("no resource named and several understand these scopes")]
    ResourceAmbiguous,
}

impl GrantError {
    pub(super) fn code(self) -> ErrorCode {
        match self {
            Self::UnsupportedGrantType | Self::NeitherGrantType | Self::GrantTypeSpelling => {
                ErrorCode::UnsupportedGrantType
            }
            Self::GrantNotAllowed => ErrorCode::UnauthorizedClient,
            Self::DpopRequired => ErrorCode::InvalidDpopProof,
            Self::MtlsBindingRequired | Self::BindingRequired => ErrorCode::InvalidRequest,
            Self::ScopeMalformed
            | Self::ScopeBlank
            | Self::ScopeTooLong
            | Self::ScopeSeparator
            | Self::ScopeNotAllowed
            | Self::ScopeMissing
            | Self::ScopeNotForResource => ErrorCode::InvalidScope,
            Self::ResourceMalformed
            | Self::ResourceBlank
            | Self::ResourceNotAllowed
            | Self::SeveralResources
            | Self::ResourceAmbiguous => ErrorCode::InvalidTarget,
        }
    }

    /// The description without the word that was refused.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::UnsupportedGrantType => "this server supports client_credentials",
            Self::NeitherGrantType => {
                "this server supports client_credentials and urn:ietf:params:oauth:grant-type:jwt-bearer"
            }
            Self::GrantTypeSpelling => {
                "grant_type must be exactly client_credentials, in lower case and without blanks or line ends"
            }
            Self::GrantNotAllowed => "this client may not use this grant type",
            Self::DpopRequired => "this client must use DPoP",
            Self::MtlsBindingRequired => "this client must present a certificate",
            Self::BindingRequired => "send a DPoP proof or present a certificate, tokens are bound here",
            Self::ScopeMalformed => {
                "scope is malformed, a scope is printable ASCII without quotation mark and backslash"
            }
            Self::ScopeBlank => "scope is malformed, write one space between scopes and no other blank or line end",
            Self::ScopeTooLong => "scope is malformed, at most 100 scopes and 4096 bytes",
            Self::ScopeSeparator => {
                "a scope is not allowed for this client, separate scopes by one space, not by commas"
            }
            Self::ScopeNotAllowed => "a scope is not allowed for this client",
            Self::ScopeMissing => "name a scope, this client has no default that applies",
            Self::ScopeNotForResource => "these scopes are not for one resource of this client",
            Self::ResourceBlank => "resource must not contain blanks or line ends",
            Self::ResourceMalformed => "resource must be an absolute URI without fragment",
            Self::ResourceNotAllowed => "this resource is not allowed for this client",
            Self::SeveralResources => "ask for one resource at a time",
            Self::ResourceAmbiguous => "name the resource, several understand these scopes",
        }
    }

    pub(super) fn reason(self) -> Reason {
        match self {
            Self::UnsupportedGrantType | Self::NeitherGrantType | Self::GrantTypeSpelling => {
                Reason::UnsupportedGrantType
            }
            Self::GrantNotAllowed => Reason::GrantNotAllowed,
            Self::DpopRequired => Reason::DpopRequired,
            Self::MtlsBindingRequired => Reason::MtlsBindingRequired,
            Self::BindingRequired => Reason::BindingRequired,
            Self::ScopeMalformed | Self::ScopeBlank | Self::ScopeTooLong => Reason::ScopeMalformed,
            Self::ScopeNotAllowed | Self::ScopeSeparator => Reason::ScopeNotAllowed,
            Self::ScopeMissing => Reason::ScopeMissing,
            Self::ScopeNotForResource => Reason::ScopeNotForResource,
            Self::ResourceMalformed | Self::ResourceBlank => Reason::ResourceMalformed,
            Self::ResourceNotAllowed => Reason::ResourceNotAllowed,
            Self::SeveralResources => Reason::SeveralResources,
            Self::ResourceAmbiguous => Reason::ResourceAmbiguous,
        }
    }
}

//! Protected resources: the audiences of tokens (RFC 8707).

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use fluent_uri::Uri;

use super::client_id::ClientId;
use super::lifetime::TokenTtl;
use super::scope::Scope;
use crate::crypto::jwk::Alg;

/// Resource indicator: "an absolute URI, as specified by Section 4.3 of RFC 3986", "MUST NOT include a fragment".
///
/// Stored and compared character for character, so that `aud` is exactly the registered value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId(Arc<str>);

/// Error for a text that is not a resource indicator.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "a resource is an absolute URI without fragment (RFC 8707), at most 2048 bytes, such as https://api.example.com"
)]
pub struct ResourceIdError;

impl ResourceId {
    /// The URI as registered.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ResourceId {
    /// The URI, shared, for the `aud` of a token.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl FromStr for ResourceId {
    type Err = ResourceIdError;

    fn from_str(text: &str) -> Result<Self, ResourceIdError> {
        if text.len() > MAX_BYTES {
            return Err(ResourceIdError);
        }
        let uri = Uri::parse(text).map_err(|_| ResourceIdError)?;
        // A bare `scheme:` is an absolute URI and identifies nothing.
        let names_something =
            uri.authority().is_some_and(|authority| !authority.host().is_empty()) || !uri.path().is_empty();
        if uri.has_fragment() || !names_something { Err(ResourceIdError) } else { Ok(Self(text.into())) }
    }
}

impl Borrow<str> for ResourceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `typ` header of tokens for a resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TokenTyp {
    /// RFC 9068 section 2.1: "at+jwt".
    #[default]
    AtJwt,
    /// `JWT`, for resource servers whose library refuses `at+jwt`.
    Jwt,
}

impl TokenTyp {
    /// Both values.
    pub const ALL: [Self; 2] = [Self::AtJwt, Self::Jwt];

    /// The value in the header, the database and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtJwt => "at+jwt",
            Self::Jwt => "JWT",
        }
    }
}

/// Error for a text that is not a `typ` of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at+jwt or JWT")]
pub struct TokenTypError;

impl FromStr for TokenTyp {
    type Err = TokenTypError;

    fn from_str(text: &str) -> Result<Self, TokenTypError> {
        Self::ALL.into_iter().find(|one| one.as_str() == text).ok_or(TokenTypError)
    }
}

/// Registered resource, with the properties of its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The resource's identifier: `aud` of its tokens.
    pub identifier: ResourceId,
    /// Scopes that the resource understands. No token for it carries another (RFC 9068 section 2.2.3).
    pub scope: Scope,
    /// Signing algorithm of its tokens; `None` for the server's default.
    pub alg: Option<Alg>,
    /// Lifetime of its tokens; `None` for the server's default.
    pub token_ttl: Option<TokenTtl>,
    /// The `typ` of its tokens.
    pub token_typ: TokenTyp,
    /// Whether its tokens refer to the status list, so that a verifier learns of revocations.
    pub status_list: bool,
    /// Clients that may introspect its tokens.
    pub introspectors: Vec<ClientId>,
}

pub(crate) const MAX_BYTES: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_an_absolute_uri_without_fragment() {
        for right in
            ["https://api1.test", "https://api.example.com/v1?tenant=a", "urn:example:api", "https://api1.test:8443/"]
        {
            assert_eq!(right.parse::<ResourceId>().unwrap().as_str(), right);
        }
        for wrong in [
            "",
            "api1",
            "//api1.test",
            "https://api1.test#x",
            "https://api1.test/%ZZ",
            "https://api 1.test",
            "https:",
            "/a",
        ] {
            assert_eq!(wrong.parse::<ResourceId>(), Err(ResourceIdError), "{wrong}");
        }
    }
}

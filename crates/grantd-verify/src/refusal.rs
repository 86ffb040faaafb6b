//! The answer to a request that is refused (RFC 6750 section 3, RFC 9449 section 7.1, RFC 9728 section 5.1).

use std::fmt;
use std::sync::Arc;

use crate::dpop;

/// The authentication scheme of an `Authorization` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// RFC 6750.
    Bearer,
    /// RFC 9449.
    Dpop,
}

/// A refused request. It says what the client has to change, and repeats nothing that the request held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    status: u16,
    scheme: Scheme,
    error: Option<(&'static str, &'static str)>,
    scope: Option<String>,
    metadata_url: Option<Arc<str>>,
}

impl Refusal {
    /// RFC 6750 section 3.1: "If the request lacks any authentication information … the resource server SHOULD NOT include
    /// an error code".
    pub(crate) fn unauthenticated() -> Self {
        Self { status: 401, scheme: Scheme::Bearer, error: None, scope: None, metadata_url: None }
    }

    /// The request is malformed.
    pub(crate) fn request(why: &'static str) -> Self {
        Self::new(400, Scheme::Bearer, "invalid_request", why)
    }

    pub(crate) fn token(scheme: Scheme, why: &'static str) -> Self {
        Self::new(401, scheme, "invalid_token", why)
    }

    pub(crate) fn proof(why: &'static str) -> Self {
        Self::new(401, Scheme::Dpop, "invalid_dpop_proof", why)
    }

    pub(crate) fn scope(scheme: Scheme, needed: &str) -> Self {
        let refusal = Self::new(403, scheme, "insufficient_scope", "the token's scope is not enough");
        Self { scope: Some(needed.to_owned()), ..refusal }
    }

    /// Returns the refusal (503) of a request about which nothing can be decided now. The client is not at fault, so there is no
    /// challenge.
    #[must_use]
    pub fn unavailable() -> Self {
        Self { status: 503, ..Self::unauthenticated() }
    }

    fn new(status: u16, scheme: Scheme, error: &'static str, why: &'static str) -> Self {
        Self { status, error: Some((error, why)), scheme, ..Self::unauthenticated() }
    }

    pub(crate) fn with_metadata_url(self, metadata_url: Option<Arc<str>>) -> Self {
        Self { metadata_url, ..self }
    }

    /// The status code of the answer: 400, 401, 403, or 503 while the issuer's JWK Set cannot be had. Send `Retry-After` with
    /// a 503, and `Cache-Control: no-store` with all of them.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The error code: `invalid_request`, `invalid_token`, `invalid_dpop_proof` or `insufficient_scope`. `None` when the request
    /// had no token, and with 503.
    #[must_use]
    pub fn error(&self) -> Option<&'static str> {
        self.error.map(|(error, _)| error)
    }

    /// The values of the `WWW-Authenticate` fields of the answer. A 401 names both schemes, and states the error with the one
    /// that was used; other refusals name only the one that was used; a 503 has none.
    #[must_use]
    pub fn www_authenticate(&self) -> Vec<String> {
        let schemes: &[Scheme] = match self.status {
            401 => &[Scheme::Bearer, Scheme::Dpop],
            503 => &[],
            _ => &[self.scheme],
        };
        schemes.iter().map(|scheme| self.challenge(*scheme)).collect()
    }

    fn challenge(&self, scheme: Scheme) -> String {
        let mut parameters = Vec::new();
        if scheme == Scheme::Dpop {
            // RFC 9449 section 7.1: "A space-delimited list of … algs".
            parameters.push(format!("algs=\"{}\"", dpop::ALGS.map(|(name, _)| name).join(" ")));
        }
        parameters.extend(self.metadata_url.iter().map(|url| format!("resource_metadata=\"{url}\"")));
        if let Some((error, why)) = self.error.filter(|_| scheme == self.scheme) {
            parameters.push(format!("error=\"{error}\", error_description=\"{why}\""));
            parameters.extend(self.scope.iter().map(|scope| format!("scope=\"{scope}\"")));
        }
        let scheme = match scheme {
            Scheme::Bearer => "Bearer",
            Scheme::Dpop => "DPoP",
        };
        format!("{scheme} {}", parameters.join(", ")).trim_end().to_owned()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.error, self.status) {
            (Some((error, why)), _) => write!(f, "{error}: {why}"),
            (None, 503) => f.write_str("the issuer's JWK Set is not available, or too many proofs are remembered"),
            (None, _) => f.write_str("the request has no access token"),
        }
    }
}

impl std::error::Error for Refusal {}

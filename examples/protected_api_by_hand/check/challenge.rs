//! The challenge of a refused request (RFC 6750 section 3, RFC 9449 section 7.1, RFC 9728 section 5.1).

use super::dpop;

/// How a token was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// RFC 6750.
    Bearer,
    /// RFC 9449.
    Dpop,
}

/// A refusal. It says what the caller has to change, and nothing that was in the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The status code of the answer.
    pub status: u16,
    scheme: Scheme,
    error: Option<(&'static str, &'static str)>,
    scope: Option<String>,
}

impl Challenge {
    /// RFC 6750 section 3.1: "If the request lacks any authentication information … the resource server SHOULD NOT include
    /// an error code".
    pub fn none() -> Self {
        Self { status: 401, scheme: Scheme::Bearer, error: None, scope: None }
    }

    /// The request is malformed.
    pub fn request(why: &'static str) -> Self {
        Self::new(400, Scheme::Bearer, "invalid_request", why)
    }

    pub(super) fn token(scheme: Scheme, why: &'static str) -> Self {
        Self::new(401, scheme, "invalid_token", why)
    }

    pub(super) fn proof(why: &'static str) -> Self {
        Self::new(401, Scheme::Dpop, "invalid_dpop_proof", why)
    }

    /// `needed` is what the route needs, so of your making.
    pub(super) fn scope(scheme: Scheme, needed: &str) -> Self {
        let challenge = Self::new(403, scheme, "insufficient_scope", "the token's scope is not enough");
        Self { scope: Some(needed.to_owned()), ..challenge }
    }

    /// Nothing can be decided at the moment. Not the caller's fault, so there is no challenge: try again.
    pub fn busy() -> Self {
        Self { status: 503, ..Self::none() }
    }

    fn new(status: u16, scheme: Scheme, error: &'static str, why: &'static str) -> Self {
        Self { status, scheme, error: Some((error, why)), scope: None }
    }

    /// The values of the `WWW-Authenticate` fields. A 401 tells of both schemes, and whoever used one of them what was wrong
    /// with it; other refusals are about the one that was used. `metadata` is the URL of this API's metadata (RFC 9728).
    pub fn www_authenticate(&self, metadata: &str) -> Vec<String> {
        let schemes: &[Scheme] = match self.status {
            401 => &[Scheme::Bearer, Scheme::Dpop],
            503 => &[],
            _ => &[self.scheme],
        };
        schemes.iter().map(|scheme| self.field(*scheme, metadata)).collect()
    }

    fn field(&self, scheme: Scheme, metadata: &str) -> String {
        let mut field = match scheme {
            Scheme::Bearer => format!("Bearer resource_metadata=\"{metadata}\""),
            Scheme::Dpop => format!("DPoP algs=\"{}\", resource_metadata=\"{metadata}\"", dpop::ALGS),
        };
        if let Some((error, why)) = self.error.filter(|_| scheme == self.scheme) {
            field += &format!(", error=\"{error}\", error_description=\"{why}\"");
            if let Some(scope) = &self.scope {
                field += &format!(", scope=\"{scope}\"");
            }
        }
        field
    }
}

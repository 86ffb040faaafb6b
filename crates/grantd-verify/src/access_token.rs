//! The access token of a request (RFC 9068): signed by the issuer, for this API, valid now.

use std::sync::Arc;

use jose::json::Object;
use jose::jwk_set::JwkSet;
use jose::jwt::{JoseError, Unverified};
use serde::Deserialize;
use serde_json::Value;

use crate::{Refusal, Scheme};

/// The access token of a request, verified. With the feature `axum` it is an extractor, for a router whose state holds an
/// `Arc<Verifier>`.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessToken {
    /// `client_id`: the client that called.
    pub client_id: String,
    /// `sub`: for tokens of machines, the client again.
    pub sub: String,
    /// `scope`: scope tokens, separated by spaces; empty when the token has none.
    pub scope: String,
    /// `jti`: for your log, so that a call can be traced to the token that was issued.
    pub jti: String,
    /// `exp`, in seconds since 1970.
    pub expires_at: i64,
    claims: Object,
    scheme: Scheme,
    metadata_url: Option<Arc<str>>,
}

impl AccessToken {
    /// Whether the token has this scope token.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|granted| granted == scope)
    }

    /// Refuses the request unless the token has this scope token.
    ///
    /// # Errors
    /// [`Refusal`] (403, `insufficient_scope`), which names the scope.
    pub fn require_scope(&self, scope: &str) -> Result<(), Refusal> {
        if self.has_scope(scope) {
            return Ok(());
        }
        Err(Refusal::scope(self.scheme, scope).with_metadata_url(self.metadata_url.clone()))
    }

    /// Returns the refusal of the request (401, `invalid_token`) where your API finds the token revoked, by introspection or
    /// in the status list that its claim `status` refers to.
    #[must_use]
    pub fn revoked(&self) -> Refusal {
        Refusal::token(self.scheme, "the token is revoked").with_metadata_url(self.metadata_url.clone())
    }

    /// Any claim of the token.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.get(name)
    }

    pub(crate) fn new(claims: Claims, members: Object, scheme: Scheme, metadata_url: Option<Arc<str>>) -> Self {
        let Claims { client_id, sub, scope, jti, exp, .. } = claims;
        Self { client_id, sub, scope, jti, expires_at: exp, claims: members, scheme, metadata_url }
    }
}

/// The claims of RFC 9068 section 2.2. One that is missing or has another type makes the token invalid.
#[derive(Deserialize)]
pub(crate) struct Claims {
    iss: String,
    /// RFC 7519 allows an array. grantd writes none: a resource server that gets a token for several could use it at the
    /// others. So an array is refused.
    aud: String,
    sub: String,
    client_id: String,
    #[serde(default)]
    scope: String,
    jti: String,
    iat: i64,
    exp: i64,
    nbf: Option<i64>,
    cnf: Option<Confirmation>,
}

/// RFC 7800. A confirmation method that is not known here cannot be checked, so it is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    jkt: Option<String>,
    #[serde(rename = "x5t#S256")]
    x5t_s256: Option<String>,
}

impl Claims {
    /// The claims of a token that a key of the issuer has signed, as types and as they are. The algorithm is the key's (RFC
    /// 8725 section 3.1); the header may only agree.
    pub(crate) fn verified(token: &Unverified<'_>, keys: &JwkSet) -> Result<(Self, Object), &'static str> {
        if token.header().kid().is_none() {
            return Err(NO_KEY);
        }
        let (claims, _) = token.verify_with_one_of(&keys.keys).map_err(|error| match error {
            JoseError::NoKey => NO_KEY,
            _ => NOT_RIGHT,
        })?;
        let members = claims.clone().into_members();
        let claims = serde_json::from_value(Value::Object(members.clone())).map_err(|_| NOT_RIGHT)?;
        Ok((claims, members))
    }

    pub(crate) fn are_for(&self, issuer: &str, audience: &str, now: i64) -> Result<(), &'static str> {
        let started = |at: i64| at <= now.saturating_add(LEEWAY);
        if self.iss != issuer {
            Err("the token is of another issuer")
        } else if self.aud != audience {
            Err("the token is for another audience")
        } else if self.exp.saturating_add(LEEWAY) <= now {
            Err("the token has expired")
        } else if !started(self.iat) || !self.nbf.is_none_or(started) || self.iat >= self.exp {
            Err("the token is not valid yet")
        } else if self.sub.is_empty() || self.client_id.is_empty() || self.jti.is_empty() {
            Err("the token's sub, client_id or jti is empty")
        } else {
            Ok(())
        }
    }

    /// The thumbprints of the key (`jkt`) and of the certificate (`x5t#S256`) that the client must hold.
    pub(crate) fn binding(&self) -> Result<(Option<&str>, Option<&str>), &'static str> {
        match &self.cnf {
            None => Ok((None, None)),
            Some(Confirmation { jkt: None, x5t_s256: None }) => Err("the token's cnf has no thumbprint"),
            Some(Confirmation { jkt, x5t_s256 }) => Ok((jkt.as_deref(), x5t_s256.as_deref())),
        }
    }
}

pub(crate) const NOT_RIGHT: &str = "the token's signature or claims are not right";
const NO_KEY: &str = "the token's key is not known";

/// Seconds that the issuer's clock may be away from ours.
const LEEWAY: i64 = 30;

//! The access token (RFC 9068): signed by the issuer, for this API, now.

use serde::Deserialize;

use super::jws::Jws;
use super::keys::KeySet;

/// RFC 9068 section 2.2. A claim that stands twice, is missing or has another type makes the token invalid.
#[derive(Deserialize)]
pub(super) struct Claims {
    iss: String,
    /// RFC 7519 lets it be a list. grantd never writes one, and whoever holds a token for several APIs can be one of them
    /// and use it at the others, so a list is refused here.
    aud: String,
    pub(super) sub: String,
    pub(super) client_id: String,
    #[serde(default)]
    pub(super) scope: String,
    pub(super) jti: String,
    iat: i64,
    exp: i64,
    nbf: Option<i64>,
    cnf: Option<Confirmation>,
}

/// RFC 7800: what else the caller must show. A way of binding that is not known here cannot be checked, so it is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    jkt: Option<String>,
    #[serde(rename = "x5t#S256")]
    x5t_s256: Option<String>,
}

impl Claims {
    pub(super) fn verified(jws: &Jws<'_>, keys: &KeySet) -> Result<Self, &'static str> {
        // RFC 9068 section 4: "MUST verify that the "typ" header value is "at+jwt" or "application/at+jwt" and reject
        // tokens carrying any other value". It keeps ID tokens, assertions and proofs from passing.
        if !jws.is_a("at+jwt") {
            return Err("the token is no access token");
        }
        let (alg, key) = jws.kid.as_deref().and_then(|kid| keys.find(kid)).ok_or("the token's key is not known")?;
        jws.claims(key, *alg).ok_or("the token's signature or claims are not right")
    }

    pub(super) fn are_for(&self, issuer: &str, resource: &str, now: i64, leeway: i64) -> Result<(), &'static str> {
        let started = |at: i64| at <= now.saturating_add(leeway);
        if self.iss != issuer {
            Err("the token is of another issuer")
        } else if self.aud != resource {
            Err("the token is for another audience")
        } else if self.exp.saturating_add(leeway) <= now {
            Err("the token has expired")
        } else if !started(self.iat) || !self.nbf.is_none_or(started) || self.iat >= self.exp {
            Err("the token is not valid yet")
        } else if self.sub.is_empty() || self.client_id.is_empty() || self.jti.is_empty() {
            Err("the token names nobody")
        } else {
            Ok(())
        }
    }

    /// The thumbprints of the key (`jkt`) and of the certificate (`x5t#S256`) that the caller must hold. Either, both or
    /// none; a `cnf` without any is refused.
    pub(super) fn binding(&self) -> Result<(Option<&str>, Option<&str>), &'static str> {
        match &self.cnf {
            None => Ok((None, None)),
            Some(Confirmation { jkt: None, x5t_s256: None }) => Err("the token is bound to nothing"),
            Some(Confirmation { jkt, x5t_s256 }) => Ok((jkt.as_deref(), x5t_s256.as_deref())),
        }
    }
}

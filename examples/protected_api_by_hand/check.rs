//! Checks the credentials of one request (RFC 9068 section 4, RFC 9449 section 7, RFC 8705 section 3): lift this out.
//!
//! `check.rs` and `check/` know neither HTTP libraries nor networks. They need `jsonwebtoken`, `aws-lc-rs`, `base64`,
//! `serde`, `serde_json` and `fluent-uri`. In the order of a request:
//!
//! 1. [`Credentials::read`] takes the `Authorization` fields apart and says which key the token names.
//! 2. You get the issuer's [`KeySet`] from wherever you keep it (`issuer_keys.rs` beside this file).
//! 3. [`Checker::verify`] decides. It is a pure function of what it is handed, but for the proofs it has seen before.
//! 4. [`Caller::needs`] says whether the token's scope is enough for this route.
//!
//! Whatever fails is a [`Challenge`], with the status and the `WWW-Authenticate` fields to answer.

mod access_token;
mod challenge;
mod dpop;
mod jws;
mod keys;
mod replays;

use access_token::Claims;
pub use challenge::{Challenge, Scheme};
use dpop::Asked;
use jws::Jws;
pub use keys::KeySet;
use replays::Replays;

/// The parts of a request besides its `Authorization`.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method, as it came.
    pub method: &'a str,
    /// The URL that the client called, made from configuration and the path. A `Host` or `X-Forwarded-Host` field is what
    /// the sender likes it to be, and has no part in it.
    pub url: &'a str,
    /// Every `DPoP` field.
    pub proofs: &'a [&'a str],
    /// The certificate (DER) whose key the TLS handshake has proved, on this connection or on a trusted proxy's.
    pub certificate: Option<&'a [u8]>,
}

/// An access token that is well formed. Nobody vouches for it yet.
#[derive(Debug)]
pub struct Credentials<'a> {
    scheme: Scheme,
    token: &'a str,
    jws: Jws<'a>,
}

impl<'a> Credentials<'a> {
    /// Reads every `Authorization` field of a request.
    ///
    /// # Errors
    /// A [`Challenge`] when there is no token, or it is no JWT.
    pub fn read(authorization: &[&'a str]) -> Result<Self, Challenge> {
        let field = match authorization {
            [] => return Err(Challenge::none()),
            [field] => field.trim_matches(' '),
            _ => return Err(Challenge::request("more than one Authorization field")),
        };
        let (scheme, token) = field.split_once(' ').unwrap_or((field, ""));
        // RFC 9110 section 11.1: the scheme is a "case-insensitive token".
        let scheme = match scheme {
            name if name.eq_ignore_ascii_case("Bearer") => Scheme::Bearer,
            name if name.eq_ignore_ascii_case("DPoP") => Scheme::Dpop,
            _ => return Err(Challenge::none()),
        };
        let token = token.trim_start_matches(' ');
        // RFC 6750 section 2.1, b64token.
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if token.is_empty() || !token.bytes().all(is_token) {
            return Err(Challenge::request("the Authorization field is malformed"));
        }
        let jws = Jws::parse(token).ok_or_else(|| Challenge::token(scheme, "the token is no JWT of ours"))?;
        Ok(Self { scheme, token, jws })
    }

    /// The key that the token names, to be looked up among the issuer's and nowhere else.
    pub fn kid(&self) -> Option<&str> {
        self.jws.kid.as_deref()
    }
}

/// The caller, from a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `client_id`.
    pub client_id: String,
    /// `sub`: for tokens of machines, the client again.
    pub sub: String,
    /// `scope`, separated by spaces.
    pub scope: String,
    /// `jti`: for your log, so that a call can be followed to the token's issuance.
    pub jti: String,
    scheme: Scheme,
}

impl Caller {
    /// # Errors
    /// A [`Challenge`] (403) when the token lacks `scope`.
    pub fn needs(&self, scope: &str) -> Result<(), Challenge> {
        if self.scope.split(' ').any(|has| has == scope) { Ok(()) } else { Err(Challenge::scope(self.scheme, scope)) }
    }
}

/// This API's requirements on tokens.
#[derive(Debug)]
pub struct Checker {
    issuer: String,
    resource: String,
    leeway: i64,
    replays: Replays,
}

impl Checker {
    /// Tokens of `issuer` for `resource`; both are compared letter by letter.
    pub fn new(issuer: &str, resource: &str) -> Self {
        Self { issuer: issuer.into(), resource: resource.into(), leeway: 30, replays: Replays::new(100_000) }
    }

    /// Decides on one request. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// The [`Challenge`] to answer.
    pub fn verify(
        &self,
        credentials: &Credentials<'_>,
        request: &Request<'_>,
        keys: &KeySet,
        now: i64,
    ) -> Result<Caller, Challenge> {
        let Credentials { scheme, token, jws } = credentials;
        let refused = |why| Challenge::token(*scheme, why);
        let claims = Claims::verified(jws, keys).map_err(refused)?;
        claims.are_for(&self.issuer, &self.resource, now, self.leeway).map_err(refused)?;
        let (jkt, x5t) = claims.binding().map_err(refused)?;
        // RFC 8705 section 3: "If the presented certificate … doesn't match … or no certificate … the resource server MUST
        // reject the request with the error invalid_token".
        if let Some(x5t) = x5t
            && request.certificate.map(x5t_s256).as_deref() != Some(x5t)
        {
            return Err(refused("the token is bound to another certificate"));
        }
        match (scheme, jkt) {
            (Scheme::Bearer, None) => {}
            // RFC 9449 section 7.2: such a token "MUST be rejected" when it comes as a bearer token.
            (Scheme::Bearer, Some(_)) => return Err(refused("the token is bound to a key: use the DPoP scheme")),
            (Scheme::Dpop, None) => return Err(refused("the token is not bound to a key: use the Bearer scheme")),
            (Scheme::Dpop, Some(jkt)) => {
                let [proof] = request.proofs else {
                    return Err(Challenge::proof("exactly one DPoP proof is needed"));
                };
                let asked = Asked { method: request.method, url: request.url, token };
                let proof = dpop::verified(proof, &asked, now).map_err(Challenge::proof)?;
                if proof.jkt != jkt {
                    return Err(refused("the token is bound to another key"));
                }
                match self.replays.first_time(proof.id, now, now.saturating_add(dpop::REMEMBERED)) {
                    Some(true) => {}
                    Some(false) => return Err(Challenge::proof("the proof was used before")),
                    None => return Err(Challenge::busy()),
                }
            }
        }
        let Claims { client_id, sub, scope, jti, .. } = claims;
        Ok(Caller { client_id, sub, scope, jti, scheme: *scheme })
    }
}

/// RFC 8705 section 3.1: "the base64url-encoded SHA-256 hash of the DER encoding of the X.509 certificate".
fn x5t_s256(certificate: &[u8]) -> String {
    jws::sha256_text(certificate)
}

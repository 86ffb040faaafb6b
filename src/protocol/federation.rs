//! Tokens of trusted issuers as proofs of identity (RFC 7521 sections 4.1 and 4.2, RFC 7523): what they have to say.

pub mod known_tokens;

use std::sync::Arc;

use super::client_assertion::{EXP_LEEWAY, JTI, NBF_LEEWAY, REPLICA_SKEW};
use super::error::ClientAuthError;
use super::error::federation::FederationError;
use crate::crypto::jose::{Claims, Header, JoseError};
use crate::crypto::json::Object;
use crate::crypto::sha256;
use crate::model::client::AuthMethod;
use crate::model::federation::kind::IssuerKind;
use crate::model::federation::subject::is_spiffe_path;
use crate::model::federation::trusted_issuer::{TrustedIssuer, trust_domain};
use crate::model::time::UnixTime;
use crate::state::key_sets::Keys;
use crate::store::spent::{SingleUseId, SingleUseKind};

/// The way by which a JWT came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `client_assertion` of type `jwt-bearer` (RFC 7523 section 2.2).
    ClientAuthentication,
    /// `client_assertion` of type `jwt-spiffe` (draft-ietf-oauth-spiffe-client-auth).
    Svid,
    /// `assertion` of the grant `jwt-bearer` (RFC 7523 section 2.1).
    Grant,
}

impl Door {
    /// The authentication method of a token of a trusted issuer.
    #[must_use]
    pub fn method(self) -> AuthMethod {
        match self {
            Self::ClientAuthentication | Self::Grant => AuthMethod::FederatedJwt,
            Self::Svid => AuthMethod::SpiffeJwt,
        }
    }

    /// Whether tokens of such issuers are taken here.
    #[must_use]
    pub fn admits(self, kind: IssuerKind) -> bool {
        (self == Self::Svid) == (kind == IssuerKind::Spiffe)
    }
}

/// The server that tokens have to be for.
#[derive(Debug, Clone, Copy)]
pub struct Recipient<'a> {
    /// The issuer identifier of this server.
    pub issuer: &'a str,
    /// The URLs of its token endpoint.
    pub token_endpoints: &'a [Box<str>],
}

impl Recipient<'_> {
    /// The audience that tokens of an issuer name.
    #[must_use]
    pub fn audience<'a>(&'a self, issuer: &'a TrustedIssuer) -> &'a str {
        issuer.audience.as_deref().unwrap_or(self.issuer)
    }

    /// Whether tokens of `issuer` that come by `door` may have this `aud`.
    #[must_use]
    pub fn is_named(&self, issuer: &TrustedIssuer, door: Door, aud: &str) -> bool {
        let audience = self.audience(issuer);
        // draft-ietf-oauth-rfc7523bis: for authorization grants the token endpoint may be the audience, too.
        let is_endpoint = || {
            aud.strip_suffix('/') == Some(self.issuer) || self.token_endpoints.iter().any(|endpoint| **endpoint == *aud)
        };
        aud == audience || door == Door::Grant && audience == self.issuer && is_endpoint()
    }
}

/// Token of a trusted issuer whose signature and claims hold. Which client it belongs to depends on the rules.
#[derive(Debug)]
pub struct VerifiedToken {
    /// The issuer, as it was registered when the token was verified.
    pub issuer: Arc<TrustedIssuer>,
    /// The keys of the issuer at that time.
    pub keys: Keys,
    /// `sub`.
    pub sub: Box<str>,
    /// All claims.
    pub claims: Object,
    /// Claims that every rule relies on.
    pub accepted: Accepted,
}

/// Claims of a token that every rule relies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The sole `aud`.
    pub aud: Box<str>,
    /// `exp`.
    pub exp: UnixTime,
    /// The one use of a token that works once. It is not spent yet.
    pub single_use: Option<SingleUseId>,
}

impl Accepted {
    /// Whether `exp` has passed.
    #[must_use]
    pub fn has_expired(&self, now: UnixTime) -> bool {
        self.exp.plus(EXP_LEEWAY) <= now
    }
}

/// Checks the header of a token whose signature holds: no access token of anybody is a proof of identity.
///
/// # Errors
/// [`JoseError::Typ`].
pub fn check_header(header: &Header, kind: IssuerKind) -> Result<(), JoseError> {
    let fits = if kind == IssuerKind::Spiffe { header.is_svid() } else { header.is_plain_jwt() };
    if fits { Ok(()) } else { Err(JoseError::Typ) }
}

/// Checks the claims of a token whose signature holds, but for those that rules name. The server and
/// `grantd federation test` decide by this alone.
///
/// # Errors
/// The first claim that fails.
pub fn accept(
    claims: &Claims,
    issuer: &TrustedIssuer,
    door: Door,
    recipient: &Recipient<'_>,
    now: UnixTime,
) -> Result<Accepted, ClientAuthError> {
    let aud = check_audience(claims, issuer, door, recipient)?;
    let exp = UnixTime(claims.numeric_date("exp")?.ok_or(ClientAuthError::AssertionIncomplete("exp"))?);
    let (iat, nbf) = (claims.numeric_date("iat")?.map(UnixTime), claims.numeric_date("nbf")?.map(UnixTime));
    let mut accepted = Accepted { aud, exp, single_use: None };
    if accepted.has_expired(now) {
        return Err(ClientAuthError::AssertionExpired);
    }
    if [nbf, iat].into_iter().flatten().any(|at| at > now.plus(NBF_LEEWAY)) {
        return Err(ClientAuthError::AssertionEarly);
    }
    // Without iat the lifetime counts from now, with room for clocks.
    let (since, latest) = match iat {
        Some(iat) => (iat, iat.plus(issuer.lifetime())),
        None => (now, now.plus(issuer.lifetime()).plus(NBF_LEEWAY)),
    };
    if exp > latest {
        return Err(FederationError::Lifetime { exp, since, longest: issuer.lifetime().seconds() }.into());
    }
    if issuer.kind.is_single_use() {
        let jti = claims.string("jti", JTI)?.ok_or(ClientAuthError::AssertionIncomplete("jti"))?;
        accepted.single_use = Some(SingleUseId {
            kind: SingleUseKind::Federated,
            owner: issuer.issuer.to_string(),
            jti: sha256(jti.as_bytes()),
            // Remembered for longer than any replica accepts the token, also by a clock that is a minute behind.
            expires_at: exp.plus(EXP_LEEWAY).plus(REPLICA_SKEW),
        });
    }
    Ok(accepted)
}

/// The audience has to be the sole one: a second recipient could use the token here. Kubernetes and SPIRE send an array of
/// one.
fn check_audience(
    claims: &Claims,
    issuer: &TrustedIssuer,
    door: Door,
    recipient: &Recipient<'_>,
) -> Result<Box<str>, ClientAuthError> {
    let audience = claims.audience()?;
    let sole = audience.as_ref().and_then(crate::crypto::jose::Audience::sole);
    if let Some(aud) = sole.filter(|aud| recipient.is_named(issuer, door, aud)) {
        return Ok(aud.into());
    }
    let found = claims.members().get("aud").map_or_else(|| "missing".to_owned(), ToString::to_string);
    let wanted = recipient.audience(issuer).into();
    Err(FederationError::Audience { wanted, found: found.chars().take(LOGGED).collect() }.into())
}

/// The trust domain of a SPIFFE ID with a path, as `spiffe://example.org`.
///
/// # Errors
/// [`FederationError::SpiffeId`].
pub fn trust_domain_of(sub: &str) -> Result<&str, FederationError> {
    let end = sub.strip_prefix("spiffe://").and_then(|rest| Some("spiffe://".len() + rest.find('/')?));
    let parts = end.and_then(|end| sub.split_at_checked(end));
    match parts {
        Some((domain, path)) if trust_domain(domain).is_some() && is_spiffe_path(path) => Ok(domain),
        _ => Err(FederationError::SpiffeId(sub.chars().take(LOGGED).collect())),
    }
}

/// Longest part of a value in an error.
const LOGGED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_has_a_trust_domain_and_a_path() {
        assert_eq!(trust_domain_of("spiffe://td.test/ns/pay/sa/billing"), Ok("spiffe://td.test"));
        for wrong in [
            "",
            "spiffe://td.test",
            "spiffe://td.test/",
            "spiffe:///a",
            "spiffe://TD.test/a",
            "spiffe://td.test:1/a",
            "spiffe://u@td.test/a",
            "spiffe://td.test/a?b",
            "spiffe://td.test/a//b",
            "spiffe://td.test/../a",
            "spiffe://td.test/%61",
            "SPIFFE://td.test/a",
            "https://td.test/a",
        ] {
            assert!(trust_domain_of(wrong).is_err(), "{wrong}");
        }
    }
}

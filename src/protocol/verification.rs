//! The check of an access token at an API (RFC 9068 section 4), made for gateways that can only ask and obey.

use super::AuthorizationServer;
use super::access_token::IssuedToken;
use super::error::Unavailable;
use super::error::dpop::DpopError;
use super::error::inactive::Inactive;
use super::error::verification::{GatewayError, Refusal};
use crate::crypto::certificate::Certificate;
use crate::model::scope::Scope;
use crate::model::time::UnixTime;

/// A request to an API, as its gateway passes it on, and what the API wants.
#[derive(Debug)]
pub struct Verification<'a> {
    /// The API's identifier, and what its requests need; or what is wrong with the gateway's question.
    pub requirements: Result<Requirements<'a>, GatewayError>,
    /// Every `Authorization` header field.
    pub authorizations: Vec<&'a str>,
    /// Every `DPoP` header field.
    pub proofs: Vec<&'a str>,
    /// Method and URL; `None` where no proxy that is trusted told them.
    pub target: Option<Target<'a>>,
    /// The certificate of the API's client, if it has one; `None` where no proxy that is trusted tells.
    pub certificate: Option<Option<Certificate>>,
}

/// The requirements of an API on a token.
#[derive(Debug)]
pub struct Requirements<'a> {
    /// The token's audience.
    pub resource: &'a str,
    /// All of these have been granted.
    pub scope: Scope,
}

/// Method and URL of a request.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The method.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The host, with a port where one was given.
    pub host: &'a str,
    /// The path, with the query.
    pub path: &'a str,
}

/// The verdict on a request, and the token if this server issued it.
#[derive(Debug)]
pub struct VerificationOutcome {
    /// The token, if this server issued it and it has not expired.
    pub token: Option<IssuedToken>,
    /// Whether the request may pass.
    pub verdict: Result<(), Refusal>,
}

/// The scheme by which a token is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// RFC 6750 section 2.1.
    Bearer,
    /// RFC 9449 section 7.1.
    Dpop,
}

impl AuthorizationServer {
    /// Checks the token of a request to an API: it is ours, its time is not over, nothing of it was revoked, it is for this
    /// API and grants what the API wants, and whoever sent it holds the key that it is bound to.
    #[must_use]
    pub fn verify(&self, request: &Verification<'_>) -> VerificationOutcome {
        let mut token = None;
        let verdict = self.may_pass(request, &mut token);
        VerificationOutcome { token, verdict }
    }

    fn may_pass(&self, request: &Verification<'_>, found: &mut Option<IssuedToken>) -> Result<(), Refusal> {
        let required = request.requirements.as_ref().map_err(|error| *error)?;
        let (scheme, token) = presented(&request.authorizations)?;
        let now = self.clock.now();
        let issued = super::access_token::verify(token, self.issuer.as_str(), &self.keyring, self.latest(now));
        let issued = match issued {
            Ok(issued) => found.insert(issued),
            Err(inactive) => return Err(self.inactive(inactive)),
        };
        let stands = issued.has_begun(now).and_then(|()| issued.stands(&self.registry, &self.registry.snapshot(), now));
        stands.map_err(|inactive| self.inactive(inactive))?;
        self.confirm(None)?;
        // RFC 9068 section 4: "The resource server MUST validate that the "aud" claim contains a resource indicator value
        // corresponding to an identifier the resource server expects for itself."
        if issued.aud != required.resource {
            return Err(Refusal::Audience);
        }
        self.is_bound_to_sender(issued, (scheme, token), request, now)?;
        let scope = issued.text("scope");
        let is_granted = |word: &str| scope.split(' ').any(|granted| granted == word);
        if required.scope.tokens().all(is_granted) { Ok(()) } else { Err(Refusal::Scope(required.scope.clone())) }
    }

    /// The refusal of an inactive token; 503 when only the database could tell and it cannot be asked.
    fn inactive(&self, inactive: Inactive) -> Refusal {
        self.confirm(Some(inactive)).map_or_else(Refusal::Unavailable, |()| Refusal::Token(inactive))
    }

    /// RFC 9449 section 7 and RFC 8705 section 3: a token that is bound to keys comes with proof of each.
    fn is_bound_to_sender(
        &self,
        issued: &IssuedToken,
        (scheme, token): (Scheme, &str),
        request: &Verification<'_>,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        match (issued.bound_to("jkt"), scheme) {
            (None, Scheme::Bearer) => {}
            (None, Scheme::Dpop) => return Err(Refusal::NotBound),
            // RFC 9449 section 7.2: "protected resources MUST reject a DPoP-bound access token received as a bearer token".
            (Some(_), Scheme::Bearer) => return Err(Refusal::BoundAsBearer),
            (Some(jkt), Scheme::Dpop) => {
                let target = request.target.ok_or(Refusal::Gateway(GatewayError::NoTarget))?;
                let url = format!("{}://{}{}", target.scheme, target.host, target.path);
                let proof = self.dpop.check_at_api(&request.proofs, (target.method, &url), (token, jkt), now)?;
                if !self.api_proofs.first_use(&proof.spend(), now) {
                    return Err(DpopError::Replayed.into());
                }
            }
        }
        if let Some(thumbprint) = issued.bound_to("x5t#S256") {
            let certificate = request.certificate.as_ref().ok_or(Refusal::Gateway(GatewayError::NoCertificate))?;
            if certificate.as_ref().is_none_or(|certificate| certificate.x5t_s256() != thumbprint) {
                return Err(Refusal::Certificate);
            }
        }
        Ok(())
    }
}

/// The one token of a request, and how it is presented.
fn presented<'a>(authorizations: &[&'a str]) -> Result<(Scheme, &'a str), Refusal> {
    let authorization = match authorizations {
        [] => return Err(Refusal::NoToken),
        [one] => one,
        _ => return Err(Refusal::Repeated),
    };
    // RFC 9110 section 11.1: "case-insensitive token". RFC 6750 section 2.1: "Bearer" 1*SP b64token.
    let (scheme, token) = authorization.split_once(' ').unwrap_or((authorization, ""));
    let scheme = match scheme {
        bearer if bearer.eq_ignore_ascii_case("Bearer") => Scheme::Bearer,
        dpop if dpop.eq_ignore_ascii_case("DPoP") => Scheme::Dpop,
        _ => return Err(Refusal::NoToken),
    };
    Ok((scheme, token.trim_matches(' ')))
}

impl From<Unavailable> for Refusal {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

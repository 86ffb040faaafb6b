//! JWTs that requests bring as proofs of identity (RFC 7521, RFC 7523), read and not verified.

use std::sync::Arc;

use super::client_assertion::MAX_ASSERTION_BYTES;
use super::error::ClientAuthError;
use super::federation::{Door, VerifiedToken};
use crate::crypto::jose::{Kind, Unverified};
use crate::model::client::AuthMethod;

/// JWT of a request that proves an identity, by whatever door it came.
#[derive(Debug)]
pub struct PresentedAssertion<'a> {
    /// The way by which it came.
    pub door: Door,
    /// `client_id` of the request.
    pub client_id: Option<&'a str>,
    /// The JWT.
    pub jwt: PresentedJwt<'a>,
}

/// The JWT itself.
#[derive(Debug)]
pub enum PresentedJwt<'a> {
    /// JWT that has to be verified.
    New(Box<NewJwt<'a>>),
    /// Token of a trusted issuer that was verified before.
    Known(Arc<VerifiedToken>),
}

/// JWT that is well formed. Nobody vouches for it.
#[derive(Debug)]
pub struct NewJwt<'a> {
    /// `iss`.
    pub iss: String,
    /// `sub`.
    pub sub: String,
    /// The JWT as text.
    pub text: &'a str,
    /// The JWT as parsed.
    pub unverified: Unverified<'a>,
}

impl PresentedAssertion<'_> {
    /// The client that the request names, known or not.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        match &self.jwt {
            PresentedJwt::New(jwt) if self.door == Door::ClientAuthentication && jwt.is_self_issued() => Some(&jwt.sub),
            PresentedJwt::New(_) | PresentedJwt::Known(_) => self.client_id,
        }
    }

    /// The authentication method, as far as it can be told from the JWT alone.
    #[must_use]
    pub fn method(&self) -> AuthMethod {
        match &self.jwt {
            // Whose it is, is told when the issuer is looked up.
            PresentedJwt::New(_) if self.door == Door::ClientAuthentication => AuthMethod::PrivateKeyJwt,
            PresentedJwt::New(_) | PresentedJwt::Known(_) => self.door.method(),
        }
    }
}

impl<'a> NewJwt<'a> {
    fn parse(text: &'a str) -> Result<Self, ClientAuthError> {
        let unverified = Unverified::parse(text, Kind::ClientAssertion, MAX_ASSERTION_BYTES)?;
        // RFC 7523 section 3: "The JWT MUST contain an "iss" (issuer) claim … a "sub" (subject) claim".
        let claims = unverified.claims_nobody_vouches_for();
        let (iss, sub) = (claims.string("iss", NAME)?, claims.string("sub", NAME)?);
        // An SVID need not have an iss, and it decides nothing there.
        let (iss, sub) = (iss.unwrap_or_default().to_owned(), sub.ok_or(ClientAuthError::AssertionSubject)?.to_owned());
        Ok(Self { iss, sub, text, unverified })
    }

    /// Whether issuer and subject are one, as in a JWT that a client signed itself.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.iss == self.sub
    }
}

/// Reads the assertion of a request. `known` finds tokens that were verified before.
///
/// # Errors
/// [`ClientAuthError`].
pub fn read<'a>(
    assertion_type: Option<&str>,
    assertion: Option<&'a str>,
    client_id: Option<&'a str>,
    known: &dyn Fn(&str, Door) -> Option<Arc<VerifiedToken>>,
) -> Result<PresentedAssertion<'a>, ClientAuthError> {
    let door = match assertion_type {
        Some(JWT_BEARER) => Door::ClientAuthentication,
        Some(JWT_SPIFFE) => Door::Svid,
        _ => return Err(ClientAuthError::AssertionType),
    };
    let presented = read_by(door, assertion.ok_or(ClientAuthError::AssertionAbsent)?, client_id, known)?;
    match &presented.jwt {
        PresentedJwt::New(jwt) if door == Door::ClientAuthentication && jwt.iss.is_empty() => {
            Err(ClientAuthError::AssertionSubject)
        }
        _ => Ok(presented),
    }
}

/// Reads a JWT that came by `door`.
///
/// # Errors
/// [`ClientAuthError`].
pub fn read_by<'a>(
    door: Door,
    assertion: &'a str,
    client_id: Option<&'a str>,
    known: &dyn Fn(&str, Door) -> Option<Arc<VerifiedToken>>,
) -> Result<PresentedAssertion<'a>, ClientAuthError> {
    let jwt = match known(assertion, door) {
        Some(token) => PresentedJwt::Known(token),
        None => PresentedJwt::New(Box::new(NewJwt::parse(assertion)?)),
    };
    Ok(PresentedAssertion { door, client_id, jwt })
}

/// RFC 7523 section 2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// draft-ietf-oauth-spiffe-client-auth.
const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";
/// Most bytes of `iss` and `sub`.
const NAME: usize = 1024;

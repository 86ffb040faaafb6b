//! Access tokens (RFC 9068): claims from a grant, signed.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::Error;
use super::grant::Grant;
use crate::crypto::jws::SigningKey;
use crate::crypto::random_id;
use crate::model::client::Client;
use crate::model::time::UnixTime;

/// A token that was issued, and what the log says of it. `Debug` does not show the token.
pub struct AccessToken {
    /// The JWT in compact form.
    pub token: String,
    /// Its id: 128 random bits (RFC 9068 section 2.2; RFC 6749 section 10.10).
    pub jti: String,
    /// The key that signed it.
    pub key: Arc<SigningKey>,
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessToken({})", self.jti)
    }
}

/// RFC 9068 section 2.2, with no `nbf`: a verifier whose clock is a second behind would refuse a fresh token.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    client_id: &'a str,
    aud: &'a str,
    scope: &'a str,
    iat: UnixTime,
    exp: UnixTime,
    jti: &'a str,
}

/// Signs the token that `grant` describes.
///
/// # Errors
/// [`Error::Internal`] when there is no randomness or the library fails to sign.
pub fn mint(
    issuer: &str,
    client: &Client,
    grant: &Grant,
    key: Arc<SigningKey>,
    now: UnixTime,
) -> Result<AccessToken, Error> {
    let jti = BASE64_URL_SAFE_NO_PAD.encode(random_id().map_err(|_| Error::Internal)?);
    let claims = Claims {
        iss: issuer,
        // RFC 9068 section 2.2: without a resource owner, sub is "an identifier the authorization server uses to
        // indicate the client application".
        sub: client.client_id.as_str(),
        client_id: client.client_id.as_str(),
        aud: &grant.aud,
        scope: grant.scope.as_str(),
        iat: now,
        exp: now.plus(grant.ttl),
        jti: &jti,
    };
    let claims = with_further(&claims, &client.claims).map_err(|_| Error::Internal)?;
    let token = key.sign(&claims).ok_or(Error::Internal)?;
    Ok(AccessToken { token, jti, key })
}

/// The claims, and behind them those that are registered for the client: two objects made one.
fn with_further(claims: &Claims<'_>, further: &Map<String, Value>) -> serde_json::Result<Vec<u8>> {
    let mut json = Vec::with_capacity(512);
    serde_json::to_writer(&mut json, claims)?;
    if !further.is_empty() {
        json.pop();
        let at = json.len();
        serde_json::to_writer(&mut json, further)?;
        if let Some(brace) = json.get_mut(at) {
            *brace = b',';
        }
    }
    Ok(json)
}

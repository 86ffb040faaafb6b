//! Access tokens (RFC 9068): claims from a grant, signed; and the reading of a token that we signed.

pub mod size;

use std::fmt;
use std::io::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::error::Error;
use super::error::inactive::Inactive;
use super::grant::{Binding, Grant};
use super::status_list::claim;
use crate::crypto::jose::{Audience, JoseError, Kind, Unverified};
use crate::crypto::json::{Object, push_string};
use crate::crypto::random_id;
use crate::model::claims::STATUS;
use crate::model::client::Client;
use crate::model::status::StatusIndex;
use crate::model::time::{Span, UnixTime};
use crate::model::token_id::TokenId;
use crate::state::keyring::Keyring;
use crate::state::registry::Registry;
use crate::state::registry::snapshot::Snapshot;
use crate::state::signer::Signer;

/// A token that is issued now, with what the log says of it. `Debug` does not show the token.
pub struct AccessToken {
    /// The JWT in compact form.
    pub token: String,
    /// Its id: 128 random bits (RFC 9068 section 2.2; RFC 6749 section 10.10).
    pub jti: String,
    /// The key that signed it.
    pub key: Arc<Signer>,
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessToken({})", self.jti)
    }
}

/// RFC 9068 section 2.2, with no `nbf`: a verifier whose clock is a second behind would refuse a fresh token.
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    client_id: &'a str,
    aud: &'a str,
    /// RFC 9068 section 2.2.3; absent when the resource has no scopes.
    scope: &'a str,
    iat: UnixTime,
    exp: UnixTime,
    jti: &'a str,
    /// RFC 7800 section 3.1; absent from a bearer token.
    cnf: &'a Binding,
    /// draft-ietf-oauth-status-list section 6.1; absent where the resource has not opted in.
    status: Option<StatusIndex>,
}

/// Signs the token that `grant` describes.
///
/// # Errors
/// [`Error::Internal`] when there is no randomness or the library fails to sign,
/// [`Unavailable::Module`](super::error::Unavailable::Module) when a PKCS #11 module fails to.
pub async fn mint(
    issuer: &str,
    client: &Client,
    grant: &Grant,
    key: Arc<Signer>,
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
        cnf: &grant.binding,
        status: grant.status,
    };
    let claims = with_further(&claims, client.claims.members()).map_err(|_| Error::Internal)?;
    let token = key.jwt(grant.typ.as_str(), &claims).await?;
    Ok(AccessToken { token, jti, key })
}

/// The claims, and behind them those that are registered for the client: two objects made one.
fn with_further(claims: &Claims<'_>, further: &Map<String, Value>) -> serde_json::Result<Vec<u8>> {
    let mut json = Vec::with_capacity(512);
    let Claims { iss, sub, client_id, aud, scope, iat, exp, jti, cnf, status } = claims;
    let before = [("{\"iss\":", iss), (",\"sub\":", sub), (",\"client_id\":", client_id), (",\"aud\":", aud)];
    let scope = (!scope.is_empty()).then_some((",\"scope\":", scope));
    for (name, text) in before.into_iter().chain(scope) {
        json.extend_from_slice(name.as_bytes());
        push_string(&mut json, text);
    }
    write!(json, ",\"iat\":{},\"exp\":{},\"jti\":", iat.0, exp.0).map_err(serde_json::Error::io)?;
    push_string(&mut json, jti);
    if !cnf.is_none() {
        json.extend_from_slice(b",\"cnf\":");
        serde_json::to_writer(&mut json, cnf)?;
    }
    if let Some(index) = status {
        claim::push(&mut json, iss, *index).map_err(serde_json::Error::io)?;
    }
    let is_hidden = |registered: &Value| status.is_some() || claim::imitates(registered);
    if further.get(STATUS).is_some_and(is_hidden) {
        // A client that was registered before the claim was reserved.
        let others = further.iter().filter(|(name, _)| *name != STATUS);
        let others = others.map(|(name, value)| (name.clone(), value.clone())).collect();
        return with_further(claims, &others);
    }
    if further.is_empty() {
        json.push(b'}');
    } else {
        // The second object continues the first.
        let at = json.len();
        serde_json::to_writer(&mut json, further)?;
        if let Some(brace) = json.get_mut(at) {
            *brace = b',';
        }
    }
    Ok(json)
}

/// A token that we signed and whose time is not over. Whether it was revoked is another question.
#[derive(Debug)]
pub struct IssuedToken {
    /// Its id.
    pub jti: TokenId,
    /// The client that it was issued to.
    pub client_id: String,
    /// The resource that it is for.
    pub aud: String,
    /// The second in which it was issued.
    pub iat: UnixTime,
    /// The second in which it ends.
    pub exp: UnixTime,
    /// The status index that it refers to.
    pub status: Option<StatusIndex>,
    /// Every claim.
    pub claims: Object,
}

impl IssuedToken {
    /// A claim that is a string; empty where it is not there.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.claims.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The member `name` of `cnf`: the key that the token is bound to (RFC 7800 section 3.1).
    #[must_use]
    pub fn bound_to(&self, name: &str) -> Option<&str> {
        self.claims.get("cnf")?.get(name)?.as_str()
    }

    /// Whether the token still counts: nothing that it depends on was revoked, deleted or disabled, or has expired.
    ///
    /// # Errors
    /// [`Inactive`].
    pub fn stands(&self, registry: &Registry, snapshot: &Snapshot, now: UnixTime) -> Result<(), Inactive> {
        let client = snapshot.client(&self.client_id).ok_or(Inactive::ClientUnknown)?;
        if registry.revoked.contains(&self.jti) {
            return Err(Inactive::Revoked);
        }
        // The lists and introspection say the same: where a token has an index, that decides, and not the second of a cut-off.
        if let Some(index) = self.status {
            let has_ended = registry.ended.contains(index);
            let is_present = snapshot.status_index(client) == index;
            return match has_ended || is_present {
                true if !client.enabled => Err(Inactive::ClientDisabled),
                true if has_ended => Err(Inactive::CutOff),
                true if client.has_expired(registry.database_time(now)) => Err(Inactive::ClientExpired),
                // Another replica may know an epoch that this one has not read yet.
                _ => Ok(()),
            };
        }
        if snapshot.cuts_off(client, self.iat) {
            return Err(Inactive::CutOff);
        }
        if !client.enabled {
            return Err(Inactive::ClientDisabled);
        }
        if client.has_expired(registry.database_time(now)) { Err(Inactive::ClientExpired) } else { Ok(()) }
    }

    /// Whether its time has come. Another replica's clock may be a little ahead.
    ///
    /// # Errors
    /// [`Inactive::NotYet`].
    pub fn has_begun(&self, now: UnixTime) -> Result<(), Inactive> {
        if self.iat <= now.plus(CLOCKS) { Ok(()) } else { Err(Inactive::NotYet) }
    }
}

/// The key that a token claims to be signed by; `None` for what is no token.
#[must_use]
pub fn kid(token: &str) -> Option<String> {
    let unverified = Unverified::parse(token, Kind::AccessTokenOrJwt, LONGEST).ok()?;
    unverified.header().kid().map(str::to_owned)
}

/// The token, if we signed it and its time is not over.
///
/// # Errors
/// [`Inactive`].
pub fn verify(token: &str, issuer: &str, keyring: &Keyring, now: UnixTime) -> Result<IssuedToken, Inactive> {
    // A resource may have tokens with `typ` of `JWT` (`resource.token_typ`).
    let unverified = Unverified::parse(token, Kind::AccessTokenOrJwt, LONGEST).map_err(Inactive::Malformed)?;
    let key = unverified.header().kid().and_then(|kid| keyring.published(kid, now)).ok_or(Inactive::Key)?;
    let claims = unverified.into_verified(key.verifying()).map_err(|_| Inactive::Signature)?;
    let text = |name| claims.string(name, LONGEST).and_then(|text| text.ok_or(JoseError::Claim(name)));
    let date = |name| claims.numeric_date(name).and_then(|date| date.map(UnixTime).ok_or(JoseError::Claim(name)));
    let malformed = Inactive::Malformed;
    if text("iss").map_err(malformed)? != issuer {
        return Err(Inactive::Issuer);
    }
    let (iat, exp) = (date("iat").map_err(malformed)?, date("exp").map_err(malformed)?);
    // RFC 7519 section 4.1.4: "the current date/time MUST be before the expiration date/time listed in the "exp" claim."
    if exp <= now {
        return Err(Inactive::Expired);
    }
    let aud = claims.audience().map_err(malformed)?;
    let jti = text("jti").map_err(malformed)?.parse().map_err(|_| malformed(JoseError::Claim("jti")))?;
    let client_id = text("client_id").map_err(malformed)?.to_owned();
    let aud = aud.as_ref().and_then(Audience::sole).ok_or(malformed(JoseError::Claim("aud")))?.to_owned();
    let claims = claims.into_members();
    let status = claim::index_of(&claims, issuer);
    Ok(IssuedToken { jti, client_id, aud, iat, exp, status, claims })
}

/// Characters of a `jti`: 128 bits in base64url.
const JTI: usize = 22;
/// A form is no longer than this.
const LONGEST: usize = 16 * 1024;
/// How far apart the clocks of replicas may be.
pub const CLOCKS: Span = Span::from_secs(60);

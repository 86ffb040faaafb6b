//! Introspection (RFC 7662) and its signed form (RFC 9701): the answer to a resource server that asks about a token.

use serde::Serialize;
use serde_json::Value;

use super::access_token::IssuedToken;
use super::error::Error;
use super::error::inactive::Inactive;
use crate::crypto::json::Object;
use crate::model::client::Client;
use crate::model::client_id::ClientId;
use crate::model::time::UnixTime;
use crate::state::registry::Registry;
use crate::state::registry::snapshot::Snapshot;
use crate::state::signer::Signer;

/// An introspection response (RFC 7662 section 2.2), with what the log says of it.
#[derive(Debug)]
pub struct IntrospectionResponse {
    /// The resource server that asked.
    pub caller: ClientId,
    /// The members of the response.
    pub members: Object,
    /// The same as a JWT (RFC 9701), where one was asked for.
    pub jwt: Option<String>,
    /// The reason why the token is not active.
    pub inactive: Option<Inactive>,
    /// The token's id and its client, where it is a token of ours.
    pub token: Option<(String, String)>,
}

impl IntrospectionResponse {
    /// The answer to `caller` about a token that was verified, or was not.
    #[must_use]
    pub fn new(caller: &Client, issued: Result<&IssuedToken, Inactive>, registry: &Registry, now: UnixTime) -> Self {
        let worth = issued.and_then(|issued| is_active(&caller.client_id, issued, registry, now).map(|()| issued));
        let members = match worth {
            Ok(issued) => active(issued),
            // RFC 7662 section 2.2: "to avoid disclosing too much of the authorization server's state to a third party, the
            // authorization server SHOULD NOT include any additional information about an inactive token".
            Err(_) => Object::from_iter([("active".to_owned(), Value::Bool(false))]),
        };
        let token = issued.ok().map(|issued| (issued.jti.to_string(), issued.client_id.clone()));
        Self { caller: caller.client_id.clone(), members, jwt: None, inactive: worth.err(), token }
    }

    /// The response with its JWT. RFC 9701 section 5: `iss`, `aud`, `iat` and `token_introspection`, and neither `sub` nor `exp`,
    /// so that it cannot pass for an access token.
    ///
    /// # Errors
    /// [`Error::Internal`] when the library fails to sign, [`Unavailable::Module`](super::error::Unavailable::Module) when a
    /// PKCS #11 module fails to.
    pub async fn signed(self, issuer: &str, key: &Signer, now: UnixTime) -> Result<Self, Error> {
        #[derive(Serialize)]
        struct Claims<'a> {
            iss: &'a str,
            aud: &'a str,
            iat: UnixTime,
            token_introspection: &'a Object,
        }
        // "aud: MUST identify the resource server receiving the token introspection response."
        let claims = Claims { iss: issuer, aud: self.caller.as_str(), iat: now, token_introspection: &self.members };
        let claims = serde_json::to_vec(&claims).map_err(|_| Error::Internal)?;
        let jwt = key.jwt("token-introspection+jwt", &claims).await?;
        Ok(Self { jwt: Some(jwt), ..self })
    }
}

/// RFC 7662 section 4: "If the token can be used only at certain resource servers, the authorization server MUST determine
/// whether or not the token can be used at the resource server making the introspection call."
fn is_active(caller: &ClientId, issued: &IssuedToken, registry: &Registry, now: UnixTime) -> Result<(), Inactive> {
    let snapshot: &Snapshot = &registry.snapshot();
    let resource = snapshot.resource(&issued.aud).ok_or(Inactive::NotIntrospector)?;
    if !resource.introspectors.contains(caller) {
        return Err(Inactive::NotIntrospector);
    }
    issued.stands(registry, snapshot, now)
}

/// The members of RFC 7662 section 2.2, and the claims that were registered for the client.
fn active(issued: &IssuedToken) -> Object {
    let mut response = Object::new();
    response.insert("active".into(), true.into());
    // RFC 9449 section 6.2: "If the token_type member is included in the introspection response, it MUST contain the value
    // DPoP."
    let token_type = if issued.bound_to("jkt").is_some() { "DPoP" } else { "Bearer" };
    response.insert("token_type".into(), token_type.into());
    for (name, value) in issued.claims.iter().filter(|(name, _)| !OURS.contains(&name.as_str())) {
        response.insert(name.clone(), value.clone());
    }
    response
}

/// Members of an introspection response that no claim of a client may imitate. `username` would name a person.
const OURS: [&str; 3] = ["active", "token_type", "username"];

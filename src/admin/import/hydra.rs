//! Clients of Ory Hydra, as its admin API lists them (`GET /admin/clients`) and its command line prints them.

use serde::Deserialize;
use serde_json::Value;

use super::foreign::{
    DESCRIPTION, ForeignClient, ForeignFileError, ForeignSecret, MAX_KEYS, OWNER, Registration, Unfit, cut, resources,
    stored_keys, token_ttl,
};
use crate::admin::Change;
use crate::admin::clients::ClientPatch;
use crate::crypto::jwk_set::JwkSet;
use crate::crypto::signature_alg::SignatureAlg;
use crate::model::time::UnixTime;

/// The members of a client that are of use here. Hydra writes empty values as null, as empty, or not at all.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HydraClient {
    client_name: Option<String>,
    client_secret: Option<String>,
    grant_types: Option<Vec<String>>,
    scope: Option<String>,
    audience: Option<Vec<String>>,
    owner: Option<String>,
    token_endpoint_auth_method: Option<String>,
    token_endpoint_auth_signing_alg: Option<String>,
    jwks: Option<Value>,
    jwks_uri: Option<String>,
    client_credentials_grant_access_token_lifespan: Option<String>,
}

/// Reads an array of clients, `{"items": […]}`, or one client.
pub(super) fn clients(document: Value, now: UnixTime) -> Result<Vec<ForeignClient>, ForeignFileError> {
    let form = ForeignFileError::Form(
        "a list of clients of Hydra is an array, or an object with `items`: `hydra list oauth2-clients --format json`, page after page",
    );
    let members = match document {
        Value::Array(members) => members,
        Value::Object(mut object) => match object.remove("items") {
            Some(Value::Array(members)) => members,
            None if object.contains_key("client_id") => vec![Value::Object(object)],
            _ => return Err(form),
        },
        _ => return Err(form),
    };
    Ok(members.into_iter().map(|member| client(member, now)).collect())
}

fn client(member: Value, now: UnixTime) -> ForeignClient {
    let client_id = member.get("client_id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let faulty = |error: serde_json::Error| Unfit::Faulty(error.to_string());
    let read = serde_json::from_value(member).map_err(faulty).and_then(|client| registration(&client_id, client, now));
    ForeignClient { client_id, read }
}

fn registration(client_id: &str, hydra: HydraClient, now: UnixTime) -> Result<Registration, Unfit> {
    if !hydra.grant_types.iter().flatten().any(|grant| grant == "client_credentials") {
        return Err(Unfit::NotAMachine("its grant_types do not have client_credentials"));
    }
    let method = hydra.token_endpoint_auth_method.as_deref().filter(|method| !method.is_empty());
    if method == Some("none") {
        return Err(Unfit::NotAMachine("it is a public client (token_endpoint_auth_method none)"));
    }
    let (mut notes, scope) = (Vec::new(), hydra.scope.unwrap_or_default());
    let scope = scope.split_whitespace().collect::<Vec<_>>().join(" ");
    if scope.contains('*') {
        notes.push("a scope with * is a pattern in Hydra, and a scope of that name here".to_owned());
    }
    let lifespan = hydra.client_credentials_grant_access_token_lifespan.filter(|text| !text.is_empty());
    let token_ttl = match lifespan.map(|text| (humantime::parse_duration(&text), text)) {
        None => None,
        Some((Ok(span), _)) => token_ttl(span.as_secs(), &mut notes),
        Some((Err(_), text)) => {
            notes.push(format!("its lifetime of tokens is left out: `{text}` is not understood"));
            None
        }
    };
    let jwks_uri = match hydra.jwks_uri.as_deref().filter(|uri| !uri.is_empty()) {
        Some(uri) if method == Some("private_key_jwt") => {
            Some(uri.parse().map_err(|error| Unfit::Faulty(format!("{error}; it has {uri}")))?)
        }
        _ => None,
    };
    let patch = ClientPatch {
        description: Change::To(cut(hydra.client_name.as_deref().unwrap_or_default(), DESCRIPTION)),
        owner: Change::To(cut(hydra.owner.as_deref().unwrap_or_default(), OWNER)),
        scope: Change::To(scope.parse().map_err(|error| Unfit::Faulty(format!("scope: {error}")))?),
        resources: Change::To(resources(hydra.audience.iter().flatten().map(String::as_str), &mut notes)),
        token_ttl: Change::To(token_ttl),
        jwks_uri: Change::To(jwks_uri),
        ..ClientPatch::default()
    };
    let client_id = client_id.parse().map_err(|error| Unfit::Faulty(format!("client_id: {error}")))?;
    let mut new = patch.new_client(client_id, now).map_err(|error| Unfit::Faulty(error.to_string()))?;
    let secret = match method {
        Some("private_key_jwt") if new.client.jwks_uri.is_some() => ForeignSecret::NotNeeded,
        Some("private_key_jwt") => {
            let alg = hydra.token_endpoint_auth_signing_alg.as_deref().and_then(SignatureAlg::named);
            let set = JwkSet::parse(hydra.jwks.unwrap_or_default().to_string().as_bytes(), alg, MAX_KEYS);
            let set = set.map_err(|error| Unfit::Faulty(format!("jwks: {error}")))?;
            if let Some(skipped) = set.skipped.first() {
                notes.push(format!("key {} of its jwks is left out: {}", skipped.at + 1, skipped.why));
            }
            new.client.keys = stored_keys(set.keys, now).into();
            if new.client.keys.is_empty() {
                return Err(Unfit::Faulty("jwks: it has no key that can be used".to_owned()));
            }
            ForeignSecret::NotNeeded
        }
        _ => ForeignSecret::read(hydra.client_secret.as_deref()),
    };
    Ok(Registration { new, secret, notes })
}

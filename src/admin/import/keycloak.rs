//! Clients of a Keycloak realm, from its export (`kc.sh export`, or the partial export with clients).

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::foreign::{
    DESCRIPTION, ForeignClient, ForeignFileError, ForeignSecret, MAX_KEYS, Registration, Unfit, cut, resources,
    stored_keys, token_ttl,
};
use crate::admin::Change;
use crate::admin::clients::ClientPatch;
use crate::crypto::certificate::Certificate;
use crate::crypto::json;
use crate::crypto::jwk_set::JwkSet;
use crate::crypto::secret::new_secret_id;
use crate::crypto::signature_alg::SignatureAlg;
use crate::crypto::verifying_key::VerifyingKey;
use crate::model::certificate::RegisteredCertificate;
use crate::model::claims::RegisteredClaims;
use crate::model::client::Client;
use crate::model::credential::StoredCertificate;
use crate::model::time::UnixTime;

/// The members of a realm that are of use here.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Realm {
    clients: Option<Vec<Value>>,
    client_scopes: Vec<ClientScope>,
    default_default_client_scopes: Vec<String>,
    default_optional_client_scopes: Vec<String>,
    access_token_lifespan: Option<u64>,
}

/// A named set of mappers; its name is a scope, unless `include.in.token.scope` is false.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClientScope {
    name: String,
    protocol: Option<String>,
    attributes: Map<String, Value>,
    protocol_mappers: Vec<Mapper>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mapper {
    name: String,
    #[serde(rename = "protocolMapper")]
    kind: String,
    config: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct KeycloakClient {
    name: Option<String>,
    description: Option<String>,
    enabled: Option<bool>,
    protocol: Option<String>,
    public_client: Option<bool>,
    bearer_only: Option<bool>,
    service_accounts_enabled: Option<bool>,
    client_authenticator_type: Option<String>,
    secret: Option<String>,
    attributes: Option<Map<String, Value>>,
    protocol_mappers: Option<Vec<Mapper>>,
    default_client_scopes: Option<Vec<String>>,
    optional_client_scopes: Option<Vec<String>>,
}

/// Reads the export of a realm, or of several in an array.
pub(super) fn clients(document: Value, now: UnixTime) -> Result<Vec<ForeignClient>, ForeignFileError> {
    let realms = match document {
        Value::Array(realms) => realms,
        realm => vec![realm],
    };
    let mut clients = Vec::new();
    for realm in realms {
        let mut realm: Realm = serde_json::from_value(realm)?;
        let members = realm.clients.take().ok_or(ForeignFileError::Form(
            "a realm export of Keycloak has `clients`: `kc.sh export --realm NAME --file FILE`, or the partial export with clients",
        ))?;
        clients.extend(members.into_iter().map(|member| client(member, &realm, now)));
    }
    Ok(clients)
}

fn client(member: Value, realm: &Realm, now: UnixTime) -> ForeignClient {
    let client_id = member.get("clientId").and_then(Value::as_str).unwrap_or_default().to_owned();
    let faulty = |error: serde_json::Error| Unfit::Faulty(error.to_string());
    let read = serde_json::from_value(member).map_err(faulty);
    let read = read.and_then(|client| registration(&client_id, &client, realm, now));
    ForeignClient { client_id, read }
}

fn registration(
    client_id: &str,
    keycloak: &KeycloakClient,
    realm: &Realm,
    now: UnixTime,
) -> Result<Registration, Unfit> {
    if keycloak.protocol.as_deref().is_some_and(|protocol| protocol != OPENID_CONNECT) {
        return Err(Unfit::NotAMachine("its protocol is not openid-connect"));
    }
    if keycloak.bearer_only == Some(true) {
        return Err(Unfit::NotAMachine("it is bearer-only: a resource, not a client"));
    }
    if keycloak.public_client == Some(true) {
        return Err(Unfit::NotAMachine("it is a public client"));
    }
    if keycloak.service_accounts_enabled != Some(true) {
        return Err(Unfit::NotAMachine("its service account is off, so it may not use client_credentials"));
    }
    let faulty =
        |column: &'static str| move |error: &dyn std::fmt::Display| Unfit::Faulty(format!("{column}: {error}"));
    let mut notes = Vec::new();
    let defaults = keycloak.default_client_scopes.as_ref().unwrap_or(&realm.default_default_client_scopes);
    let optional = keycloak.optional_client_scopes.as_ref().unwrap_or(&realm.default_optional_client_scopes);
    let (default_scopes, optional_scopes) = (realm.scopes(defaults), realm.scopes(optional));
    let in_token = |scopes: &[&ClientScope]| -> Vec<String> {
        scopes.iter().filter(|scope| scope.is_in_token()).map(|scope| scope.name.clone()).collect()
    };
    let default_scope = in_token(&default_scopes).join(" ");
    let scope = [in_token(&default_scopes), in_token(&optional_scopes)].concat().join(" ");
    let of_client = || keycloak.protocol_mappers.iter().flatten();
    let always = || of_client().chain(default_scopes.iter().flat_map(|scope| &scope.protocol_mappers));
    let on_request = || optional_scopes.iter().flat_map(|scope| &scope.protocol_mappers);
    let audiences: Vec<&str> = always().chain(on_request()).filter_map(Mapper::audience).collect();
    if on_request().any(|mapper| mapper.claim().is_some()) {
        notes.push("hard-coded claims of its optional scopes are left out".to_owned());
    }
    let other: Vec<&str> =
        of_client().filter(|mapper| !mapper.is_understood()).map(|mapper| mapper.name.as_str()).collect();
    if !other.is_empty() {
        notes.push(format!("its mappers {} are left out", other.join(", ")));
    }
    let claims = claims(always(), &mut notes);
    let attribute = |name: &str| text(keycloak.attributes.as_ref()?, name);
    let own_lifespan = attribute("access.token.lifespan").map(str::parse::<u64>);
    if let Some(Err(error)) = &own_lifespan {
        notes.push(format!("its access.token.lifespan is left out: {error}"));
    }
    // One that cannot be read is noted above; without one, that of the realm holds.
    let own_lifespan = own_lifespan.and_then(Result::ok);
    let lifespan = own_lifespan.or(realm.access_token_lifespan).filter(|seconds| *seconds > 0);
    let description = [&keycloak.description, &keycloak.name];
    let description = description.into_iter().flatten().find(|text| !text.is_empty() && !text.starts_with("${"));
    let patch = ClientPatch {
        description: Change::To(cut(description.map(String::as_str).unwrap_or_default(), DESCRIPTION)),
        scope: Change::To(scope.parse().map_err(|error| faulty("scope")(&error))?),
        default_scope: Change::To(default_scope.parse().map_err(|error| faulty("scope")(&error))?),
        resources: Change::To(resources(audiences, &mut notes)),
        token_ttl: Change::To(lifespan.and_then(|seconds| token_ttl(seconds, &mut notes))),
        claims: Change::To(claims),
        require_dpop: Change::To(attribute("dpop.bound.access.tokens") == Some("true")),
        require_mtls_binding: Change::To(attribute("tls.client.certificate.bound.access.tokens") == Some("true")),
        ..ClientPatch::default()
    };
    let client_id = client_id.parse().map_err(|error| faulty("client_id")(&error))?;
    let mut new = patch.new_client(client_id, now).map_err(|error| Unfit::Faulty(error.to_string()))?;
    new.client.enabled = keycloak.enabled != Some(false);
    let secret = match keycloak.client_authenticator_type.as_deref() {
        Some("client-jwt") => {
            by_key(&mut new.client, &attribute, now, &mut notes)?;
            ForeignSecret::NotNeeded
        }
        Some("client-x509") => by_certificate(&mut new.client, &attribute, now)?,
        None | Some("client-secret") => ForeignSecret::read(keycloak.secret.as_deref()),
        Some(other) => ForeignSecret::Missing(format!("its authentication by {other} does not exist here")),
    };
    Ok(Registration { new, secret, notes })
}

/// Registers the keys of a client: by URL, as a JWK Set, or in a certificate.
fn by_key<'a>(
    client: &mut Client,
    attribute: &impl Fn(&str) -> Option<&'a str>,
    now: UnixTime,
    notes: &mut Vec<String>,
) -> Result<(), Unfit> {
    let faulty = |name: &str, error: &dyn std::fmt::Display| Unfit::Faulty(format!("{name}: {error}"));
    let alg = attribute("token.endpoint.auth.signing.alg").and_then(SignatureAlg::named);
    if attribute("use.jwks.url") == Some("true") {
        let uri = attribute("jwks.url").unwrap_or_default();
        client.jwks_uri = Some(uri.parse().map_err(|error| faulty("jwks.url", &error))?);
        return Ok(());
    }
    let keys = if attribute("use.jwks.string") == Some("true") {
        let set = JwkSet::parse(attribute("jwks.string").unwrap_or_default().as_bytes(), alg, MAX_KEYS);
        let set = set.map_err(|error| faulty("jwks.string", &error))?;
        if let Some(skipped) = set.skipped.first() {
            notes.push(format!("key {} of its JWK Set is left out: {}", skipped.at + 1, skipped.why));
        }
        set.keys
    } else if let Some(text) = attribute("jwt.credential.certificate") {
        let name = "jwt.credential.certificate";
        let certificate =
            Certificate::read(pem("CERTIFICATE", text).as_bytes()).map_err(|error| faulty(name, &error))?;
        let key = pem("PUBLIC KEY", &BASE64_STANDARD.encode(certificate.spki()));
        vec![VerifyingKey::from_pem(key.as_bytes(), alg).map_err(|error| faulty(name, &error))?]
    } else if let Some(text) = attribute("jwt.credential.public.key") {
        let key = VerifyingKey::from_pem(pem("PUBLIC KEY", text).as_bytes(), alg);
        vec![key.map_err(|error| faulty("jwt.credential.public.key", &error))?]
    } else {
        Vec::new()
    };
    if keys.is_empty() {
        return Err(Unfit::Faulty("it authenticates by a key, and the file has none that can be used".to_owned()));
    }
    client.keys = stored_keys(keys, now).into();
    Ok(())
}

/// Registers the name in the certificates of a client.
fn by_certificate<'a>(
    client: &mut Client,
    attribute: &impl Fn(&str) -> Option<&'a str>,
    now: UnixTime,
) -> Result<ForeignSecret, Unfit> {
    let name = attribute("x509.subjectdn").unwrap_or_default();
    let by_pattern = attribute("x509.allow.regex.pattern.comparison") == Some("true");
    if by_pattern && name.contains(['*', '+', '?', '(', '[', '{', '|', '^', '$', '\\']) {
        return Ok(ForeignSecret::Missing(format!(
            "the name in its certificate is a pattern, `{name}`; `grantd client cert add` registers one name"
        )));
    }
    let registered = RegisteredCertificate::parse("subject_dn", name);
    let registered = registered.map_err(|error| Unfit::Faulty(format!("x509.subjectdn: {error}")))?;
    let cert_id = new_secret_id().map_err(|error| Unfit::Faulty(error.to_string()))?.into();
    let stored = StoredCertificate { cert_id, registered, created_at: now, expires_at: None, used: Arc::default() };
    client.certificates = [stored].into();
    Ok(ForeignSecret::NotNeeded)
}

impl Realm {
    /// The scopes of these names, without Keycloak's own.
    fn scopes(&self, names: &[String]) -> Vec<&ClientScope> {
        let by_name: HashMap<&str, &ClientScope> =
            self.client_scopes.iter().map(|scope| (scope.name.as_str(), scope)).collect();
        let own = |name: &&String| !BUILT_IN.contains(&name.as_str());
        names
            .iter()
            .filter(own)
            .filter_map(|name| by_name.get(name.as_str()).copied())
            .filter(|scope| scope.is_oidc())
            .collect()
    }
}

impl ClientScope {
    fn is_oidc(&self) -> bool {
        self.protocol.as_deref().is_none_or(|protocol| protocol == OPENID_CONNECT)
    }

    fn is_in_token(&self) -> bool {
        text(&self.attributes, "include.in.token.scope") != Some("false")
    }
}

impl Mapper {
    /// The audience that it adds to access tokens.
    fn audience(&self) -> Option<&str> {
        let adds = self.kind == "oidc-audience-mapper" && self.is_for_access_tokens();
        let of = |name| text(&self.config, name);
        adds.then(|| of("included.client.audience").or_else(|| of("included.custom.audience"))).flatten()
    }

    /// The claim that it adds to access tokens.
    fn claim(&self) -> Option<(&str, Result<Value, String>)> {
        if self.kind != "oidc-hardcoded-claim-mapper" || !self.is_for_access_tokens() {
            return None;
        }
        let (name, value) = (text(&self.config, "claim.name")?, text(&self.config, "claim.value").unwrap_or_default());
        let value = match text(&self.config, "jsonType.label").unwrap_or("String") {
            "long" | "int" => value.parse::<i64>().map(Value::from).map_err(|error| error.to_string()),
            "boolean" => value.parse::<bool>().map(Value::from).map_err(|error| error.to_string()),
            "JSON" => {
                let object = json::object(format!("{{\"value\":{value}}}").as_bytes());
                object.map(|mut object| object.remove("value").unwrap_or_default()).map_err(|error| error.to_string())
            }
            _ => Ok(value.into()),
        };
        Some((name, value))
    }

    fn is_for_access_tokens(&self) -> bool {
        text(&self.config, "access.token.claim") == Some("true")
    }

    /// Whether it is imported, or adds nothing to access tokens, or what grantd adds by itself.
    fn is_understood(&self) -> bool {
        self.audience().is_some()
            || self.claim().is_some()
            || !self.is_for_access_tokens()
            || ["Client ID", "Client Host", "Client IP Address"].contains(&self.name.as_str())
    }
}

/// The hard-coded claims, one in another where a name has dots. A claim that cannot be registered is noted.
fn claims<'a>(mappers: impl Iterator<Item = &'a Mapper>, notes: &mut Vec<String>) -> RegisteredClaims {
    let mut members = Map::new();
    for (name, value) in mappers.filter_map(Mapper::claim) {
        let with = |value: Value| {
            let mut more = members.clone();
            let is_put = put(&mut more, name, value);
            let checked = RegisteredClaims::try_from(more.clone()).map_err(|error| error.to_string());
            checked.and_then(|_| if is_put { Ok(more) } else { Err("another claim is in its way".to_owned()) })
        };
        match value.and_then(with) {
            Ok(more) => members = more,
            Err(fault) => notes.push(format!("its claim {name} is left out: {fault}")),
        }
    }
    // Each of them was checked together with those before it.
    RegisteredClaims::try_from(members).unwrap_or_default()
}

/// Puts a value at a path, whose parts are separated by dots; `\.` is a dot in a name. `false` where a value is in the way.
fn put(members: &mut Map<String, Value>, path: &str, value: Value) -> bool {
    let marked = path.replace("\\.", "\u{1}");
    let Some((first, rest)) = marked.split_once('.') else {
        return members.insert(marked.replace('\u{1}', "."), value).is_none();
    };
    let inner = members.entry(first.replace('\u{1}', ".")).or_insert_with(|| Map::new().into());
    inner.as_object_mut().is_some_and(|inner| put(inner, &rest.replace('\u{1}', "\\."), value))
}

/// A member that is a text, and not empty.
fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    members.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The PEM of base64, which may be PEM already.
fn pem(label: &str, text: &str) -> String {
    if text.contains("-----BEGIN") {
        return text.to_owned();
    }
    let compact: Vec<char> = text.chars().filter(|character| !character.is_whitespace()).collect();
    let lines: Vec<String> = compact.chunks(64).map(|line| line.iter().collect()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

const OPENID_CONNECT: &str = "openid-connect";
/// The client scopes that every realm has; none of them means something to an API of machines.
const BUILT_IN: [&str; 15] = [
    "acr",
    "address",
    "basic",
    "email",
    "microprofile-jwt",
    "offline_access",
    "openid",
    "organization",
    "phone",
    "profile",
    "role_list",
    "roles",
    "saml_organization",
    "service_account",
    "web-origins",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_with_dots_is_one_in_another() {
        let mut members = Map::new();
        assert!(put(&mut members, "a.b", 1.into()) && put(&mut members, "a.c", 2.into()));
        assert!(put(&mut members, "x\\.y.z", 3.into()) && put(&mut members, "plain", 4.into()));
        assert_eq!(Value::from(members.clone()), json!({"a": {"b": 1, "c": 2}, "x.y": {"z": 3}, "plain": 4}));
        assert!(!put(&mut members, "plain.more", 5.into()) && !put(&mut members, "plain", 6.into()));
    }
}

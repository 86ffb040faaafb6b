//! Clients and their secrets at rest.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;

use super::client_certs::{CertificateRow, certificate_of};
use super::client_keys::{KEYS_OR_URI, KeyRow, key_of};
use super::columns::{flag, moment, ttl_of};
use super::rows::row;
use super::secrets::{INSERT_SECRET, NewSecret};
use super::session::Transaction;
use super::statement::args;
use super::{Store, StoreError, transaction};
use crate::crypto::json;
use crate::crypto::jwk::{Alg, KeyError};
use crate::model::client::{Client, RESERVED_CLAIMS};
use crate::model::credential::{Origin, StoredCertificate, StoredKey, StoredSecret};
use crate::model::resource::ResourceId;
use crate::model::scope::{Scope, ScopeError};

row!(
    /// A client.
    ClientRow {
        client_id: String,
        scope: String,
        default_scope: String,
        grant_types: String,
        auth_methods: Option<String>,
        token_ttl: Option<i64>,
        claims: String,
        require_dpop: i64,
        require_mtls_binding: i64,
        enabled: i64,
        created_at: i64,
        jwks_uri: Option<String>,
        not_before: i64,
        introspection_signed_response_alg: Option<String>,
        assertion_lifetime: Option<i64>,
        assertion_audience: String,
    }
);
row!(
    /// A resource that a client may ask for.
    ResourceLink { client_id: String, identifier: String }
);
row!(
    /// A secret of a client.
    SecretRow {
        client_id: String,
        secret_id: String,
        hash: String,
        imported: i64,
        tag_key: Option<String>,
        expires_at: Option<i64>,
        revoked_at: Option<i64>,
    }
);

impl Store {
    /// Adds a client, with a first secret or none.
    ///
    /// # Errors
    /// [`StoreError::Taken`], and [`StoreError::Refused`] when a constraint says no.
    pub async fn create_client(&self, client: &Client, secret: Option<&NewSecret>) -> Result<(), StoreError> {
        let id = client.client_id.as_str();
        transaction!(self, |tx| {
            tx.execute(
                "insert into client (client_id, scope, default_scope, grant_types, auth_methods, token_ttl, claims,
                                     require_dpop, require_mtls_binding, enabled, created_at,
                                     introspection_signed_response_alg, assertion_lifetime, assertion_audience)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
                &args![
                    id,
                    client.scope.as_str(),
                    client.default_scope.as_str(),
                    grant_types(client),
                    client.auth_methods.as_deref(),
                    client.token_ttl,
                    claims(client),
                    client.require_dpop,
                    client.require_mtls_binding,
                    client.enabled,
                    client.created_at,
                    client.introspection_signed_response_alg.map(Alg::as_str),
                    client.assertion_lifetime,
                    client.assertion_audience.as_str(),
                ],
            )
            .await
            .map_err(|error| error.naming("client", id))?;
            add_resources(tx, client).await?;
            if let Some(secret) = secret {
                tx.execute(INSERT_SECRET, &secret.values(id)).await?;
            }
            Ok(())
        })
    }

    /// Writes back what an administrator may change of a client. `Ok(false)` when there is none of that id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn update_client(&self, client: &Client) -> Result<bool, StoreError> {
        let id = client.client_id.as_str();
        transaction!(self, |tx| {
            // Not enabled and auth_methods: whoever switches a client off meanwhile keeps the last word.
            let found = tx
                .execute(
                    "update client set scope = $2, default_scope = $3, token_ttl = $4, claims = $5,
                                       require_dpop = $6, require_mtls_binding = $7,
                                       introspection_signed_response_alg = $8, assertion_lifetime = $9,
                                       assertion_audience = $10
                     where client_id = $1",
                    &args![
                        id,
                        client.scope.as_str(),
                        client.default_scope.as_str(),
                        client.token_ttl,
                        claims(client),
                        client.require_dpop,
                        client.require_mtls_binding,
                        client.introspection_signed_response_alg.map(Alg::as_str),
                        client.assertion_lifetime,
                        client.assertion_audience.as_str(),
                    ],
                )
                .await?;
            tx.execute("delete from client_resource where client_id = $1", &args![id]).await?;
            if found > 0 {
                add_resources(tx, client).await?;
            }
            Ok(found > 0)
        })
    }

    /// Enables or disables a client. `Ok(false)` when there is none of that id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_client_enabled(&self, client_id: &str, enabled: bool) -> Result<bool, StoreError> {
        let sql = "update client set enabled = $2 where client_id = $1";
        Ok(self.execute(sql, &args![client_id, enabled]).await? > 0)
    }

    /// Sets the only ways in which a client may authenticate, or lifts that. `Ok(false)` when there is none of that id.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when a name is none of those in the metadata.
    pub async fn set_auth_methods(&self, client_id: &str, names: Option<&str>) -> Result<bool, StoreError> {
        let sql = "update client set auth_methods = $2 where client_id = $1";
        Ok(self.execute(sql, &args![client_id, names]).await? > 0)
    }

    /// Deletes a client with its secrets. `Ok(false)` when there is none of that id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_client(&self, client_id: &str) -> Result<bool, StoreError> {
        let sql = "delete from client where client_id = $1";
        Ok(self.execute(sql, &args![client_id]).await? > 0)
    }
}

async fn add_resources(tx: &mut Transaction, client: &Client) -> Result<(), StoreError> {
    let sql = "insert into client_resource (client_id, identifier) values ($1, $2)";
    for identifier in &client.resources {
        tx.execute(sql, &args![client.client_id.as_str(), identifier.as_str()]).await?;
    }
    Ok(())
}

/// What belongs to clients, read before them. A row that cannot be understood becomes an error for its own client and nobody
/// else.
#[derive(Default)]
pub(super) struct Belongings {
    of: HashMap<String, Belonging>,
    scopes: Scopes,
}

#[derive(Default)]
struct Belonging {
    rows: DefaultHasher,
    resources: Vec<Result<ResourceId, String>>,
    secrets: Vec<Result<StoredSecret, String>>,
    keys: Vec<Result<StoredKey, String>>,
    certificates: Vec<Result<StoredCertificate, String>>,
}

impl Belongings {
    pub(super) fn add_resource(&mut self, row: &ResourceLink) {
        let belonging = self.of(&row.client_id, row);
        let identifier = row.identifier.parse().map_err(|error| format!("client_resource.identifier: {error}"));
        belonging.resources.push(identifier);
    }

    /// What belongs to a client, another row of it counted in.
    fn of(&mut self, client_id: &str, row: &impl Hash) -> &mut Belonging {
        let belonging = self.of.entry(client_id.to_owned()).or_default();
        row.hash(&mut belonging.rows);
        belonging
    }

    pub(super) fn add_secret(&mut self, row: SecretRow) {
        let belonging = self.of(&row.client_id, &row);
        belonging.secrets.push(secret_of(row));
    }

    pub(super) fn add_key(&mut self, row: KeyRow) {
        let belonging = self.of(&row.client_id, &row);
        belonging.keys.push(key_of(row));
    }

    pub(super) fn add_certificate(&mut self, row: CertificateRow) {
        let belonging = self.of(&row.client_id, &row);
        belonging.certificates.push(certificate_of(row));
    }

    /// The client of a row, with what belongs to it.
    pub(super) fn client(&mut self, row: ClientRow) -> (String, Result<Arc<Client>, StoreError>) {
        let client_id = row.client_id.clone();
        let belonging = self.of.remove(&client_id).unwrap_or_default();
        let client = client_of(row, belonging, &mut self.scopes)
            .map(Arc::new)
            .map_err(|reason| StoreError::Malformed { kind: "client", id: client_id.clone(), reason });
        (client_id, client)
    }
}

/// Scopes that have been read: many clients have the same, and share it.
#[derive(Default)]
struct Scopes(HashMap<String, Scope>);

impl Scopes {
    fn read(&mut self, text: String) -> Result<Scope, ScopeError> {
        match self.0.get(&text) {
            Some(scope) => Ok(scope.clone()),
            None => {
                let scope: Scope = text.parse()?;
                self.0.insert(text, scope.clone());
                Ok(scope)
            }
        }
    }
}

fn client_of(row: ClientRow, belonging: Belonging, scopes: &mut Scopes) -> Result<Client, String> {
    let mut rows = belonging.rows;
    row.hash(&mut rows);
    let at = |column: &'static str| move |error: &dyn std::fmt::Display| format!("{column}: {error}");
    // What is put into a token has to be read again when somebody asks about the token.
    if row.claims.len() > MAX_CLAIMS {
        return Err(format!("claims: more than {MAX_CLAIMS} characters"));
    }
    let claims = json::object(row.claims.as_bytes()).map_err(|error| at("claims")(&error))?;
    if claims.len() > MAX_CLAIM_COUNT {
        return Err(format!("claims: more than {MAX_CLAIM_COUNT}"));
    }
    if let Some(name) = RESERVED_CLAIMS.iter().find(|name| claims.contains_key(**name)) {
        return Err(format!("claims: {name} is set by grantd and cannot be registered"));
    }
    let client = Client {
        client_id: row.client_id.parse().map_err(|error| at("client_id")(&error))?,
        scope: scopes.read(row.scope).map_err(|error| at("scope")(&error))?,
        default_scope: scopes.read(row.default_scope).map_err(|error| at("default_scope")(&error))?,
        resources: belonging.resources.into_iter().collect::<Result<_, _>>()?,
        client_credentials: row.grant_types.split(' ').any(|name| name == "client_credentials"),
        auth_methods: row.auth_methods.map(Into::into),
        token_ttl: row.token_ttl.map(ttl_of).transpose()?,
        claims,
        require_dpop: flag("require_dpop", row.require_dpop)?,
        require_mtls_binding: flag("require_mtls_binding", row.require_mtls_binding)?,
        enabled: flag("enabled", row.enabled)?,
        created_at: moment("created_at", row.created_at)?,
        not_before: moment("not_before", row.not_before)?,
        secrets: belonging.secrets.into_iter().collect::<Result<_, _>>()?,
        keys: belonging.keys.into_iter().collect::<Result<_, _>>()?,
        jwks_uri: row.jwks_uri.map(|uri| uri.parse()).transpose().map_err(|error| at("jwks_uri")(&error))?,
        certificates: belonging.certificates.into_iter().collect::<Result<_, _>>()?,
        introspection_signed_response_alg: row
            .introspection_signed_response_alg
            .map(|alg| alg.parse())
            .transpose()
            .map_err(|error: KeyError| at("introspection_signed_response_alg")(&error))?,
        assertion_lifetime: row.assertion_lifetime.map(ttl_of).transpose()?,
        assertion_audience: row.assertion_audience.parse().map_err(|error| at("assertion_audience")(&error))?,
        fingerprint: rows.finish(),
    };
    if !client.default_scope.is_subset_of(&client.scope) {
        return Err("default_scope: must be a part of scope".into());
    }
    if client.jwks_uri.is_some() && !client.keys.is_empty() {
        return Err(format!("jwks_uri: {KEYS_OR_URI}"));
    }
    Ok(client)
}

fn secret_of(row: SecretRow) -> Result<StoredSecret, String> {
    let secret_id = row.secret_id;
    let origin = match (flag("imported", row.imported)?, row.tag_key) {
        (true, _) => Origin::Imported,
        (false, None) => Origin::Named,
        (false, Some(kid)) => {
            Origin::Tagged(kid.parse().map_err(|error| format!("client_secret {secret_id}: tag_key: {error}"))?)
        }
    };
    Ok(StoredSecret {
        origin,
        hash: row.hash.parse().map_err(|error| format!("client_secret {secret_id}: hash: {error}"))?,
        secret_id: secret_id.into(),
        expires_at: row.expires_at.map(|at| moment("client_secret.expires_at", at)).transpose()?,
        revoked_at: row.revoked_at.map(|at| moment("client_secret.revoked_at", at)).transpose()?,
        seen: Arc::default(),
    })
}

fn grant_types(client: &Client) -> &'static str {
    if client.client_credentials { "client_credentials" } else { "" }
}

/// The claims as JSON in ASCII, as the database wants them: SQLite does not check that text is UTF-8.
pub(crate) fn claims(client: &Client) -> String {
    let json = serde_json::Value::Object(client.claims.clone()).to_string();
    let mut units = [0; 2];
    json.chars()
        .map(|character| match character {
            ascii if ascii.is_ascii() => ascii.to_string(),
            other => other.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        })
        .collect()
}

/// What a token has room for.
const MAX_CLAIMS: usize = 4096;
/// Most further claims of a client.
pub(crate) const MAX_CLAIM_COUNT: usize = 64;

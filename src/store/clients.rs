//! Stored clients.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;

use super::client_certs::{CertificateRow, certificate_of};
use super::client_keys::{KeyRow, key_of};
use super::columns::{flag, lifetime, moment};
use super::rows::row;
use super::secrets::{INSERT_SECRET, NewSecret};
use super::session::{Transaction, within};
use super::statement::args;
use super::{Refusal, Store, StoreError, transaction};
use crate::crypto::jwk::{Alg, KeyError};
use crate::model::client::{Client, ClientScope};
use crate::model::credential::{SecretOrigin, StoredCertificate, StoredKey, StoredSecret};
use crate::model::jwks_uri::JwksUri;
use crate::model::resource::ResourceId;
use crate::model::scope::{Scope, ScopeError};
use crate::model::time::Span;

row!(
    /// Row of a client.
    ClientRow of "client" by "" {
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
    /// Row of a resource that a client may ask for.
    ResourceLink of "client_resource" by "order by c.client_id, c.identifier" { client_id: String, identifier: String }
);
row!(
    /// Row of a client's secret.
    SecretRow of "client_secret" by "order by c.created_at desc, c.secret_id" {
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
    /// Reads one client with its credentials and resources, as of one moment.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Malformed`] when its rows cannot be read.
    pub async fn client(&self, client_id: &str) -> Result<Option<Client>, StoreError> {
        let session = self.session().await?;
        let (id, mut assembler) = (args![client_id], ClientAssembler::default());
        let rows: Vec<ClientRow> = within(async {
            let mut reading = Transaction::begin_reading(session, self.queries.clone()).await?;
            for row in reading.fetch::<ResourceLink>(ResourceLink::select("", ONE), &id).await? {
                assembler.add_resource(&row);
            }
            for row in reading.fetch(SecretRow::select("", ONE), &id).await? {
                assembler.add_secret(row);
            }
            for row in reading.fetch(KeyRow::select("", ONE), &id).await? {
                assembler.add_key(row);
            }
            for row in reading.fetch(CertificateRow::select("", ONE), &id).await? {
                assembler.add_certificate(row);
            }
            let rows = reading.fetch(ClientRow::select("", ONE), &id).await?;
            reading.rollback().await?.close().await;
            Ok::<_, StoreError>(rows)
        })
        .await?;
        let client = rows.into_iter().next().map(|row| assembler.client(row).1);
        client.transpose().map(|client| client.map(Arc::unwrap_or_clone))
    }

    /// Adds a client, with an optional first secret.
    ///
    /// # Errors
    /// [`StoreError::Taken`], and [`StoreError::Refused`] when a constraint refuses it.
    pub async fn create_client(&self, client: &Client, secret: Option<&NewSecret>) -> Result<(), StoreError> {
        let id = client.client_id.as_str();
        transaction!(self, |tx| {
            tx.execute(
                "insert into client (client_id, scope, default_scope, grant_types, auth_methods, token_ttl, claims,
                                     require_dpop, require_mtls_binding, enabled, created_at,
                                     introspection_signed_response_alg, assertion_lifetime, assertion_audience, jwks_uri)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
                &args![
                    id,
                    client.scopes.allowed().as_str(),
                    client.scopes.default_scope().as_str(),
                    grant_types(client),
                    client.auth_methods.as_deref(),
                    client.token_ttl.map(Span::from),
                    client.claims.to_ascii(),
                    client.require_dpop,
                    client.require_mtls_binding,
                    client.enabled,
                    client.created_at,
                    client.introspection_signed_response_alg.map(Alg::as_str),
                    client.assertion_lifetime.map(Span::from),
                    client.assertion_audience.as_str(),
                    client.jwks_uri.as_ref().map(JwksUri::as_str),
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

    /// Updates the columns of a client that an administrator may change. `Ok(false)` when the client does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn update_client(&self, client: &Client) -> Result<bool, StoreError> {
        let id = client.client_id.as_str();
        transaction!(self, |tx| {
            // Without enabled and auth_methods: a concurrent `client disable` must not be undone.
            let found = tx
                .execute(
                    "update client set scope = $2, default_scope = $3, token_ttl = $4, claims = $5,
                                       require_dpop = $6, require_mtls_binding = $7,
                                       introspection_signed_response_alg = $8, assertion_lifetime = $9,
                                       assertion_audience = $10
                     where client_id = $1",
                    &args![
                        id,
                        client.scopes.allowed().as_str(),
                        client.scopes.default_scope().as_str(),
                        client.token_ttl.map(Span::from),
                        client.claims.to_ascii(),
                        client.require_dpop,
                        client.require_mtls_binding,
                        client.introspection_signed_response_alg.map(Alg::as_str),
                        client.assertion_lifetime.map(Span::from),
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

    /// Enables or disables a client. `Ok(false)` when the client does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_client_enabled(&self, client_id: &str, enabled: bool) -> Result<bool, StoreError> {
        let sql = "update client set enabled = $2 where client_id = $1";
        Ok(self.execute(sql, &args![client_id, enabled]).await? > 0)
    }

    /// Sets or removes the client's restriction of authentication methods. `Ok(false)` when the client does not exist.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when a name is not one of those in the metadata.
    pub async fn set_auth_methods(&self, client_id: &str, names: Option<&str>) -> Result<bool, StoreError> {
        let sql = "update client set auth_methods = $2 where client_id = $1";
        Ok(self.execute(sql, &args![client_id, names]).await? > 0)
    }

    /// Deletes a client with its credentials. `Ok(false)` when the client does not exist.
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

/// SQL condition for the rows of one client.
const ONE: &str = "where c.client_id = $1";

/// Assembles clients from rows. The rows of credentials and resources are added before the client's own row. A row that
/// cannot be read makes its own client an error, and no other.
#[derive(Default)]
pub(super) struct ClientAssembler {
    parts: HashMap<String, ClientParts>,
    scopes: ScopeCache,
}

#[derive(Default)]
struct ClientParts {
    rows: DefaultHasher,
    resources: Vec<Result<ResourceId, String>>,
    secrets: Vec<Result<StoredSecret, String>>,
    keys: Vec<Result<StoredKey, String>>,
    certificates: Vec<Result<StoredCertificate, String>>,
}

impl ClientAssembler {
    pub(super) fn add_resource(&mut self, row: &ResourceLink) {
        let parts = self.parts_of(&row.client_id, row);
        let identifier = row.identifier.parse().map_err(|error| format!("client_resource.identifier: {error}"));
        parts.resources.push(identifier);
    }

    /// The parts of a client, to which `row` is added: its hash becomes a part of the client's fingerprint.
    fn parts_of(&mut self, client_id: &str, row: &impl Hash) -> &mut ClientParts {
        let parts = self.parts.entry(client_id.to_owned()).or_default();
        row.hash(&mut parts.rows);
        parts
    }

    pub(super) fn add_secret(&mut self, row: SecretRow) {
        let parts = self.parts_of(&row.client_id, &row);
        parts.secrets.push(secret_of(row));
    }

    pub(super) fn add_key(&mut self, row: KeyRow) {
        let parts = self.parts_of(&row.client_id, &row);
        parts.keys.push(key_of(row));
    }

    pub(super) fn add_certificate(&mut self, row: CertificateRow) {
        let parts = self.parts_of(&row.client_id, &row);
        parts.certificates.push(certificate_of(row));
    }

    /// Assembles the client of a row.
    pub(super) fn client(&mut self, row: ClientRow) -> (String, Result<Arc<Client>, StoreError>) {
        let client_id = row.client_id.clone();
        let parts = self.parts.remove(&client_id).unwrap_or_default();
        let client = client_of(row, parts, &mut self.scopes).map(Arc::new).map_err(|reason| StoreError::Malformed {
            kind: "client",
            id: client_id.clone(),
            reason,
        });
        (client_id, client)
    }
}

/// Cache of parsed scopes: clients with the same scope share it.
#[derive(Default)]
struct ScopeCache(HashMap<String, Scope>);

impl ScopeCache {
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

fn client_of(row: ClientRow, parts: ClientParts, scopes: &mut ScopeCache) -> Result<Client, String> {
    let mut rows = parts.rows;
    row.hash(&mut rows);
    let at = |column: &'static str| move |error: &dyn std::fmt::Display| format!("{column}: {error}");
    let allowed = scopes.read(row.scope).map_err(|error| at("scope")(&error))?;
    let default = scopes.read(row.default_scope).map_err(|error| at("default_scope")(&error))?;
    let client = Client {
        client_id: row.client_id.parse().map_err(|error| at("client_id")(&error))?,
        scopes: ClientScope::new(allowed, default).map_err(|error| at("default_scope")(&error))?,
        resources: parts.resources.into_iter().collect::<Result<_, _>>()?,
        client_credentials: row.grant_types.split(' ').any(|name| name == "client_credentials"),
        auth_methods: row.auth_methods.map(Into::into),
        token_ttl: row.token_ttl.map(|seconds| lifetime("token_ttl", seconds)).transpose()?,
        claims: row.claims.parse().map_err(|error| at("claims")(&error))?,
        require_dpop: flag("require_dpop", row.require_dpop)?,
        require_mtls_binding: flag("require_mtls_binding", row.require_mtls_binding)?,
        enabled: flag("enabled", row.enabled)?,
        created_at: moment("created_at", row.created_at)?,
        not_before: moment("not_before", row.not_before)?,
        secrets: parts.secrets.into_iter().collect::<Result<_, _>>()?,
        keys: parts.keys.into_iter().collect::<Result<_, _>>()?,
        jwks_uri: row.jwks_uri.map(|uri| uri.parse()).transpose().map_err(|error| at("jwks_uri")(&error))?,
        certificates: parts.certificates.into_iter().collect::<Result<_, _>>()?,
        introspection_signed_response_alg: row
            .introspection_signed_response_alg
            .map(|alg| alg.parse())
            .transpose()
            .map_err(|error: KeyError| at("introspection_signed_response_alg")(&error))?,
        assertion_lifetime: row
            .assertion_lifetime
            .map(|seconds| lifetime("assertion_lifetime", seconds))
            .transpose()?,
        assertion_audience: row.assertion_audience.parse().map_err(|error| at("assertion_audience")(&error))?,
        fingerprint: rows.finish(),
    };
    if client.jwks_uri.is_some() && !client.keys.is_empty() {
        return Err(format!("jwks_uri: {}", Refusal::KeysOrJwksUri));
    }
    Ok(client)
}

fn secret_of(row: SecretRow) -> Result<StoredSecret, String> {
    let secret_id = row.secret_id;
    let origin = match (flag("imported", row.imported)?, row.tag_key) {
        (true, _) => SecretOrigin::Imported,
        (false, None) => SecretOrigin::Untagged,
        (false, Some(kid)) => {
            SecretOrigin::Tagged(kid.parse().map_err(|error| format!("client_secret {secret_id}: tag_key: {error}"))?)
        }
    };
    Ok(StoredSecret {
        origin,
        hash: row.hash.parse().map_err(|error| format!("client_secret {secret_id}: hash: {error}"))?,
        secret_id: secret_id.into(),
        expires_at: row.expires_at.map(|at| moment("client_secret.expires_at", at)).transpose()?,
        revoked_at: row.revoked_at.map(|at| moment("client_secret.revoked_at", at)).transpose()?,
        cache: Arc::default(),
    })
}

fn grant_types(client: &Client) -> &'static str {
    if client.client_credentials { "client_credentials" } else { "" }
}

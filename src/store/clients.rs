//! Clients and their secrets at rest.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::QueryBuilder;

use super::{Pool, Session, Store, StoreError, begin, on, within};
use crate::crypto::secret::SecretHash;
use crate::model::client::{Client, RESERVED_CLAIMS};
use crate::model::credential::StoredSecret;
use crate::model::resource::ResourceId;
use crate::model::time::{Span, UnixTime};

/// A secret to be stored.
#[derive(Debug)]
pub struct NewSecret {
    /// Its id.
    pub secret_id: String,
    /// Its hash.
    pub hash: SecretHash,
    /// Whether it was chosen elsewhere.
    pub imported: bool,
    /// What it is called.
    pub label: String,
    /// When it was made.
    pub created_at: UnixTime,
    /// When it ends.
    pub expires_at: Option<UnixTime>,
}

/// A secret as administrators see it: everything but the secret and its hash.
#[derive(Debug, serde::Serialize)]
pub struct SecretSummary {
    /// Whose it is.
    pub client_id: String,
    /// Its id.
    pub secret_id: String,
    /// What it is called.
    pub label: String,
    /// Chosen elsewhere.
    pub imported: bool,
    /// When it was made.
    pub created_at: UnixTime,
    /// When it ends.
    pub expires_at: Option<UnixTime>,
    /// When it was revoked.
    pub revoked_at: Option<UnixTime>,
    /// When it last authenticated its client, to within half a minute.
    pub last_used_at: Option<UnixTime>,
}

pub(super) type ClientRow = (String, String, String, String, Option<String>, Option<i64>, String, i64, i64, i64, i64);
pub(super) type ResourceLink = (String, String);
pub(super) type SecretRow = (String, String, String, i64, Option<i64>, Option<i64>);

/// The columns of [`ClientRow`], with the rest of the statement.
macro_rules! client_columns {
    ($rest:literal) => {
        concat!(
            "select c.client_id, c.scope, c.default_scope, c.grant_types, c.auth_methods, c.token_ttl, c.claims, ",
            "c.require_dpop, c.require_mtls_binding, c.enabled, c.created_at ",
            $rest
        )
    };
}
pub(super) use client_columns;

/// The columns of [`SecretRow`], with the rest of the statement.
macro_rules! secret_columns {
    ($rest:literal) => {
        concat!("select s.client_id, s.secret_id, s.hash, s.imported, s.expires_at, s.revoked_at ", $rest)
    };
}
pub(super) use secret_columns;

impl Store {
    /// Adds a client, with a first secret or none.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the id is taken or a constraint says no.
    pub async fn create_client(&self, client: &Client, secret: Option<&NewSecret>) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        self.queries.inc_by(2);
        within(async {
            on!(Session, &mut session, connection => {
                let mut tx = begin!(connection).await?;
                sqlx::query(
                    "insert into client (client_id, scope, default_scope, grant_types, auth_methods, token_ttl, claims,
                                         require_dpop, require_mtls_binding, enabled, created_at)
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)")
                    .bind(client.client_id.as_str()).bind(client.scope.as_str()).bind(client.default_scope.as_str())
                    .bind(grant_types(client)).bind(client.auth_methods.as_deref()).bind(client.token_ttl.map(Span::seconds))
                    .bind(claims(client)).bind(i64::from(client.require_dpop)).bind(i64::from(client.require_mtls_binding))
                    .bind(i64::from(client.enabled)).bind(client.created_at.0)
                    .execute(&mut *tx).await?;
                for identifier in &client.resources {
                    sqlx::query("insert into client_resource (client_id, identifier) values ($1, $2)")
                        .bind(client.client_id.as_str()).bind(identifier.as_str()).execute(&mut *tx).await?;
                }
                if let Some(secret) = secret {
                    sqlx::query(INSERT_SECRET)
                        .bind(&secret.secret_id).bind(client.client_id.as_str()).bind(secret.hash.to_string()).bind(&secret.label)
                        .bind(i64::from(secret.imported)).bind(secret.created_at.0).bind(secret.expires_at.map(|at| at.0))
                        .execute(&mut *tx).await?;
                }
                tx.commit().await
            })
        })
        .await?;
        session.close().await;
        Ok(())
    }

    /// Writes back what an administrator may change of a client. `Ok(false)` when there is none of that id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn update_client(&self, client: &Client) -> Result<bool, StoreError> {
        let mut session = self.session().await?;
        self.queries.inc_by(2);
        let found = within(async {
            on!(Session, &mut session, connection => {
                let mut tx = begin!(connection).await?;
                let found = sqlx::query(
                    "update client set scope = $2, default_scope = $3, auth_methods = $4, token_ttl = $5, claims = $6,
                                       require_dpop = $7, require_mtls_binding = $8, enabled = $9
                     where client_id = $1")
                    .bind(client.client_id.as_str()).bind(client.scope.as_str()).bind(client.default_scope.as_str())
                    .bind(client.auth_methods.as_deref()).bind(client.token_ttl.map(Span::seconds)).bind(claims(client))
                    .bind(i64::from(client.require_dpop)).bind(i64::from(client.require_mtls_binding)).bind(i64::from(client.enabled))
                    .execute(&mut *tx).await?.rows_affected();
                sqlx::query("delete from client_resource where client_id = $1").bind(client.client_id.as_str()).execute(&mut *tx).await?;
                for identifier in client.resources.iter().filter(|_| found > 0) {
                    sqlx::query("insert into client_resource (client_id, identifier) values ($1, $2)")
                        .bind(client.client_id.as_str()).bind(identifier.as_str()).execute(&mut *tx).await?;
                }
                tx.commit().await?;
                Ok(found > 0)
            })
        })
        .await?;
        session.close().await;
        Ok(found)
    }

    /// Enables or disables a client. `Ok(false)` when there is none of that id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_client_enabled(&self, client_id: &str, enabled: bool) -> Result<bool, StoreError> {
        let sql = "update client set enabled = $2 where client_id = $1";
        self.queries.inc();
        on!(Pool, &self.pool, pool => {
            within(async { Ok(sqlx::query(sql).bind(client_id).bind(i64::from(enabled)).execute(pool).await?.rows_affected()) }).await
        })
        .map(|rows| rows > 0)
    }

    /// Deletes a client with its secrets. `Ok(false)` when there is none of that id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_client(&self, client_id: &str) -> Result<bool, StoreError> {
        let sql = "delete from client where client_id = $1";
        self.queries.inc();
        on!(Pool, &self.pool, pool => within(async { Ok(sqlx::query(sql).bind(client_id).execute(pool).await?.rows_affected()) }).await)
            .map(|rows| rows > 0)
    }

    /// Adds a secret to a client. An imported one is refused as the third that works, since each has to be tried.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when there is no such client, the id is taken, or too many were imported.
    pub async fn add_secret(&self, client_id: &str, secret: &NewSecret) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        self.queries.inc_by(2);
        let imported = within(async {
            on!(Session, &mut session, connection => {
                let mut tx = begin!(connection).await?;
                let (imported,): (i64,) = sqlx::query_as(
                    "select count(*) from client_secret where client_id = $1 and imported = 1 and revoked_at is null
                     and (expires_at is null or expires_at > $2)")
                    .bind(client_id).bind(secret.created_at.0).fetch_one(&mut *tx).await?;
                if imported < MAX_IMPORTED || !secret.imported {
                    sqlx::query(INSERT_SECRET)
                        .bind(&secret.secret_id).bind(client_id).bind(secret.hash.to_string()).bind(&secret.label)
                        .bind(i64::from(secret.imported)).bind(secret.created_at.0).bind(secret.expires_at.map(|at| at.0))
                        .execute(&mut *tx).await?;
                }
                tx.commit().await?;
                Ok(imported)
            })
        })
        .await?;
        session.close().await;
        if secret.imported && imported >= MAX_IMPORTED {
            return Err(StoreError::Refused(format!(
                "client {client_id} has {MAX_IMPORTED} imported secrets that work already; revoke one first, or use `grantd client secret add`, which has no such limit"
            )));
        }
        Ok(())
    }

    /// Revokes one secret of a client. `Ok(false)` when the client has none of that id. Revoking twice keeps the first time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_secret(&self, client_id: &str, secret_id: &str, now: UnixTime) -> Result<bool, StoreError> {
        let sql = "update client_secret set revoked_at = coalesce(revoked_at, $3) where client_id = $1 and secret_id = $2";
        self.queries.inc();
        on!(Pool, &self.pool, pool => {
            within(async { Ok(sqlx::query(sql).bind(client_id).bind(secret_id).bind(now.0).execute(pool).await?.rows_affected()) }).await
        })
        .map(|rows| rows > 0)
    }

    /// Deletes a client's secrets of one label.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_secrets_labelled(&self, client_id: &str, label: &str) -> Result<(), StoreError> {
        let sql = "delete from client_secret where client_id = $1 and label = $2";
        self.queries.inc();
        on!(Pool, &self.pool, pool => within(async { sqlx::query(sql).bind(client_id).bind(label).execute(pool).await }).await.map(drop))
    }

    /// Replaces a hash by one of the same secret with other parameters, unless it has changed meanwhile.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rehash_secret(&self, secret_id: &str, old: &SecretHash, new: &SecretHash) -> Result<(), StoreError> {
        let sql = "update client_secret set hash = $3 where secret_id = $1 and hash = $2";
        self.queries.inc();
        on!(Pool, &self.pool, pool => {
            within(async { sqlx::query(sql).bind(secret_id).bind(old.to_string()).bind(new.to_string()).execute(pool).await }).await.map(drop)
        })
    }

    /// The secrets of one client, or of all, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn secrets(&self, client_id: Option<&str>) -> Result<Vec<SecretSummary>, StoreError> {
        type Row = (String, String, String, i64, i64, Option<i64>, Option<i64>, Option<i64>);
        let sql = "select s.client_id, s.secret_id, s.label, s.imported, s.created_at, s.expires_at, s.revoked_at, u.last_used_at
                   from client_secret s left join client_secret_use u on u.secret_id = s.secret_id
                   where $1 is null or s.client_id = $1 order by s.client_id, s.created_at, s.secret_id";
        self.queries.inc();
        let rows: Vec<Row> =
            on!(Pool, &self.pool, pool => within(sqlx::query_as(sql).bind(client_id).fetch_all(pool)).await)?;
        let summary = |(client_id, secret_id, label, imported, created_at, expires_at, revoked_at, last_used_at): Row| SecretSummary {
            client_id,
            secret_id,
            label,
            imported: imported == 1,
            created_at: UnixTime(created_at),
            expires_at: expires_at.map(UnixTime),
            revoked_at: revoked_at.map(UnixTime),
            last_used_at: last_used_at.map(UnixTime),
        };
        Ok(rows.into_iter().map(summary).collect())
    }

    /// Notes when secrets were last used. Replicas write side by side, so the latest time stays.
    ///
    /// # Errors
    /// [`StoreError`]; what was written before it stays written, and writing again is harmless.
    pub async fn note_secret_use(&self, used: &[(Box<str>, UnixTime)]) -> Result<(), StoreError> {
        for batch in used.chunks(USE_BATCH) {
            self.queries.inc();
            // Joining client_secret skips a secret that was deleted meanwhile.
            on!(Pool, &self.pool, pool => {
                let mut sql = QueryBuilder::new("insert into client_secret_use (secret_id, last_used_at) select v.column1, v.column2 from (");
                sql.push_values(batch, |mut row, (secret_id, at)| {
                    row.push_bind(&**secret_id).push_bind(at.0);
                });
                sql.push(") as v join client_secret s on s.secret_id = v.column1 where true
                          on conflict (secret_id) do update set last_used_at = excluded.last_used_at
                          where client_secret_use.last_used_at < excluded.last_used_at");
                within(async { sql.build().execute(pool).await }).await.map(drop)
            })?;
        }
        Ok(())
    }
}

/// Rows to clients. A row that cannot be understood becomes an error for its own client and nobody else.
pub(super) fn assemble(
    rows: Vec<ClientRow>,
    links: Vec<ResourceLink>,
    secrets: Vec<SecretRow>,
) -> impl Iterator<Item = (String, Result<Client, StoreError>)> {
    let mut resources_of: HashMap<String, Vec<String>> = HashMap::new();
    for (client_id, identifier) in links {
        resources_of.entry(client_id).or_default().push(identifier);
    }
    let mut secrets_of: HashMap<String, Vec<SecretRow>> = HashMap::new();
    for secret in secrets {
        secrets_of.entry(secret.0.clone()).or_default().push(secret);
    }
    rows.into_iter().map(move |row| {
        let client_id = row.0.clone();
        let resources = resources_of.remove(&client_id).unwrap_or_default();
        let secrets = secrets_of.remove(&client_id).unwrap_or_default();
        let client = client_of(row, resources, secrets)
            .map_err(|reason| StoreError::Malformed { kind: "client", id: client_id.clone(), reason });
        (client_id, client)
    })
}

fn client_of(row: ClientRow, resources: Vec<String>, secrets: Vec<SecretRow>) -> Result<Client, String> {
    let (client_id, scope, default_scope, grant_types, auth_methods, token_ttl, claims, dpop, mtls, enabled, created_at) = row;
    let at = |column: &'static str| move |error: &dyn std::fmt::Display| format!("{column}: {error}");
    let claims: serde_json::Map<_, _> = serde_json::from_str(&claims).map_err(|error| at("claims")(&error))?;
    if let Some(name) = RESERVED_CLAIMS.iter().find(|name| claims.contains_key(**name)) {
        return Err(format!("claims: {name} is set by grantd and cannot be registered"));
    }
    let client = Client {
        client_id: client_id.parse().map_err(|error| at("client_id")(&error))?,
        scope: scope.parse().map_err(|error| at("scope")(&error))?,
        default_scope: default_scope.parse().map_err(|error| at("default_scope")(&error))?,
        resources: resources
            .iter()
            .map(|identifier| identifier.parse::<ResourceId>())
            .collect::<Result<_, _>>()
            .map_err(|error| at("client_resource.identifier")(&error))?,
        client_credentials: grant_types.split(' ').any(|name| name == "client_credentials"),
        auth_methods: auth_methods.map(Into::into),
        token_ttl: token_ttl.map(ttl_of).transpose()?,
        claims,
        require_dpop: flag("require_dpop", dpop)?,
        require_mtls_binding: flag("require_mtls_binding", mtls)?,
        enabled: flag("enabled", enabled)?,
        created_at: UnixTime(created_at),
        secrets: secrets.into_iter().map(secret_of).collect::<Result<_, _>>()?,
    };
    if !client.default_scope.is_subset_of(&client.scope) {
        return Err("default_scope: must be a part of scope".into());
    }
    Ok(client)
}

fn secret_of((_, secret_id, hash, imported, expires_at, revoked_at): SecretRow) -> Result<StoredSecret, String> {
    let hash = hash.parse().map_err(|error| format!("client_secret {secret_id}: hash: {error}"))?;
    Ok(StoredSecret {
        imported: flag("imported", imported)?,
        secret_id: secret_id.into(),
        hash,
        expires_at: expires_at.map(UnixTime),
        revoked_at: revoked_at.map(UnixTime),
        last_used_at: Arc::default(),
    })
}

pub(super) fn ttl_of(seconds: i64) -> Result<Span, String> {
    match u64::try_from(seconds) {
        Ok(seconds @ 1..=86400) => Ok(Span::from_secs(seconds)),
        _ => Err(format!("token_ttl: {seconds} is not from 1 to 86400 seconds")),
    }
}

fn flag(column: &'static str, value: i64) -> Result<bool, String> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("{column}: {other} is neither 0 nor 1")),
    }
}

fn grant_types(client: &Client) -> &'static str {
    if client.client_credentials { "client_credentials" } else { "" }
}

fn claims(client: &Client) -> String {
    serde_json::Value::Object(client.claims.clone()).to_string()
}

/// How many uses go into one statement.
const USE_BATCH: usize = 500;
/// Each imported secret has to be tried, so their number bounds what a wrong guess costs.
pub const MAX_IMPORTED: i64 = 2;
const INSERT_SECRET: &str = "insert into client_secret (secret_id, client_id, hash, label, imported, created_at, expires_at)
                             values ($1, $2, $3, $4, $5, $6, $7)";

//! Stored clients.

use std::sync::Arc;

use super::secrets::{INSERT_SECRET, NewSecret};
use super::session::Transaction;
use super::statement::args;
use super::{Store, StoreError, transaction};
use crate::crypto::jwk::Alg;
use crate::model::client::Client;
use crate::model::jwks_uri::JwksUri;
use crate::model::time::Span;

impl Store {
    /// Reads one client with its credentials and resources, as of one moment.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Malformed`] when its rows cannot be read.
    pub async fn client(&self, client_id: &str) -> Result<Option<Client>, StoreError> {
        let mut reader = self.reader().await?;
        let client = reader.client(client_id).await?;
        reader.close().await;
        client.map(|(_, client)| client.map(Arc::unwrap_or_clone)).transpose()
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

fn grant_types(client: &Client) -> &'static str {
    if client.client_credentials { "client_credentials" } else { "" }
}

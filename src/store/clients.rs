//! Stored clients.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::FromRow as _;

use super::client_certs::{self, CertificateRow, INSERT_CERTIFICATE};
use super::client_keys::{self, INSERT_CLIENT_KEY, KeyRow};
use super::client_rows::{ClientAssembler, ClientRow, ResourceLink, SecretRow, SharedTexts};
use super::federation::RuleRow;
use super::rows::BorrowedRow as _;
use super::secrets::{INSERT_SECRET, NewSecret};
use super::session::{Session, Transaction, within};
use super::statement::{Column, args, insert, update};
use super::{Refusal, Store, StoreError, on, transaction};
use crate::crypto::jwk::Alg;
use crate::model::client::{Annotations, Client};
use crate::model::jwks_uri::JwksUri;
use crate::model::time::{Expiry, Span};

impl Store {
    /// Reads one client with its credentials and resources, as of one moment.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Malformed`] when its rows cannot be read.
    pub async fn client(&self, client_id: &str) -> Result<Option<Client>, StoreError> {
        let session = self.session().await?;
        within(async {
            let mut reading = Transaction::begin_reading(session, self.queries.clone()).await?;
            let client = client_of(&mut reading, client_id).await?;
            self.spare.put(reading.rollback().await?).await;
            Ok::<_, StoreError>(client)
        })
        .await
    }

    /// Adds a client, with an optional first secret.
    ///
    /// # Errors
    /// [`StoreError::Taken`], and [`StoreError::Refused`] when a constraint refuses it.
    pub async fn create_client(&self, client: &Client, secret: Option<&NewSecret>) -> Result<(), StoreError> {
        let secrets: Vec<&NewSecret> = secret.into_iter().collect();
        self.add_client(client, &Annotations::default(), &secrets).await
    }

    /// Adds a client with its annotations, keys, certificates and secrets, all or nothing.
    ///
    /// # Errors
    /// [`StoreError::Taken`], and [`StoreError::Refused`] when a constraint refuses it.
    pub async fn add_client(
        &self,
        client: &Client,
        annotations: &Annotations,
        secrets: &[&NewSecret],
    ) -> Result<(), StoreError> {
        let id = client.client_id.as_str();
        let mut all = columns(client, annotations);
        all.extend([
            ("client_id", id.into()),
            ("enabled", client.enabled.into()),
            ("created_at", client.created_at.into()),
        ]);
        let (sql, values) = insert("client", all);
        transaction!(self, |tx| {
            tx.execute(sql.clone(), &values).await.map_err(|error| error.naming("client", id))?;
            add_resources(tx, client).await?;
            for secret in secrets {
                let added = tx.execute(INSERT_SECRET, &secret.values(id)).await;
                added.map_err(|error| error.naming("client secret", &secret.secret_id))?;
            }
            for stored in &client.keys {
                let added = tx.execute(INSERT_CLIENT_KEY, &client_keys::values(id, stored)).await;
                added.map_err(|error| error.naming("client key", &stored.kid))?;
            }
            for stored in &client.certificates {
                tx.execute(INSERT_CERTIFICATE, &client_certs::values(id, stored)).await?;
            }
            Ok(())
        })
    }

    /// Changes a client in one transaction: reads it, applies `change`, and writes the columns whose values differ, so
    /// that concurrent changes of other columns stay. `change` may run more than once. Returns the client as it is then,
    /// and whether anything was written; `None` when the client does not exist.
    ///
    /// # Errors
    /// The error of `change`, and [`StoreError::Refused`] when a constraint refuses the change, or the client would have
    /// both keys and a `jwks_uri`.
    pub async fn update_client<E: From<StoreError> + Send>(
        &self,
        client_id: &str,
        change: impl Fn(&mut Client, &mut Annotations) -> Result<(), E> + Sync,
    ) -> Result<Option<(Client, bool)>, E> {
        let id = args![client_id];
        let updated = transaction!(self, |tx| {
            tx.lock_row("select 1 from client where client_id = $1 for no key update", &id).await?;
            // Serialises with `add_client_keys`, so that a client never has both keys and a `jwks_uri`.
            tx.take_turn().await?;
            let Some(before) = client_of(tx, client_id).await? else { return Ok(Ok(None)) };
            let rows: Vec<(String, String)> =
                tx.fetch("select description, owner from client where client_id = $1", &id).await?;
            let noted: Annotations = rows.into_iter().next().map(annotations).unwrap_or_default();
            let (mut client, mut annotations) = (before.clone(), noted.clone());
            if let Err(error) = change(&mut client, &mut annotations) {
                return Ok(Err(error));
            }
            if client.jwks_uri.is_some() && !client.keys.is_empty() {
                return Err(StoreError::Refused(Refusal::KeysOrJwksUri));
            }
            let (from, to) = (columns(&before, &noted), columns(&client, &annotations));
            let update = update("client", ("client_id", client_id.into()), &from, &to);
            let is_changed = update.is_some() || client.resources != before.resources;
            if let Some((sql, values)) = update {
                tx.execute(sql, &values).await?;
            }
            if client.resources != before.resources {
                tx.execute("delete from client_resource where client_id = $1", &id).await?;
                add_resources(tx, &client).await?;
            }
            Ok(Ok(Some((client, is_changed))))
        });
        updated?
    }

    /// Returns the annotations of the clients from one id to another, by client; clients without any are left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn annotations(&self, first: &str, last: &str) -> Result<HashMap<String, Annotations>, StoreError> {
        let sql = "select client_id, description, owner from client
                   where client_id >= $1 and client_id <= $2 and (description <> '' or owner <> '')";
        let rows: Vec<(String, String, String)> = self.fetch(sql, &args![first, last]).await?;
        Ok(rows.into_iter().map(|(id, description, owner)| (id, Annotations { description, owner })).collect())
    }

    /// Returns those of some ids that are registered.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn existing_clients(&self, client_ids: &[&str]) -> Result<HashSet<String>, StoreError> {
        let rows: Vec<(String,)> =
            self.of_clients("select client_id from client where client_id in ", client_ids).await?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    /// Enables or disables a client. `Ok(false)` when the client does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_client_enabled(&self, client_id: &str, enabled: bool) -> Result<bool, StoreError> {
        let sql = "update client set enabled = $2 where client_id = $1";
        Ok(self.execute(sql, &args![client_id, enabled]).await? > 0)
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

/// Reads one client.
async fn client_of(tx: &mut Transaction, client_id: &str) -> Result<Option<Client>, StoreError> {
    let mut shared = SharedTexts::default();
    let mut assembler = ClientAssembler::new(&mut shared);
    macro_rules! each {
        ($row:ident, $add:ident) => {
            on!(Session, tx.session(), connection => {
                let query = sqlx::query($row::select("where c.client_id = $1")).bind(client_id).persistent(false);
                for row in &query.fetch_all(connection).await? {
                    assembler.$add(&$row::from_row(row)?);
                }
            });
        };
    }
    each!(ClientRow, add_client);
    each!(ResourceLink, add_resource);
    each!(SecretRow, add_secret);
    each!(KeyRow, add_key);
    each!(CertificateRow, add_certificate);
    each!(RuleRow, add_rule);
    assembler.finish().pop().map(|(_, client)| client.map(Arc::unwrap_or_clone)).transpose()
}

/// Makes annotations of the columns `description` and `owner`.
fn annotations((description, owner): (String, String)) -> Annotations {
    Annotations { description, owner }
}

/// Returns the columns of a client that an administrator may set.
fn columns(client: &Client, annotations: &Annotations) -> Vec<Column> {
    vec![
        ("description", annotations.description.as_str().into()),
        ("owner", annotations.owner.as_str().into()),
        ("expires_at", client.expires_at.map(Expiry::at).into()),
        ("grant_types", client.grant_types().into()),
        ("scope", client.scopes.allowed().as_str().into()),
        ("default_scope", client.scopes.default_scope().as_str().into()),
        ("auth_methods", client.auth_methods.as_deref().into()),
        ("jwks_uri", client.jwks_uri.as_ref().map(JwksUri::as_str).into()),
        ("assertion_audience", client.assertion_audience.as_str().into()),
        ("assertion_lifetime", client.assertion_lifetime.map(Span::from).into()),
        ("token_ttl", client.token_ttl.map(Span::from).into()),
        ("claims", client.claims.to_ascii().into()),
        ("require_dpop", client.require_dpop.into()),
        ("require_mtls_binding", client.require_mtls_binding.into()),
        ("introspection_signed_response_alg", client.introspection_signed_response_alg.map(Alg::as_str).into()),
    ]
}

async fn add_resources(tx: &mut Transaction, client: &Client) -> Result<(), StoreError> {
    let sql = "insert into client_resource (client_id, identifier) values ($1, $2)";
    for identifier in &client.resources {
        tx.execute(sql, &args![client.client_id.as_str(), identifier.as_str()]).await?;
    }
    Ok(())
}

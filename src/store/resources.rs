//! Stored protected resources.

use std::collections::HashMap;

use super::columns::lifetime;
use super::rows::row;
use super::session::Transaction;
use super::statement::{Value, args};
use super::{Refusal, Store, StoreError, transaction};
use crate::crypto::jwk::Alg;
use crate::model::client_id::ClientId;
use crate::model::resource::Resource;
use crate::model::time::{Span, UnixTime};

row!(
    /// Row of a resource.
    ResourceRow of "resource" by "order by c.identifier" {
        identifier: String,
        scope: String,
        alg: Option<String>,
        token_ttl: Option<i64>,
        token_typ: String,
    }
);
row!(
    /// Row of a client that may introspect the tokens of a resource.
    IntrospectorRow of "resource_introspector" by "order by c.identifier, c.client_id" { identifier: String, client_id: String }
);

impl Store {
    /// Adds a resource.
    ///
    /// # Errors
    /// [`StoreError::Taken`], and [`StoreError::Refused`] when a constraint refuses it.
    pub async fn create_resource(&self, resource: &Resource, now: UnixTime) -> Result<(), StoreError> {
        let identifier = resource.identifier.as_str();
        transaction!(self, |tx| {
            let sql = "insert into resource (identifier, scope, alg, token_ttl, token_typ, created_at)
                     values ($1, $2, $3, $4, $5, $6)";
            let [id, scope, alg, ttl, typ] = columns(resource);
            let added = tx.execute(sql, &[id, scope, alg, ttl, typ, now.into()]).await;
            added.map_err(|error| error.naming("resource", identifier))?;
            add_introspectors(tx, resource).await
        })
    }

    /// Updates a resource. `Ok(false)` when the resource does not exist.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when a constraint refuses it.
    pub async fn update_resource(&self, resource: &Resource) -> Result<bool, StoreError> {
        transaction!(self, |tx| {
            let sql = "update resource set scope = $2, alg = $3, token_ttl = $4, token_typ = $5 where identifier = $1";
            if tx.execute(sql, &columns(resource)).await? == 0 {
                return Ok(false);
            }
            let sql = "delete from resource_introspector where identifier = $1";
            tx.execute(sql, &args![resource.identifier.as_str()]).await?;
            add_introspectors(tx, resource).await?;
            Ok(true)
        })
    }

    /// Returns all resources by identifier. A resource that cannot be read is an error of its own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn resources(&self) -> Result<Vec<Result<Resource, StoreError>>, StoreError> {
        let rows = self.fetch(ResourceRow::select("", ""), &[]).await?;
        let introspectors = self.fetch(IntrospectorRow::select("", ""), &[]).await?;
        Ok(assemble_resources(rows, introspectors))
    }

    /// Deletes a resource that no client uses. `Ok(false)` when the resource does not exist.
    ///
    /// # Errors
    /// [`StoreError::Refused`] with the clients that use it.
    pub async fn delete_resource(&self, identifier: &str) -> Result<bool, StoreError> {
        let sql = "select client_id from client_resource where identifier = $1 order by client_id limit 10";
        let users: Vec<(String,)> = self.fetch(sql, &args![identifier]).await?;
        if !users.is_empty() {
            let users: Vec<String> = users.into_iter().map(|(client_id,)| client_id).collect();
            return Err(StoreError::Refused(Refusal::ResourceInUse {
                identifier: identifier.to_owned(),
                clients: users,
            }));
        }
        let sql = "delete from resource where identifier = $1";
        Ok(self.execute(sql, &args![identifier]).await? > 0)
    }
}

/// Returns the values of a resource's row, without `created_at`.
fn columns(resource: &Resource) -> [Value; 5] {
    args![
        resource.identifier.as_str(),
        resource.scope.as_str(),
        resource.alg.map(Alg::as_str),
        resource.token_ttl.map(Span::from),
        resource.token_typ.as_str(),
    ]
}

async fn add_introspectors(tx: &mut Transaction, resource: &Resource) -> Result<(), StoreError> {
    let sql = "insert into resource_introspector (identifier, client_id) values ($1, $2)";
    for client_id in &resource.introspectors {
        tx.execute(sql, &args![resource.identifier.as_str(), client_id.as_str()]).await?;
    }
    Ok(())
}

/// Assembles resources from rows. A resource that cannot be read is an error of its own.
pub(super) fn assemble_resources(
    rows: Vec<ResourceRow>,
    introspectors: Vec<IntrospectorRow>,
) -> Vec<Result<Resource, StoreError>> {
    let mut introspectors_of: HashMap<String, Vec<String>> = HashMap::new();
    for IntrospectorRow { identifier, client_id } in introspectors {
        introspectors_of.entry(identifier).or_default().push(client_id);
    }
    rows.into_iter()
        .map(|row| {
            let id = row.identifier.clone();
            let introspectors = introspectors_of.remove(&id).unwrap_or_default();
            resource_of(row, &introspectors).map_err(|reason| StoreError::Malformed { kind: "resource", id, reason })
        })
        .collect()
}

fn resource_of(row: ResourceRow, introspectors: &[String]) -> Result<Resource, String> {
    let ResourceRow { identifier, scope, alg, token_ttl, token_typ } = row;
    Ok(Resource {
        identifier: identifier.parse().map_err(|error| format!("identifier: {error}"))?,
        scope: scope.parse().map_err(|error| format!("scope: {error}"))?,
        alg: alg.map(|alg| alg.parse().map_err(|error| format!("alg: {error}"))).transpose()?,
        token_ttl: token_ttl.map(|seconds| lifetime("token_ttl", seconds)).transpose()?,
        token_typ: token_typ.parse().map_err(|error| format!("token_typ: {error}"))?,
        introspectors: introspectors
            .iter()
            .map(|client_id| client_id.parse::<ClientId>())
            .collect::<Result<_, _>>()
            .map_err(|error| format!("resource_introspector.client_id: {error}"))?,
    })
}

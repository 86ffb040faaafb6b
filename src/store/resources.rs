//! Stored protected resources.

use std::collections::HashMap;

use super::columns::{flag, lifetime};
use super::rows::row;
use super::session::Transaction;
use super::statement::{Column, args, insert, update};
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
        status_list: i64,
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
        let mut all = columns(resource);
        all.extend([("identifier", identifier.into()), ("created_at", now.into())]);
        let (sql, values) = insert("resource", all);
        transaction!(self, |tx| {
            let added = tx.execute(sql.clone(), &values).await;
            added.map_err(|error| error.naming("resource", identifier))?;
            add_introspectors(tx, resource).await
        })
    }

    /// Changes a resource in one transaction: reads it, applies `change`, and writes the columns whose values differ, so
    /// that concurrent changes of other columns stay. `change` may run more than once. Returns whether anything was
    /// written; `None` when the resource does not exist.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when a constraint refuses it.
    pub async fn update_resource(
        &self,
        identifier: &str,
        change: impl Fn(&mut Resource) + Sync,
    ) -> Result<Option<bool>, StoreError> {
        let id = args![identifier];
        transaction!(self, |tx| {
            tx.lock_row("select 1 from resource where identifier = $1 for no key update", &id).await?;
            tx.take_turn().await?;
            let rows = tx.fetch(ResourceRow::select(ONE), &id).await?;
            let introspectors = tx.fetch(IntrospectorRow::select(ONE), &id).await?;
            let Some(before) = assemble_resources(rows, introspectors).pop().transpose()? else { return Ok(None) };
            let mut resource = before.clone();
            change(&mut resource);
            if let Some((sql, values)) =
                update("resource", ("identifier", identifier.into()), &columns(&before), &columns(&resource))
            {
                tx.execute(sql, &values).await?;
            }
            if resource.introspectors != before.introspectors {
                tx.execute("delete from resource_introspector where identifier = $1", &id).await?;
                add_introspectors(tx, &resource).await?;
            }
            Ok(Some(resource != before))
        })
    }

    /// Reads one resource.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Malformed`] when its rows cannot be read.
    pub async fn resource(&self, identifier: &str) -> Result<Option<Resource>, StoreError> {
        let id = args![identifier];
        let rows = self.fetch(ResourceRow::select(ONE), &id).await?;
        let introspectors = self.fetch(IntrospectorRow::select(ONE), &id).await?;
        assemble_resources(rows, introspectors).pop().transpose()
    }

    /// Returns all resources by identifier. A resource that cannot be read is an error of its own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn resources(&self) -> Result<Vec<Result<Resource, StoreError>>, StoreError> {
        let rows = self.fetch(ResourceRow::select(""), &[]).await?;
        let introspectors = self.fetch(IntrospectorRow::select(""), &[]).await?;
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

/// Returns the columns of a resource that an administrator may set.
fn columns(resource: &Resource) -> Vec<Column> {
    vec![
        ("scope", resource.scope.as_str().into()),
        ("alg", resource.alg.map(Alg::as_str).into()),
        ("token_ttl", resource.token_ttl.map(Span::from).into()),
        ("token_typ", resource.token_typ.as_str().into()),
        ("status_list", resource.status_list.into()),
    ]
}

/// SQL condition for the rows of one resource.
const ONE: &str = "where c.identifier = $1";

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
    let ResourceRow { identifier, scope, alg, token_ttl, token_typ, status_list } = row;
    Ok(Resource {
        identifier: identifier.parse().map_err(|error| format!("identifier: {error}"))?,
        scope: scope.parse().map_err(|error| format!("scope: {error}"))?,
        alg: alg.map(|alg| alg.parse().map_err(|error| format!("alg: {error}"))).transpose()?,
        token_ttl: token_ttl.map(|seconds| lifetime("token_ttl", seconds)).transpose()?,
        token_typ: token_typ.parse().map_err(|error| format!("token_typ: {error}"))?,
        status_list: flag("status_list", status_list)?,
        introspectors: introspectors
            .iter()
            .map(|client_id| client_id.parse::<ClientId>())
            .collect::<Result<_, _>>()
            .map_err(|error| format!("resource_introspector.client_id: {error}"))?,
    })
}

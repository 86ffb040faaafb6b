//! Protected resources at rest.

use std::collections::HashMap;

use super::columns::ttl_of;
use super::rows::row;
use super::statement::args;
use super::{Store, StoreError, transaction};
use crate::crypto::jwk::Alg;
use crate::model::client_id::ClientId;
use crate::model::resource::Resource;
use crate::model::time::UnixTime;

row!(
    /// A resource.
    ResourceRow {
        identifier: String,
        scope: String,
        alg: Option<String>,
        token_ttl: Option<i64>,
        token_typ: String,
    }
);
row!(
    /// A client that may introspect the tokens of a resource.
    IntrospectorRow { identifier: String, client_id: String }
);

impl Store {
    /// Adds a resource, or with `replace` writes back one that is there. `Ok(false)` when it is not.
    ///
    /// # Errors
    /// [`StoreError::Taken`], and [`StoreError::Refused`] when a constraint says no.
    pub async fn save_resource(&self, resource: &Resource, replace: bool, now: UnixTime) -> Result<bool, StoreError> {
        let identifier = resource.identifier.as_str();
        let (alg, typ) = (resource.alg.map(Alg::as_str), resource.token_typ.as_str());
        transaction!(self, |tx| {
            let found = if replace {
                let sql =
                    "update resource set scope = $2, alg = $3, token_ttl = $4, token_typ = $5 where identifier = $1";
                tx.execute(sql, &args![identifier, resource.scope.as_str(), alg, resource.token_ttl, typ]).await? > 0
            } else {
                let sql = "insert into resource (identifier, scope, alg, token_ttl, token_typ, created_at)
                     values ($1, $2, $3, $4, $5, $6)";
                tx.execute(sql, &args![identifier, resource.scope.as_str(), alg, resource.token_ttl, typ, now])
                    .await
                    .map_err(|error| error.naming("resource", identifier))?
                    > 0
            };
            tx.execute("delete from resource_introspector where identifier = $1", &args![identifier]).await?;
            for client_id in resource.introspectors.iter().filter(|_| found) {
                let sql = "insert into resource_introspector (identifier, client_id) values ($1, $2)";
                tx.execute(sql, &args![identifier, client_id.as_str()]).await?;
            }
            Ok(found)
        })
    }

    /// Deletes a resource that no client uses. `Ok(false)` when there is none of that identifier.
    ///
    /// # Errors
    /// [`StoreError::Refused`] naming the clients that still use it.
    pub async fn delete_resource(&self, identifier: &str) -> Result<bool, StoreError> {
        let sql = "select client_id from client_resource where identifier = $1 order by client_id limit 10";
        let users: Vec<(String,)> = self.fetch(sql, &args![identifier]).await?;
        if !users.is_empty() {
            let users: Vec<String> = users.into_iter().map(|(client_id,)| client_id).collect();
            return Err(StoreError::Refused(format!(
                "resource {identifier} is used by {}; take it from them first with `grantd client set ID --resource …`",
                users.join(", ")
            )));
        }
        let sql = "delete from resource where identifier = $1";
        Ok(self.execute(sql, &args![identifier]).await? > 0)
    }
}

/// Rows to resources; one that cannot be understood is an error of its own.
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
        token_ttl: token_ttl.map(ttl_of).transpose()?,
        token_typ: token_typ.parse().map_err(|error| format!("token_typ: {error}"))?,
        introspectors: introspectors
            .iter()
            .map(|client_id| client_id.parse::<ClientId>())
            .collect::<Result<_, _>>()
            .map_err(|error| format!("resource_introspector.client_id: {error}"))?,
    })
}

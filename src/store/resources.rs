//! Protected resources at rest.

use std::collections::HashMap;

use super::clients::ttl_of;
use super::{Pool, Session, Store, StoreError, begin, on, within};
use crate::crypto::jwk::Alg;
use crate::model::client_id::ClientId;
use crate::model::resource::Resource;
use crate::model::time::{Span, UnixTime};

pub(super) type ResourceRow = (String, String, Option<String>, Option<i64>);
pub(super) type IntrospectorRow = (String, String);

impl Store {
    /// Adds a resource, or with `replace` writes back one that is there. `Ok(false)` when it is not.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the identifier is taken or a constraint says no.
    pub async fn save_resource(&self, resource: &Resource, replace: bool, now: UnixTime) -> Result<bool, StoreError> {
        let mut session = self.session().await?;
        self.queries.inc_by(3);
        let (identifier, alg) = (resource.identifier.as_str(), resource.alg.map(Alg::as_str));
        let found = within(async {
            on!(Session, &mut session, connection => {
                let mut tx = begin!(connection).await?;
                let write = if replace {
                    sqlx::query("update resource set scope = $2, alg = $3, token_ttl = $4 where identifier = $1 and $5 = $5")
                } else {
                    sqlx::query("insert into resource (identifier, scope, alg, token_ttl, created_at) values ($1, $2, $3, $4, $5)")
                };
                let found = write.bind(identifier).bind(resource.scope.as_str()).bind(alg).bind(resource.token_ttl.map(Span::seconds))
                    .bind(now.0).execute(&mut *tx).await?.rows_affected() > 0;
                sqlx::query("delete from resource_introspector where identifier = $1").bind(identifier).execute(&mut *tx).await?;
                for client_id in resource.introspectors.iter().filter(|_| found) {
                    sqlx::query("insert into resource_introspector (identifier, client_id) values ($1, $2)")
                        .bind(identifier).bind(client_id.as_str()).execute(&mut *tx).await?;
                }
                tx.commit().await?;
                Ok(found)
            })
        })
        .await?;
        session.close().await;
        Ok(found)
    }

    /// Deletes a resource that no client uses. `Ok(false)` when there is none of that identifier.
    ///
    /// # Errors
    /// [`StoreError::Refused`] naming the clients that still use it.
    pub async fn delete_resource(&self, identifier: &str) -> Result<bool, StoreError> {
        let users: Vec<(String,)> = {
            let sql = "select client_id from client_resource where identifier = $1 order by client_id limit 10";
            self.queries.inc();
            on!(Pool, &self.pool, pool => within(sqlx::query_as(sql).bind(identifier).fetch_all(pool)).await)?
        };
        if !users.is_empty() {
            let users: Vec<String> = users.into_iter().map(|(client_id,)| client_id).collect();
            return Err(StoreError::Refused(format!(
                "resource {identifier} is used by {}; take it from them first with `grantd client set ID --resource …`",
                users.join(", ")
            )));
        }
        let sql = "delete from resource where identifier = $1";
        self.queries.inc();
        on!(Pool, &self.pool, pool => within(async { Ok(sqlx::query(sql).bind(identifier).execute(pool).await?.rows_affected()) }).await)
            .map(|rows| rows > 0)
    }
}

/// Rows to resources; one that cannot be understood is an error of its own.
pub(super) fn assemble_resources(
    rows: Vec<ResourceRow>,
    introspectors: Vec<IntrospectorRow>,
) -> Vec<Result<Resource, StoreError>> {
    let mut introspectors_of: HashMap<String, Vec<String>> = HashMap::new();
    for (identifier, client_id) in introspectors {
        introspectors_of.entry(identifier).or_default().push(client_id);
    }
    rows.into_iter()
        .map(|row| {
            let id = row.0.clone();
            let introspectors = introspectors_of.remove(&id).unwrap_or_default();
            resource_of(row, &introspectors).map_err(|reason| StoreError::Malformed { kind: "resource", id, reason })
        })
        .collect()
}

fn resource_of((identifier, scope, alg, token_ttl): ResourceRow, introspectors: &[String]) -> Result<Resource, String> {
    Ok(Resource {
        identifier: identifier.parse().map_err(|error| format!("identifier: {error}"))?,
        scope: scope.parse().map_err(|error| format!("scope: {error}"))?,
        alg: alg.map(|alg| alg.parse().map_err(|error| format!("alg: {error}"))).transpose()?,
        token_ttl: token_ttl.map(ttl_of).transpose()?,
        introspectors: introspectors
            .iter()
            .map(|client_id| client_id.parse::<ClientId>())
            .collect::<Result<_, _>>()
            .map_err(|error| format!("resource_introspector.client_id: {error}"))?,
    })
}

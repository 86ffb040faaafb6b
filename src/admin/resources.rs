//! Protected resources: create, change, delete, list.

use serde_json::{Value, json};

use super::change::{Change, as_a_table};
use super::{Admin, AdminError};
use crate::crypto::jwk::Alg;
use crate::model::client_id::ClientId;
use crate::model::lifetime::TokenTtl;
use crate::model::resource::{Resource, ResourceId, TokenTyp};
use crate::model::scope::Scope;
use crate::model::time::Span;

/// Changes of a resource. Each field is named like its column.
#[derive(Debug, Clone, Default)]
pub struct ResourcePatch {
    pub scope: Change<Scope>,
    pub alg: Change<Option<Alg>>,
    pub token_ttl: Change<Option<TokenTtl>>,
    pub token_typ: Change<TokenTyp>,
    pub status_list: Change<bool>,
    pub introspectors: Change<Vec<ClientId>>,
}

/// Returns a resource as JSON.
#[must_use]
pub fn document(resource: &Resource) -> Value {
    json!({
        "identifier": resource.identifier.as_str(),
        "scope": resource.scope.as_str(),
        "alg": resource.alg.map(Alg::as_str),
        "token_ttl": resource.token_ttl.map(|ttl| Span::from(ttl).seconds()),
        "token_typ": resource.token_typ.as_str(),
        "status_list": resource.status_list,
        "introspect_by": resource.introspectors,
    })
}

impl Admin {
    /// Creates a resource. Duplicate introspectors are merged.
    pub async fn create_resource(&self, resource: Resource) -> Result<Resource, AdminError> {
        let resource = Resource { introspectors: as_a_table(resource.introspectors), ..resource };
        self.store.create_resource(&resource, self.now()).await?;
        Ok(resource)
    }

    /// Changes a resource. `Ok(false)` when it has these values already.
    pub async fn change_resource(&self, uri: &ResourceId, patch: ResourcePatch) -> Result<bool, AdminError> {
        let change = |resource: &mut Resource| {
            let patch = patch.clone();
            patch.scope.apply(&mut resource.scope);
            patch.alg.apply(&mut resource.alg);
            patch.token_ttl.apply(&mut resource.token_ttl);
            patch.token_typ.apply(&mut resource.token_typ);
            patch.status_list.apply(&mut resource.status_list);
            patch.introspectors.apply(&mut resource.introspectors);
            resource.introspectors = as_a_table(std::mem::take(&mut resource.introspectors));
        };
        let updated = self.store.update_resource(uri.as_str(), change).await?;
        updated.ok_or_else(|| AdminError::NoSuchResource(uri.clone()))
    }

    /// Deletes a resource that no client uses.
    pub async fn delete_resource(&self, uri: &ResourceId) -> Result<(), AdminError> {
        let found = self.store.delete_resource(uri.as_str()).await?;
        if found { Ok(()) } else { Err(AdminError::NoSuchResource(uri.clone())) }
    }

    /// Returns one resource.
    pub async fn resource(&self, uri: &ResourceId) -> Result<Resource, AdminError> {
        let resource = self.store.resource(uri.as_str()).await?;
        resource.ok_or_else(|| AdminError::NoSuchResource(uri.clone()))
    }

    /// Returns all resources.
    pub async fn resources(&self) -> Result<Vec<Resource>, AdminError> {
        Ok(self.store.resources().await?.into_iter().collect::<Result<_, _>>()?)
    }
}

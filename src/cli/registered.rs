//! What is registered, read as the server reads it.

use std::sync::Arc;

use anyhow::bail;
use serde_json::{Value, json};

use super::Shell;
use crate::crypto::jwk::Alg;
use crate::model::client::Client;
use crate::model::client_id::ClientId;
use crate::model::jwks_uri::JwksUri;
use crate::model::resource::ResourceId;
use crate::model::time::Span;
use crate::store::Store;
use crate::store::changes::Changes;

/// Everything the database holds, read as the server reads it.
pub(super) async fn everything(store: &Store) -> anyhow::Result<Changes> {
    let mut feed = store.feed().await?;
    let changes = feed.changes(None, true).await?;
    feed.close().await;
    Ok(changes)
}

/// The client `id`, or all that can be read, by id. Of one that cannot be, a person is told.
pub(super) async fn each(shell: &Shell, store: &Store, id: Option<&ClientId>) -> anyhow::Result<Vec<Client>> {
    if let Some(id) = id {
        return Ok(vec![one(store, id).await?]);
    }
    let mut clients = Vec::new();
    for client in everything(store).await?.clients.into_values().flatten() {
        match client {
            Ok(client) => clients.push(Arc::unwrap_or_clone(client)),
            Err(fault) => shell.say(&format!("left out: {fault}"))?,
        }
    }
    clients.sort_by(|a, b| a.client_id.as_str().cmp(b.client_id.as_str()));
    Ok(clients)
}

pub(super) async fn one(store: &Store, id: &ClientId) -> anyhow::Result<Client> {
    match everything(store).await?.clients.remove(id.as_str()).flatten() {
        Some(client) => Ok(Arc::unwrap_or_clone(client?)),
        None => bail!("there is no client {id}; `grantd client list` lists them"),
    }
}

/// A client's registration as JSON, without its credentials.
pub(super) fn summary(client: &Client) -> Value {
    json!({
        "client_id": client.client_id,
        "enabled": client.enabled,
        "created_at": client.created_at,
        "not_before": Some(client.not_before).filter(|at| at.0 > 0),
        "scope": client.scope.as_str(),
        "default_scope": client.default_scope.as_str(),
        "resources": client.resources.iter().map(ResourceId::as_str).collect::<Vec<_>>(),
        "token_ttl": client.token_ttl.map(Span::seconds),
        "auth_methods": client.auth_methods,
        "claims": client.claims,
        "require_dpop": client.require_dpop,
        "require_mtls_binding": client.require_mtls_binding,
        "jwks_uri": client.jwks_uri.as_ref().map(JwksUri::as_str),
        "assertion_audience": client.assertion_audience.as_str(),
        "assertion_lifetime": client.assertion_lifetime.map(Span::seconds),
        "introspection_signed_response_alg": client.introspection_signed_response_alg.map(Alg::as_str),
    })
}

/// `items` in their order, each once, as a table has them.
pub(super) fn each_once<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut once = Vec::with_capacity(items.len());
    for item in items {
        if !once.contains(&item) {
            once.push(item);
        }
    }
    once
}

//! What is registered, read as the server reads it.

use std::sync::Arc;

use anyhow::bail;

use crate::model::client::Client;
use crate::model::client_id::ClientId;
use crate::store::Store;
use crate::store::changes::Changes;

/// Everything the database holds, read as the server reads it.
pub(super) async fn everything(store: &Store) -> anyhow::Result<Changes> {
    let mut feed = store.feed().await?;
    let changes = feed.changes(None).await?;
    feed.close().await;
    Ok(changes)
}

/// The client `id`, or all that can be read, by id. Those that cannot be are named by `grantd doctor` and `client list`.
pub(super) async fn each(store: &Store, id: Option<&ClientId>) -> anyhow::Result<Vec<Client>> {
    if let Some(id) = id {
        return Ok(vec![one(store, id).await?]);
    }
    let mut clients: Vec<Client> = everything(store)
        .await?
        .clients
        .into_values()
        .filter_map(|client| Some(Arc::unwrap_or_clone(client?.ok()?)))
        .collect();
    clients.sort_by(|a, b| a.client_id.as_str().cmp(b.client_id.as_str()));
    Ok(clients)
}

pub(super) async fn one(store: &Store, id: &ClientId) -> anyhow::Result<Client> {
    match everything(store).await?.clients.remove(id.as_str()).flatten() {
        Some(client) => Ok(Arc::unwrap_or_clone(client?)),
        None => bail!("there is no client {id}; `grantd client list` lists them"),
    }
}

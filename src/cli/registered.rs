//! What is registered, read as the server reads it.

use std::sync::Arc;

use anyhow::bail;

use super::Shell;
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

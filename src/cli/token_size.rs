//! Warns of tokens that are too large for what carries them, before a client meets a refused header field.

use super::registered::everything;
use super::{Config, Shell};
use crate::model::client::Client;
use crate::model::resource::Resource;
use crate::protocol::access_token::size::{TOO_LARGE, longest};
use crate::store::{Store, StoreError};

/// What is wrong with the size of a client's tokens, when `resources` are all that are registered.
pub(super) fn fault(config: &Config, client: &Client, resources: &[&Resource]) -> Option<String> {
    let issuer = config.issuer.clone().unwrap_or_default();
    let size = longest(issuer.as_str(), client, resources, &config.defaults(&issuer));
    (size > TOO_LARGE).then(|| {
        format!(
            "its tokens can have {size} bytes, and above {TOO_LARGE} many servers and proxies refuse the header field that carries them; narrow its scope or its claims, or give it resources, each with its own scopes"
        )
    })
}

/// The resources whose rows can be understood.
pub(super) fn readable(resources: Option<&Vec<Result<Resource, StoreError>>>) -> Vec<&Resource> {
    resources.into_iter().flatten().filter_map(|resource| resource.as_ref().ok()).collect()
}

/// Tells a person when the tokens of a client that was just registered or changed can be too large.
pub(super) async fn remark(shell: &Shell, config: &Config, store: &Store, client: &Client) -> anyhow::Result<()> {
    let issuer = config.issuer.clone().unwrap_or_default();
    if longest(issuer.as_str(), client, &[], &config.defaults(&issuer)) + RESOURCE < TOO_LARGE {
        // No resource makes them too large, so none has to be loaded.
        return Ok(());
    }
    let everything = everything(store).await?;
    match fault(config, client, &readable(everything.resources.as_ref())) {
        Some(fault) => shell.say(&format!("warning: client {}: {fault}", client.client_id)),
        None => Ok(()),
    }
}

/// Bytes that the longest identifier (2048) and a signature of RSA add at most.
const RESOURCE: usize = 3072;

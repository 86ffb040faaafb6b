//! Warnings of tokens that are too large for a header field, before a client meets a refusal.

use super::{Admin, AdminError, Warning};
use crate::model::client::Client;
use crate::model::resource::Resource;
use crate::protocol::access_token::size::{TOO_LARGE, longest};

impl Admin {
    /// Returns a warning when a client's tokens can be too large. `resources` are all registered resources.
    #[must_use]
    pub fn large_tokens(&self, client: &Client, resources: &[&Resource]) -> Option<Warning> {
        let size = longest(self.policy.issuer.as_str(), client, resources, &self.policy.defaults);
        (size > TOO_LARGE).then(|| Warning::LargeTokens { client_id: client.client_id.clone(), size })
    }

    /// Returns a warning when the tokens of a client that is created or changed can be too large.
    pub(super) async fn token_size(&self, client: &Client) -> Result<Vec<Warning>, AdminError> {
        if longest(self.policy.issuer.as_str(), client, &[], &self.policy.defaults) + RESOURCE < TOO_LARGE {
            // No resource could make them too large, so none is loaded.
            return Ok(Vec::new());
        }
        let resources = self.store.resources().await?;
        // A resource whose row cannot be read gets no tokens; `grantd doctor` reports it.
        let readable: Vec<&Resource> = resources.iter().filter_map(|resource| resource.as_ref().ok()).collect();
        Ok(self.large_tokens(client, &readable).into_iter().collect())
    }
}

/// Bytes that the longest identifier (2048) and an RSA signature add at most.
const RESOURCE: usize = 3072;

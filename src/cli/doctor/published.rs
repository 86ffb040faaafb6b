//! The check of `grantd doctor` on the JWK Sets that clients publish: it fetches each as the server does.

use futures_util::future::join_all;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::model::client::Client;
use crate::model::time::UnixTime;
use crate::serve::clients::fetcher;
use crate::state::key_sets::source::{Fetch, Source};

/// Result of fetching the JWK Set of one client.
pub(super) struct PublishedSet {
    pub(super) client_id: String,
    /// The skipped keys with reasons, if any; an error when no key can be used.
    pub(super) found: Result<Option<String>, String>,
}

/// Starts the task that fetches JWK Sets, and returns its queue.
///
/// # Errors
/// When the file of CAs cannot be used.
pub(super) fn fetches(config: &Config) -> anyhow::Result<mpsc::Sender<Fetch>> {
    let (fetches, queue) = mpsc::channel(1);
    tokio::spawn(fetcher(config)?.run(queue));
    Ok(fetches)
}

/// Fetches the sets of the enabled ones of `clients`, several at once, in the order of the clients.
///
/// # Errors
/// When the task that fetches has ended.
pub(super) async fn examine(
    fetches: &mpsc::Sender<Fetch>,
    clients: &[&Client],
    now: UnixTime,
) -> anyhow::Result<Vec<PublishedSet>> {
    let publishing = clients
        .iter()
        .filter(|client| client.enabled && !client.has_expired(now))
        .filter_map(|client| Some((client, client.jwks_uri.clone()?)));
    let publishing: Vec<_> = publishing.collect();
    let mut published = Vec::with_capacity(publishing.len());
    for together in publishing.chunks(AT_ONCE) {
        let sources: Vec<Source> = together.iter().map(|(_, uri)| Source::Client(uri.clone())).collect();
        let found = join_all(sources.iter().map(|source| source.fetch(fetches, now))).await;
        for ((client, uri), found) in together.iter().zip(found) {
            let found = found.map(|set| set.skipped_keys());
            published.push(PublishedSet {
                client_id: client.client_id.to_string(),
                found: found
                    .map(|skipped| skipped.map(|why| format!("of its key set at {uri} is skipped: {why}")))
                    .map_err(|why| format!("its key set at {uri}: {why}")),
            });
        }
    }
    Ok(published)
}

/// Number of concurrent fetches.
const AT_ONCE: usize = 16;

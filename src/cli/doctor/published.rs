//! What `grantd doctor` says of the key sets that clients publish: it fetches each as the server does.

use tokio::sync::{mpsc, oneshot};

use crate::client_jwks::{Fetch, what_is_skipped};
use crate::config::Config;
use crate::model::client::Client;
use crate::model::time::UnixTime;
use crate::serve::clients::fetcher;

/// What the key set of one client is like.
pub(super) struct Published {
    pub(super) client_id: String,
    /// Why nothing of it can be used, or what of it is skipped.
    pub(super) found: Result<Option<String>, String>,
}

/// Looks at the sets of enabled clients, several at once, in the order of the clients.
///
/// # Errors
/// When the file of CAs cannot be used.
pub(super) async fn examine(config: &Config, clients: &[&Client], now: UnixTime) -> anyhow::Result<Vec<Published>> {
    let (fetches, queue) = mpsc::channel(1);
    tokio::spawn(fetcher(config)?.run(queue));
    let publishing =
        clients.iter().filter(|client| client.enabled).filter_map(|client| Some((client, client.jwks_uri.clone()?)));
    let publishing: Vec<_> = publishing.collect();
    let mut published = Vec::with_capacity(publishing.len());
    for together in publishing.chunks(AT_ONCE) {
        let mut answers = Vec::with_capacity(together.len());
        for (client, uri) in together {
            let (reply, answer) = oneshot::channel();
            fetches.send(Fetch { uri: uri.clone(), reply }).await?;
            answers.push((client, uri, answer));
        }
        for (client, uri, answer) in answers {
            let found = answer.await?.and_then(|document| what_is_skipped(&document, now));
            published.push(Published {
                client_id: client.client_id.to_string(),
                found: found
                    .map(|skipped| skipped.map(|why| format!("of its key set at {uri} is skipped: {why}")))
                    .map_err(|why| format!("its key set at {uri}: {why}")),
            });
        }
    }
    Ok(published)
}

/// How many sets are fetched at once.
const AT_ONCE: usize = 16;

//! The start of the registry's feed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::{oneshot, watch};

use super::tasks::Tasks;
use crate::model::event::Event;
use crate::protocol::AuthorizationServer;
use crate::state::registry::feed::Feed;
use crate::store::Store;

/// Starts the feed on a thread of its own, so that neither does loading many clients hold up requests, nor do many
/// requests hold up the news that a client has been switched off. Returns when it has read everything once, or after
/// [`START_PATIENCE`]: health checks are answered while a large registry is read on a slow processor.
pub(super) async fn start(
    mut feed: Feed,
    server: Arc<AuthorizationServer>,
    store: Store,
    stopped: watch::Receiver<bool>,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the feed")?;
    let (started, starting) = oneshot::channel();
    let server_waiting = Arc::clone(&server);
    tasks.start_blocking("feed", move || {
        runtime.block_on(async {
            let first = first_steps(&mut feed, &server, &store).await;
            let may_run = first.is_ok();
            // Whoever started us waits for this no longer than its patience.
            if let Err(Err(error)) = started.send(first) {
                tracing::error!(
                    event = Event::RegistryTrouble.as_str(),
                    reason = format!("{error:#}"),
                    "the server cannot start"
                );
            }
            if may_run {
                feed.run(stopped).await;
            }
        });
    });
    match tokio::time::timeout(START_PATIENCE, starting).await {
        Ok(started) => started.context("the feed ended at its start")?,
        Err(_) => {
            let clients = server_waiting.registry.snapshot().client_count();
            tracing::info!(
                event = Event::RegistryLoading.as_str(),
                clients,
                seconds = START_PATIENCE.as_secs(),
                "not ready until everything has been read"
            );
            Ok(())
        }
    }
}

/// Steps twice before the first request: the second step loads a signing key that the first may have made.
async fn first_steps(feed: &mut Feed, server: &AuthorizationServer, store: &Store) -> anyhow::Result<()> {
    for _ in 0..2 {
        match feed.step().await {
            Ok(()) => {}
            Err(error) if error.is_outage() => {
                tracing::error!(event = Event::DatabaseWaiting.as_str(), reason = %error, "starting without the database; not ready until it is there");
                return Ok(());
            }
            Err(error) => return Err(error).context("reading the database"),
        }
    }
    if server.keyring.signing(server.defaults.alg, server.database_time()).is_none() {
        let sealed = store.keys().await?.len();
        bail!(
            "none of the {sealed} stored signing keys can sign with {}; `grantd doctor` says why. Restore the sealing key that they were sealed under, or remove them with `grantd key remove KID --now`",
            server.defaults.alg
        );
    }
    Ok(())
}

/// Time for which a start waits until everything has been read.
const START_PATIENCE: Duration = Duration::from_secs(10);

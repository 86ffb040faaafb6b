//! The task that builds status lists: when the registry has changed, and by time.

use std::sync::Arc;
use std::time::Duration;

use crate::model::event::Event;
use crate::protocol::AuthorizationServer;

/// Builds the status lists whenever they have to say something else.
pub async fn keep_status_lists(server: Arc<AuthorizationServer>) {
    let mut has_changed = true;
    loop {
        let builder = Arc::clone(&server);
        // Compression takes milliseconds, which no thread that answers requests has.
        if let Err(fault) = tokio::task::spawn_blocking(move || builder.build_status_lists(has_changed)).await {
            tracing::error!(event = Event::Internal.as_str(), reason = %fault, "the status lists were not built");
        }
        has_changed = tokio::select! {
            () = server.registry.changed.notified() => true,
            // Clients end, and keys begin to sign, without a change.
            () = tokio::time::sleep(LOOK) => false,
        };
        if has_changed {
            // Changes in quick succession are built together.
            tokio::time::sleep(TOGETHER).await;
        }
    }
}

/// Time from a change until the lists are built. Verifiers keep a list for seconds, so changes in quick succession are built
/// together.
const TOGETHER: Duration = Duration::from_millis(250);
/// Time after which the lists are compared with the present time.
const LOOK: Duration = Duration::from_millis(500);

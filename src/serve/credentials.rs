//! Follows `database.url_file`: a password that is rotated there is used as soon as the database takes it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::config::UrlFile;
use crate::model::event::Event;
use crate::store::Store;

/// Following the file, until dropped.
pub(super) struct Following {
    again: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Following {
    pub(super) fn start(file: Option<UrlFile>, store: &Store) -> Self {
        let again = Arc::new(Notify::new());
        Self { task: tokio::spawn(follow(file, store.clone(), Arc::clone(&again))), again }
    }

    /// Reads the file now.
    pub(super) fn again(&self) {
        self.again.notify_one();
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads the file every second, and at once when `again` says so. New credentials are tried on a connection of their own,
/// and those in use stay until the database takes the new ones: the file may change before the database does.
async fn follow(file: Option<UrlFile>, store: Store, again: Arc<Notify>) {
    let Some(mut file) = file else { return };
    let (mut untried, mut told) = (None, String::new());
    loop {
        // What the database has refused is tried again, less often.
        let rest = if untried.is_some() { RETRY } else { LOOK };
        drop(tokio::time::timeout(rest, again.notified()).await);
        let reading = move || {
            let read = file.reread();
            (read, file)
        };
        // It fails where the runtime stops, and where the reading has panicked, which standard error tells.
        let Ok((read, same)) = tokio::task::spawn_blocking(reading).await else { return };
        file = same;
        let fault = match read {
            Ok(Some(servers)) => {
                untried = Some(servers);
                None
            }
            Ok(None) => None,
            Err(reason) => Some(reason),
        };
        let fault = match (&untried, fault) {
            (_, Some(fault)) => fault,
            (None, None) => String::new(),
            (Some(servers), None) => match store.connect_as(servers).await {
                Ok(()) => {
                    untried = None;
                    tracing::info!(event = Event::DatabaseCredentials.as_str(), path = %file.path.display(), "database.url_file has changed, and the database takes what it says now");
                    String::new()
                }
                Err(error) => error.to_string(),
            },
        };
        if !fault.is_empty() && fault != told {
            tracing::warn!(event = Event::DatabaseCredentials.as_str(), reason = %fault, "database.url_file has changed and cannot be used yet; the credentials in use stay");
        }
        told = fault;
    }
}

const LOOK: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(5);

//! Writer of the last-used times of credentials.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::uses::{Uses, begin_to_write};
use crate::model::event::Event;
use crate::store::Store;

/// Writes every half minute which credentials were used, in a task beside the polls, so that a slow write does not
/// delay them.
#[derive(Debug)]
pub(super) struct LastUsedWriter {
    written_at: Instant,
    writing: Option<JoinHandle<()>>,
}

impl LastUsedWriter {
    pub(super) fn new() -> Self {
        Self { written_at: Instant::now(), writing: None }
    }

    /// Whether half a minute has passed since the last write.
    pub(super) fn is_due(&self) -> bool {
        self.written_at.elapsed() >= INTERVAL
    }

    /// Starts to write the uses since the last write, unless that write is still in progress. Uses that cannot be written
    /// wait for the next write.
    pub(super) fn write(&mut self, uses: &Arc<Uses>, store: &Store) {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        self.written_at = Instant::now();
        let (uses, store) = (Arc::clone(uses), store.clone());
        self.writing = Some(tokio::spawn(async move {
            let waiting = uses.take();
            if let Err(error) = store.record_last_used(&begin_to_write(&waiting)).await {
                tracing::warn!(event = Event::UsesNotWritten.as_str(), reason = %error, "the last-used times of credentials are out of date");
                uses.add(waiting);
            }
        }));
    }

    /// Waits for the write in progress.
    pub(super) async fn finish(&mut self) {
        if let Some(writing) = self.writing.take()
            && let Err(error) = writing.await
        {
            tracing::warn!(event = Event::UsesNotWritten.as_str(), reason = %error);
        }
    }
}

const INTERVAL: Duration = Duration::from_secs(30);

//! Writer of the last-used times of credentials.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::Registry;
use crate::model::event::Event;
use crate::model::time::UnixTime;
use crate::store::Store;
use crate::store::last_used::LastUsedTimes;

/// Writes every half minute which credentials were used, in a task beside the polls, so that a slow write does not
/// delay them.
#[derive(Debug)]
pub(super) struct LastUsedWriter {
    written_at: Instant,
    written_until: UnixTime,
    writing: Option<JoinHandle<()>>,
}

impl LastUsedWriter {
    pub(super) fn new(now: UnixTime) -> Self {
        Self { written_at: Instant::now(), written_until: now, writing: None }
    }

    /// Whether half a minute has passed since the last write.
    pub(super) fn is_due(&self) -> bool {
        self.written_at.elapsed() >= INTERVAL
    }

    /// Starts to write the uses since the last write, unless that write is still in progress.
    pub(super) fn write(&mut self, registry: &Registry, store: &Store, now: UnixTime) {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        self.written_at = Instant::now();
        let since = std::mem::replace(&mut self.written_until, now);
        // The present second may see another use, so the next write includes it again.
        let uses = LastUsedTimes::since(registry.snapshot().clients(), since);
        let store = store.clone();
        self.writing = Some(tokio::spawn(async move {
            if let Err(error) = store.record_last_used(&uses).await {
                tracing::warn!(event = Event::UsesNotWritten.as_str(), reason = %error, "the last-used times of credentials are out of date");
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

//! Times of use of credentials, on their way from memory to the database.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::Registry;
use crate::model::event::Event;
use crate::model::time::UnixTime;
use crate::store::Store;
use crate::store::last_used::LastUsedTimes;

/// Writes down every half minute which credentials were used, beside the polls: a slow write must not delay one.
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

    /// Whether half a minute has passed since the last time.
    pub(super) fn is_due(&self) -> bool {
        self.written_at.elapsed() >= INTERVAL
    }

    /// Begins to write what was used since the last time, unless that write is still under way.
    pub(super) fn write(&mut self, registry: &Registry, store: &Store, now: UnixTime) {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        self.written_at = Instant::now();
        let since = std::mem::replace(&mut self.written_until, now);
        // The present second may see another use, so it is looked at again.
        let uses = LastUsedTimes::since(registry.snapshot().clients(), since);
        let store = store.clone();
        self.writing = Some(tokio::spawn(async move {
            if let Err(error) = store.record_last_used(&uses).await {
                tracing::warn!(event = Event::UsesNotWritten.as_str(), reason = %error, "when credentials were last used is not up to date");
            }
        }));
    }

    /// Waits for the write that is under way.
    pub(super) async fn finish(&mut self) {
        if let Some(writing) = self.writing.take()
            && let Err(error) = writing.await
        {
            tracing::warn!(event = Event::UsesNotWritten.as_str(), reason = %error);
        }
    }
}

const INTERVAL: Duration = Duration::from_secs(30);

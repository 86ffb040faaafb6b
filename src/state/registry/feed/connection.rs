//! The connection of the feed: its age, and how far its notifications can be relied on.

use std::time::{Duration, Instant};

use crate::store::changes::ChangeReader;
use crate::store::{Store, StoreError};

/// Connection of the feed. It is taken out for each exchange, so that an error or a dropped future drops it together with
/// any statement in progress.
#[derive(Debug)]
pub(super) struct Connection {
    reader: Option<ChangeReader>,
    made_at: Instant,
    /// Whether the server in use sends no notifications.
    cannot_listen: bool,
    /// Whether a notification has come that no poll has followed.
    told: bool,
    /// The revisions that the last change was read with: those after the first up to the second.
    read: (i64, i64),
    /// Number of changes in a row that no notification announced.
    unannounced: u32,
}

impl Default for Connection {
    fn default() -> Self {
        Self { reader: None, made_at: Instant::now(), cannot_listen: false, told: false, read: (0, 0), unannounced: 0 }
    }
}

impl Connection {
    /// Takes the connection.
    pub(super) fn take(&mut self) -> Option<ChangeReader> {
        self.reader.take()
    }

    /// Takes the connection, or one in its place that listens. `None` when the server has to be found first.
    ///
    /// # Errors
    /// [`StoreError`] of the new connection.
    pub(super) async fn take_usable(&mut self, store: &Store) -> Result<Option<ChangeReader>, StoreError> {
        let Some(reader) = self.reader.take() else { return Ok(None) };
        let age = self.made_at.elapsed();
        let is_safe = reader.is_listening() && store.knows_its_server();
        let usable = age < if is_safe { LIFETIME } else { UNSAFE_LIFETIME } && !store.is_outdated(age);
        if usable && (reader.is_listening() || self.cannot_listen || !store.can_listen()) {
            return Ok(Some(reader));
        }
        if !store.can_listen() || store.is_outdated(age) {
            return Ok(None);
        }
        // The server in use has just answered, so it is asked for notifications.
        drop(reader);
        let reader = store.change_reader().await?;
        self.note_new();
        self.cannot_listen = !reader.is_listening();
        Ok(Some(reader))
    }

    /// Records that a new connection was made.
    pub(super) fn note_new(&mut self) {
        (self.made_at, self.cannot_listen, self.unannounced) = (Instant::now(), false, 0);
    }

    /// Keeps the connection for the next exchange.
    pub(super) fn put_back(&mut self, reader: ChangeReader) {
        self.reader = Some(reader);
    }

    /// Whether a notification has come since this was last asked, `arrived` included, of a revision that is not read yet. After
    /// a statement that failed, the next one is a poll again, which needs less.
    pub(super) fn is_told(&mut self, arrived: &[i64]) -> bool {
        std::mem::take(&mut self.told) || arrived.iter().any(|revision| self.is_unread(*revision))
    }

    /// Whether a notification is not of a change that was read just now. A transaction sends one for each of its statements,
    /// and some arrive after all of them were read.
    fn is_unread(&self, revision: i64) -> bool {
        revision <= self.read.0 || revision > self.read.1
    }

    /// Records that what changed after a revision, up to another, has been read.
    pub(super) fn note_read(&mut self, after: i64, through: i64) {
        if through != after {
            self.read = (after, through);
        }
    }

    /// Records what a poll has found: whether there is a change, and whether a notification came with it.
    pub(super) fn note_poll(&mut self, is_change: bool, told: bool) {
        if is_change {
            self.unannounced = if told { 0 } else { self.unannounced.saturating_add(1) };
        }
    }

    /// Returns at the next notification, or when the connection breaks. Without notifications, never returns.
    pub(super) async fn notified(&mut self) {
        loop {
            let notified = match &mut self.reader {
                Some(reader) => reader.notified().await,
                None => std::future::pending().await,
            };
            match notified {
                Ok(revision) if !self.is_unread(revision) => continue,
                Ok(_) => self.told = true,
                // The next poll makes another connection.
                Err(_) => self.reader = None,
            }
            return;
        }
    }

    /// The time until the next poll: longer while notifications announce each change, and within the time for which a
    /// snapshot counts as current.
    pub(super) fn pause(&self, poll: Duration) -> Duration {
        let announced = self.reader.as_ref().is_some_and(ChangeReader::is_listening);
        if announced && self.unannounced < UNANNOUNCED_MAX {
            (poll * 4).min(poll + Duration::from_secs(1))
        } else {
            poll
        }
    }

    /// Closes the connection.
    pub(super) async fn close(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.close().await;
        }
    }
}

/// Maximum age of a connection that listens, where connections tell to which server they lead: the first one of the pool that
/// leads to another outdates this one, and a new one of these comes at least once a minute. A new one of the feed costs more: it
/// listens, wakes every other listener, and has its statements planned.
const LIFETIME: Duration = Duration::from_mins(10);
/// Maximum age of another connection: it may lead to a demoted primary, and the next one may listen.
const UNSAFE_LIFETIME: Duration = Duration::from_mins(1);
/// Number of unannounced changes in a row after which notifications are not relied on.
const UNANNOUNCED_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_of_what_was_read_is_no_news() {
        let mut connection = Connection::default();
        assert!(connection.is_told(&[1]) && !connection.is_told(&[]));
        connection.note_read(7, 9);
        assert!(!connection.is_told(&[8, 9]));
        assert!(connection.is_told(&[8, 10]));
        // As after a restore, or by hand.
        assert!(connection.is_told(&[7]) && connection.is_told(&[0]));
        // A poll that found nothing forgets nothing.
        connection.note_read(9, 9);
        assert!(!connection.is_told(&[9]));
    }
}

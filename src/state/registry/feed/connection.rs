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
    last: Last,
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
        Self {
            reader: None,
            made_at: Instant::now(),
            last: Last::Nothing,
            cannot_listen: false,
            told: false,
            read: (0, 0),
            unannounced: 0,
        }
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
        (self.made_at, self.last, self.cannot_listen, self.unannounced) = (Instant::now(), Last::Nothing, false, 0);
    }

    /// Keeps the connection for the next exchange.
    pub(super) fn put_back(&mut self, reader: ChangeReader) {
        self.reader = Some(reader);
    }

    /// Records that a poll found a server to follow, or that its notifications were awaited.
    pub(super) fn note_last(&mut self, last: Last) {
        self.last = last;
    }

    /// Whether to wait for the notifications of `reader` instead of polling: every second time, while each change is announced.
    pub(super) fn awaits_notifications(&self, reader: &ChangeReader, poll: Duration) -> bool {
        let is_announced = reader.is_listening() && self.unannounced == 0;
        is_announced && self.last == Last::Poll && pause_after(self.last, poll) <= LONGEST_AWAITED
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

    /// Records what a poll has found: whether there is a change, and whether a notification announced it.
    pub(super) fn note_poll(&mut self, is_change: bool, is_announced: bool) {
        if is_change {
            self.unannounced = if is_announced { 0 } else { self.unannounced.saturating_add(1) };
        }
    }

    /// Records the revisions of notifications that arrived with the answers of an exchange. What is not read yet is left to the
    /// next one, which then comes soon.
    pub(super) fn note_arrived(&mut self, arrived: &[i64]) {
        self.told |= arrived.iter().any(|revision| self.is_unread(*revision));
    }

    /// Returns at the next notification, or when the connection breaks. Without notifications, never returns.
    pub(super) async fn notified(&mut self) {
        while !self.told {
            let notified = match &mut self.reader {
                Some(reader) => reader.notified().await,
                None => std::future::pending().await,
            };
            match notified {
                Ok(revision) => self.told = self.is_unread(revision),
                // The next poll makes another connection.
                Err(_) => {
                    self.reader = None;
                    return;
                }
            }
        }
    }

    /// The time until the next exchange: longer while notifications announce each change, and within the time for which a
    /// snapshot counts as current, also from one poll to the next.
    pub(super) fn pause(&self, poll: Duration) -> Duration {
        let announced = self.reader.as_ref().is_some_and(ChangeReader::is_listening);
        if announced && self.unannounced < UNANNOUNCED_MAX { pause_after(self.last, poll) } else { poll }
    }

    /// Closes the connection.
    pub(super) async fn close(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.close().await;
        }
    }
}

/// The last question on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// Nothing yet.
    Nothing,
    /// The position, and whatever tells whether the server is one to follow.
    Poll,
    /// Whether notifications have come, with which the server shows that it still answers.
    Notifications,
}

/// The pause where each change is announced.
fn pause_after(last: Last, poll: Duration) -> Duration {
    let pause = (poll * 4).min(poll + Duration::from_secs(1));
    if last == Last::Notifications { pause * 3 / 4 } else { pause }
}

/// Maximum age of a connection that listens, where connections tell to which server they lead: the first one that leads to another
/// outdates this one, and the replica that sweeps looks for one. A new one of the feed costs more: it listens, wakes every
/// other listener, and has its statements planned.
const LIFETIME: Duration = Duration::from_mins(10);
/// Maximum age of another connection: it may lead to a demoted primary, and the next one may listen.
const UNSAFE_LIFETIME: Duration = Duration::from_mins(1);
/// The longest pause for which every second exchange waits for notifications. Two pauses are then within the two seconds for
/// which a snapshot counts as current.
const LONGEST_AWAITED: Duration = Duration::from_secs(1);
/// Number of unannounced changes in a row after which notifications are not relied on.
const UNANNOUNCED_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_nothing_announces_is_found_while_the_snapshot_counts_as_current() {
        for milliseconds in [10, 100, 250, 400, 30_000] {
            let poll = Duration::from_millis(milliseconds);
            let mut found_after = pause_after(Last::Poll, poll);
            if found_after <= LONGEST_AWAITED {
                found_after += pause_after(Last::Notifications, poll);
            }
            assert!(found_after <= poll + Duration::from_millis(1500), "{poll:?}");
        }
    }

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
        connection.note_arrived(&[8, 9]);
        assert!(!connection.is_told(&[]));
        connection.note_arrived(&[9, 10]);
        assert!(connection.is_told(&[]) && !connection.is_told(&[]));
    }
}

//! The session that one step of a command leaves for the next: to connect takes PostgreSQL longer than most statements.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Store;
use super::session::Session;

/// A session of PostgreSQL that waits for its next use. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct SpareSession {
    is_kept: bool,
    session: Arc<Mutex<Option<(Session, Instant)>>>,
}

impl Store {
    /// Returns the store of a command: the session of one transaction serves the next.
    #[must_use]
    pub fn of_command(mut self) -> Self {
        self.spare.is_kept = true;
        self
    }
}

impl SpareSession {
    /// Takes the session, unless it has rested for so long that its server may have closed it.
    pub(super) fn take(&self) -> Option<Session> {
        let spare = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        spare.filter(|(_, since)| since.elapsed() < USABLE).map(|(session, _)| session)
    }

    /// Keeps a session in which no transaction is open, or closes it.
    pub(super) async fn put(&self, session: Session) {
        if !self.is_kept || matches!(session, Session::Sqlite(_)) {
            session.close().await;
            return;
        }
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some((session, Instant::now()));
    }
}

/// Time for which a session is used again without a test.
const USABLE: Duration = Duration::from_secs(1);

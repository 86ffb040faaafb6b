//! Whether writes to the database succeed: counted, and told by readiness and the log.

use crate::model::event::Event;
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;

use super::StoreError;

/// What became of the writes of this process.
#[derive(Debug, Default)]
pub struct Health {
    /// Writes that failed, constraints aside, for `grantd_database_write_failures_total`.
    pub write_failures: Counter,
    /// Why the last write failed, until one succeeds.
    trouble: Mutex<Option<String>>,
}

impl Health {
    /// Why the last write failed; `None` once a write has succeeded.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the outcome of a write, and passes it on. The first failure in a row and the first success after it are logged.
    pub(super) fn record<T>(&self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        match &outcome {
            // A constraint that says no shows that the database can write.
            Ok(_) | Err(StoreError::Refused(_) | StoreError::Malformed { .. }) => {
                if self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
                    tracing::info!(event = Event::DatabaseWrites.as_str(), "writes to the database succeed again");
                }
            }
            Err(error) => {
                self.write_failures.inc();
                let reason = error.to_string();
                let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
                if trouble.is_none() {
                    tracing::error!(
                        event = Event::DatabaseWrites.as_str(),
                        reason,
                        "a write to the database failed; tokens for secrets need none, assertions, proofs and revocations do"
                    );
                }
                *trouble = Some(reason);
            }
        }
        outcome
    }
}

//! Outcome of writes to the database, for a metric, readiness and the log.

use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;

use super::StoreError;
use crate::model::event::Event;

/// Outcome of this process's writes.
#[derive(Debug, Default)]
pub struct Health {
    /// Number of failed writes, constraint violations aside, for `grantd_database_write_failures_total`.
    pub write_failures: Counter,
    /// Error of the last write; `None` once a write has succeeded.
    trouble: Mutex<Option<String>>,
}

impl Health {
    /// The error of the last write; `None` once a write has succeeded.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records the outcome of a write, and returns it. Logs the first failure in a row and the first success after it.
    pub(super) fn record<T>(&self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        match &outcome {
            // A violated constraint shows that the database accepts writes.
            Ok(_) | Err(StoreError::Refused(_) | StoreError::Taken { .. } | StoreError::Malformed { .. }) => {
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
                        "a write to the database failed; assertions, proofs and revocations need writes, tokens for secrets do not"
                    );
                }
                *trouble = Some(reason);
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violated_constraint_is_no_failure_of_writes() {
        let health = Health::default();
        let taken = StoreError::Taken { kind: "client".into(), id: "billing".into() };
        health.record::<()>(Err(taken)).unwrap_err();
        assert_eq!((health.trouble(), health.write_failures.get()), (None, 0));
        health.record::<()>(Err(StoreError::ReadOnly)).unwrap_err();
        assert!(health.trouble().is_some() && health.write_failures.get() == 1);
        health.record(Ok(())).unwrap();
        assert_eq!(health.trouble(), None);
    }
}

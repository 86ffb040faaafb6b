//! What may be used once, and for how long it is remembered that it was. [`spend_queue`](super::spend_queue) writes it down.

use std::time::Duration;

use super::statement::args;
use super::{Store, StoreError};
use crate::model::time::UnixTime;

/// A use of something that may be used once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SingleUseId {
    /// What is used.
    pub kind: SingleUseKind,
    /// Whose it is: a client for an assertion, the thumbprint of a key for a proof.
    pub owner: String,
    /// SHA-256 of its `jti`.
    pub jti: [u8; 32],
    /// From when on nobody would take it anyway, by any clock.
    pub expires_at: UnixTime,
}

/// What may be used once. C34: a `jti` of one kind or owner says nothing of the same one of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SingleUseKind {
    /// A client assertion (RFC 7523 section 3).
    Assertion,
    /// A DPoP proof (RFC 9449 section 11.1).
    DpopProof,
}

impl SingleUseKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Assertion => "assertion",
            Self::DpopProof => "dpop_proof",
        }
    }
}

/// What came of spending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayCheck {
    /// All of it for the first time.
    New,
    /// This was spent before.
    Replayed(SingleUseKind),
}

impl Store {
    /// Forgets what had expired before `now` by the database's clock, a small batch at a time with a rest after each: requests spend on the same
    /// disk, and their commits would wait for what a long row of batches writes. Returns how much.
    ///
    /// # Errors
    /// [`StoreError`]; what was forgotten before it stays forgotten.
    pub async fn sweep_spent(&self, now: UnixTime) -> Result<u64, StoreError> {
        let sql = "delete from spent_jti where (kind, owner, jti) in
                   (select kind, owner, jti from spent_jti where expires_at < $1 order by expires_at limit 500)";
        self.spend_queue.forget(now);
        let mut swept = 0;
        loop {
            let rows = self.execute(sql, &args![now]).await?;
            swept += rows;
            if rows < BATCH {
                return Ok(swept);
            }
            tokio::time::sleep(REST).await;
        }
    }
}

/// Rows that one statement of a sweep deletes.
pub(super) const BATCH: u64 = 500;
/// From one batch to the next. Nine thousand rows a second are twice what a replica spends on one processor.
pub(super) const REST: Duration = Duration::from_millis(50);

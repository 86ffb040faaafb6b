//! Single-use ids: the `jti` of client assertions and DPoP proofs. [`spend_queue`](super::spend_queue) records them.

use std::time::Duration;

use super::statement::args;
use super::{Store, StoreError};
use crate::model::time::UnixTime;

/// Single-use id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SingleUseId {
    /// The kind of JWT.
    pub kind: SingleUseKind,
    /// Owner: the client of an assertion, the key thumbprint of a proof, the issuer of a federated token.
    pub owner: String,
    /// SHA-256 of the `jti`.
    pub jti: [u8; 32],
    /// Time after which no replica accepts the JWT, by any clock; the id is then forgotten.
    pub expires_at: UnixTime,
}

/// Kind of JWT with a single-use id. Ids of different kinds or owners are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SingleUseKind {
    /// A client assertion (RFC 7523 section 3).
    Assertion,
    /// A DPoP proof (RFC 9449 section 11.1).
    DpopProof,
    /// A token of a trusted issuer that works once.
    Federated,
}

impl SingleUseKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Assertion => "assertion",
            Self::DpopProof => "dpop_proof",
            Self::Federated => "federated",
        }
    }
}

/// Result of recording single-use ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayCheck {
    /// All ids are new.
    New,
    /// An id of this kind was used before.
    Replayed(SingleUseKind),
}

impl Store {
    /// Deletes ids that expired before `now` by the database's clock. Works in small batches with pauses, since the
    /// commits of requests wait for the same disk. Returns the number of deleted rows.
    ///
    /// # Errors
    /// [`StoreError`]; rows that were deleted before the error stay deleted.
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
/// Pause between two batches. This deletes nine thousand rows a second, twice what a replica records on one processor.
pub(super) const REST: Duration = Duration::from_millis(50);

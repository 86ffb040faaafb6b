//! What may be used once: one insert decides, shared by all replicas, on disk before it is believed.

use std::time::Duration;

use sqlx::QueryBuilder;

use super::{Pool, Store, StoreError, on, within};
use crate::model::time::UnixTime;

/// A use of something that may be used once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// What is used.
    pub kind: UseKind,
    /// Whose it is: a client for an assertion, the thumbprint of a key for a proof.
    pub owner: String,
    /// SHA-256 of its `jti`.
    pub jti: [u8; 32],
    /// From when on nobody would take it anyway, by any clock.
    pub expires_at: UnixTime,
}

/// What may be used once. C34: a `jti` of one kind or owner says nothing of the same one of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UseKind {
    /// A client assertion (RFC 7523 section 3).
    Assertion,
    /// A DPoP proof (RFC 9449 section 11.1).
    DpopProof,
}

impl UseKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Assertion => "assertion",
            Self::DpopProof => "dpop_proof",
        }
    }
}

/// What came of spending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// All of it for the first time.
    New,
    /// This was spent before.
    Before(UseKind),
}

impl Store {
    /// Spends all of `uses` at once. Whoever comes second, here or on another replica, is told so, however close behind.
    ///
    /// The write is a task of its own: a client that leaves cannot stop it halfway.
    ///
    /// # Errors
    /// [`StoreError`]: whether it was spent is not known, so the request is to be refused.
    pub async fn spend(&self, uses: Vec<Use>) -> Result<Spent, StoreError> {
        let store = self.clone();
        let spending = tokio::spawn(async move { store.insert_uses(uses).await });
        spending
            .await
            .unwrap_or_else(|error| Err(StoreError::Unavailable(sqlx::Error::Io(std::io::Error::other(error)))))
    }

    async fn insert_uses(&self, mut uses: Vec<Use>) -> Result<Spent, StoreError> {
        if uses.is_empty() {
            return Ok(Spent::New);
        }
        // In one order, so that two who spend the same cannot wait for each other in a circle.
        uses.sort_by_key(|one| one.kind);
        self.queries.inc();
        let new: Vec<(String,)> = on!(Pool, &self.pool, pool => {
            let mut sql = QueryBuilder::new("insert into spent_jti (kind, owner, jti, expires_at) ");
            sql.push_values(&uses, |mut row, one| {
                row.push_bind(one.kind.as_str()).push_bind(&one.owner).push_bind(one.jti.to_vec()).push_bind(one.expires_at.0);
            });
            sql.push(" on conflict do nothing returning kind");
            within(async {
                let mut connection = pool.acquire().await?;
                let inserted = sql.build_query_as().fetch_all(&mut *connection).await;
                if inserted.is_err() {
                    // It may lead to a primary that was demoted.
                    connection.close_on_drop();
                }
                inserted
            })
            .await
        })?;
        let spent = uses.iter().find(|one| !new.iter().any(|(kind,)| kind == one.kind.as_str()));
        Ok(spent.map_or(Spent::New, |one| Spent::Before(one.kind)))
    }

    /// Forgets what had expired before `now`, a small batch at a time with a rest after each: requests spend on the same
    /// disk, and their commits would wait for what a long row of batches writes. Returns how much.
    ///
    /// # Errors
    /// [`StoreError`]; what was forgotten before it stays forgotten.
    pub async fn sweep_spent(&self, now: UnixTime) -> Result<u64, StoreError> {
        let sql = "delete from spent_jti where (kind, owner, jti) in
                   (select kind, owner, jti from spent_jti where expires_at < $1 order by expires_at limit 500)";
        let mut swept = 0;
        loop {
            self.queries.inc();
            let rows = on!(Pool, &self.pool, pool => {
                within(async { Ok(sqlx::query(sql).bind(now.0).execute(pool).await?.rows_affected()) }).await
            })?;
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

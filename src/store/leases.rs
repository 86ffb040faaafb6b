//! Work that one replica does for all: its lease, and the deletion of notes that every replica has read.

use super::changes::ChangeReader;
use super::spent::REST;
use super::statement::args;
use super::{Store, StoreError};
use crate::model::time::UnixTime;

impl ChangeReader {
    /// Returns the end of the last lease of `work`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_of_lease(&mut self, work: &str) -> Result<Option<UnixTime>, StoreError> {
        Ok(first_end(&self.fetch(END_OF_LEASE, &args![work]).await?))
    }
}

impl Store {
    /// Takes the lease of `work` for `holder`, or renews it, until `until`. `Ok(false)` when another holds it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_lease(
        &self,
        work: &str,
        holder: &str,
        now: UnixTime,
        until: UnixTime,
    ) -> Result<bool, StoreError> {
        let sql = "insert into lease (work, holder, until) values ($1, $2, $3)
                   on conflict (work) do update set holder = excluded.holder, until = excluded.until
                   where lease.until < $4 or lease.holder = excluded.holder";
        Ok(self.execute(sql, &args![work, holder, until, now]).await? > 0)
    }

    /// Returns the end of the last lease of `work`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_of_lease(&self, work: &str) -> Result<Option<UnixTime>, StoreError> {
        Ok(first_end(&self.fetch(END_OF_LEASE, &args![work]).await?))
    }

    /// Records that a replica tells `what` of `work`, which counts from `at`. `Ok(false)` when a replica has told that, or
    /// something later. The row is a lease that is over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_notice(&self, work: &str, what: &str, at: UnixTime) -> Result<bool, StoreError> {
        let sql = "insert into lease (work, holder, until) values ($1, $2, $3)
                   on conflict (work) do update set holder = excluded.holder, until = excluded.until
                   where lease.until < excluded.until";
        Ok(self.execute(sql, &args![work, what, at]).await? > 0)
    }

    /// Deletes the notes of changes up to a revision, which every live replica has read. A replica that holds an older
    /// revision finds one note that everything has changed. Works in small batches with pauses, since a change of the
    /// same id waits for a batch.
    ///
    /// # Errors
    /// [`StoreError`]; notes that were deleted before the error stay deleted.
    pub async fn forget_changes(&self, through: i64) -> Result<u64, StoreError> {
        let sql = "insert into registry_change (kind, id, revision) values ('all', '', $1)
                   on conflict (kind, id) do update set revision = excluded.revision
                   where registry_change.revision < excluded.revision";
        self.execute(sql, &args![through]).await?;
        let sql = "delete from registry_change where revision <= $1 and kind <> 'all' and (kind, id) in
                   (select kind, id from registry_change where revision <= $1 and kind <> 'all' order by revision limit $2)";
        let mut deleted = 0;
        loop {
            let rows = self.execute(sql, &args![through, AT_ONCE]).await?;
            deleted += rows;
            if i64::try_from(rows).is_ok_and(|rows| rows < AT_ONCE) {
                return Ok(deleted);
            }
            tokio::time::sleep(REST / 5).await;
        }
    }
}

fn first_end(rows: &[(i64,)]) -> Option<UnixTime> {
    rows.first().map(|(until,)| UnixTime(*until))
}

const END_OF_LEASE: &str = "select until from lease where work = $1";
/// The work of the replica that sweeps, which holds the lease as long as it lives.
pub const SWEEP: &str = "sweep";
/// Notes that one statement deletes.
const AT_ONCE: i64 = 2000;

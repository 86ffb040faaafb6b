//! Checks of `grantd doctor` on the database: each table, a write, and locks of other sessions.

use crate::model::time::UnixTime;
use crate::protocol::status_list::MANY_REVOKED;
use crate::store::{Store, StoreError};

/// Returns the faults of the database, each as a line.
pub(super) async fn examine(store: &Store) -> Result<Vec<String>, StoreError> {
    let mut faults = Vec::new();
    for (table, fault) in store.unreadable_tables().await? {
        faults.push(format!("table {table}: {fault}"));
    }
    for table in store.tables_with_row_security().await? {
        faults.push(format!(
            "table {table}: row level security hides rows from this role; `alter table {table} disable row level security`, or give the role bypassrls"
        ));
    }
    if let Err(fault) = store.try_write().await {
        faults.push(format!("writing: {fault}"));
    }
    for holder in store.lock_holders().await? {
        faults.push(format!(
            "locks: {holder} blocks other writers; end that transaction, or run `select pg_terminate_backend(pid)`"
        ));
    }
    Ok(faults)
}

/// Returns advice about tokens that were revoked one by one, which every verifier of a status list fetches.
pub(super) async fn advice(store: &Store, now: UnixTime) -> Result<Option<String>, StoreError> {
    let revoked = store.revoked_tokens(now).await?;
    let is_many = usize::try_from(revoked).is_ok_and(|revoked| revoked > MANY_REVOKED);
    Ok(is_many.then(|| {
        format!("status list: it has the ids of {revoked} revoked tokens; `grantd client revoke-tokens CLIENT` revokes many at once")
    }))
}

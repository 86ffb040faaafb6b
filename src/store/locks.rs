//! Locks of other sessions, named in messages, and the lock file of processes that migrate an embedded database.

use std::fs::File;

use super::seeds::SeedFault;
use super::statement::{Value, args};
use super::{Database, Pool, Store, StoreError};
use crate::model::time::UnixTime;

impl Store {
    /// Returns, as text for the operator, the sessions that have held a lock on a table of grantd, other than for
    /// reading, for more than a second. Empty with SQLite, which does not report them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lock_holders(&self) -> Result<Vec<String>, StoreError> {
        let sql = "select distinct a.pid::bigint, a.usename::text, a.application_name::text, a.state::text,
                          floor(extract(epoch from a.xact_start))::bigint
                   from pg_locks l
                   join pg_class c on c.oid = l.relation
                   join pg_class ours on ours.oid = to_regclass('registry_revision') and ours.relnamespace = c.relnamespace
                   join pg_stat_activity a on a.pid = l.pid
                   where l.granted and l.mode not in ('AccessShareLock', 'ShareUpdateExclusiveLock')
                     and a.pid <> pg_backend_pid() and a.xact_start < clock_timestamp() - interval '1 second'
                   order by 5, 1";
        self.holders(sql, &[]).await
    }

    /// Returns the sessions that hold locks, or else the database's message.
    pub(super) async fn lock_holders_or(&self, said: String) -> String {
        match self.lock_holders().await {
            Ok(holders) if !holders.is_empty() => holders.join("; "),
            Ok(_) => said,
            Err(error) => format!("{said}; the holder is not known: {error}"),
        }
    }

    /// Returns the sessions that the session `pid` waits for (`pg_blocking_pids`).
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn blockers_of(&self, pid: i64) -> Result<Vec<String>, StoreError> {
        let sql = "select distinct a.pid::bigint, a.usename::text, a.application_name::text, a.state::text,
                          floor(extract(epoch from a.xact_start))::bigint
                   from unnest(pg_blocking_pids($1::bigint::int)) as blocker
                   join pg_stat_activity a on a.pid = blocker order by 5, 1";
        self.holders(sql, &args![pid]).await
    }

    async fn holders(&self, sql: &'static str, values: &[Value]) -> Result<Vec<String>, StoreError> {
        type Holder = (i64, Option<String>, Option<String>, Option<String>, Option<i64>);
        if matches!(self.pool, Pool::Sqlite(..)) {
            return Ok(Vec::new());
        }
        let holders: Vec<Holder> = self.fetch(sql, values).await?;
        let text = |(pid, user, application, state, since): Holder| {
            let mut text = format!("pid {pid}");
            // Null unless the role is in pg_read_all_stats or the session is its own.
            for (name, value) in [("user", user), ("application", application), ("state", state)] {
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    text.push_str(&format!(", {name} {value}"));
                }
            }
            if let Some(since) = since {
                text.push_str(&format!(", in a transaction since {}", UnixTime(since)));
            }
            text
        };
        Ok(holders.into_iter().map(text).collect())
    }
}

/// Waits for a lock on a file beside an embedded database. Dropping the file releases the lock.
pub(super) async fn lock_beside(database: &Database) -> Result<Option<File>, SeedFault> {
    let Database::Sqlite(path) = database else { return Ok(None) };
    let path = path.with_extension("lock");
    let fault = |error: std::io::Error| SeedFault { path: path.display().to_string(), reason: error.to_string() };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(fault)?;
    let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await.map_err(std::io::Error::other);
    locked.and_then(|locked| locked).map(Some).map_err(fault)
}

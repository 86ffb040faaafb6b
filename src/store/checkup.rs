//! Checks for `grantd doctor`: whether each table can be read, whether rows are hidden, whether a write succeeds.

use sqlx::AssertSqlSafe;

use super::session::{Session, within};
use super::statement::args;
use super::{Pool, Refusal, Store, StoreError, on, transaction};
use crate::model::time::UnixTime;

impl Store {
    /// Returns grantd's tables that cannot be read, each with its error.
    ///
    /// # Errors
    /// [`StoreError`] when there is no connection.
    pub async fn unreadable_tables(&self) -> Result<Vec<(&'static str, StoreError)>, StoreError> {
        let mut session = self.session().await?;
        let mut faults = Vec::new();
        for table in self.tables() {
            let sql = AssertSqlSafe(format!("select 1 from {table} limit 1"));
            let read = within(async {
                on!(Session, &mut session, connection => sqlx::raw_sql(sql).execute(connection).await.map(drop))
            });
            match read.await {
                Ok(()) => {}
                Err(fault) if fault.is_outage() => return Err(fault),
                Err(fault) => faults.push((table, fault)),
            }
        }
        session.close().await;
        Ok(faults)
    }

    /// Returns grantd's tables whose rows a row level security policy may hide from this role. Empty with SQLite, which
    /// has no policies.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tables_with_row_security(&self) -> Result<Vec<&'static str>, StoreError> {
        let mut active = Vec::new();
        if matches!(self.pool, Pool::Postgres(..)) {
            for table in self.tables() {
                let sql = "select count(*) from pg_class where oid = to_regclass($1) and row_security_active(oid)";
                let counts: Vec<(i64,)> = self.fetch(sql, &args![table]).await?;
                if counts.first().is_some_and(|(count,)| *count > 0) {
                    active.push(table);
                }
            }
        }
        Ok(active)
    }

    /// Returns the number of verifiers of live secrets under each verifier key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn verifiers_by_key(&self, now: UnixTime) -> Result<Vec<(String, i64)>, StoreError> {
        let sql = "select substr(verifier, 1, 8), count(*) from client_secret
                   where verifier is not null and revoked_at is null and (expires_at is null or expires_at > $1)
                   group by substr(verifier, 1, 8)";
        self.fetch(sql, &args![now]).await
    }

    /// Writes a row, and rolls the transaction back.
    ///
    /// # Errors
    /// The error of the write.
    pub async fn try_write(&self) -> Result<(), StoreError> {
        let undone = transaction!(self, |tx| {
            tx.take_turn().await?;
            let sql = "insert into spent_jti (kind, owner, jti, expires_at) values ('assertion', 'doctor', $1, 0)";
            tx.execute(sql, &args![b"doctor".as_slice()]).await?;
            Err::<(), _>(StoreError::Refused(Refusal::Trial))
        });
        match undone {
            Ok(()) | Err(StoreError::Refused(Refusal::Trial)) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Returns the tables of the schema, in its order.
    pub(super) fn tables(&self) -> impl Iterator<Item = &'static str> + use<> {
        let sql = self.schema_sql();
        sql.into_iter()
            .flat_map(|sql| sql.lines())
            .filter_map(|line| line.strip_prefix("create table ")?.split_whitespace().next())
    }
}

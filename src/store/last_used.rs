//! Times at which credentials of clients were last used, written in batches.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::AssertSqlSafe;

use super::session::Row;
use super::statement::{Value, args, placeholders};
use super::{Store, StoreError};
use crate::model::time::UnixTime;

/// Last-used times to be written.
#[derive(Debug, Default)]
pub struct LastUsedTimes {
    /// Of secrets, by id.
    pub secrets: Vec<(Arc<str>, UnixTime)>,
    /// Of keys, by client and `kid`.
    pub keys: Vec<(String, Arc<str>, UnixTime)>,
    /// Of certificates, by the id of the registration.
    pub certificates: Vec<(Arc<str>, UnixTime)>,
    /// Of federation rules, by id.
    pub rules: Vec<(Arc<str>, UnixTime)>,
}

impl Store {
    /// Writes last-used times. Replicas write the same rows, so the latest time is kept.
    ///
    /// # Errors
    /// [`StoreError`]; rows that were written before the error stay written, and writing again is harmless.
    pub async fn record_last_used(&self, uses: &LastUsedTimes) -> Result<(), StoreError> {
        // The join skips credentials that were deleted meanwhile.
        let secrets = |values: &str| {
            format!(
                "insert into client_secret_use (secret_id, last_used_at) select v.column1, v.column2 from (values {values})
                 as v join client_secret s on s.secret_id = v.column1 where true
                 on conflict (secret_id) do update set last_used_at = excluded.last_used_at
                 where client_secret_use.last_used_at < excluded.last_used_at"
            )
        };
        let keys = |values: &str| {
            format!(
                "insert into client_key_use (client_id, kid, last_used_at)
                 select v.column1, v.column2, v.column3 from (values {values})
                 as v join client_key k on k.client_id = v.column1 and k.kid = v.column2 where true
                 on conflict (client_id, kid) do update set last_used_at = excluded.last_used_at
                 where client_key_use.last_used_at < excluded.last_used_at"
            )
        };
        let certificates = |values: &str| {
            format!(
                "insert into client_certificate_use (cert_id, last_used_at) select v.column1, v.column2 from (values {values})
                 as v join client_certificate c on c.cert_id = v.column1 where true
                 on conflict (cert_id) do update set last_used_at = excluded.last_used_at
                 where client_certificate_use.last_used_at < excluded.last_used_at"
            )
        };
        let rules = |values: &str| {
            format!(
                "insert into client_federation_use (rule_id, last_used_at) select v.column1, v.column2 from (values {values})
                 as v join client_federation r on r.rule_id = v.column1 where true
                 on conflict (rule_id) do update set last_used_at = excluded.last_used_at
                 where client_federation_use.last_used_at < excluded.last_used_at"
            )
        };
        self.in_batches(&uses.rules, rules, |(id, at)| args![&**id, *at]).await?;
        self.in_batches(&uses.secrets, secrets, |(id, at)| args![&**id, *at]).await?;
        self.in_batches(&uses.keys, keys, |(client_id, kid, at)| args![client_id, &**kid, *at]).await?;
        self.in_batches(&uses.certificates, certificates, |(id, at)| args![&**id, *at]).await?;
        Ok(())
    }

    /// Writes rows in batches. `sql` makes the statement around a list of values, `values` the values of a row.
    async fn in_batches<T, const COLUMNS: usize>(
        &self,
        rows: &[T],
        sql: impl Fn(&str) -> String,
        values: impl Fn(&T) -> [Value; COLUMNS],
    ) -> Result<(), StoreError> {
        for batch in rows.chunks(BATCH) {
            let sql = sql(&placeholders(batch.len(), COLUMNS));
            let values: Vec<Value> = batch.iter().flat_map(&values).collect();
            let _none: Vec<(i64,)> = self.write_returning(AssertSqlSafe(sql), &values).await?;
        }
        Ok(())
    }

    /// Returns the last-used times of the keys of some clients, by client and `kid`, to within half a minute.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keys_last_used(&self, client_ids: &[&str]) -> Result<HashMap<(String, String), UnixTime>, StoreError> {
        let sql = "select client_id, kid, last_used_at from client_key_use where client_id in ";
        let rows: Vec<(String, String, i64)> = self.of_clients(sql, client_ids).await?;
        Ok(rows.into_iter().map(|(client_id, kid, at)| ((client_id, kid), UnixTime(at))).collect())
    }

    /// Returns the last-used times of the certificates of some clients, by registration id, to within half a minute.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn certificates_last_used(&self, client_ids: &[&str]) -> Result<HashMap<String, UnixTime>, StoreError> {
        let sql = "select u.cert_id, u.last_used_at from client_certificate_use u
                   join client_certificate c on c.cert_id = u.cert_id where c.client_id in ";
        let rows: Vec<(String, i64)> = self.of_clients(sql, client_ids).await?;
        Ok(rows.into_iter().map(|(id, at)| (id, UnixTime(at))).collect())
    }

    /// Returns when any credential of each client, from one id to another, was last used, to within half a minute. Clients
    /// of whose credentials no use is recorded are left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clients_last_used(&self, first: &str, last: &str) -> Result<HashMap<String, UnixTime>, StoreError> {
        let sql = "select client_id, max(last_used_at) from (
                       select s.client_id, u.last_used_at from client_secret s
                       join client_secret_use u on u.secret_id = s.secret_id where s.client_id >= $1 and s.client_id <= $2
                       union all
                       select client_id, last_used_at from client_key_use where client_id >= $1 and client_id <= $2
                       union all
                       select c.client_id, u.last_used_at from client_certificate c
                       join client_certificate_use u on u.cert_id = c.cert_id where c.client_id >= $1 and c.client_id <= $2
                   ) as uses group by client_id";
        let rows: Vec<(String, i64)> = self.fetch(sql, &args![first, last]).await?;
        Ok(rows.into_iter().map(|(client_id, at)| (client_id, UnixTime(at))).collect())
    }

    /// Reads rows of some clients in batches. `sql` ends where the list of ids begins.
    pub(super) async fn of_clients<R: Row>(
        &self,
        sql: &'static str,
        client_ids: &[&str],
    ) -> Result<Vec<R>, StoreError> {
        let mut rows = Vec::new();
        for ids in client_ids.chunks(BATCH) {
            let sql = AssertSqlSafe(format!("{sql}{}", placeholders(1, ids.len())));
            rows.extend(self.fetch(sql, &ids.iter().copied().map(Value::from).collect::<Vec<_>>()).await?);
        }
        Ok(rows)
    }
}

/// Rows in one statement.
const BATCH: usize = 500;

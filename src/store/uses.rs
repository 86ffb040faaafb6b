//! When secrets, keys and certificates of clients were last used, written down in batches.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::QueryBuilder;

use super::{Pool, Store, StoreError, on, within};
use crate::model::client::Client;
use crate::model::time::UnixTime;

/// Uses to be written down.
#[derive(Debug, Default)]
pub struct Uses {
    /// Of secrets, by id.
    pub secrets: Vec<(Arc<str>, UnixTime)>,
    /// Of keys, by client and `kid`.
    pub keys: Vec<(String, Arc<str>, UnixTime)>,
    /// Of certificates, by the id of their registration.
    pub certificates: Vec<(Arc<str>, UnixTime)>,
}

impl Uses {
    /// What was used since `since`. Replicas write the same rows: in one order, they cannot wait for each other in a circle.
    #[must_use]
    pub fn since<'a>(clients: impl Iterator<Item = &'a Arc<Client>>, since: UnixTime) -> Self {
        let mut uses = Self::default();
        let lately = |at: Option<UnixTime>| at.filter(|at| *at >= since);
        for client in clients {
            for secret in &client.secrets {
                uses.secrets.extend(lately(secret.seen.last_used()).map(|at| (Arc::clone(&secret.secret_id), at)));
            }
            for key in &client.keys {
                let at = lately(key.used.at());
                uses.keys.extend(at.map(|at| (client.client_id.to_string(), Arc::clone(&key.kid), at)));
            }
            for one in &client.certificates {
                uses.certificates.extend(lately(one.used.at()).map(|at| (Arc::clone(&one.cert_id), at)));
            }
        }
        uses.secrets.sort();
        uses.keys.sort();
        uses.certificates.sort();
        uses
    }
}

/// Writes uses in batches: a list of values between the two halves of a statement.
macro_rules! in_batches {
    ($store:expr, $uses:expr, $head:literal, $tail:literal, $bind:expr) => {
        for batch in $uses.chunks(BATCH) {
            $store.queries.inc();
            on!(Pool, &$store.pool, pool => {
                let mut sql = QueryBuilder::new($head);
                sql.push_values(batch, $bind);
                sql.push($tail);
                within(async { sql.build().execute(pool).await }).await.map(drop)
            })?;
        }
    };
}

impl Store {
    /// Notes when credentials were last used. Replicas write side by side, so the latest time stays.
    ///
    /// # Errors
    /// [`StoreError`]; what was written before it stays written, and writing again is harmless.
    pub async fn note_uses(&self, uses: &Uses) -> Result<(), StoreError> {
        // Joining what is registered skips what was deleted meanwhile.
        in_batches!(
            self,
            uses.secrets,
            "insert into client_secret_use (secret_id, last_used_at) select v.column1, v.column2 from (",
            ") as v join client_secret s on s.secret_id = v.column1 where true
             on conflict (secret_id) do update set last_used_at = excluded.last_used_at
             where client_secret_use.last_used_at < excluded.last_used_at",
            |mut row, (id, at)| {
                row.push_bind(&**id).push_bind(at.0);
            }
        );
        in_batches!(
            self,
            uses.keys,
            "insert into client_key_use (client_id, kid, last_used_at) select v.column1, v.column2, v.column3 from (",
            ") as v join client_key k on k.client_id = v.column1 and k.kid = v.column2 where true
             on conflict (client_id, kid) do update set last_used_at = excluded.last_used_at
             where client_key_use.last_used_at < excluded.last_used_at",
            |mut row, (client_id, kid, at)| {
                row.push_bind(client_id).push_bind(&**kid).push_bind(at.0);
            }
        );
        in_batches!(
            self,
            uses.certificates,
            "insert into client_certificate_use (cert_id, last_used_at) select v.column1, v.column2 from (",
            ") as v join client_certificate c on c.cert_id = v.column1 where true
             on conflict (cert_id) do update set last_used_at = excluded.last_used_at
             where client_certificate_use.last_used_at < excluded.last_used_at",
            |mut row, (id, at)| {
                row.push_bind(&**id).push_bind(at.0);
            }
        );
        Ok(())
    }

    /// When keys were last used, by client and `kid`, to within half a minute.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn key_uses(&self) -> Result<HashMap<(String, String), UnixTime>, StoreError> {
        type Row = (String, String, i64);
        let sql = "select client_id, kid, last_used_at from client_key_use";
        self.queries.inc();
        let rows: Vec<Row> = on!(Pool, &self.pool, pool => within(sqlx::query_as(sql).fetch_all(pool)).await)?;
        Ok(rows.into_iter().map(|(client_id, kid, at)| ((client_id, kid), UnixTime(at))).collect())
    }

    /// When certificates were last used, by the id of their registration, to within half a minute.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn certificate_uses(&self) -> Result<HashMap<String, UnixTime>, StoreError> {
        let sql = "select cert_id, last_used_at from client_certificate_use";
        self.queries.inc();
        let rows: Vec<(String, i64)> =
            on!(Pool, &self.pool, pool => within(sqlx::query_as(sql).fetch_all(pool)).await)?;
        Ok(rows.into_iter().map(|(id, at)| (id, UnixTime(at))).collect())
    }
}

/// How many uses go into one statement.
const BATCH: usize = 500;

//! Revoked tokens at rest: single ones, and the moments before which all count for nothing.

use super::spent::{BATCH, REST};
use super::{Pool, Store, StoreError, on, within};
use crate::model::time::UnixTime;
use crate::model::token_id::TokenId;

pub(super) type RevokedRow = (String, i64);

impl Store {
    /// Notes that a token is revoked, for as long as it would have lived.
    ///
    /// # Errors
    /// [`StoreError`]: the token must be taken to be live.
    pub async fn revoke_token(
        &self,
        jti: &TokenId,
        client_id: &str,
        expires_at: UnixTime,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let sql = "insert into revoked_token (jti, client_id, expires_at, revoked_at)
                   select $1, $2, $3, $4 where not exists (select 1 from revoked_token where jti = $1)
                   on conflict (jti) do nothing";
        self.queries.inc();
        on!(Pool, &self.pool, pool => {
            within(async {
                let mut connection = pool.acquire().await?;
                let insert = sqlx::query(sql).bind(jti.to_string()).bind(client_id).bind(expires_at.0).bind(now.0);
                let inserted = insert.execute(&mut *connection).await;
                if inserted.is_err() {
                    // It may lead to a primary that was demoted.
                    connection.close_on_drop();
                }
                inserted.map(drop)
            }).await
        })
    }

    /// Takes away the rows of tokens that had ended before `ended`, and of clients whose last token had, a small batch at a
    /// time and with rests, so that no request waits for it. Returns how many there were.
    ///
    /// # Errors
    /// [`StoreError`]; what was taken away before it stays away.
    pub async fn sweep_revoked_tokens(&self, ended: UnixTime) -> Result<u64, StoreError> {
        let tokens = "delete from revoked_token
                      where jti in (select jti from revoked_token where expires_at < $1 order by expires_at limit 500)";
        let clients = "delete from deleted_client
                       where client_id in (select client_id from deleted_client where deleted_at < $1 limit 500)";
        let mut swept = 0;
        for (sql, before) in [(tokens, ended.0), (clients, ended.0 - LONGEST_TTL)] {
            loop {
                self.queries.inc();
                let rows = on!(Pool, &self.pool, pool => {
                    within(async { Ok(sqlx::query(sql).bind(before).execute(pool).await?.rows_affected()) }).await
                })?;
                swept += rows;
                if rows < BATCH {
                    break;
                }
                tokio::time::sleep(REST).await;
            }
        }
        Ok(swept)
    }

    /// Revokes what a client was issued until `at`. It never takes back an earlier call. `Ok(false)` when there is no
    /// such client.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_tokens_of(&self, client_id: &str, at: UnixTime) -> Result<bool, StoreError> {
        let sql =
            "update client set not_before = case when not_before < $2 then $2 else not_before end where client_id = $1";
        self.queries.inc();
        on!(Pool, &self.pool, pool => {
            within(async { Ok(sqlx::query(sql).bind(client_id).bind(at.0).execute(pool).await?.rows_affected()) }).await
        })
        .map(|rows| rows > 0)
    }

    /// Revokes what all clients were issued until `at`. It never takes back an earlier call.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_all_tokens(&self, at: UnixTime) -> Result<(), StoreError> {
        let sql = "insert into token_cutoff (only_row, not_before) values (1, $1)
                   on conflict (only_row) do update set not_before = case
                       when token_cutoff.not_before < excluded.not_before then excluded.not_before
                       else token_cutoff.not_before end";
        self.queries.inc();
        on!(Pool, &self.pool, pool => within(async { sqlx::query(sql).bind(at.0).execute(pool).await }).await.map(drop))
    }
}

/// No token lives longer, in seconds.
const LONGEST_TTL: i64 = 86400;

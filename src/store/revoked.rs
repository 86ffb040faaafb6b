//! Stored revocations: single tokens, and cut-offs.

use super::spent::{BATCH, REST};
use super::statement::args;
use super::{Store, StoreError};
use crate::model::time::UnixTime;
use crate::model::token_id::TokenId;

impl Store {
    /// Records the revocation of a token until its expiry.
    ///
    /// # Errors
    /// [`StoreError`]; the token is then not revoked.
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
        self.execute(sql, &args![jti.to_string(), client_id, expires_at, now]).await.map(drop)
    }

    /// Whether a token of this `jti` was revoked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_token_revoked(&self, jti: &str) -> Result<bool, StoreError> {
        let rows: Vec<(i64,)> = self.fetch("select expires_at from revoked_token where jti = $1", &args![jti]).await?;
        Ok(!rows.is_empty())
    }

    /// Returns the cut-off of the tokens of all clients.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn token_cutoff(&self) -> Result<Option<UnixTime>, StoreError> {
        let rows: Vec<(i64,)> = self.fetch("select not_before from token_cutoff", &[]).await?;
        Ok(rows.first().map(|(at,)| UnixTime(*at)))
    }

    /// Deletes the rows of tokens that expired before `ended`, and of deleted clients whose last token has expired.
    /// Works in small batches with pauses, so that no request waits for it. Returns the number of deleted rows.
    ///
    /// # Errors
    /// [`StoreError`]; rows that were deleted before the error stay deleted.
    pub async fn sweep_revoked_tokens(&self, ended: UnixTime) -> Result<u64, StoreError> {
        let tokens = "delete from revoked_token
                      where jti in (select jti from revoked_token where expires_at < $1 order by expires_at limit 500)";
        let clients = "delete from deleted_client
                       where client_id in (select client_id from deleted_client where deleted_at < $1 limit 500)";
        let mut swept = 0;
        for (sql, before) in [(tokens, ended.0), (clients, ended.0 - LONGEST_TTL)] {
            loop {
                let rows = self.execute(sql, &args![before]).await?;
                swept += rows;
                if rows < BATCH {
                    break;
                }
                tokio::time::sleep(REST).await;
            }
        }
        Ok(swept)
    }

    /// Revokes the tokens that a client was issued until `at`. The cut-off never moves back. `Ok(false)` when the
    /// client does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_tokens_of(&self, client_id: &str, at: UnixTime) -> Result<bool, StoreError> {
        let sql =
            "update client set not_before = case when not_before < $2 then $2 else not_before end where client_id = $1";
        Ok(self.execute(sql, &args![client_id, at]).await? > 0)
    }

    /// Revokes the tokens that all clients were issued until `at`. The cut-off never moves back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_all_tokens(&self, at: UnixTime) -> Result<(), StoreError> {
        let sql = "insert into token_cutoff (only_row, not_before) values (1, $1)
                   on conflict (only_row) do update set not_before = case
                       when token_cutoff.not_before < excluded.not_before then excluded.not_before
                       else token_cutoff.not_before end";
        self.execute(sql, &args![at]).await.map(drop)
    }
}

/// Longest lifetime of a token, in seconds.
const LONGEST_TTL: i64 = 86400;

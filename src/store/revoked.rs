//! Stored revocations: single tokens, cut-offs, and the status indices whose epoch has ended.

use std::sync::Arc;

use sqlx::AssertSqlSafe;

use super::spent::{BATCH, REST};
use super::statement::{Value, args, placeholders};
use super::write_queue::{WriteQueue, padded};
use super::{Store, StoreError, transaction};
use crate::model::status::{EndedEpochs, LIST_BITS, StatusIndex};
use crate::model::time::UnixTime;
use crate::model::token_id::TokenId;

/// Revocation of one token.
#[derive(Debug, Clone)]
pub struct RevokedToken {
    /// The token's id.
    pub jti: TokenId,
    /// The client that the token was issued to.
    pub client_id: String,
    /// Expiry of the token.
    pub expires_at: UnixTime,
    /// Time of revocation.
    pub revoked_at: UnixTime,
}

/// Revocations that wait for the next batched insert.
pub(super) type RevocationQueue = WriteQueue<RevokedToken, ()>;

impl Store {
    /// Records the revocation of a token until its expiry, in one insert with concurrent ones.
    ///
    /// # Errors
    /// [`StoreError`], shared with concurrent revocations. Whether the token is revoked is unknown.
    pub async fn revoke_in_batch(&self, token: RevokedToken) -> Result<(), Arc<StoreError>> {
        let revoke = |store: Self, batch: Vec<RevokedToken>| async move {
            store.insert_revoked(&batch).await?;
            Ok(vec![(); batch.len()])
        };
        self.write_together(|store| &store.revocation_queue, token, revoke).await
    }

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
        self.insert_revoked(&[RevokedToken { jti: *jti, client_id: client_id.into(), expires_at, revoked_at: now }])
            .await
    }

    /// Inserts the rows of a batch. A token that is revoked already keeps its row.
    async fn insert_revoked(&self, batch: &[RevokedToken]) -> Result<(), StoreError> {
        let mut tokens: Vec<&RevokedToken> = batch.iter().collect();
        // Sorted, so that two replicas that revoke the same tokens cannot deadlock.
        tokens.sort_by_key(|token| token.jti);
        tokens.dedup_by_key(|token| token.jti);
        let rows: Vec<&RevokedToken> = padded(&tokens).collect();
        let sql = format!(
            "insert into revoked_token (jti, client_id, expires_at, revoked_at)
             select column1, column2, column3, column4 from (values {}) as v
             where not exists (select 1 from revoked_token where jti = column1)
             on conflict (jti) do nothing returning jti",
            placeholders(rows.len(), 4),
        );
        let values = |one: &&RevokedToken| args![one.jti.to_string(), &one.client_id, one.expires_at, one.revoked_at];
        let values: Vec<Value> = rows.iter().flat_map(values).collect();
        self.write_returning::<(String,)>(AssertSqlSafe(sql), &values).await.map(drop)
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

    /// Deletes the rows of tokens that expired before `ended`, and of deleted clients and
    /// ended epochs whose last token has expired.
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
        let epochs = "delete from ended_status
                      where first_index in (select first_index from ended_status where ended_at < $1 limit 500)";
        for (sql, before) in [(tokens, ended.0), (clients, ended.0 - LONGEST_TTL), (epochs, ended.0 - 2 * LONGEST_TTL)]
        {
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

    /// Revokes the tokens that a client was issued until `at`, and ends its epoch, also where it had this cut-off already.
    /// The cut-off never moves back. `Ok(false)` when the client does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_tokens_of(&self, client_id: &str, at: UnixTime) -> Result<bool, StoreError> {
        let sql =
            "update client set not_before = case when not_before < $2 then $2 else not_before end, status_index = -1
                   where client_id = $1";
        Ok(self.execute(sql, &args![client_id, at]).await? > 0)
    }

    /// Writes a cut-off of a client again that the database has lost.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn restore_cut_off_of(&self, client_id: &str, at: UnixTime) -> Result<(), StoreError> {
        let sql = "update client set not_before = $2 where client_id = $1 and not_before < $2";
        self.execute(sql, &args![client_id, at]).await.map(drop)
    }

    /// Revokes the tokens that all clients were issued until `at`, and begins a new status list, also where there was this
    /// cut-off already. The cut-off never moves back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_all_tokens(&self, at: UnixTime) -> Result<(), StoreError> {
        let sql = "insert into token_cutoff (only_row, not_before) values (1, $1)
                   on conflict (only_row) do update set not_before = case
                       when token_cutoff.not_before < excluded.not_before then excluded.not_before
                       else token_cutoff.not_before end, status_list = -1";
        self.execute(sql, &args![at]).await.map(drop)
    }

    /// Writes a cut-off of all clients again that the database has lost.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn restore_cut_off(&self, at: UnixTime) -> Result<(), StoreError> {
        let sql = "insert into token_cutoff (only_row, not_before) values (1, $1)
                   on conflict (only_row) do update set not_before = excluded.not_before
                   where token_cutoff.not_before < excluded.not_before";
        self.execute(sql, &args![at]).await.map(drop)
    }

    /// Writes ended epochs again that the database has lost. A client that has the index gets another; behind whole lists
    /// a new list begins, so whole lists are written before the epochs of clients in them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn restore_ended(&self, ended: &EndedEpochs) -> Result<(), StoreError> {
        let insert = "insert into ended_status (first_index, last_index, ended_at) values ($1, $2, $3)
                      on conflict (first_index) do nothing";
        let renew = "update client set status_index = -1 where status_index
                     = $1 - (select coalesce(max(status_list), 0) from token_cutoff) * $2";
        let row = args![ended.first.0, ended.last.0, ended.ended_at];
        let place = args![ended.first.0, 1_i64 << LIST_BITS];
        let begin = "insert into token_cutoff (only_row, not_before, status_list) values (1, 0, $1)
                     on conflict (only_row) do update set status_list = excluded.status_list
                     where token_cutoff.status_list < excluded.status_list";
        let next_list = (ended.first != ended.last).then(|| args![ended.last.list()]);
        transaction!(self, |tx| {
            tx.take_turn().await?;
            if let Some(list) = &next_list {
                tx.execute(begin, list).await?;
            }
            tx.execute(insert, &row).await?;
            tx.execute(renew, &place).await.map(drop)
        })
    }

    /// Whether the epoch of a status index has ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_ended(&self, index: StatusIndex) -> Result<bool, StoreError> {
        let sql = "select count(*) from ended_status where first_index <= $1 and last_index >= $1";
        let counts: Vec<(i64,)> = self.fetch(sql, &args![index.0]).await?;
        Ok(counts.first().is_some_and(|(count,)| *count > 0))
    }

    /// Returns the number of revoked tokens that expire after `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoked_tokens(&self, now: UnixTime) -> Result<i64, StoreError> {
        let sql = "select count(*) from revoked_token where expires_at > $1";
        let counts: Vec<(i64,)> = self.fetch(sql, &args![now]).await?;
        Ok(counts.first().map_or(0, |(count,)| *count))
    }
}

/// Longest lifetime of a token, in seconds.
const LONGEST_TTL: i64 = 86400;

//! Stored tag keys, sealed.

use super::rows::row;
use super::statement::args;
use super::{Store, StoreError, transaction};
use crate::crypto::seal::SealingKey;
use crate::crypto::secret_tag::TagKey;
use crate::model::time::UnixTime;

/// Stored tag key, sealed.
#[derive(Debug, Clone)]
pub struct SealedTagKey {
    /// The key's id.
    pub kid: String,
    /// The bytes of the key, sealed.
    pub sealed: Vec<u8>,
    /// Time of creation.
    pub created_at: UnixTime,
}

row!(
    /// Row of a tag key.
    TagKeyRow of "secret_tag_key" by "order by c.created_at desc, c.kid" { kid: String, sealed: Vec<u8>, created_at: i64 }
);

impl From<TagKeyRow> for SealedTagKey {
    fn from(row: TagKeyRow) -> Self {
        let TagKeyRow { kid, sealed, created_at } = row;
        Self { kid, sealed, created_at: UnixTime(created_at) }
    }
}

impl SealedTagKey {
    /// Generates a key, sealed for its row.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] when generating or sealing fails.
    pub fn generate(under: &SealingKey, now: UnixTime) -> Result<Self, StoreError> {
        let (key, bytes) = TagKey::generate().map_err(|error| malformed("new", &error))?;
        let kid = key.kid().to_string();
        let sealed = under.seal(&context(&kid), &*bytes).map_err(|error| malformed(&kid, &error))?;
        Ok(Self { kid, sealed, created_at: now })
    }

    /// Opens the key, and checks that it has the id of its row.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] with the exact reason.
    pub fn open(&self, under: &SealingKey) -> Result<TagKey, StoreError> {
        let bytes = under.open(&context(&self.kid), &self.sealed).map_err(|error| malformed(&self.kid, &error))?;
        TagKey::from_bytes(&bytes)
            .filter(|key| key.kid().to_string() == self.kid)
            .ok_or_else(|| malformed(&self.kid, &"the key in this row has another name"))
    }

    /// Seals the key under `under`. `None` when it is under that key already.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] when the key opens under neither `under` nor the previous sealing key.
    pub fn resealed(&self, under: &SealingKey) -> Result<Option<Vec<u8>>, StoreError> {
        under.reseal(&context(&self.kid), &self.sealed).map_err(|error| malformed(&self.kid, &error))
    }
}

impl Store {
    /// Returns all tag keys, sealed, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tag_keys(&self) -> Result<Vec<SealedTagKey>, StoreError> {
        let rows: Vec<TagKeyRow> = self.fetch(TagKeyRow::select(""), &[]).await?;
        Ok(rows.into_iter().map(SealedTagKey::from).collect())
    }

    /// Adds a tag key. With `first`, only when there is none yet, so that replicas that start together make one key and
    /// not three. `Ok(false)` when another replica was faster.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_tag_key(&self, key: &SealedTagKey, first: bool) -> Result<bool, StoreError> {
        transaction!(self, |tx| {
            // Serialises concurrent first keys.
            tx.take_turn().await?;
            let wanted = !first || tx.count("select count(*) from secret_tag_key", &[]).await? == 0;
            if wanted {
                let sql = "insert into secret_tag_key (kid, sealed, created_at) values ($1, $2, $3)";
                tx.execute(sql, &args![&key.kid, key.sealed.as_slice(), key.created_at]).await?;
            }
            Ok(wanted)
        })
    }

    /// Replaces the sealed bytes of a tag key, in one statement. `Ok(false)` when the row is no longer as it was read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reseal_tag_key(&self, read: &SealedTagKey, sealed: &[u8]) -> Result<bool, StoreError> {
        let sql = "update secret_tag_key set sealed = $1 where kid = $2 and sealed = $3";
        Ok(self.execute(sql, &args![sealed, &read.kid, read.sealed.as_slice()]).await? > 0)
    }

    /// Removes a tag key. `Ok(false)` when it does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_tag_key(&self, kid: &str) -> Result<bool, StoreError> {
        let sql = "delete from secret_tag_key where kid = $1";
        Ok(self.execute(sql, &args![kid]).await? > 0)
    }
}

/// Returns the context that binds sealed bytes to their row.
fn context(kid: &str) -> String {
    format!("secret_tag_key/{kid}")
}

fn malformed(kid: &str, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Malformed { kind: "secret tag key", id: kid.to_owned(), reason: reason.to_string() }
}

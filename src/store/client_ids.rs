//! Ids of clients, read from the index: those that follow a prefix, those around an id, and those of a list that exist.

use super::statement::args;
use super::{Store, StoreError};

impl Store {
    /// Returns ids in the order of the database, from `first` on, at most `most`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn client_ids_from(&self, first: &str, most: i64) -> Result<Vec<String>, StoreError> {
        let sql = "select client_id from client where client_id >= $1 order by client_id limit $2";
        self.ids(sql, first, most).await
    }

    /// Returns the ids that stand next to `id` in the order of the database, at most `most` on either side.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn client_ids_around(&self, id: &str, most: i64) -> Result<Vec<String>, StoreError> {
        let before = "select client_id from client where client_id < $1 order by client_id desc limit $2";
        let mut ids = self.ids(before, id, most).await?;
        ids.extend(self.client_ids_from(id, most).await?);
        Ok(ids)
    }

    /// Returns those of some ids that are clients.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn client_ids_among(&self, ids: &[&str]) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> = self.of_clients("select client_id from client where client_id in ", ids).await?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    async fn ids(&self, sql: &'static str, id: &str, most: i64) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> = self.fetch(sql, &args![id, most]).await?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }
}

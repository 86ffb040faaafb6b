//! The database's clock, which decides for all replicas what has expired.

use super::{Pool, Store, StoreError};
use crate::model::time::UnixTime;

/// SQL for the present second, and not the second in which the transaction began.
macro_rules! postgres_clock {
    () => {
        "floor(extract(epoch from clock_timestamp()))::bigint"
    };
}

impl Store {
    /// Returns the time by the database's clock, which decides for all replicas what has expired.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn now(&self) -> Result<UnixTime, StoreError> {
        let sql = match &self.pool {
            Pool::Postgres(..) => concat!("select ", postgres_clock!()),
            Pool::Sqlite(..) => "select unixepoch()",
        };
        let rows: Vec<(i64,)> = self.fetch(sql, &[]).await?;
        Ok(UnixTime(rows.first().map_or(0, |(now,)| *now)))
    }

    /// SQL expression for the present second by the database's clock.
    pub(crate) fn clock_sql(&self) -> &'static str {
        match &self.pool {
            Pool::Postgres(..) => postgres_clock!(),
            Pool::Sqlite(..) => "unixepoch()",
        }
    }
}

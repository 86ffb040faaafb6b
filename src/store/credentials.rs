//! Credentials of the database that are rotated while the server runs.

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use super::session::within;
use super::{Pool, Store, StoreError};

impl Store {
    /// Connects as `options` say from now on, once the database has taken them. Only credentials may change: another
    /// database would be another registry.
    ///
    /// # Errors
    /// [`StoreError`]; what is in use stays in use.
    pub async fn connect_as(&self, options: &PgConnectOptions) -> Result<(), StoreError> {
        let Pool::Postgres(pool) = &self.pool else { return Ok(()) };
        let now = pool.connect_options();
        let place = |options: &PgConnectOptions| {
            let (host, database) = (options.get_host().to_owned(), options.get_database().map(str::to_owned));
            (host, options.get_port(), options.get_socket().cloned(), database)
        };
        if place(&now) != place(options) {
            return Err(StoreError::Refused("it names another host or database, which takes a restart".to_owned()));
        }
        let options = ours(options);
        within(async { options.connect().await?.close().await }).await?;
        pool.set_connect_options(options);
        Ok(())
    }
}

/// Options as every connection has them.
pub(super) fn ours(options: &PgConnectOptions) -> PgConnectOptions {
    let name = options.get_application_name().unwrap_or("grantd");
    options.clone().application_name(name).disable_statement_logging()
}

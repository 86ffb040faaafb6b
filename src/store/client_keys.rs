//! Public keys of clients, for `private_key_jwt`.

use std::sync::Arc;

use super::{Pool, Session, Store, StoreError, begin, on, within};
use crate::crypto::verifying_key::VerifyingKey;
use crate::model::credential::StoredKey;
use crate::model::time::UnixTime;

pub(super) type KeyRow = (String, String, String, i64, Option<i64>);

impl Store {
    /// Registers keys of a client, all or none.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when there is no such client, it has a `jwks_uri`, or a key of that `kid` already.
    pub async fn add_client_keys(&self, client_id: &str, keys: &[StoredKey]) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        self.queries.inc_by(2 + u64::try_from(keys.len()).unwrap_or(0));
        let has_uri = within(async {
            on!(Session, &mut session, connection => {
                let mut tx = begin!(connection).await?;
                // The row lock makes whoever sets a jwks_uri wait until this is decided.
                sqlx::query("update registry_revision set revision = revision").execute(&mut *tx).await?;
                let (has_uri,): (i64,) =
                    sqlx::query_as("select count(*) from client where client_id = $1 and jwks_uri is not null")
                        .bind(client_id).fetch_one(&mut *tx).await?;
                for stored in keys.iter().filter(|_| has_uri == 0) {
                    sqlx::query("insert into client_key (client_id, kid, jwk, created_at, expires_at) values ($1, $2, $3, $4, $5)")
                        .bind(client_id).bind(&*stored.kid).bind(jwk(&stored.key)).bind(stored.created_at.0)
                        .bind(stored.expires_at.map(|at| at.0))
                        .execute(&mut *tx).await?;
                }
                tx.commit().await?;
                Ok(has_uri > 0)
            })
        })
        .await?;
        session.close().await;
        if has_uri { Err(StoreError::Refused(KEYS_OR_URI.to_owned())) } else { Ok(()) }
    }

    /// Removes a key. `Ok(false)` when the client has none of that `kid`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_client_key(&self, client_id: &str, kid: &str) -> Result<bool, StoreError> {
        let sql = "delete from client_key where client_id = $1 and kid = $2";
        self.queries.inc();
        on!(Pool, &self.pool, pool => {
            within(async { Ok(sqlx::query(sql).bind(client_id).bind(kid).execute(pool).await?.rows_affected()) }).await
        })
        .map(|rows| rows > 0)
    }

    /// Sets where a client publishes its keys, or takes that away. `Ok(false)` when there is no client of that id.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when it has keys registered here.
    pub async fn set_jwks_uri(&self, client_id: &str, jwks_uri: Option<&str>) -> Result<bool, StoreError> {
        let mut session = self.session().await?;
        self.queries.inc_by(3);
        let (found, keys) = within(async {
            on!(Session, &mut session, connection => {
                let mut tx = begin!(connection).await?;
                sqlx::query("update registry_revision set revision = revision").execute(&mut *tx).await?;
                let (keys,): (i64,) = sqlx::query_as("select count(*) from client_key where client_id = $1")
                    .bind(client_id).fetch_one(&mut *tx).await?;
                let mut found = true;
                if keys == 0 || jwks_uri.is_none() {
                    found = sqlx::query("update client set jwks_uri = $2 where client_id = $1")
                        .bind(client_id).bind(jwks_uri).execute(&mut *tx).await?.rows_affected() > 0;
                }
                tx.commit().await?;
                Ok((found, keys))
            })
        })
        .await?;
        session.close().await;
        if keys > 0 && jwks_uri.is_some() { Err(StoreError::Refused(KEYS_OR_URI.to_owned())) } else { Ok(found) }
    }
}

/// A row to a key.
pub(super) fn key_of((_, kid, jwk, created_at, expires_at): KeyRow) -> Result<StoredKey, String> {
    let key =
        VerifyingKey::from_text(jwk.as_bytes(), None).map_err(|error| format!("client_key {kid}: jwk: {error}"))?;
    if key.kid().is_some_and(|own| own != kid) {
        return Err(format!("client_key {kid}: kid: the jwk has another one"));
    }
    Ok(StoredKey {
        kid: kid.into(),
        key: Arc::new(key),
        created_at: UnixTime(created_at),
        expires_at: expires_at.map(UnixTime),
        used: Arc::default(),
    })
}

/// A key as a row has it: in ASCII, since SQLite does not check that text is UTF-8. A `kid` is ASCII, or the row is refused.
pub(crate) fn jwk(key: &VerifyingKey) -> String {
    serde_json::Value::Object(key.jwk()).to_string()
}

/// RFC 7591 section 2: "The `jwks_uri` and `jwks` parameters MUST NOT both be present in the same request or response."
pub(super) const KEYS_OR_URI: &str =
    "a client has keys registered here or a jwks_uri, not both; remove one before you set the other";

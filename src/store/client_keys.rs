//! Stored public keys of clients, for `private_key_jwt`.

use std::sync::Arc;

use super::columns::moment;
use super::rows::borrowed_row;
use super::statement::{Value, args};
use super::{Refusal, Store, StoreError, transaction};
use crate::crypto::verifying_key::VerifyingKey;
use crate::model::credential::StoredKey;

borrowed_row!(
    /// Row of a client's public key.
    KeyRow of "client_key" by "order by c.client_id, c.created_at desc, c.kid" {
        client_id: &'r str,
        kid: &'r str,
        jwk: &'r str,
        created_at: i64,
        expires_at: Option<i64>,
    }
);

impl Store {
    /// Adds public keys to a client, all or none.
    ///
    /// # Errors
    /// [`StoreError::Taken`], and [`StoreError::Refused`] when the client does not exist or has a `jwks_uri`.
    pub async fn add_client_keys(&self, client_id: &str, keys: &[StoredKey]) -> Result<(), StoreError> {
        transaction!(self, |tx| {
            // Serialises with `update_client`, so that a client never has both.
            tx.take_turn().await?;
            let sql = "select count(*) from client where client_id = $1 and jwks_uri is not null";
            if tx.count(sql, &args![client_id]).await? > 0 {
                return Err(StoreError::Refused(Refusal::KeysOrJwksUri));
            }
            for stored in keys {
                let added = tx.execute(INSERT_CLIENT_KEY, &values(client_id, stored)).await;
                added.map_err(|error| error.naming("client key", &stored.kid))?;
            }
            Ok(())
        })
    }

    /// Removes a key. `Ok(false)` when the client has no key with that `kid`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_client_key(&self, client_id: &str, kid: &str) -> Result<bool, StoreError> {
        let sql = "delete from client_key where client_id = $1 and kid = $2";
        Ok(self.execute(sql, &args![client_id, kid]).await? > 0)
    }
}

/// Reads a row.
pub(super) fn key_of(row: &KeyRow<'_>) -> Result<StoredKey, String> {
    let KeyRow { kid, jwk, created_at, expires_at, .. } = *row;
    let key =
        VerifyingKey::from_text(jwk.as_bytes(), None).map_err(|error| format!("client_key {kid}: jwk: {error}"))?;
    if key.kid().is_some_and(|own| own != kid) {
        return Err(format!("client_key {kid}: kid: the jwk has another one"));
    }
    Ok(StoredKey {
        kid: kid.into(),
        key: Arc::new(key),
        created_at: moment("client_key.created_at", created_at)?,
        expires_at: expires_at.map(|at| moment("client_key.expires_at", at)).transpose()?,
        used: Arc::default(),
    })
}

/// The values of [`INSERT_CLIENT_KEY`].
pub(super) fn values(client_id: &str, stored: &StoredKey) -> [Value; 5] {
    args![client_id, &*stored.kid, jwk(&stored.key), stored.created_at, stored.expires_at]
}

/// Inserts a key, with [`values`].
pub(super) const INSERT_CLIENT_KEY: &str =
    "insert into client_key (client_id, kid, jwk, created_at, expires_at) values ($1, $2, $3, $4, $5)";

/// Writes a key as JSON in ASCII, since SQLite does not check that text is UTF-8. A `kid` is ASCII: the schema refuses
/// others.
pub(crate) fn jwk(key: &VerifyingKey) -> String {
    serde_json::Value::Object(key.jwk()).to_string()
}

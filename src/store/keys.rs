//! Stored signing keys, sealed.

use super::rows::row;
use super::statement::{Value, args};
use super::{Store, StoreError, transaction};
use crate::crypto::jwk::Alg;
use crate::crypto::jws::SigningKey;
use crate::crypto::seal::SealingKey;
use crate::model::time::{Span, UnixTime};

/// Stored signing key, sealed.
#[derive(Debug, Clone)]
pub struct SealedKey {
    /// The key's id: the thumbprint of its public half.
    pub kid: String,
    /// The name of its algorithm, not yet parsed.
    pub alg: String,
    /// The PKCS#8 document of the private key, sealed.
    pub sealed: Vec<u8>,
    /// Time from which it signs.
    pub active_at: UnixTime,
    /// Time at which it was made and published.
    pub created_at: UnixTime,
}

row!(
    /// Row of a signing key.
    KeyRow of "signing_key" by "order by c.active_at, c.kid" { kid: String, alg: String, sealed: Vec<u8>, active_at: i64, created_at: i64 }
);

impl From<KeyRow> for SealedKey {
    fn from(row: KeyRow) -> Self {
        let KeyRow { kid, alg, sealed, active_at, created_at } = row;
        Self { kid, alg, sealed, active_at: UnixTime(active_at), created_at: UnixTime(created_at) }
    }
}

impl SealedKey {
    /// Seals the PKCS#8 document of a private key for its row.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] when sealing fails.
    pub fn seal(
        key: &SigningKey,
        pkcs8: &[u8],
        under: &SealingKey,
        active_at: UnixTime,
        now: UnixTime,
    ) -> Result<Self, StoreError> {
        let (kid, alg) = (key.kid().to_owned(), key.alg().to_string());
        let sealed = under.seal(&context(&kid, &alg), pkcs8).map_err(|error| malformed(&kid, &error))?;
        Ok(Self { kid, alg, sealed, active_at, created_at: now })
    }

    /// The values of [`INSERT_KEY`].
    fn values(&self) -> [Value; 5] {
        args![&self.kid, &self.alg, self.sealed.as_slice(), self.active_at, self.created_at]
    }

    /// Opens the key, checks that its thumbprint is the row's `kid`, and that it verifies its own signature.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] with the exact reason.
    pub fn open(&self, under: &SealingKey) -> Result<SigningKey, StoreError> {
        let alg: Alg = self.alg.parse().map_err(|error| malformed(&self.kid, &error))?;
        let pkcs8 =
            under.open(&context(&self.kid, &self.alg), &self.sealed).map_err(|error| malformed(&self.kid, &error))?;
        let key = SigningKey::from_pkcs8(alg, &pkcs8).map_err(|error| malformed(&self.kid, &error))?;
        if key.kid() == self.kid {
            Ok(key)
        } else {
            Err(malformed(&self.kid, &"the key in this row has another thumbprint"))
        }
    }

    /// Seals the key under `under`. `None` when it is under that key already.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] when the key opens under neither `under` nor the previous sealing key.
    pub fn resealed(&self, under: &SealingKey) -> Result<Option<Vec<u8>>, StoreError> {
        under.reseal(&context(&self.kid, &self.alg), &self.sealed).map_err(|error| malformed(&self.kid, &error))
    }
}

impl Store {
    /// Returns all signing keys, sealed, in the order of `active_at`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keys(&self) -> Result<Vec<SealedKey>, StoreError> {
        let rows: Vec<KeyRow> = self.fetch(KeyRow::select(""), &[]).await?;
        Ok(rows.into_iter().map(SealedKey::from).collect())
    }

    /// Whether a signing key with that id exists.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_key(&self, kid: &str) -> Result<bool, StoreError> {
        let sql = "select count(*) from signing_key where kid = $1";
        let counts: Vec<(i64,)> = self.fetch(sql, &args![kid]).await?;
        Ok(counts.first().is_some_and(|(count,)| *count > 0))
    }

    /// Adds a key.
    ///
    /// # Errors
    /// [`StoreError::Taken`].
    pub async fn add_key(&self, key: &SealedKey) -> Result<(), StoreError> {
        let added = self.execute(INSERT_KEY, &key.values()).await;
        added.map(drop).map_err(|error| error.naming("signing key", &key.kid))
    }

    /// Adds a key unless its algorithm has one by now, so that replicas that start together make one key and not three.
    /// `Ok(false)` when another replica was faster.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_first_key(&self, key: &SealedKey) -> Result<bool, StoreError> {
        transaction!(self, |tx| {
            // Serialises concurrent first keys.
            tx.take_turn().await?;
            let of_alg = tx.count("select count(*) from signing_key where alg = $1", &args![&key.alg]).await?;
            if of_alg == 0 {
                tx.execute(INSERT_KEY, &key.values()).await?;
            }
            Ok(of_alg == 0)
        })
    }

    /// Replaces the sealed bytes of a key, in one statement. `Ok(false)` when the row is no longer as it was read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reseal_key(&self, read: &SealedKey, sealed: &[u8]) -> Result<bool, StoreError> {
        let sql = "update signing_key set sealed = $1 where kid = $2 and sealed = $3";
        Ok(self.execute(sql, &args![sealed, &read.kid, read.sealed.as_slice()]).await? > 0)
    }

    /// Removes a key, and adds `successor`, if any, in the same transaction. `Ok(false)` when the key does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_key(&self, kid: &str, successor: Option<&SealedKey>) -> Result<bool, StoreError> {
        transaction!(self, |tx| {
            let removed = tx.execute("delete from signing_key where kid = $1", &args![kid]).await? > 0;
            if let Some(key) = successor.filter(|_| removed) {
                tx.execute(INSERT_KEY, &key.values()).await?;
            }
            Ok(removed)
        })
    }
}

/// Generates a key of `alg` that signs from `now` plus `ahead`, sealed for its row.
///
/// # Errors
/// [`StoreError::Malformed`] when generating or sealing fails.
pub fn new_key(alg: Alg, under: &SealingKey, now: UnixTime, ahead: Span) -> Result<SealedKey, StoreError> {
    let (key, pkcs8) = SigningKey::generate(alg).map_err(|error| malformed(alg.as_str(), &error))?;
    SealedKey::seal(&key, &pkcs8, under, now.plus(ahead), now)
}

/// Returns the context that binds sealed bytes to their row.
fn context(kid: &str, alg: &str) -> String {
    format!("signing_key/{alg}/{kid}")
}

fn malformed(kid: &str, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Malformed { kind: "signing key", id: kid.to_owned(), reason: reason.to_string() }
}

const INSERT_KEY: &str =
    "insert into signing_key (kid, alg, sealed, active_at, created_at) values ($1, $2, $3, $4, $5)";

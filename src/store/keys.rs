//! Stored signing keys, sealed.

use super::rows::row;
use super::statement::{Value, args};
use super::{Store, StoreError, transaction};
use crate::crypto::json;
use crate::crypto::jwk::Alg;
use crate::crypto::jws::SigningKey;
use crate::crypto::seal::SealingKey;
use crate::model::pkcs11_uri::Pkcs11Uri;
use crate::model::time::{Span, UnixTime};

/// Stored signing key, sealed.
#[derive(Debug, Clone)]
pub struct SealedKey {
    /// The key's id: the thumbprint of its public half.
    pub kid: String,
    /// The name of its algorithm, not yet parsed.
    pub alg: String,
    /// The PKCS#8 document of the private key, or the name of one in a PKCS #11 module with its public half; sealed.
    pub sealed: Vec<u8>,
    /// Time from which it signs.
    pub active_at: UnixTime,
    /// Time at which it was made and published.
    pub created_at: UnixTime,
    /// Longest lifetime of a token that it signs.
    pub max_ttl: Span,
}

/// Signing key as it was opened.
#[derive(Debug)]
pub struct OpenedKey {
    /// The key. Without its private half where that is in a module.
    pub key: SigningKey,
    /// Name of the private key in a PKCS #11 module; `None` for a key that was sealed itself.
    pub module: Option<Pkcs11Uri>,
}

impl OpenedKey {
    /// Returns the key with Ed25519 going by that name (RFC 9864 section 2.2).
    #[must_use]
    pub fn fully_specified(self) -> Self {
        Self { key: self.key.fully_specified(), ..self }
    }
}

row!(
    /// Row of a signing key.
    KeyRow of "signing_key" by "order by c.active_at, c.kid" { kid: String, alg: String, sealed: Vec<u8>, active_at: i64, created_at: i64, max_ttl: i64 }
);

impl From<KeyRow> for SealedKey {
    fn from(row: KeyRow) -> Self {
        let KeyRow { kid, alg, sealed, active_at, created_at, max_ttl } = row;
        // The column has no other values.
        let max_ttl = u64::try_from(max_ttl).map_or(LONGEST_TTL, Span::from_secs);
        Self { kid, alg, sealed, active_at: UnixTime(active_at), created_at: UnixTime(created_at), max_ttl }
    }
}

impl SealedKey {
    /// Seals the PKCS#8 `document` of a private key for its row. Its tokens may live for [`LONGEST_TTL`].
    ///
    /// # Errors
    /// [`StoreError::Malformed`] when sealing fails.
    pub fn seal(
        key: &SigningKey,
        document: &[u8],
        under: &SealingKey,
        active_at: UnixTime,
        now: UnixTime,
    ) -> Result<Self, StoreError> {
        let (kid, alg) = (key.kid().to_owned(), key.alg().to_string());
        let sealed = under.seal(&context(&kid, &alg), document).map_err(|error| malformed(&kid, &error))?;
        Ok(Self { kid, alg, sealed, active_at, created_at: now, max_ttl: LONGEST_TTL })
    }

    /// The values of [`INSERT_KEY`].
    fn values(&self) -> [Value; 6] {
        let max_ttl = self.max_ttl.seconds();
        args![&self.kid, &self.alg, self.sealed.as_slice(), self.active_at, self.created_at, max_ttl]
    }

    /// Seals the name of a private key in a PKCS #11 module for its row, with the public half: a server publishes the key also
    /// while the module is away, and a row that names another key of the module is refused. Otherwise as [`seal`](Self::seal).
    ///
    /// # Errors
    /// [`StoreError::Malformed`] when sealing fails.
    pub fn seal_reference(
        key: &SigningKey,
        module: &Pkcs11Uri,
        under: &SealingKey,
        active_at: UnixTime,
        now: UnixTime,
    ) -> Result<Self, StoreError> {
        let document = serde_json::json!({"pkcs11": module.to_string(), "jwk": key.verifying().jwk()});
        Self::seal(key, document.to_string().as_bytes(), under, active_at, now)
    }

    /// Opens the key, checks that its thumbprint is the row's `kid`, and that it verifies its own signature, where its private
    /// half is in the row.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] with the exact reason.
    pub fn open(&self, under: &SealingKey) -> Result<OpenedKey, StoreError> {
        let wrong = |reason: &dyn std::fmt::Display| malformed(&self.kid, reason);
        let alg: Alg = self.alg.parse().map_err(|error| wrong(&error))?;
        let document = under.open(&context(&self.kid, &self.alg), &self.sealed).map_err(|error| wrong(&error))?;
        // A PKCS#8 document begins with the tag of a sequence, 0x30.
        let (key, module) = if document.first() == Some(&b'{') {
            let reference = json::object(&document).map_err(|error| wrong(&error))?;
            let uri = reference.get("pkcs11").and_then(|uri| uri.as_str()).unwrap_or_default();
            let uri: Pkcs11Uri = uri.parse().map_err(|error| wrong(&error))?;
            let jwk = reference.get("jwk").and_then(|jwk| jwk.as_object());
            let jwk = jwk.ok_or_else(|| wrong(&"the row of a key in a module lacks its public half"))?;
            (SigningKey::from_public_jwk(alg, jwk).map_err(|error| wrong(&error))?, Some(uri))
        } else {
            (SigningKey::from_pkcs8(alg, &document).map_err(|error| wrong(&error))?, None)
        };
        if key.kid() == self.kid {
            Ok(OpenedKey { key, module })
        } else {
            Err(wrong(&"the key in this row has another thumbprint"))
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

    /// Adds the key that follows the one of its algorithm that signs from `present`. `Ok(false)` when that one was removed,
    /// or another key follows it by now: one replica rotates for all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_next_key(&self, key: &SealedKey, present: UnixTime) -> Result<bool, StoreError> {
        transaction!(self, |tx| {
            // Serialises concurrent rotations.
            tx.take_turn().await?;
            let values = args![&key.alg, present];
            let sql = "select count(*) from signing_key where alg = $1 and active_at = $2";
            let is_there = tx.count(sql, &values).await? > 0;
            let sql = "select count(*) from signing_key where alg = $1 and active_at > $2";
            let is_next = is_there && tx.count(sql, &values).await? == 0;
            if is_next {
                tx.execute(INSERT_KEY, &key.values()).await?;
            }
            Ok(is_next)
        })
    }

    /// Raises the longest lifetime of the tokens of a key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn raise_max_ttl(&self, kid: &str, max_ttl: Span) -> Result<(), StoreError> {
        let sql = "update signing_key set max_ttl = $2 where kid = $1 and max_ttl < $2";
        self.execute(sql, &args![kid, max_ttl.seconds()]).await.map(drop)
    }

    /// Returns the longest lifetime that a client or a resource has of its own, in seconds.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn longest_registered_ttl(&self) -> Result<Option<Span>, StoreError> {
        let sql =
            "select max(ttl) from (select token_ttl as ttl from client union all select token_ttl from resource) t";
        let rows: Vec<(Option<i64>,)> = self.fetch(sql, &[]).await?;
        let seconds = rows.first().and_then(|(seconds,)| u64::try_from((*seconds)?).ok());
        Ok(seconds.map(Span::from_secs))
    }

    /// Removes a key, and lets the published key `next` sign from `now` on, in the same transaction. `Ok(false)` when one of
    /// them does not exist; then nothing has changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn replace_key(&self, kid: &str, next: &str, now: UnixTime) -> Result<bool, StoreError> {
        transaction!(self, |tx| {
            tx.take_turn().await?;
            let both = tx.count("select count(*) from signing_key where kid in ($1, $2)", &args![kid, next]).await?;
            if both == 2 {
                tx.execute("delete from signing_key where kid = $1", &args![kid]).await?;
                tx.execute("update signing_key set active_at = $2 where kid = $1", &args![next, now]).await?;
            }
            Ok(both == 2)
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
    "insert into signing_key (kid, alg, sealed, active_at, created_at, max_ttl) values ($1, $2, $3, $4, $5, $6)";
/// Maximum lifetime of any token.
pub const LONGEST_TTL: Span = Span::from_secs(86400);

//! Stored client secrets.

use super::statement::{Value, args};
use super::{Refusal, Store, StoreError, transaction};
use crate::crypto::secret::SecretHash;
use crate::crypto::secret_verifier::Verifier;
use crate::model::credential::SecretOrigin;
use crate::model::time::UnixTime;

/// Statement that reads summaries of secrets, with the condition and the order.
macro_rules! summaries {
    ($behind:literal) => {
        concat!(
            "select s.client_id, s.secret_id, s.label, s.imported, s.created_at, s.expires_at, s.revoked_at, u.last_used_at
             from client_secret s left join client_secret_use u on u.secret_id = s.secret_id ",
            $behind
        )
    };
}

/// Secret to be stored.
#[derive(Debug)]
pub struct NewSecret {
    /// The secret's id.
    pub secret_id: String,
    /// The hash.
    pub hash: SecretHash,
    /// The origin.
    pub origin: SecretOrigin,
    /// The verifier, unless the secret was chosen elsewhere.
    pub verifier: Option<Verifier>,
    /// The label.
    pub label: String,
    /// Time of creation.
    pub created_at: UnixTime,
    /// Expiry.
    pub expires_at: Option<UnixTime>,
}

impl NewSecret {
    /// The values of [`INSERT_SECRET`].
    pub(super) fn values(&self, client_id: &str) -> [Value; 9] {
        args![
            &self.secret_id,
            client_id,
            self.hash.to_string(),
            &self.label,
            self.imported(),
            self.tag_key(),
            self.created_at,
            self.expires_at,
            self.verifier.as_ref().map(ToString::to_string),
        ]
    }

    /// The value of the column `imported`: 1 for a secret that was chosen elsewhere.
    pub(crate) fn imported(&self) -> i64 {
        i64::from(self.origin == SecretOrigin::Imported)
    }

    /// The value of the column `tag_key`.
    pub(crate) fn tag_key(&self) -> Option<String> {
        match self.origin {
            SecretOrigin::Tagged(kid) => Some(kid.to_string()),
            SecretOrigin::Untagged | SecretOrigin::Imported => None,
        }
    }
}

/// Stored secret as administrators see it: everything but the secret and its hash.
#[derive(Debug, serde::Serialize)]
pub struct SecretSummary {
    /// The client.
    pub client_id: String,
    /// The secret's id.
    pub secret_id: String,
    /// The label.
    pub label: String,
    /// Whether it was chosen elsewhere.
    pub imported: bool,
    /// Time of creation.
    pub created_at: UnixTime,
    /// Expiry.
    pub expires_at: Option<UnixTime>,
    /// Time of revocation.
    pub revoked_at: Option<UnixTime>,
    /// Last successful authentication, to within half a minute.
    pub last_used_at: Option<UnixTime>,
}

/// Result of replacing secrets by a new one.
#[derive(Debug, PartialEq, Eq)]
pub enum Replacement {
    /// This number of secrets expires at the given time.
    Done(u64),
    /// The new secret was revoked meanwhile, or expires at this time because another rotation has replaced it.
    Overtaken(Option<UnixTime>),
}

impl Store {
    /// Adds a secret to a client. A third live imported secret is refused, since every imported secret has to be tried.
    ///
    /// # Errors
    /// [`StoreError::Taken`], and [`StoreError::Refused`] when the client does not exist or has too many imported
    /// secrets.
    pub async fn add_secret(&self, client_id: &str, secret: &NewSecret) -> Result<(), StoreError> {
        transaction!(self, |tx| {
            // Serialises concurrent imports.
            tx.take_turn().await?;
            let sql = "select count(*) from client_secret where client_id = $1 and imported = 1 and revoked_at is null
                       and (expires_at is null or expires_at > $2)";
            let imported = tx.count(sql, &args![client_id, secret.created_at]).await?;
            if secret.origin == SecretOrigin::Imported && imported >= MAX_IMPORTED {
                return Err(StoreError::Refused(Refusal::TooManyImported(client_id.to_owned())));
            }
            let added = tx.execute(INSERT_SECRET, &secret.values(client_id)).await;
            added.map(drop).map_err(|error| error.naming("client secret", &secret.secret_id))
        })
    }

    /// Revokes a secret. `Ok(false)` when the client has no secret of that id. Revoking again keeps the first time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_secret(&self, client_id: &str, secret_id: &str, now: UnixTime) -> Result<bool, StoreError> {
        let sql =
            "update client_secret set revoked_at = coalesce(revoked_at, $3) where client_id = $1 and secret_id = $2";
        Ok(self.execute(sql, &args![client_id, secret_id, now]).await? > 0)
    }

    /// Revokes a secret unless it was used or made after `unused_since`. One statement, so that a use that is recorded
    /// concurrently is not missed. `Ok(false)` when nothing was revoked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn retire_secret(
        &self,
        client_id: &str,
        secret_id: &str,
        unused_since: UnixTime,
        now: UnixTime,
    ) -> Result<bool, StoreError> {
        let sql = "update client_secret set revoked_at = $4
                   where client_id = $1 and secret_id = $2 and revoked_at is null and created_at <= $3
                     and not exists (select 1 from client_secret_use u where u.secret_id = $2 and u.last_used_at > $3)";
        Ok(self.execute(sql, &args![client_id, secret_id, unused_since, now]).await? > 0)
    }

    /// Makes `replaced` secrets of a client expire at `at` unless they expire earlier, provided that `new` works as it was
    /// stored. Returns the number of secrets that now expire at `at`; [`Replacement::Overtaken`] changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn replace_secrets(
        &self,
        client_id: &str,
        replaced: &[String],
        new: &NewSecret,
        at: UnixTime,
    ) -> Result<Replacement, StoreError> {
        let lock = "select 1 from client_secret where client_id = $1 order by secret_id for no key update";
        let live = "select secret_id, expires_at from client_secret
                    where client_id = $1 and secret_id = $2 and revoked_at is null";
        let expire = "update client_secret set expires_at = $3 where client_id = $1 and secret_id = $2
                      and revoked_at is null and (expires_at is null or expires_at > $3)";
        transaction!(self, |tx| {
            // Concurrent rotations of the client wait for each other.
            tx.lock_row(lock, &args![client_id]).await?;
            let rows: Vec<(String, Option<i64>)> = tx.fetch(live, &args![client_id, &new.secret_id]).await?;
            match rows.first().map(|(_, expires_at)| expires_at.map(UnixTime)) {
                Some(expires_at) if expires_at == new.expires_at => {}
                found => return Ok(Replacement::Overtaken(found.flatten())),
            }
            let mut ended = 0;
            for secret_id in replaced {
                ended += tx.execute(expire, &args![client_id, secret_id, at]).await?;
            }
            Ok(Replacement::Done(ended))
        })
    }

    /// Deletes the client's secrets that have a label.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_secrets_labelled(&self, client_id: &str, label: &str) -> Result<(), StoreError> {
        let sql = "delete from client_secret where client_id = $1 and label = $2";
        self.execute(sql, &args![client_id, label]).await.map(drop)
    }

    /// Replaces a secret's hash by one with other parameters, unless the hash has changed meanwhile.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rehash_secret(&self, secret_id: &str, old: &SecretHash, new: &SecretHash) -> Result<(), StoreError> {
        let sql = "update client_secret set hash = $3 where secret_id = $1 and hash = $2";
        self.execute(sql, &args![secret_id, old.to_string(), new.to_string()]).await.map(drop)
    }

    /// Writes the verifier of a secret, unless its hash has changed meanwhile.
    ///
    /// No token depends on this write, and a serving role may lack the right to it, so a failure does not count among
    /// those of writes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn write_verifier(&self, secret_id: &str, hash: &SecretHash, to: &Verifier) -> Result<(), StoreError> {
        let sql = "update client_secret set verifier = $3
                   where secret_id = $1 and hash = $2 and (verifier is null or verifier <> $3) returning secret_id";
        let written: Result<Vec<(String,)>, _> =
            self.fetch(sql, &args![secret_id, hash.to_string(), to.to_string()]).await;
        written.map(drop)
    }

    /// Returns the secrets of one client, oldest first, those of one second by label.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn secrets(&self, client_id: &str) -> Result<Vec<SecretSummary>, StoreError> {
        let sql = summaries!("where s.client_id = $1 order by s.created_at, s.label, s.secret_id");
        self.summaries(sql, &args![client_id]).await
    }

    /// Returns the next unrevoked secrets that expire after `now` and until `until`, the next to expire first: those that
    /// follow the secret `after`, at most [`EXPIRING`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn expiring_secrets(
        &self,
        now: UnixTime,
        until: UnixTime,
        after: Option<&SecretSummary>,
    ) -> Result<Vec<SecretSummary>, StoreError> {
        // Every secret that expires after `now` follows this place.
        let first = args![now, "", 0, ""];
        let most = i64::try_from(EXPIRING).unwrap_or(i64::MAX);
        let place =
            after.map(|secret| args![secret.expires_at, &secret.client_id, secret.created_at, &secret.secret_id]);
        let [expires_at, client_id, created_at, secret_id] = place.unwrap_or(first);
        let sql = summaries!(
            "where s.revoked_at is null and s.expires_at > $1 and s.expires_at <= $2
             and (s.expires_at, s.client_id, s.created_at, s.secret_id) > ($3, $4, $5, $6)
             order by s.expires_at, s.client_id, s.created_at, s.secret_id limit $7"
        );
        self.summaries(sql, &[now.into(), until.into(), expires_at, client_id, created_at, secret_id, most.into()])
            .await
    }

    async fn summaries(&self, sql: &'static str, values: &[Value]) -> Result<Vec<SecretSummary>, StoreError> {
        type Row = (String, String, String, i64, i64, Option<i64>, Option<i64>, Option<i64>);
        let rows: Vec<Row> = self.fetch(sql, values).await?;
        let summary =
            |(client_id, secret_id, label, imported, created_at, expires_at, revoked_at, last_used_at): Row| {
                SecretSummary {
                    client_id,
                    secret_id,
                    label,
                    imported: imported == 1,
                    created_at: UnixTime(created_at),
                    expires_at: expires_at.map(UnixTime),
                    revoked_at: revoked_at.map(UnixTime),
                    last_used_at: last_used_at.map(UnixTime),
                }
            };
        Ok(rows.into_iter().map(summary).collect())
    }
}

/// Maximum number of expiring secrets that are read at once.
pub const EXPIRING: usize = 20_000;
/// Maximum number of live imported secrets of a client. Each has to be tried, so this bounds the cost of a wrong guess.
pub const MAX_IMPORTED: i64 = 2;

/// Inserts a [`NewSecret`], with [`NewSecret::values`].
pub(super) const INSERT_SECRET: &str = "insert into client_secret
    (secret_id, client_id, hash, label, imported, tag_key, created_at, expires_at, verifier)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

//! Client secrets: generate, import, rotate with overlap, revoke, retire, list.

use super::{Admin, AdminError, AdminResult, Outcome, Warning};
use crate::crypto::secret::{ClientSecret, HashMemory, SecretHash, new_secret_id};
use crate::crypto::secret_tag::TagKey;
use crate::crypto::secret_verifier::VerifierKey;
use crate::model::client::AuthMethod;
use crate::model::client_id::ClientId;
use crate::model::credential::SecretOrigin;
use crate::model::lifetime::{ExpiresIn, UnusedFor};
use crate::model::time::{Span, UnixTime};
use crate::store::Store;
use crate::store::secrets::{EXPIRING, NewSecret, Replacement, SecretSummary};

/// Options of a new secret.
#[derive(Debug, Default)]
pub struct SecretOptions {
    /// Text to tell the secret from others.
    pub label: String,
    /// Time until the secret expires.
    pub expires_in: Option<ExpiresIn>,
}

/// Generated secret: the secret to show once, and the row to store.
#[derive(Debug)]
pub struct GeneratedSecret {
    /// The secret in clear.
    pub secret: ClientSecret,
    /// The row.
    pub stored: NewSecret,
}

/// Rotation in progress.
#[derive(Debug)]
pub struct Rotation {
    client_id: ClientId,
    /// Ids of the secrets that the client had.
    replaced: Vec<String>,
    /// Expiry of these secrets.
    pub others_expire_at: UnixTime,
}

/// Errors of an imported secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChosenSecretError {
    /// The text is too long. It is refused, not truncated.
    #[error("a secret has at most {MAX_SECRET} bytes; this one is longer")]
    TooLong,
    /// The text is not UTF-8.
    #[error("a secret is text in UTF-8; this one is not")]
    NotUtf8,
    /// The text is easy to guess, or mistyped.
    #[error("a secret has at least 16 bytes and no control characters")]
    TooWeak,
}

/// Reads a secret that was chosen elsewhere.
pub fn chosen_secret(bytes: &[u8]) -> Result<ClientSecret, ChosenSecretError> {
    if bytes.len() > MAX_SECRET {
        return Err(ChosenSecretError::TooLong);
    }
    let secret = str::from_utf8(bytes).map_err(|_| ChosenSecretError::NotUtf8)?;
    if secret.len() < 16 || secret.contains(char::is_control) {
        return Err(ChosenSecretError::TooWeak);
    }
    Ok(ClientSecret::new(secret.to_owned()))
}

impl Admin {
    /// Generates a secret for a client. It works once it is stored.
    pub async fn generate_secret(&self, client_id: &ClientId, options: SecretOptions) -> AdminResult<GeneratedSecret> {
        let under = self.sealing_key()?;
        let tag_keys = self.usable_tag_keys(&under).await?;
        let verifier_key = VerifierKey::new(&under);
        let mut made = self.new_secret(client_id, (tag_keys.first(), Some(&verifier_key)), options)?;
        made.warnings.extend(tag_keys.is_empty().then_some(Warning::Untagged));
        Ok(made)
    }

    /// Generates a secret for a printed seed, without changing the database. It has a verifier when the database and the
    /// sealing key are `reachable`, and a tag when there is a tag key besides.
    pub async fn generate_secret_for_seed(
        &self,
        client_id: &ClientId,
        options: SecretOptions,
        reachable: bool,
    ) -> AdminResult<GeneratedSecret> {
        if !reachable {
            return self.new_secret(client_id, (None, None), options);
        }
        let under = self.sealing_key()?;
        let tag_keys = self.tag_keys_for_seed(&under).await;
        let verifier_key = VerifierKey::new(&under);
        self.new_secret(client_id, (tag_keys.first(), Some(&verifier_key)), options)
    }

    /// Generates a secret with an id, a hash of the configured cost, a tag and a verifier where there are keys for
    /// them, and an expiry if one was requested.
    fn new_secret(
        &self,
        client_id: &ClientId,
        (tag_key, verifier_key): (Option<&TagKey>, Option<&VerifierKey>),
        options: SecretOptions,
    ) -> AdminResult<GeneratedSecret> {
        let secret_id = new_secret_id()?;
        let secret = ClientSecret::generate(client_id.as_str(), &secret_id, tag_key)?;
        let origin = tag_key.map_or(SecretOrigin::Untagged, |key| SecretOrigin::Tagged(key.kid()));
        let mut stored = self.row(&secret, secret_id, origin, options)?;
        stored.verifier = verifier_key.map(|key| key.verifier(client_id.as_str(), &secret, &stored.hash));
        let permitted = self.policy.profile.permits_method(AuthMethod::ClientSecretBasic);
        let warnings = (!permitted).then_some(Warning::SecretsRefused).into_iter().collect();
        Ok(Outcome { value: GeneratedSecret { secret, stored }, warnings })
    }

    fn row(
        &self,
        secret: &ClientSecret,
        secret_id: String,
        origin: SecretOrigin,
        SecretOptions { label, expires_in }: SecretOptions,
    ) -> Result<NewSecret, AdminError> {
        let created_at = self.now();
        let hash = SecretHash::new(secret.expose(), self.policy.argon2, &mut HashMemory::default())?;
        let expires_at = self.secret_expiry(expires_in, created_at)?;
        Ok(NewSecret { secret_id, hash, origin, verifier: None, label, created_at, expires_at })
    }

    /// Returns the expiry of a secret that is made at `created_at`: within `secrets.max_age`, where that is set.
    pub(super) fn secret_expiry(
        &self,
        expires_in: Option<ExpiresIn>,
        created_at: UnixTime,
    ) -> Result<Option<UnixTime>, AdminError> {
        match (expires_in, self.policy.secret_max_age) {
            (Some(requested), Some(limit)) if requested > limit => {
                Err(AdminError::SecretTooLongLived { requested: requested.into(), limit: limit.into() })
            }
            (requested, limit) => Ok(requested.or(limit).map(|span| created_at.plus(span.into()))),
        }
    }

    /// Adds a secret to a client.
    pub async fn add_secret(&self, client_id: &ClientId, options: SecretOptions) -> AdminResult<GeneratedSecret> {
        let made = self.generate_secret(client_id, options).await?;
        self.store_secret(client_id, &made.value.stored).await?;
        Ok(made)
    }

    /// Adds a secret in place of the client's secrets with the same label.
    pub async fn replace_secret(&self, client_id: &ClientId, options: SecretOptions) -> AdminResult<GeneratedSecret> {
        self.store.delete_secrets_labelled(client_id.as_str(), &options.label).await?;
        self.add_secret(client_id, options).await
    }

    /// Adds a secret that was chosen elsewhere in place of the client's secrets with the same label.
    pub async fn replace_with_secret(
        &self,
        client_id: &ClientId,
        secret: &ClientSecret,
        options: SecretOptions,
    ) -> AdminResult<NewSecret> {
        self.store.delete_secrets_labelled(client_id.as_str(), &options.label).await?;
        self.import_secret(client_id, secret, options).await
    }

    /// Adds a secret that was chosen elsewhere. A secret that another grantd generated keeps the id that it carries.
    pub async fn import_secret(
        &self,
        client_id: &ClientId,
        secret: &ClientSecret,
        options: SecretOptions,
    ) -> AdminResult<NewSecret> {
        let imported = self.imported_secret(client_id, secret, options).await?;
        self.store_secret(client_id, &imported.value).await?;
        Ok(imported)
    }

    /// Returns the row of a secret that was chosen elsewhere, to be stored with its client.
    pub async fn imported_secret(
        &self,
        client_id: &ClientId,
        secret: &ClientSecret,
        options: SecretOptions,
    ) -> AdminResult<NewSecret> {
        let mut warnings = Vec::new();
        let (secret_id, origin, verifier_key) = match secret.secret_id() {
            Some(secret_id) => {
                let under = self.sealing_key()?;
                let tag_keys = self.usable_tag_keys(&under).await?;
                warnings.extend(tag_keys.is_empty().then_some(Warning::Untagged));
                let tagged_by = secret.tagged_by(client_id.as_str(), &tag_keys);
                let origin = tagged_by.map_or(SecretOrigin::Untagged, SecretOrigin::Tagged);
                (secret_id.to_owned(), origin, Some(VerifierKey::new(&under)))
            }
            None => (new_secret_id()?, SecretOrigin::Imported, None),
        };
        let mut stored = self.row(secret, secret_id, origin, options)?;
        stored.verifier = verifier_key.map(|key| key.verifier(client_id.as_str(), secret, &stored.hash));
        Ok(Outcome { value: stored, warnings })
    }

    /// Returns the row of a secret that was chosen elsewhere, for a printed seed. A secret that another grantd generated
    /// keeps the id that it carries; without the database it has neither tag nor verifier.
    pub fn imported_secret_for_seed(&self, secret: &ClientSecret, options: SecretOptions) -> AdminResult<NewSecret> {
        let (secret_id, origin) = match secret.secret_id() {
            Some(id) => (id.to_owned(), SecretOrigin::Untagged),
            None => (new_secret_id()?, SecretOrigin::Imported),
        };
        Ok(Outcome { value: self.row(secret, secret_id, origin, options)?, warnings: Vec::new() })
    }

    /// Stores a secret, which works from then on.
    pub async fn store_secret(&self, client_id: &ClientId, secret: &NewSecret) -> Result<(), AdminError> {
        let added = self.store.add_secret(client_id.as_str(), secret).await;
        added.map_err(|error| AdminError::of_client(error, client_id))
    }

    /// Begins a rotation: notes the secrets that the next one replaces, before it is made. A secret that a concurrent
    /// rotation adds is not among them, so neither rotation ends the secret of the other.
    pub async fn begin_rotation(&self, client_id: &ClientId, overlap: Span) -> Result<Rotation, AdminError> {
        let (others_expire_at, secrets) = (self.now().plus(overlap), self.secrets(client_id).await?);
        let outlives = |secret: &SecretSummary| secret.expires_at.is_none_or(|at| at > others_expire_at);
        let replaced = secrets.into_iter().filter(|secret| secret.revoked_at.is_none() && outlives(secret));
        let replaced = replaced.map(|secret| secret.secret_id).collect();
        Ok(Rotation { client_id: client_id.clone(), replaced, others_expire_at })
    }

    /// Ends a rotation: makes the secrets that `new` replaces expire after the overlap unless they expire earlier. Returns
    /// their number. The caller shows the new secret first: a secret that nobody has seen must not replace others.
    pub async fn end_rotation(&self, rotation: &Rotation, new: &NewSecret) -> Result<u64, AdminError> {
        let Rotation { client_id, replaced, others_expire_at } = rotation;
        match self.store.replace_secrets(client_id.as_str(), replaced, new, *others_expire_at).await? {
            Replacement::Done(ended) => Ok(ended),
            Replacement::Overtaken(expires_at) => Err(AdminError::RotationOvertaken {
                client_id: client_id.clone(),
                secret_id: new.secret_id.clone(),
                expires_at,
            }),
        }
    }

    /// Revokes a secret. Returns the time of an earlier revocation.
    pub async fn revoke_secret(&self, client_id: &ClientId, secret_id: &str) -> Result<Option<UnixTime>, AdminError> {
        let before = self.secret(client_id, secret_id).await?.and_then(|secret| secret.revoked_at);
        if self.store.revoke_secret(client_id.as_str(), secret_id, self.now()).await? {
            return Ok(before);
        }
        Err(self.no_such_secret(client_id, secret_id).await)
    }

    /// Revokes a secret unless it was used or made within `if_unused`. Returns the time of an earlier revocation.
    pub async fn retire_secret(
        &self,
        client_id: &ClientId,
        secret_id: &str,
        if_unused: UnusedFor,
    ) -> Result<Option<UnixTime>, AdminError> {
        let (now, if_unused) = (self.now(), Span::from(if_unused));
        let since = UnixTime(now.0 - if_unused.seconds());
        if self.store.retire_secret(client_id.as_str(), secret_id, since, now).await? {
            return Ok(None);
        }
        let Some(secret) = self.secret(client_id, secret_id).await? else {
            return Err(self.no_such_secret(client_id, secret_id).await);
        };
        let (client_id, secret_id) = (client_id.clone(), secret.secret_id);
        match (secret.revoked_at, secret.last_used_at.filter(|at| *at > since)) {
            (Some(at), _) => Ok(Some(at)),
            (None, Some(last_used_at)) => Err(AdminError::SecretInUse { client_id, secret_id, last_used_at }),
            (None, None) => {
                Err(AdminError::SecretTooYoung { client_id, secret_id, created_at: secret.created_at, if_unused })
            }
        }
    }

    async fn secret(&self, client_id: &ClientId, secret_id: &str) -> Result<Option<SecretSummary>, AdminError> {
        let mut secrets = self.secrets(client_id).await?.into_iter();
        Ok(secrets.find(|secret| secret.secret_id == secret_id))
    }

    async fn no_such_secret(&self, client_id: &ClientId, secret_id: &str) -> AdminError {
        let missing = AdminError::NoSuchSecret { client_id: client_id.clone(), secret_id: secret_id.to_owned() };
        self.client(client_id).await.err().unwrap_or(missing)
    }

    /// Returns the secrets of a client, oldest first.
    pub async fn secrets(&self, client_id: &ClientId) -> Result<Vec<SecretSummary>, AdminError> {
        let secrets = self.store.secrets(client_id.as_str()).await?;
        if secrets.is_empty() {
            // A client without secrets is told from one that does not exist.
            self.client(client_id).await?;
        }
        Ok(secrets)
    }

    /// Returns the secrets of all clients that expire within a time, the next to expire first.
    #[must_use]
    pub fn expiring_secrets(&self, within: Span) -> ExpiringSecrets<'_> {
        let now = self.now();
        ExpiringSecrets { store: &self.store, now, until: now.plus(within), is_over: false }
    }
}

/// Secrets that expire within a time, part after part, so that only one part is in memory.
#[derive(Debug)]
pub struct ExpiringSecrets<'a> {
    store: &'a Store,
    now: UnixTime,
    until: UnixTime,
    is_over: bool,
}

impl ExpiringSecrets<'_> {
    /// Returns the secrets that follow `part`, the part before; `None` at the end.
    pub async fn next(&mut self, part: &[SecretSummary]) -> Result<Option<Vec<SecretSummary>>, AdminError> {
        if self.is_over {
            return Ok(None);
        }
        let next = self.store.expiring_secrets(self.now, self.until, part.last()).await?;
        self.is_over = next.len() < EXPIRING;
        Ok(Some(next))
    }
}

/// Maximum length of an imported secret, in bytes.
pub const MAX_SECRET: usize = 4096;

//! Public keys of clients, for `private_key_jwt`: added beside each other and removed one by one.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::client_stream::{ClientRange, readable};
use super::document::with_client;
use super::{Admin, AdminError, AdminResult, Outcome, Warning};
use crate::crypto::certificate::Certificate;
use crate::crypto::json::{self, JsonError};
use crate::crypto::jwk_set::{JwkSet, Skipped};
use crate::crypto::signature_alg::SignatureAlg;
use crate::crypto::verifying_key::{JwkError, VerifyingKey};
use crate::model::client::Client;
use crate::model::client_id::ClientId;
use crate::model::credential::StoredKey;
use crate::model::lifetime::ExpiresIn;
use crate::model::time::UnixTime;

/// Public key of a client, with its last use.
#[derive(Debug)]
pub struct ClientKey {
    /// The client.
    pub client_id: ClientId,
    /// The key.
    pub key: StoredKey,
    /// The last successful authentication, to within half a minute.
    pub last_used_at: Option<UnixTime>,
}

impl ClientKey {
    fn new(client_id: &ClientId, key: &StoredKey, uses: &HashMap<(String, String), UnixTime>) -> Self {
        let last_used_at = uses.get(&(client_id.to_string(), key.kid.to_string())).copied();
        Self { client_id: client_id.clone(), key: key.clone(), last_used_at }
    }

    /// Returns the key as JSON.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({
            "kid": self.key.kid,
            "alg": self.key.key.alg().map(SignatureAlg::as_str),
            "algs": self.key.key.algs().map(SignatureAlg::as_str).collect::<Vec<_>>(),
            "thumbprint": self.key.key.jkt(),
            "x5t#S256": self.key.key.x5c().map(Certificate::x5t_s256),
            "created_at": self.key.created_at,
            "expires_at": self.key.expires_at,
            "last_used_at": self.last_used_at,
        })
    }

    /// Returns the key as JSON, with its client.
    #[must_use]
    pub fn document_of_client(&self) -> Value {
        with_client(self.document(), &self.client_id)
    }
}

/// Text that has no public keys to register.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The text is not JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The text is neither a JWK nor a JWK Set.
    #[error(transparent)]
    Jwk(#[from] JwkError),
    #[error("key {} of the set: {}", .0.at + 1, .0.why)]
    Skipped(Skipped),
    #[error("the set has no keys")]
    Empty,
}

/// Reads a JWK, a JWK Set or one key in PEM. All keys have to be usable: an administrator who registers a set wants all
/// of them.
pub fn read_public_keys(text: &[u8], alg: Option<SignatureAlg>) -> Result<Vec<VerifyingKey>, KeysError> {
    // Some editors write a byte order mark, and `openssl pkcs12` writes attributes before a key in PEM.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let begin = b"-----BEGIN ";
    if !text.trim_ascii_start().starts_with(b"{") && text.windows(begin.len()).any(|part| part == begin) {
        return Ok(vec![VerifyingKey::from_pem(text, alg)?]);
    }
    if !json::object(text)?.contains_key("keys") {
        return Ok(vec![VerifyingKey::from_text(text, alg)?]);
    }
    let JwkSet { keys, skipped } = JwkSet::parse(text, alg, MAX_KEYS)?;
    match skipped.first() {
        Some(skipped) => Err(KeysError::Skipped(*skipped)),
        None if keys.is_empty() => Err(KeysError::Empty),
        None => Ok(keys),
    }
}

impl Admin {
    /// Adds keys beside those a client has, all or none.
    pub async fn add_client_keys(
        &self,
        client_id: &ClientId,
        keys: Vec<VerifyingKey>,
        expires_in: Option<ExpiresIn>,
    ) -> AdminResult<Vec<ClientKey>> {
        let now = self.now();
        let stored = |key: VerifyingKey| StoredKey {
            kid: key.kid().unwrap_or(key.jkt()).into(),
            key: Arc::new(key),
            created_at: now,
            expires_at: expires_in.map(|span| now.plus(span.into())),
            used: Arc::default(),
        };
        let keys: Vec<StoredKey> = keys.into_iter().map(stored).collect();
        let mut warnings = Vec::new();
        for key in &keys {
            if let Some(certificate) = key.key.x5c() {
                warnings.extend(self.check_certificate(certificate, Some(&key.kid))?);
            }
        }
        let added = self.store.add_client_keys(client_id.as_str(), &keys).await;
        added.map_err(|error| AdminError::of_client(error, client_id))?;
        let value = keys.iter().map(|key| ClientKey::new(client_id, key, &HashMap::new())).collect();
        Ok(Outcome { value, warnings })
    }

    /// Refuses a certificate that no TLS handshake accepts, unless a proxy may accept it. Returns warnings of whatever
    /// keeps it from authenticating the client.
    pub(super) fn check_certificate(
        &self,
        certificate: &Certificate,
        kid: Option<&Arc<str>>,
    ) -> Result<Vec<Warning>, AdminError> {
        let (mut warnings, kid) = (Vec::new(), kid.cloned());
        if let Some(fault) = certificate.handshake_fault() {
            if !self.policy.certificates_by_proxy {
                return Err(AdminError::UnusableCertificate { kid, fault });
            }
            warnings.push(Warning::OnlyByProxy { kid: kid.clone(), fault });
        }
        if !certificate.is_valid_at(self.now().0) {
            warnings.push(Warning::NotValidNow { kid });
        }
        Ok(warnings)
    }

    /// Returns the keys of the clients of a range, with their last uses.
    pub async fn client_keys(&self, range: ClientRange) -> AdminResult<Vec<ClientKey>> {
        let Outcome { value: clients, warnings } = readable(range);
        let clients: Vec<&Client> = clients.iter().map(AsRef::as_ref).collect();
        Ok(Outcome { value: self.keys_of(&clients).await?, warnings })
    }

    /// Returns the keys of clients, with their last uses.
    pub(super) async fn keys_of(&self, clients: &[&Client]) -> Result<Vec<ClientKey>, AdminError> {
        let with_keys = || clients.iter().filter(|client| !client.keys.is_empty());
        let ids: Vec<&str> = with_keys().map(|client| client.client_id.as_str()).collect();
        let uses = self.store.keys_last_used(&ids).await?;
        let of_one = |client: &&Client| {
            let keys = client.keys.iter().map(|key| ClientKey::new(&client.client_id, key, &uses));
            keys.collect::<Vec<_>>()
        };
        Ok(with_keys().flat_map(of_one).collect())
    }

    /// Removes a key of a client.
    pub async fn remove_client_key(&self, client_id: &ClientId, kid: &str) -> Result<(), AdminError> {
        if self.store.remove_client_key(client_id.as_str(), kid).await? {
            return Ok(());
        }
        self.client(client_id).await?;
        Err(AdminError::NoSuchClientKey { client_id: client_id.clone(), kid: kid.to_owned() })
    }
}

/// Maximum number of keys in a registered JWK Set.
const MAX_KEYS: usize = 16;

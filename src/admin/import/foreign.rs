//! Clients as files of other servers describe them, and the readings that these files have in common.

use std::sync::Arc;

use crate::admin::clients::NewClient;
use crate::admin::secrets::chosen_secret;
use crate::crypto::secret::ClientSecret;
use crate::crypto::verifying_key::VerifyingKey;
use crate::model::credential::StoredKey;
use crate::model::lifetime::TokenTtl;
use crate::model::resource::ResourceId;
use crate::model::time::{Span, UnixTime};

/// File of another server that has no clients.
#[derive(Debug, thiserror::Error)]
pub enum ForeignFileError {
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Form(&'static str),
}

/// Client of another server.
#[derive(Debug)]
pub struct ForeignClient {
    /// The client id, which stays the same.
    pub client_id: String,
    pub(super) read: Result<Registration, Unfit>,
}

/// Reason for which a client is not registered.
#[derive(Debug)]
pub(super) enum Unfit {
    /// The client may not use `client_credentials` at the other server.
    NotAMachine(&'static str),
    /// A value of the client cannot be registered.
    Faulty(String),
}

/// Registration that is made of a foreign client.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) new: NewClient,
    pub(super) secret: ForeignSecret,
    /// Differences from the other server, for the administrator.
    pub(super) notes: Vec<String>,
}

/// Secret of a client in a file.
#[derive(Debug)]
pub(super) enum ForeignSecret {
    Clear(ClientSecret),
    /// The client authenticates by a secret or a key that is not in the file, or cannot be used.
    Missing(String),
    /// The client authenticates otherwise.
    NotNeeded,
}

impl ForeignSecret {
    /// Reads a secret in clear. Masks, placeholders and hashes are none.
    pub(super) fn read(text: Option<&str>) -> Self {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Self::Missing("the file has none".to_owned());
        };
        let is_hash = ["$2a$", "$2b$", "$2y$", "$pbkdf2-", "$argon2"].into_iter().any(|form| text.starts_with(form));
        if text.chars().all(|character| character == '*') || text.starts_with("${") || is_hash {
            return Self::Missing("the file has it masked or hashed".to_owned());
        }
        match chosen_secret(text.as_bytes()) {
            Ok(secret) => Self::Clear(secret),
            Err(error) => Self::Missing(error.to_string()),
        }
    }
}

/// Makes the rows of keys, named by their ids or thumbprints.
pub(super) fn stored_keys(keys: Vec<VerifyingKey>, now: UnixTime) -> Vec<StoredKey> {
    let stored = |key: VerifyingKey| StoredKey {
        kid: key.kid().unwrap_or(key.jkt()).into(),
        key: Arc::new(key),
        created_at: now,
        expires_at: None,
        used: Arc::default(),
    };
    keys.into_iter().map(stored).collect()
}

/// Reads audiences. Those that are no resource indicators are noted.
pub(super) fn resources<'a>(audiences: impl IntoIterator<Item = &'a str>, notes: &mut Vec<String>) -> Vec<ResourceId> {
    let (mut resources, mut others): (Vec<ResourceId>, Vec<&str>) = (Vec::new(), Vec::new());
    for audience in audiences {
        match audience.parse() {
            Ok(resource) => resources.push(resource),
            Err(_) => others.push(audience),
        }
    }
    resources.sort();
    resources.dedup();
    if !others.is_empty() {
        notes.push(format!(
            "audience {} is left out: the audience of a token is a URI here (RFC 8707)",
            others.join(", ")
        ));
    }
    if resources.len() > 1 {
        notes.push("a token is for one of its audiences, which the client names with `resource`".to_owned());
    }
    resources
}

/// Reads a lifetime of tokens in seconds; a longer one than a day is a day. One that cannot be registered is noted.
pub(super) fn token_ttl(seconds: u64, notes: &mut Vec<String>) -> Option<TokenTtl> {
    if seconds > LONGEST {
        notes.push(format!("its tokens lived {seconds} s and live a day here, the longest possible"));
    }
    let ttl = TokenTtl::try_from(Span::from_secs(seconds.min(LONGEST)));
    // The note tells the error.
    ttl.map_err(|error| notes.push(format!("its lifetime of tokens is left out: {error}"))).ok()
}

/// Cuts a text to the length of its column.
pub(super) fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

/// Longest lifetime of a token, in seconds.
const LONGEST: u64 = 86_400;
/// Longest description and owner, in characters.
pub(super) const DESCRIPTION: usize = 512;
pub(super) const OWNER: usize = 128;
/// Most keys of a client.
pub(super) const MAX_KEYS: usize = 16;

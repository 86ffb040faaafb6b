//! `grantd client key`: public keys for `private_key_jwt`, added beside each other and removed one by one.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use super::Shell;
use super::open::Purpose;
use super::registered::{each, one};
use super::secret::{found, or_never};
use super::spans::from_now;
use crate::crypto::certificate::Certificate;
use crate::crypto::jwk_set::JwkSet;
use crate::crypto::signature_alg::SignatureAlg;
use crate::crypto::verifying_key::VerifyingKey;
use crate::model::client_id::ClientId;
use crate::model::credential::StoredKey;
use crate::model::time::{Span, UnixTime};
use crate::store::StoreError;
use crate::telemetry::printable::one_line;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add public keys beside those the client has: a JWK, a JWK Set, or one key in PEM
    Add {
        /// The client id
        id: ClientId,
        /// File with the public keys; `-` is stdin
        #[arg(long, value_name = "FILE")]
        jwk: PathBuf,
        /// Algorithm of a key that does not name its own, such as RS256 for a key in PEM
        #[arg(long)]
        alg: Option<SignatureAlg>,
        /// Let the keys expire after this time [default: never]
        #[arg(long, value_name = "SPAN", value_parser = from_now)]
        expires_in: Option<Span>,
    },
    /// List the keys of a client, or of all clients
    List {
        /// The client id
        id: Option<ClientId>,
    },
    /// Remove a key
    Remove {
        /// The client id
        id: ClientId,
        /// The key's id
        #[arg(allow_hyphen_values = true)]
        kid: String,
    },
}

impl Command {
    fn purpose(&self) -> Purpose {
        match self {
            Self::List { .. } => Purpose::Look,
            Self::Add { .. } | Self::Remove { .. } => Purpose::Change,
        }
    }

    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let (config, store) = shell.store(self.purpose()).await?;
        match self {
            Self::Add { id, jwk, alg, expires_in } => {
                let now = shell.now();
                let stored = |key: VerifyingKey| StoredKey {
                    kid: key.kid().unwrap_or(key.jkt()).into(),
                    key: Arc::new(key),
                    created_at: now,
                    expires_at: expires_in.map(|span| now.plus(span)),
                    used: Arc::default(),
                };
                let text = read(&jwk)?;
                let keys: Vec<StoredKey> = keys(&text, alg)
                    .with_context(|| format!("--jwk {}", jwk.display()))?
                    .into_iter()
                    .map(stored)
                    .collect();
                for stored in &keys {
                    let Some(fault) = stored.key.x5c().and_then(Certificate::handshake_fault) else { continue };
                    // A proxy that ends TLS may take it.
                    if !config.client_certificates.header {
                        bail!(
                            "--jwk {}: key {}: no TLS handshake takes the certificate in x5c: {fault}; leave x5c out, or make a certificate of X.509 version 3",
                            jwk.display(),
                            stored.kid
                        );
                    }
                    shell.say(&format!("warning: the listener of server.mtls does not take the certificate of key {} ({fault}), only a proxy may", stored.kid))?;
                }
                let is_over =
                    |stored: &&StoredKey| stored.key.x5c().is_some_and(|certificate| !certificate.is_valid_at(now.0));
                for stored in keys.iter().filter(is_over) {
                    shell.say(&format!("warning: the certificate of key {} is not valid now, and does not authenticate anybody outside its dates", stored.kid))?;
                }
                match store.add_client_keys(id.as_str(), &keys).await {
                    Err(StoreError::Refused(reason)) if reason.contains("no such client") => found(false, &id)?,
                    done => done?,
                }
                let values: Vec<Value> = keys.iter().map(|key| key_value(key, None)).collect();
                let value = json!({"client_id": id, "keys": values});
                shell.print(&value, || keys.iter().map(|key| key_line(key, None)).collect())
            }
            Self::List { id } => {
                let (clients, uses) = (each(shell, &store, id.as_ref()).await?, store.key_uses().await?);
                let last_used = |id: &ClientId, kid: &str| uses.get(&(id.to_string(), kid.to_owned())).copied();
                let rows =
                    || clients.iter().flat_map(|client| client.keys.iter().map(move |key| (&client.client_id, key)));
                let value: Vec<Value> = rows()
                    .map(|(id, key)| {
                        let mut value = key_value(key, last_used(id, &key.kid));
                        if let Value::Object(members) = &mut value {
                            members.insert("client_id".into(), id.as_str().into());
                        }
                        value
                    })
                    .collect();
                shell.print(&value, || {
                    rows().map(|(id, key)| format!("{id}  {}", key_line(key, last_used(id, &key.kid)))).collect()
                })
            }
            Self::Remove { id, kid } => {
                if !store.remove_client_key(id.as_str(), &kid).await? {
                    drop(one(&store, &id).await?);
                    let word = id.in_shell();
                    bail!("client {id} has no key {kid}; `grantd client key list {word}` lists them");
                }
                shell.say(&format!("key {kid} of client {id} is removed, within a second on every replica"))
            }
        }
    }
}

/// Everything that a file or stdin holds, if it is no more than keys need.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    let name = || format!("reading {}", path.display());
    let read = if path.as_os_str() == "-" {
        io::stdin().take(MAX_FILE + 1).read_to_end(&mut text)
    } else {
        std::fs::File::open(path).with_context(name)?.take(MAX_FILE + 1).read_to_end(&mut text)
    };
    if read.with_context(name)? as u64 > MAX_FILE {
        bail!("{}: more than {MAX_FILE} bytes; public keys are shorter", path.display());
    }
    Ok(text)
}

/// L105: whoever registers keys by hand wants all of them, so one that cannot be used is an error.
fn keys(text: &[u8], alg: Option<SignatureAlg>) -> anyhow::Result<Vec<VerifyingKey>> {
    let start = text.trim_ascii_start();
    if start.starts_with(b"-----") {
        return Ok(vec![VerifyingKey::from_pem(text, alg)?]);
    }
    if crate::crypto::json::object(text)?.contains_key("keys") {
        let set = JwkSet::parse(text, alg, MAX_KEYS)?;
        if let Some(skipped) = set.skipped.first() {
            bail!("key {} of the set: {}", skipped.at + 1, skipped.why);
        }
        if set.keys.is_empty() {
            bail!("the set has no keys");
        }
        return Ok(set.keys);
    }
    Ok(vec![VerifyingKey::from_text(text, alg)?])
}

/// A key as JSON.
pub(super) fn key_value(stored: &StoredKey, last_used_at: Option<UnixTime>) -> Value {
    json!({
        "kid": stored.kid,
        "alg": stored.key.alg().map(SignatureAlg::as_str),
        "algs": stored.key.algs().map(SignatureAlg::as_str).collect::<Vec<_>>(),
        "thumbprint": stored.key.jkt(),
        "x5t#S256": stored.key.x5c().map(Certificate::x5t_s256),
        "created_at": stored.created_at,
        "expires_at": stored.expires_at,
        "last_used_at": last_used_at,
    })
}

/// A key as a line of text.
pub(super) fn key_line(stored: &StoredKey, last_used_at: Option<UnixTime>) -> String {
    let (expires, used) = (or_never(stored.expires_at), or_never(last_used_at));
    format!(
        "key {}  {}  made {}  expires {expires}  last used {used}\n",
        one_line(&stored.kid),
        stored.key.alg_text(),
        stored.created_at
    )
}

const MAX_FILE: u64 = 64 * 1024;
const MAX_KEYS: usize = 16;

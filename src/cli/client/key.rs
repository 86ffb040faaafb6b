//! `grantd client key`: public keys for `private_key_jwt`, added beside each other and removed one by one.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use super::secret::or_never;
use crate::admin::client_keys::{ClientKey, read_public_keys};
use crate::cli::Shell;
use crate::cli::open::Purpose;
use crate::crypto::signature_alg::SignatureAlg;
use crate::model::client_id::ClientId;
use crate::model::lifetime::ExpiresIn;
use crate::telemetry::printable::one_line;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
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
        /// Time until the keys expire [default: never]
        #[arg(long, value_name = "SPAN")]
        expires_in: Option<ExpiresIn>,
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
            Self::List { .. } => Purpose::Read,
            Self::Add { .. } | Self::Remove { .. } => Purpose::Change,
        }
    }

    pub(in crate::cli) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let admin = shell.admin(self.purpose()).await?;
        match self {
            Self::Add { id, jwk, alg, expires_in } => {
                let keys = read_public_keys(&read(&jwk)?, alg).with_context(|| format!("--jwk {}", jwk.display()))?;
                let added = shell.after_warnings(admin.add_client_keys(&id, keys, expires_in).await?);
                let values: Vec<Value> = added.iter().map(ClientKey::document).collect();
                shell.print(&json!({"client_id": id, "keys": values}), || added.iter().map(key_line).collect())
            }
            Self::List { id } => {
                let mut clients = admin.clients(id.as_ref()).await?;
                let mut list = shell.list();
                while let Some(range) = clients.next().await? {
                    for key in shell.after_warnings(admin.client_keys(range).await?) {
                        let line = || format!("{}  {}", key.client_id, key_line(&key));
                        list.item(|| key.document_of_client(), line)?;
                    }
                }
                list.end()
            }
            Self::Remove { id, kid } => {
                admin.remove_client_key(&id, &kid).await?;
                shell.info(&format!("key {kid} of client {id} is removed, within a second on every replica"))
            }
        }
    }
}

/// Reads a file or stdin, up to the size of a JWK Set.
pub(in crate::cli) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    let name = || format!("reading {}", path.display());
    let read = if path.as_os_str() == "-" {
        io::stdin().take(MAX_FILE + 1).read_to_end(&mut text)
    } else {
        std::fs::File::open(path).with_context(name)?.take(MAX_FILE + 1).read_to_end(&mut text)
    };
    if read.with_context(name)? as u64 > MAX_FILE {
        bail!("{}: more than {MAX_FILE} bytes; public keys and certificates are shorter", path.display());
    }
    Ok(text)
}

/// Writes a key as a line of text.
pub(super) fn key_line(ClientKey { key, last_used_at, .. }: &ClientKey) -> String {
    format!(
        "key {}  {}  made {}  expires {}  last used {}\n",
        one_line(&key.kid),
        key.key.alg_text(),
        key.created_at,
        or_never(key.expires_at),
        or_never(*last_used_at)
    )
}

const MAX_FILE: u64 = 64 * 1024;

//! `grantd client key`: public keys for `private_key_jwt`, added beside each other and removed one by one.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::admin::client_keys::{ClientKey, read_public_keys};
use crate::cli::open::Purpose;
use crate::cli::table::{Cell, Column, Times, columns_of_client};
use crate::cli::{Shell, states};
use crate::crypto::signature_alg::SignatureAlg;
use crate::model::client_id::ClientId;
use crate::model::lifetime::ExpiresIn;

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
    #[command(visible_alias = "ls")]
    List {
        /// The client id
        id: Option<ClientId>,
    },
    /// Remove a key
    #[command(visible_alias = "rm")]
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
                let times = shell.times(&admin);
                shell.print_sheet(&json!({"client_id": id, "keys": values}), |sheet| {
                    sheet.table(OF_CLIENT, added.iter().map(|key| row(key, times)));
                })
            }
            Self::List { id } => {
                let mut clients = admin.clients(id.as_ref()).await?;
                let (mut list, times) = (shell.list(OF_ALL), shell.times(&admin));
                while let Some(range) = clients.next().await? {
                    for key in shell.after_warnings(admin.client_keys(range).await?) {
                        let row = || [vec![Cell::new(key.client_id.as_str())], row(&key, times)].concat();
                        list.item(|| key.document_of_client(), row)?;
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

/// Returns a key as a row, without its client.
pub(super) fn row(ClientKey { key, last_used_at, .. }: &ClientKey, times: Times) -> Vec<Cell<'_>> {
    vec![
        Cell::new(&*key.kid),
        Cell::new(key.key.alg_text()),
        times.cell(key.created_at),
        times.or_never(key.expires_at),
        times.or_never(*last_used_at),
        states::of_credential(key.created_at, key.expires_at, *last_used_at, times),
    ]
}

/// Columns of keys.
const OF_ALL: &[Column] = &[
    Column::whole("CLIENT"),
    Column::whole("KEY"),
    Column::whole("ALG"),
    Column::whole("MADE"),
    Column::whole("EXPIRES"),
    Column::whole("LAST USED"),
    Column::whole("STATE"),
];
/// Columns of the keys of one client.
pub(super) const OF_CLIENT: &[Column] = columns_of_client(OF_ALL);
const MAX_FILE: u64 = 64 * 1024;

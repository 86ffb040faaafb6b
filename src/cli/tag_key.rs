//! `grantd key tag`: the keys under which generated secrets carry a tag.

use anyhow::bail;
use clap::Subcommand;
use serde_json::{Value, json};

use super::Shell;
use crate::config::Config;
use crate::crypto::seal::SealingKey;
use crate::crypto::secret_tag::{TagKey, TagKid};
use crate::serve::prepare::{is_absent, sealing_key};
use crate::store::tag_keys::SealedTagKey;
use crate::store::{Database, Store};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the keys that tag secrets; the key in use is first
    List,
    /// Make the next key; secrets tagged with former keys go on working
    Rotate,
    /// Remove a key; secrets it tagged go on working, and each guess at them costs a hash
    Remove {
        /// The key's id
        kid: TagKid,
    },
}

impl Command {
    pub(super) async fn run(self, shell: &Shell, config: &Config, store: &Store) -> anyhow::Result<()> {
        match self {
            Self::List => {
                let keys = store.tag_keys().await?;
                let values: Vec<Value> =
                    keys.iter().map(|key| json!({"kid": key.kid, "created_at": key.created_at})).collect();
                shell.print(&values, || {
                    keys.iter().map(|key| format!("{}  made {}\n", key.kid, key.created_at)).collect()
                })
            }
            Self::Rotate => {
                let key = SealedTagKey::generate(&sealing_key(config)?, shell.now())?;
                store.add_tag_key(&key, false).await?;
                let value = json!({"kid": key.kid, "created_at": key.created_at});
                shell.print(&value, || format!("{} tags new secrets from now on", key.kid))
            }
            Self::Remove { kid } => {
                if !store.remove_tag_key(&kid.to_string()).await? {
                    bail!("there is no tag key {kid}; `grantd key tag list` lists them");
                }
                shell.say(&format!("tag key {kid} is removed: secrets that it tagged go on working, and a guess at any of them costs a hash until they are replaced"))
            }
        }
    }
}

/// The keys that tag secrets, the one in use first; the first of all is made here. Without any, secrets go untagged.
pub(super) async fn usable(shell: &Shell, config: &Config, store: &Store) -> anyhow::Result<Vec<TagKey>> {
    let under = sealing_key(config)?;
    let mut sealed = store.tag_keys().await?;
    if sealed.is_empty() {
        store.add_tag_key(&SealedTagKey::generate(&under, shell.now())?, true).await?;
        sealed = store.tag_keys().await?;
    }
    let keys = opened(&sealed, &under);
    if keys.is_empty() {
        shell.say("no tag key opens under the configured sealing key, so this secret carries no tag; `grantd doctor` says more")?;
    }
    Ok(keys)
}

/// The same for a seed, which changes nothing here: what cannot be had from the database is done without.
pub(super) async fn for_seed(config: &Config) -> anyhow::Result<Vec<TagKey>> {
    let there = match &config.database {
        Database::Sqlite(path) => path.exists(),
        Database::Postgres(_) => true,
    };
    let sealed = if there { Store::open(&config.database, 1).tag_keys().await } else { Ok(Vec::new()) };
    Ok(match sealed {
        Ok(sealed) if !sealed.is_empty() && !is_absent(&config.sealing_key_file) => {
            opened(&sealed, &sealing_key(config)?)
        }
        // The seed says so in a comment: what stands on stderr is the secret and nothing else.
        _ => Vec::new(),
    })
}

/// Those that open. The others are no reason to make no secret; `grantd doctor` says what is wrong with them.
fn opened(sealed: &[SealedTagKey], under: &SealingKey) -> Vec<TagKey> {
    sealed.iter().filter_map(|key| key.open(under).ok()).collect()
}

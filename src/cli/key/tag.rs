//! `grantd key tag`: the keys that tag generated secrets.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::cli::Shell;
use crate::cli::table::{Cell, Column};
use crate::crypto::secret_tag::TagKid;
use crate::store::tag_keys::SealedTagKey;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// List the keys that tag secrets; the key in use is first
    #[command(visible_alias = "ls")]
    List,
    /// Generate the next key; secrets tagged with former keys still work
    Rotate,
    /// Remove a key; secrets it tagged still work, and each guess at them costs a hash
    #[command(visible_alias = "rm")]
    Remove {
        /// The key's id
        kid: TagKid,
    },
}

impl Command {
    pub(in crate::cli) async fn run(self, shell: &Shell, admin: &Admin) -> anyhow::Result<()> {
        match self {
            Self::List => {
                let (keys, times) = (admin.tag_keys().await?, shell.times(admin));
                shell.print_list(COLUMNS, &keys, value, |key| vec![Cell::new(&key.kid), times.cell(key.created_at)])
            }
            Self::Rotate => {
                let key = admin.rotate_tag_key().await?;
                shell.print(&value(&key), || format!("{} tags new secrets from now on", key.kid))
            }
            Self::Remove { kid } => {
                admin.remove_tag_key(kid).await?;
                shell.info(&format!("tag key {kid} is removed: secrets that it tagged still work, and a guess at any of them costs a hash until they are replaced"))
            }
        }
    }
}

fn value(key: &SealedTagKey) -> Value {
    json!({"kid": key.kid, "created_at": key.created_at})
}

const COLUMNS: &[Column] = &[Column::whole("TAG KEY"), Column::whole("MADE")];

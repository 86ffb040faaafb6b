//! `grantd client secret`: rotation with overlap.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::json;

use super::{Shell, read_secret_from_stdin, tag_key};
use crate::crypto::secret::{ClientSecret, Memory, SecretHash, new_secret_id};
use crate::model::client_id::ClientId;
use crate::model::credential::Origin;
use crate::model::time::{Span, UnixTime};
use crate::store::secrets::{NewSecret, SecretSummary};
use crate::store::{Store, StoreError};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a secret beside those it has; it is shown once
    Add {
        /// The client id
        id: ClientId,
        /// When it ends
        #[arg(long, value_name = "SPAN")]
        expires_in: Option<Span>,
        /// What it is called
        #[arg(long, default_value = "")]
        label: String,
    },
    /// Add a secret chosen elsewhere, read from stdin
    Import {
        /// The client id
        id: ClientId,
        /// When it ends
        #[arg(long, value_name = "SPAN")]
        expires_in: Option<Span>,
        /// What it is called
        #[arg(long, default_value = "")]
        label: String,
    },
    /// List a client's secrets, when each was made, ends and was last used
    List {
        /// The client id
        id: ClientId,
    },
    /// Let one secret work no more
    Revoke {
        /// The client id
        id: ClientId,
        /// The secret's id
        secret_id: String,
    },
    /// Let one secret work no more, if it has not been used for a while
    Retire {
        /// The client id
        id: ClientId,
        /// The secret's id
        secret_id: String,
        /// For how long it has not been used; at least 1m, since uses are written down every half minute
        #[arg(long, value_name = "SPAN")]
        if_unused: Span,
    },
    /// List secrets of all clients that end soon
    Expiring {
        /// How soon
        #[arg(long, value_name = "SPAN")]
        within: Span,
    },
}

impl Command {
    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let (config, store) = shell.store().await?;
        match self {
            Self::Add { id, expires_in, label } => {
                let tag_keys = tag_key::usable(shell, &config, &store).await?;
                let (secret, stored) = shell.new_secret(&config, &id, &tag_keys, label, expires_in)?;
                add(&store, &id, &stored).await?;
                let value = json!({
                    "client_id": id, "secret_id": stored.secret_id, "client_secret": secret.expose(), "expires_at": stored.expires_at,
                });
                shell.print(&value, || {
                    let expires = stored.expires_at.map_or_else(|| "never".into(), |at| at.to_string());
                    format!(
                        "client_id      {id}\nsecret_id      {}\nclient_secret  {}\nexpires        {expires}\n\nThe secret is not stored and will not be shown again.",
                        stored.secret_id,
                        secret.expose()
                    )
                })
            }
            Self::Import { id, expires_in, label } => {
                let secret = read_secret_from_stdin()?;
                // A secret that another grantd made carries its id, and keeps it.
                let (secret_id, origin) = match secret.secret_id() {
                    Some(secret_id) => {
                        let tag_keys = tag_key::usable(shell, &config, &store).await?;
                        let tagged_by = secret.tagged_by(id.as_str(), &tag_keys);
                        (secret_id.to_owned(), tagged_by.map_or(Origin::Named, Origin::Tagged))
                    }
                    None => (new_secret_id()?, Origin::Imported),
                };
                let now = shell.now();
                let hash = SecretHash::new(secret.expose(), config.argon2, &mut Memory::default())?;
                let expires_at = expires_in.map(|span| now.plus(span));
                let stored = NewSecret { secret_id, hash, origin, label, created_at: now, expires_at };
                add(&store, &id, &stored).await?;
                let value = json!({"client_id": id, "secret_id": stored.secret_id, "expires_at": stored.expires_at});
                shell.print(&value, || format!("client_id      {id}\nsecret_id      {}", stored.secret_id))
            }
            Self::List { id } => print_all(shell, &store.secrets(Some(id.as_str())).await?),
            Self::Revoke { id, secret_id } => {
                if !store.revoke_secret(id.as_str(), &secret_id, shell.now()).await? {
                    found(!store.secrets(Some(id.as_str())).await?.is_empty(), &id)?;
                    bail!("client {id} has no secret {secret_id}; `grantd client secret list {id}` lists them");
                }
                shell.say(&format!("secret {secret_id} of client {id} is revoked, within a second on every replica"))
            }
            Self::Retire { id, secret_id, if_unused } => retire(shell, &store, &id, &secret_id, if_unused).await,
            Self::Expiring { within } => {
                let (now, until) = (shell.now(), shell.now().plus(within));
                let ends = |secret: &SecretSummary| {
                    secret.revoked_at.is_none() && secret.expires_at.is_some_and(|at| at > now && at <= until)
                };
                let mut secrets: Vec<SecretSummary> = store.secrets(None).await?.into_iter().filter(ends).collect();
                secrets.sort_by_key(|secret| secret.expires_at);
                print_all(shell, &secrets)
            }
        }
    }
}

async fn retire(shell: &Shell, store: &Store, id: &ClientId, secret_id: &str, if_unused: Span) -> anyhow::Result<()> {
    if if_unused.seconds() < 60 {
        bail!("--if-unused is at least 1m: replicas write down every half minute what was used");
    }
    let now = shell.now();
    let since = UnixTime(now.0 - if_unused.seconds());
    let done = |at: &str| shell.say(&format!("secret {secret_id} of client {id} is revoked{at}"));
    if store.retire_secret(id.as_str(), secret_id, since, now).await? {
        return done(", within a second on every replica");
    }
    let secrets = store.secrets(Some(id.as_str())).await?;
    found(!secrets.is_empty(), id)?;
    let Some(secret) = secrets.into_iter().find(|secret| secret.secret_id == secret_id) else {
        bail!("client {id} has no secret {secret_id}; `grantd client secret list {id}` lists them");
    };
    match (secret.revoked_at, secret.last_used_at.filter(|at| *at > since)) {
        (Some(at), _) => done(&format!(" since {at}")),
        (None, Some(at)) => bail!("secret {secret_id} of client {id} is in use, last at {at}: nothing is changed"),
        (None, None) => bail!(
            "secret {secret_id} of client {id} was made at {}, less than {if_unused} ago: nothing is changed",
            secret.created_at
        ),
    }
}

fn print_all(shell: &Shell, secrets: &[SecretSummary]) -> anyhow::Result<()> {
    shell.print(&secrets, || {
        secrets.iter().map(|secret| format!("{}  {}", secret.client_id, secret_line(secret))).collect()
    })
}

/// Writes a secret into a new file that only its owner reads.
pub(super) fn write_to_file(secret: &ClientSecret, path: &Path) -> anyhow::Result<()> {
    let fault = || format!("--secret-file {} (it must not exist yet)", path.display());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).with_context(fault)?;
    writeln!(file, "{}", secret.expose()).and_then(|()| file.sync_all()).with_context(fault)
}

/// A secret as a line of text.
pub(super) fn secret_line(secret: &SecretSummary) -> String {
    format!(
        "secret {}  {}made {}  expires {}  last used {}{}{}\n",
        secret.secret_id,
        if secret.label.is_empty() { String::new() } else { format!("({})  ", secret.label) },
        secret.created_at,
        or_never(secret.expires_at),
        or_never(secret.last_used_at),
        if secret.imported { "  imported" } else { "" },
        secret.revoked_at.map(|at| format!("  REVOKED {at}")).unwrap_or_default(),
    )
}

/// A moment that may not come, or has not yet.
pub(super) fn or_never(at: Option<UnixTime>) -> String {
    at.map_or_else(|| "never".to_owned(), |at| at.to_string())
}

/// Turns "no row" into a message.
pub(super) fn found(found: bool, id: &ClientId) -> anyhow::Result<()> {
    if found { Ok(()) } else { bail!("there is no client {id}; `grantd client list` lists them") }
}

/// Stores a secret; that the client is not there is said as for every other command.
async fn add(store: &Store, id: &ClientId, secret: &NewSecret) -> anyhow::Result<()> {
    match store.add_secret(id.as_str(), secret).await {
        Err(StoreError::Refused(reason)) if reason.contains("no such client") => found(false, id),
        done => Ok(done?),
    }
}

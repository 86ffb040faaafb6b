//! `grantd client secret`: rotation with overlap.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::disclosure::{SHOWN_ONCE, show_once};
use super::open::Purpose;
use super::registered::one;
use super::spans::{from_now, unused};
use super::{Shell, read_secret_from_stdin, tag_key};
use crate::config::Config;
use crate::crypto::secret::{Memory, SecretHash, new_secret_id};
use crate::model::client_id::ClientId;
use crate::model::credential::Origin;
use crate::model::time::{Span, UnixTime};
use crate::store::secrets::{NewSecret, SecretSummary};
use crate::store::{Store, StoreError};
use crate::telemetry::printable::one_line;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a secret beside those the client has; it is shown once
    Add(Add),
    /// Add a secret that was chosen elsewhere, read from stdin
    Import(Add),
    /// Add a secret, and let the client's other secrets expire after an overlap
    Rotate {
        #[command(flatten)]
        add: Add,
        /// Time until the other secrets expire; those that expire sooner are left alone
        #[arg(long, value_name = "SPAN")]
        overlap: Span,
    },
    /// List a client's secrets, and when each was made, expires and was last used
    List {
        /// The client id
        id: ClientId,
    },
    /// Revoke a secret
    Revoke {
        /// The client id
        id: ClientId,
        /// The secret's id
        secret_id: String,
    },
    /// Revoke a secret unless it is in use
    Retire {
        /// The client id
        id: ClientId,
        /// The secret's id
        secret_id: String,
        /// Revoke only if unused for at least this long (minimum 1m)
        #[arg(long, value_name = "SPAN", value_parser = unused)]
        if_unused: Span,
    },
    /// List the secrets of all clients that expire soon
    Expiring {
        /// Time within which they expire
        #[arg(long, value_name = "SPAN")]
        within: Span,
    },
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// The client id
    id: ClientId,
    /// Let the secret expire after this time [default: never]
    #[arg(long, value_name = "SPAN", value_parser = from_now)]
    expires_in: Option<Span>,
    /// Text to tell the secret from others, at most 128 characters
    #[arg(long, default_value = "")]
    label: String,
}

impl Command {
    fn purpose(&self) -> Purpose {
        match self {
            Self::List { .. } | Self::Expiring { .. } => Purpose::Look,
            Self::Add(_) | Self::Import(_) | Self::Rotate { .. } | Self::Revoke { .. } | Self::Retire { .. } => {
                Purpose::Change
            }
        }
    }

    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let (config, store) = shell.store(self.purpose()).await?;
        match self {
            Self::Add(add) => add.run(shell, &config, &store, None).await.map(drop),
            Self::Rotate { add, overlap } => rotate(shell, &config, &store, add, overlap).await,
            Self::Import(Add { id, expires_in, label }) => {
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
                let of_client = store.secrets(Some(id.as_str())).await?;
                let before =
                    of_client.iter().find(|secret| secret.secret_id == secret_id).and_then(|one| one.revoked_at);
                if !store.revoke_secret(id.as_str(), &secret_id, shell.now()).await? {
                    drop(one(&store, &id).await?);
                    let word = id.in_shell();
                    bail!("client {id} has no secret {secret_id}; `grantd client secret list {word}` lists them");
                }
                match before {
                    Some(at) => shell.say(&format!(
                        "nothing changed: secret {secret_id} of client {id} is revoked already, since {at}"
                    )),
                    None => shell.say(&format!(
                        "secret {secret_id} of client {id} is revoked, within a second on every replica"
                    )),
                }
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

impl Add {
    /// Stores a new secret and shows it, with the moment at which others expire where it replaces them.
    async fn run(
        self,
        shell: &Shell,
        config: &Config,
        store: &Store,
        others_expire_at: Option<UnixTime>,
    ) -> anyhow::Result<String> {
        let Self { id, expires_in, label } = self;
        let tag_keys = tag_key::usable(shell, config, store).await?;
        let (secret, stored) = shell.new_secret(config, &id, &tag_keys, label, expires_in)?;
        add(store, &id, &stored).await?;
        let (secret_id, secret) = (stored.secret_id.as_str(), secret.expose());
        let mut value = json!({
            "client_id": id, "secret_id": secret_id, "client_secret": secret, "expires_at": stored.expires_at,
        });
        if let (Some(at), Value::Object(members)) = (others_expire_at, &mut value) {
            members.insert("others_expire_at".into(), at.0.into());
        }
        let expires = or_never(stored.expires_at);
        let text = || {
            format!(
                "client_id      {id}\nsecret_id      {secret_id}\nclient_secret  {secret}\nexpires        {expires}\n\n{SHOWN_ONCE}"
            )
        };
        show_once(shell, store, (&id, secret_id), &value, text).await?;
        Ok(stored.secret_id)
    }
}

/// The others expire only once the new secret was shown: one that nobody has seen replaces nothing.
async fn rotate(shell: &Shell, config: &Config, store: &Store, add: Add, overlap: Span) -> anyhow::Result<()> {
    let (id, at) = (add.id.clone(), store.now().await?.plus(overlap));
    let secret_id = add.run(shell, config, store, Some(at)).await?;
    let others = store
        .expire_other_secrets(id.as_str(), &secret_id, at)
        .await
        .with_context(|| format!("secret {secret_id} of client {id} works, and the others were not made to expire"))?;
    let s = if others == 1 { "" } else { "s" };
    shell.say(&format!(
        "{others} other secret{s} of client {id} now expire{} at {at}",
        if others == 1 { "s" } else { "" }
    ))
}

async fn retire(shell: &Shell, store: &Store, id: &ClientId, secret_id: &str, if_unused: Span) -> anyhow::Result<()> {
    let now = shell.now();
    let since = UnixTime(now.0 - if_unused.seconds());
    let done = |at: &str| shell.say(&format!("secret {secret_id} of client {id} is revoked{at}"));
    if store.retire_secret(id.as_str(), secret_id, since, now).await? {
        return done(", within a second on every replica");
    }
    let secrets = store.secrets(Some(id.as_str())).await?;
    drop(one(store, id).await?);
    let Some(secret) = secrets.into_iter().find(|secret| secret.secret_id == secret_id) else {
        bail!("client {id} has no secret {secret_id}; `grantd client secret list {}` lists them", id.in_shell());
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

/// A secret as a line of text.
pub(super) fn secret_line(secret: &SecretSummary) -> String {
    format!(
        "secret {}  {}made {}  expires {}  last used {}{}{}\n",
        secret.secret_id,
        if secret.label.is_empty() { String::new() } else { format!("({})  ", one_line(&secret.label)) },
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

//! `grantd client secret`: adds, imports, rotates, lists, revokes and retires secrets.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Map, json};

use crate::admin::Admin;
use crate::admin::secrets::{GeneratedSecret, Rotation, SecretOptions};
use crate::cli::disclosure::{SHOWN_ONCE, show_once};
use crate::cli::list::List;
use crate::cli::open::Purpose;
use crate::cli::table::{Cell, Column, Times, columns_of_client};
use crate::cli::{Shell, read_secret_from_stdin, states};
use crate::model::client_id::ClientId;
use crate::model::lifetime::{ExpiresIn, UnusedFor};
use crate::model::time::{Span, UnixTime};
use crate::store::secrets::SecretSummary;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Add a secret beside those the client has; it is shown once
    Add(Add),
    /// Add a secret that was chosen elsewhere, read from stdin
    Import(New),
    /// Add a secret, and expire the client's other secrets after an overlap
    Rotate {
        #[command(flatten)]
        add: Add,
        /// Time until the other secrets expire, or 0s for at once; those that expire sooner are left alone
        #[arg(long, value_name = "SPAN", default_value = "24h")]
        overlap: Span,
    },
    /// List a client's secrets, with the creation, expiry and last use of each
    #[command(visible_alias = "ls")]
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
        #[arg(long, value_name = "SPAN")]
        if_unused: UnusedFor,
    },
    /// List the secrets of all clients that expire soon
    Expiring {
        /// Time within which they expire
        #[arg(long, value_name = "SPAN")]
        within: Span,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Add {
    #[command(flatten)]
    new: New,
    /// Write the secret to this new file, readable by its owner alone, instead of printing it
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct New {
    /// The client id
    id: ClientId,
    /// Time until the secret expires, at most `secrets.max_age` [default: `secrets.max_age`, or never without it]
    #[arg(long, value_name = "SPAN")]
    expires_in: Option<ExpiresIn>,
    /// Text to tell the secret from others, at most 128 characters
    #[arg(long, default_value = "")]
    label: String,
}

impl Command {
    fn purpose(&self) -> Purpose {
        match self {
            Self::List { .. } | Self::Expiring { .. } => Purpose::Read,
            Self::Add(_) | Self::Import(_) | Self::Rotate { .. } | Self::Revoke { .. } | Self::Retire { .. } => {
                Purpose::Change
            }
        }
    }

    pub(in crate::cli) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let admin = shell.admin(self.purpose()).await?;
        let revoked = |id: &ClientId, secret_id: &str| format!("secret {secret_id} of client {id} is revoked");
        match self {
            Self::Add(add) => add.run(shell, &admin, None).await,
            Self::Rotate { add, overlap } => {
                let rotation = admin.begin_rotation(&add.new.id, overlap).await?;
                add.run(shell, &admin, Some(rotation)).await
            }
            Self::Import(New { id, expires_in, label }) => {
                let secret = read_secret_from_stdin()?;
                let options = SecretOptions { label, expires_in };
                let stored = shell.after_warnings(admin.import_secret(&id, &secret, options).await?);
                let value = json!({"client_id": id, "secret_id": stored.secret_id, "expires_at": stored.expires_at});
                shell.print(&value, || format!("client_id      {id}\nsecret_id      {}", stored.secret_id))
            }
            Self::List { id } => {
                let secrets = admin.secrets(&id).await?;
                if secrets.is_empty() {
                    // A mistyped id has no secrets either.
                    admin.client(&id).await?;
                }
                let (mut list, times) = (shell.list(OF_ALL), shell.times(&admin));
                print_all(&mut list, &secrets, times)?;
                list.end()
            }
            Self::Revoke { id, secret_id } => shell.info(&match admin.revoke_secret(&id, &secret_id).await? {
                Some(at) => format!("nothing changed: {} since {at}", revoked(&id, &secret_id)),
                None => format!("{}, within a second on every replica", revoked(&id, &secret_id)),
            }),
            Self::Retire { id, secret_id, if_unused } => {
                shell.info(&match admin.retire_secret(&id, &secret_id, if_unused).await? {
                    Some(at) => format!("{} since {at}", revoked(&id, &secret_id)),
                    None => format!("{}, within a second on every replica", revoked(&id, &secret_id)),
                })
            }
            Self::Expiring { within } => {
                let (mut secrets, mut list, mut part) =
                    (admin.expiring_secrets(within), shell.list(OF_ALL), Vec::new());
                let times = shell.times(&admin);
                while let Some(next) = secrets.next(&part).await? {
                    part = next;
                    print_all(&mut list, &part, times)?;
                }
                list.end()
            }
        }
    }
}

impl Add {
    /// Adds a secret and shows it. A rotation then makes the others expire, once the new one was shown.
    async fn run(self, shell: &Shell, admin: &Admin, rotation: Option<Rotation>) -> anyhow::Result<()> {
        let Self { new: New { id, expires_in, label }, secret_file } = self;
        let made = shell.after_warnings(admin.generate_secret(&id, SecretOptions { label, expires_in }).await?);
        let file = super::secret_file(Some(&made), secret_file.as_deref())?;
        let GeneratedSecret { secret, stored } = made;
        admin.store_secret(&id, &stored).await?;
        let secret_id = stored.secret_id.as_str();
        let mut members = Map::from_iter([
            ("client_id".to_owned(), json!(id)),
            ("secret_id".to_owned(), json!(secret_id)),
            ("expires_at".to_owned(), json!(stored.expires_at)),
        ]);
        members.extend(rotation.iter().map(|one| ("others_expire_at".to_owned(), json!(one.others_expire_at))));
        let expires = or_never(stored.expires_at);
        let text =
            |secret: &str| format!("client_id      {id}\nsecret_id      {secret_id}\n{secret}expires        {expires}");
        if let Some(file) = file {
            file.publish()?;
            shell.print(&members, || text(""))?;
        } else {
            members.insert("client_secret".to_owned(), secret.expose().into());
            let text = || format!("{}\n\n{SHOWN_ONCE}", text(&format!("client_secret  {}\n", secret.expose())));
            show_once(shell, admin, (&id, secret_id), &members, text).await?;
        }
        let Some(rotation) = rotation else { return Ok(()) };
        let others = admin.end_rotation(&rotation, &stored).await.with_context(|| {
            format!("secret {secret_id} of client {id} was added, and the others were not made to expire")
        })?;
        let (s, verb) = if others == 1 { ("", "expires") } else { ("s", "expire") };
        shell.info(&format!("{others} other secret{s} of client {id} now {verb} at {}", rotation.others_expire_at))
    }
}

fn print_all(list: &mut List, secrets: &[SecretSummary], times: Times) -> anyhow::Result<()> {
    for secret in secrets {
        list.item(|| secret, || [vec![Cell::new(&secret.client_id)], row(secret, times)].concat())?;
    }
    Ok(())
}

/// Returns a secret as a row, without its client.
pub(super) fn row(secret: &SecretSummary, times: Times) -> Vec<Cell<'_>> {
    vec![
        Cell::new(&secret.secret_id),
        Cell::new(&secret.label),
        times.cell(secret.created_at),
        times.or_never(secret.expires_at),
        times.or_never(secret.last_used_at),
        states::of_secret(secret, times),
    ]
}

/// Writes a moment, or `never`.
fn or_never(at: Option<UnixTime>) -> String {
    at.map_or_else(|| "never".to_owned(), |at| at.to_string())
}

/// Columns of secrets.
const OF_ALL: &[Column] = &[
    Column::whole("CLIENT"),
    Column::whole("SECRET"),
    Column::shrinking("LABEL"),
    Column::whole("MADE"),
    Column::whole("EXPIRES"),
    Column::whole("LAST USED"),
    Column::whole("STATE"),
];
/// Columns of the secrets of one client.
pub(super) const OF_CLIENT: &[Column] = columns_of_client(OF_ALL);

//! `grantd key`: signing keys and their states: next, active, retiring, gone.

mod tag;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::json;

use super::open::Purpose;
use super::phrases;
use super::table::{Cell, Column, Times};
use super::{Shell, states};
use crate::admin::Admin;
use crate::admin::Warning;
use crate::admin::keys::ListedKey;
use crate::admin::sealing::ResealReport;
use crate::config::ConfigError;
use crate::crypto::jwk::Alg;
use crate::model::pkcs11_uri::Pkcs11Uri;
use crate::serve;
use crate::state::keyring::{MAX_AGE, PUBLISH_AHEAD, Successor};
use crate::state::pkcs11::SUPPORTED;
use crate::state::pkcs11::attachment::find;
use crate::store::keys::SealedKey;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List signing keys with their states
    #[command(visible_alias = "ls")]
    List,
    /// Show a signing key: its public half and its state
    Show {
        /// The key id
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// Print the public key in PEM, for software that takes no JWK Set
        #[arg(long, conflicts_with = "jwk")]
        pem: bool,
        /// Print the public key as a JWK
        #[arg(long)]
        jwk: bool,
    },
    /// Generate a signing key; the first of its algorithm signs at once, any other as after `rotate`
    Generate {
        /// Algorithm: ES256, EdDSA, PS256 or RS256 [default: token.alg]
        #[arg(long)]
        alg: Option<Alg>,
    },
    /// Generate the next key: it is published now, and signs once every verifier has had time to fetch it
    Rotate {
        /// Algorithm: ES256, EdDSA, PS256 or RS256 [default: token.alg]
        #[arg(long)]
        alg: Option<Alg>,
    },
    /// Remove a key; tokens it signed no longer verify, and the key before it, the next or a new one signs
    #[command(visible_alias = "rm")]
    Remove {
        /// The key id
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// Confirm without asking
        #[arg(long, required = true)]
        now: bool,
    },
    /// Seal the stored keys under the configured sealing key, and report how many were moved
    Reseal,
    /// Import a private key from a PEM file; it starts to sign as after `generate`
    Import {
        /// File with a private key in PKCS#8, PKCS#1 or SEC 1, as PEM
        file: PathBuf,
        /// Algorithm: ES256, EdDSA, PS256 or RS256 [default: token.alg]
        #[arg(long)]
        alg: Option<Alg>,
    },
    /// Sign with a private key that stays in a PKCS #11 module; it starts to sign as after `generate`
    #[command(hide = !SUPPORTED)]
    Attach {
        /// Name of the private key (RFC 7512), such as `pkcs11:token=grantd;object=signing`
        #[arg(long, value_name = "URI")]
        pkcs11: Pkcs11Uri,
        /// Algorithm: ES256, EdDSA, PS256 or RS256 [default: that of the key, PS256 for RSA]
        #[arg(long)]
        alg: Option<Alg>,
    },
    /// Manage the keys that tag generated secrets
    #[command(subcommand)]
    Tag(tag::Command),
}

impl Command {
    fn purpose(&self) -> Purpose {
        match self {
            Self::List | Self::Show { .. } | Self::Tag(tag::Command::List) => Purpose::Read,
            Self::Rotate { .. } | Self::Remove { .. } | Self::Reseal | Self::Tag(_) => Purpose::Change,
            Self::Generate { .. } | Self::Import { .. } | Self::Attach { .. } => Purpose::Create,
        }
    }

    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let admin = shell.admin(self.purpose()).await?;
        match self {
            Self::Tag(command) => command.run(shell, &admin).await,
            Self::List => {
                let keys = shell.after_warnings(admin.keys().await?);
                for (key, module) in keys.iter().filter_map(|key| Some((key, key.opened.as_ref()?.module.as_ref()?))) {
                    shell.info(&format!("note: {} is {module}", key.key.kid))?;
                }
                let times = shell.times(&admin);
                shell.print_list(COLUMNS, &keys, ListedKey::document, |key| row(key, times))
            }
            Self::Show { kid, pem, jwk } => {
                let listed = shell.after_warnings(admin.key(&kid).await?);
                let closed = || format!("key {kid} does not open under the sealing key; `grantd doctor` says why");
                if pem {
                    let text = listed.opened.as_ref().and_then(|opened| opened.key.verifying().pem());
                    let text = text.with_context(closed)?;
                    return shell.print(&text, || text.clone());
                }
                if jwk {
                    let value = listed.jwk().with_context(closed)?;
                    return shell.print(&value, || value.to_string());
                }
                let times = shell.times(&admin);
                shell.print_sheet(&listed.document(), |sheet| sheet.table(COLUMNS, [row(&listed, times)]))
            }
            Self::Generate { alg } => print_new(shell, &admin.generate_key(alg).await?),
            Self::Rotate { alg } => print_new(shell, &admin.rotate_key(alg).await?),
            Self::Attach { pkcs11, alg } => attach(shell, &admin, &pkcs11, alg).await,
            Self::Import { file, alg } => {
                let name = || file.display().to_string();
                let pem = zeroize::Zeroizing::new(std::fs::read(&file).with_context(name)?);
                print_new(shell, &admin.import_key(alg, &pem).await.with_context(name)?)
            }
            Self::Reseal => reseal(shell, &admin).await,
            Self::Remove { kid, now: _ } => {
                let successor = admin.remove_key(&kid).await?.map(|successor| follows(&successor, shell.times(&admin)));
                shell.info(&format!(
                    "key {kid} is removed: tokens it signed no longer verify where the key set is fetched again{}",
                    successor.unwrap_or_default()
                ))
            }
        }
    }
}

/// The key that signs instead of a removed one, and which verifiers lack it.
fn follows(successor: &Successor<SealedKey>, times: Times) -> String {
    match successor {
        Successor::Retiring(SealedKey { kid, .. }) => {
            format!("; {kid}, which signed before it, signs again until the next key does")
        }
        Successor::Next(key) => {
            let seconds = key.created_at.plus(PUBLISH_AHEAD).0.saturating_sub(times.now.0).max(0);
            format!(
                "; the next key {} signs from now on, and verifiers that cached the key set may lack it for up to {seconds} s",
                key.kid
            )
        }
        Successor::New => format!(
            "; no next key was published, so a new one was made and signs from now on: verifiers that cached the key set lack it for up to {} s",
            MAX_AGE.as_secs()
        ),
    }
}

async fn attach(shell: &Shell, admin: &Admin, uri: &Pkcs11Uri, alg: Option<Alg>) -> anyhow::Result<()> {
    if !SUPPORTED {
        bail!("this grantd was built without PKCS #11; build it with `cargo build --release --features pkcs11`");
    }
    let config = shell.config()?;
    let settings = config.pkcs11.ok_or_else(|| ConfigError {
        key: "keys.pkcs11_module".to_owned(),
        origin: shell.sources.origin("keys.pkcs11_module"),
        remedy: "name the shared library of the module here, for each server too, and the file of its PIN in keys.pkcs11_pin_file"
            .to_owned(),
    })?;
    let library = serve::pkcs11::load(&settings)?;
    let (key, extractable) = find(&library, uri, alg)?;
    let attached = admin.attach_key(&key, uri).await?;
    if extractable {
        shell.info(&phrases::line(&Warning::Extractable(uri.clone())))?;
    }
    print_new(shell, &attached)
}

fn print_new(shell: &Shell, key: &SealedKey) -> anyhow::Result<()> {
    let value = json!({"kid": key.kid, "alg": key.alg, "active_at": key.active_at});
    shell.print(&value, || {
        let signs = if key.active_at <= key.created_at {
            "signs now".to_owned()
        } else {
            format!("is published, and signs from {}", key.active_at)
        };
        format!("{} {} {signs}", key.alg, key.kid)
    })
}

async fn reseal(shell: &Shell, admin: &Admin) -> anyhow::Result<()> {
    let ResealReport { sealing_key, moved, sealed, closed } = admin.reseal().await?;
    let unmoved = closed.iter().map(ToString::to_string).collect::<Vec<_>>();
    let value = json!({"sealing_key": sealing_key, "moved": moved, "sealed": sealed, "unmoved": unmoved});
    shell.print(&value, || {
        let (moved, sealed) = (moved.all(), sealed.all());
        let plural = if moved == 1 { "" } else { "s" };
        format!(
            "moved {moved} row{plural} to sealing key {sealing_key}, which seals {sealed} of {}",
            sealed + closed.len()
        )
    })?;
    match unmoved.len() {
        0 => Ok(()),
        number => bail!(
            "{number} row{} under no configured sealing key: {}; name their key in keys.sealing_key_previous_file, and run the command again",
            if number == 1 { " opens" } else { "s open" },
            unmoved.join(", ")
        ),
    }
}

fn row(ListedKey { key, state, changes_at, .. }: &ListedKey, times: Times) -> Vec<Cell<'_>> {
    vec![
        Cell::new(&key.alg),
        states::of_signing_key(*state),
        Cell::new(&key.kid),
        times.cell(key.created_at),
        times.cell(key.active_at),
        times.or_never(*changes_at),
    ]
}

const COLUMNS: &[Column] = &[
    Column::whole("ALG"),
    Column::whole("STATE"),
    Column::whole("KEY"),
    Column::whole("MADE"),
    Column::whole("SIGNS FROM"),
    Column::whole("CHANGES"),
];

//! `grantd key`: signing keys, next, active, retiring, gone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use super::open::Purpose;
use super::registered::everything;
use super::{Shell, tag_key};
use crate::config::Config;
use crate::crypto::jwk::Alg;
use crate::crypto::jws::SigningKey;
use crate::http::PUBLISH_AHEAD;
use crate::keyring::{KeyState, Timeline};
use crate::model::time::{Span, UnixTime};
use crate::serve::prepare::sealing_key;
use crate::store::Store;
use crate::store::keys::{SealedKey, new_key};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List signing keys with their states
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
    /// Make a key; the first of its algorithm signs at once, any other as `rotate` says
    Generate {
        /// Algorithm: ES256, EdDSA, PS256 or RS256 [default: token.alg]
        #[arg(long)]
        alg: Option<Alg>,
    },
    /// Make the next key: it is published now, and signs once every verifier has had time to fetch it
    Rotate {
        /// Algorithm: ES256, EdDSA, PS256 or RS256 [default: token.alg]
        #[arg(long)]
        alg: Option<Alg>,
    },
    /// Remove a key; tokens it signed no longer verify
    Remove {
        /// The key id
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// Confirm without asking
        #[arg(long, required = true)]
        now: bool,
    },
    /// Import a private key from a PEM file; it signs as `generate` says
    Import {
        /// File with a private key in PKCS#8, PKCS#1 or SEC 1, as PEM
        file: PathBuf,
        /// Algorithm: ES256, EdDSA, PS256 or RS256 [default: token.alg]
        #[arg(long)]
        alg: Option<Alg>,
    },
    /// Manage the keys under which generated secrets carry a tag
    #[command(subcommand)]
    Tag(tag_key::Command),
}

impl Command {
    fn purpose(&self) -> Purpose {
        match self {
            Self::List | Self::Show { .. } | Self::Tag(tag_key::Command::List) => Purpose::Look,
            Self::Rotate { .. } | Self::Remove { .. } | Self::Tag(_) => Purpose::Change,
            Self::Generate { .. } | Self::Import { .. } => Purpose::Create,
        }
    }

    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let (config, store) = shell.store(self.purpose()).await?;
        let now = shell.now();
        match self {
            Self::Tag(command) => command.run(shell, &config, &store).await,
            Self::List => list(shell, &config, &store, now).await,
            Self::Show { kid, pem, jwk } => show(shell, &config, &store, (&kid, pem, jwk), now).await,
            Self::Generate { alg } | Self::Rotate { alg } => {
                let alg = alg.unwrap_or(config.token_alg);
                let ahead = ahead(&store.keys().await?, alg, now);
                let key = new_key(alg, &sealing_key(&config)?, now, ahead)?;
                add(shell, &store, &key, now).await
            }
            Self::Import { file, alg } => {
                let alg = alg.unwrap_or(config.token_alg);
                let pem = zeroize::Zeroizing::new(std::fs::read(&file).with_context(|| file.display().to_string())?);
                let (key, pkcs8) = SigningKey::from_pem(alg, &pem).with_context(|| file.display().to_string())?;
                let active_at = now.plus(ahead(&store.keys().await?, alg, now));
                let key = SealedKey::seal(&key, &pkcs8, &sealing_key(&config)?, active_at, now)?;
                add(shell, &store, &key, now).await
            }
            Self::Remove { kid, now: _ } => {
                let keys = store.keys().await?;
                let Some(removed) = keys.iter().find(|key| key.kid == kid) else {
                    bail!("there is no key {kid}; `grantd key list` lists them");
                };
                // An algorithm in use is never left without a key that signs now, and one that is gone does not come back
                // because the key that replaced it is no more.
                let of_alg = keys.iter().filter(|key| key.alg == removed.alg).map(|key| (key.active_at, &key.kid));
                let timeline = Timeline::new(of_alg.collect());
                let mut others_sign = false;
                for (other, state) in timeline.states(now).filter(|(other, _)| ***other != kid) {
                    match state {
                        KeyState::Active | KeyState::Retiring => others_sign = true,
                        KeyState::Gone => {
                            store.remove_key(other, None).await?;
                        }
                        KeyState::Next => {}
                    }
                }
                // A row of an unknown algorithm signed nothing, so nothing has to succeed it.
                let alg: Option<Alg> = removed.alg.parse().ok();
                let successor = match alg.filter(|_| !others_sign) {
                    Some(alg) => Some(new_key(alg, &sealing_key(&config)?, now, Span::from_secs(0))?),
                    None => None,
                };
                if !store.remove_key(&kid, successor.as_ref()).await? {
                    bail!("key {kid} is gone already");
                }
                let next =
                    successor.map(|key| format!("; {} was made and signs from now on", key.kid)).unwrap_or_default();
                shell.say(&format!(
                    "key {kid} is removed: tokens it signed no longer verify where the key set is fetched again{next}"
                ))
            }
        }
    }
}

/// A new key waits until verifiers have fetched it, unless there is no other. Each has a second of its own, so that of two
/// that are made at once the later one signs last.
fn ahead(keys: &[SealedKey], alg: Alg, now: UnixTime) -> Span {
    let taken: Vec<UnixTime> = keys.iter().filter(|key| key.alg == alg.as_str()).map(|key| key.active_at).collect();
    let earliest = if taken.is_empty() { 0 } else { PUBLISH_AHEAD.duration().as_secs() };
    let mut seconds = (earliest..).map(Span::from_secs);
    seconds.find(|ahead| !taken.contains(&now.plus(*ahead))).unwrap_or(PUBLISH_AHEAD)
}

async fn add(shell: &Shell, store: &Store, key: &SealedKey, now: UnixTime) -> anyhow::Result<()> {
    store.add_key(key).await?;
    let value = json!({"kid": key.kid, "alg": key.alg, "active_at": key.active_at});
    shell.print(&value, || {
        let signs = if key.active_at <= now {
            "signs now".to_owned()
        } else {
            format!("is published, and signs from {}", key.active_at)
        };
        format!("{} {} {signs}", key.alg, key.kid)
    })
}

/// A key with its state, and its public half where the sealing key opens it.
struct Listed {
    key: SealedKey,
    state: KeyState,
    opened: Option<SigningKey>,
}

impl Listed {
    fn jwk(&self) -> Option<Value> {
        self.opened.as_ref().map(SigningKey::published)
    }

    fn value(&self) -> Value {
        let Self { key, state, .. } = self;
        json!({
            "kid": key.kid, "alg": key.alg, "state": state, "created_at": key.created_at, "active_at": key.active_at,
            "jwk": self.jwk(),
        })
    }

    fn line(&self) -> String {
        let name = match self.state {
            KeyState::Next => "next",
            KeyState::Active => "active",
            KeyState::Retiring => "retiring",
            KeyState::Gone => "gone",
        };
        let key = &self.key;
        format!("{:<6} {:<9} {}  made {}  signs from {}\n", key.alg, name, key.kid, key.created_at, key.active_at)
    }
}

async fn all(config: &Config, store: &Store, now: UnixTime) -> anyhow::Result<Vec<Listed>> {
    let everything = everything(store).await?;
    let sealing_key = sealing_key(config);
    if let Err(error) = &sealing_key {
        tracing::warn!(reason = %error, "public keys are left out");
    }
    let mut by_alg: BTreeMap<String, Vec<(UnixTime, SealedKey)>> = BTreeMap::new();
    for key in everything.keys.unwrap_or_default() {
        by_alg.entry(key.alg.clone()).or_default().push((key.active_at, key));
    }
    let mut listed = Vec::new();
    for timeline in by_alg.into_values().map(Timeline::new) {
        for (key, state) in timeline.states(now) {
            let opened = sealing_key.as_ref().ok().and_then(|sealing_key| key.open(sealing_key).ok());
            let opened = opened.map(|key| if config.fully_specified { key.fully_specified() } else { key });
            listed.push(Listed { key: key.clone(), state, opened });
        }
    }
    Ok(listed)
}

async fn list(shell: &Shell, config: &Config, store: &Store, now: UnixTime) -> anyhow::Result<()> {
    let listed = all(config, store, now).await?;
    let values: Vec<Value> = listed.iter().map(Listed::value).collect();
    shell.print(&values, || listed.iter().map(Listed::line).collect())
}

async fn show(
    shell: &Shell,
    config: &Config,
    store: &Store,
    (kid, pem, jwk): (&str, bool, bool),
    now: UnixTime,
) -> anyhow::Result<()> {
    let Some(listed) = all(config, store, now).await?.into_iter().find(|listed| listed.key.kid == kid) else {
        bail!("there is no key {kid}; `grantd key list` lists them");
    };
    let closed = || format!("key {kid} does not open under keys.sealing_key_file; `grantd doctor` says why");
    if pem {
        let text = listed.opened.as_ref().and_then(SigningKey::public_pem).with_context(closed)?;
        return shell.print(&text, || text.clone());
    }
    if jwk {
        let value = listed.jwk().with_context(closed)?;
        return shell.print(&value, || value.to_string());
    }
    shell.print(&listed.value(), || listed.line())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_that_are_made_at_once_sign_one_after_the_other() {
        let key = |alg: Alg, active_at: UnixTime| SealedKey {
            kid: String::new(),
            alg: alg.to_string(),
            sealed: Vec::new(),
            active_at,
            created_at: active_at,
        };
        let now = UnixTime(1000);
        assert_eq!(ahead(&[], Alg::Es256, now), Span::from_secs(0));
        let mut keys = vec![key(Alg::EdDsa, now), key(Alg::Es256, now)];
        let first = ahead(&keys, Alg::Es256, now);
        assert_eq!(first, PUBLISH_AHEAD);
        keys.push(key(Alg::Es256, now.plus(first)));
        assert_eq!(now.plus(ahead(&keys, Alg::Es256, now)), now.plus(first).plus(Span::from_secs(1)));
    }
}

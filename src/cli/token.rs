//! `grantd token`: gets a token as a client does, inspects a token, or revokes a token or all tokens.
//!
//! A resource server that does not introspect accepts a token until its `exp`, whatever is revoked here.

mod credential;
mod get;
mod input;
mod inspect;
mod issuer;

use clap::Subcommand;

use super::open::Purpose;
use super::{REVOCATION_REACH, Shell};
use crate::config::{ConfigError, Sources};
use get::Get;
pub(super) use input::token_from_stdin;
use inspect::Inspect;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Get a token from an issuer and print it
    Get(Box<Get>),
    /// Read a token from stdin, verify it against the server's keys, and explain it
    Inspect(Inspect),
    /// Read a token from stdin and revoke it, whichever client has it
    Revoke,
    /// Revoke all tokens of all clients issued until now
    RevokeAll {
        /// Confirm without asking
        #[arg(long, required = true)]
        now: bool,
    },
}

impl Command {
    /// Whether the command asks an issuer alone, so that a configuration of the server is not needed and may be faulty.
    pub(super) fn needs_no_shell(&self) -> bool {
        matches!(self, Self::Get(_) | Self::Inspect(Inspect { issuer: Some(_), .. }))
    }

    pub(super) async fn run_without_shell(
        &self,
        json: bool,
        sources: Result<Sources, ConfigError>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Get(get) => get.run(json, sources).await,
            Self::Inspect(Inspect { issuer: Some(issuer), ca_file }) => {
                inspect::by_published(issuer, ca_file.as_deref(), json).await
            }
            Self::Inspect(_) | Self::Revoke | Self::RevokeAll { .. } => Ok(()),
        }
    }

    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        match self {
            Self::Get(_) => Ok(()),
            Self::Inspect(_) => inspect::by_database(shell).await,
            Self::Revoke => revoke(shell).await,
            Self::RevokeAll { now: _ } => {
                shell.admin(Purpose::Change).await?.revoke_all_tokens().await?;
                shell.info(&format!("all tokens issued until now are revoked{REVOCATION_REACH}"))
            }
        }
    }
}

async fn revoke(shell: &Shell) -> anyhow::Result<()> {
    let token = token_from_stdin()?;
    let revoked = shell.admin(Purpose::Change).await?.revoke_token(&token).await?;
    shell.info(&format!("token {} of client {} is revoked{REVOCATION_REACH}", revoked.jti, revoked.client_id))
}

//! `grantd token`: inspects a token, or revokes a token or all tokens.
//!
//! A resource server that does not introspect accepts a token until its `exp`, whatever is done here.

use std::io::{self, Read as _};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::open::Purpose;
use super::{REVOCATION_REACH, Shell};
use crate::admin::inspection::Inspection;
use crate::model::time::UnixTime;
use crate::telemetry::printable::one_line;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read a token from stdin, verify it against the server's keys, and explain it
    Inspect,
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
    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        match self {
            Self::Inspect => inspect(shell).await,
            Self::Revoke => revoke(shell).await,
            Self::RevokeAll { now: _ } => {
                shell.admin(Purpose::Change).await?.revoke_all_tokens().await?;
                shell.info(&format!("all tokens issued until now are revoked{REVOCATION_REACH}"))
            }
        }
    }
}

pub(super) fn token_from_stdin() -> anyhow::Result<String> {
    let mut token = String::new();
    io::stdin().take(MAX_TOKEN + 1).read_to_string(&mut token).context("reading the token from stdin")?;
    if token.len() as u64 > MAX_TOKEN {
        bail!("a token has at most {MAX_TOKEN} bytes; the input on stdin is longer");
    }
    Ok(token.trim().to_owned())
}

async fn revoke(shell: &Shell) -> anyhow::Result<()> {
    let token = token_from_stdin()?;
    let revoked = shell.admin(Purpose::Change).await?.revoke_token(&token).await?;
    shell.info(&format!("token {} of client {} is revoked{REVOCATION_REACH}", revoked.jti, revoked.client_id))
}

async fn inspect(shell: &Shell) -> anyhow::Result<()> {
    let token = token_from_stdin()?;
    let (header, claims) = parts(&token)?;
    let inspected = shell.admin(Purpose::Read).await?.inspect_token(&token, header, claims).await?;
    let Inspection { header, claims, faults } = inspected;
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let value = json!({"valid": faults.is_empty(), "faults": faults, "header": header, "claims": claims});
    shell.print(&value, || explain(&header, &claims, &faults))?;
    if faults.is_empty() { Ok(()) } else { bail!("the token is not valid: {}", faults.join("; ")) }
}

/// Splits a JWT in compact form into header and claims.
fn parts(token: &str) -> anyhow::Result<(Map<String, Value>, Map<String, Value>)> {
    let segments: Vec<&str> = token.split('.').collect();
    let [header, claims, _signature] = segments.as_slice() else {
        bail!("not a JWT: it has {} parts separated by dots, where a JWT has three", segments.len());
    };
    let read = |name: &str, segment: &str| -> anyhow::Result<Map<String, Value>> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(segment).with_context(|| format!("the {name} is not base64url"))?;
        serde_json::from_slice(&bytes).with_context(|| format!("the {name} is not a JSON object"))
    };
    Ok((read("header", header)?, read("claims part", claims)?))
}

fn explain(header: &Map<String, Value>, claims: &Map<String, Value>, faults: &[String]) -> String {
    let mut text = if faults.is_empty() { "valid\n".to_owned() } else { "NOT VALID\n".to_owned() };
    for fault in faults {
        text += &format!("  - {}\n", one_line(fault));
    }
    for (name, value) in header.iter().chain(claims) {
        let moment = value
            .as_i64()
            .filter(|_| matches!(name.as_str(), "exp" | "iat" | "nbf"))
            .map(|at| format!("  ({})", UnixTime(at)));
        text += &format!(
            "{:<10} {}{}\n",
            one_line(name),
            one_line(&value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
            moment.unwrap_or_default()
        );
    }
    text
}

/// Maximum length of a token on stdin, in bytes; grantd's own have at most some 6 KiB.
const MAX_TOKEN: u64 = 64 << 10;

//! `grantd token inspect`: verifies a token against the database's keys, or against those that an issuer publishes.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use serde_json::{Map, Value, json};

use super::input::token_from_stdin;
use super::issuer::{self, Published};
use crate::admin::inspection::{Inspection, published_faults};
use crate::cli::open::Purpose;
use crate::cli::{Shell, print};
use crate::model::issuer::Issuer;
use crate::model::time::{Clock, UnixTime};
use crate::telemetry::printable::one_line;

#[derive(Debug, Args)]
pub(in crate::cli) struct Inspect {
    /// Verify against the keys that this issuer publishes, without configuration and database
    #[arg(long, value_name = "URL")]
    pub(super) issuer: Option<Issuer>,
    /// File with further CAs that may vouch for the issuer's server, in PEM
    #[arg(long, value_name = "FILE", requires = "issuer")]
    pub(super) ca_file: Option<PathBuf>,
}

/// Verifies a token from stdin against the database.
pub(super) async fn by_database(shell: &Shell) -> anyhow::Result<()> {
    let token = token_from_stdin()?;
    let (header, claims) = parts(&token)?;
    report(shell.json, &shell.admin(Purpose::Read).await?.inspect_token(&token, header, claims).await?)
}

/// Verifies a token from stdin against the metadata and the JWK Set of an issuer.
pub(super) async fn by_published(issuer: &Issuer, ca_file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let token = token_from_stdin()?;
    let (header, claims) = parts(&token)?;
    let http = issuer::http_client(ca_file, None)?;
    let keys = Published::discover(issuer.clone(), http).await?.keys().await?;
    let faults = published_faults(&token, (&header, &claims), (issuer.as_str(), &keys), Clock::System.now());
    report(json, &Inspection { header, claims, faults })?;
    // A failed write is ignored: the verdict is printed.
    drop(writeln!(io::stderr(), "{NOT_ASKED}"));
    Ok(())
}

fn report(json: bool, Inspection { header, claims, faults }: &Inspection) -> anyhow::Result<()> {
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let value = json!({"valid": faults.is_empty(), "faults": faults, "header": header, "claims": claims});
    print(json, &value, || explain(header, claims, &faults))?;
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

const NOT_ASKED: &str = "note: published keys do not tell whether the token was revoked; without --issuer, on the server's machine, this command does";

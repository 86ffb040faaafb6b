//! `grantd token`: what a token is, or exactly what is wrong with it; and the end of a token, or of all.
//!
//! A resource server that does not introspect takes a token until its `exp`, whatever is done here.

use std::io::{self, Read as _};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::open::Purpose;
use super::registered::everything;
use super::{Shell, WHERE};
use crate::crypto::jwk::Alg;
use crate::crypto::jws::SigningKey;
use crate::keyring::Keyring;
use crate::model::resource::TokenTyp;
use crate::model::time::UnixTime;
use crate::protocol::access_token::{CLOCKS, verify};
use crate::serve::prepare::sealing_key;
use crate::store::changes::Changes;
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
                let (_, store) = shell.store(Purpose::Change).await?;
                store.revoke_all_tokens(shell.now()).await?;
                shell.say(&format!("all tokens issued until now are revoked{WHERE}"))
            }
        }
    }
}

fn token_from_stdin() -> anyhow::Result<String> {
    let mut token = String::new();
    io::stdin().take(MAX_TOKEN + 1).read_to_string(&mut token).context("reading the token from stdin")?;
    if token.len() as u64 > MAX_TOKEN {
        bail!("a token has at most {MAX_TOKEN} bytes; what stands on stdin is longer");
    }
    Ok(token.trim().to_owned())
}

async fn revoke(shell: &Shell) -> anyhow::Result<()> {
    let token = token_from_stdin()?;
    let (config, store) = shell.store(Purpose::Change).await?;
    let (issuer, now) = (config.issuer.clone().unwrap_or_default(), shell.now());
    let keyring = Keyring::default();
    // What a key signed that does not open cannot be told from what others signed.
    drop(keyring.load(&store.keys().await?, &sealing_key(&config)?));
    let ours = match verify(&token, issuer.as_str(), &keyring, now) {
        Ok(ours) => ours,
        Err(inactive) => bail!("there is nothing to revoke: {inactive}"),
    };
    store.revoke_token(&ours.jti, &ours.client_id, ours.exp, now).await?;
    shell.say(&format!("token {} of client {} is revoked{WHERE}", ours.jti, ours.client_id))
}

async fn inspect(shell: &Shell) -> anyhow::Result<()> {
    let token = token_from_stdin()?;
    let token = token.as_str();
    let (header, claims) = parts(token)?;
    let (config, store) = shell.store(Purpose::Look).await?;
    let issuer = config.issuer.clone().unwrap_or_default();

    let mut faults = Vec::new();
    let kid = header.get("kid").and_then(Value::as_str).unwrap_or_default();
    match store.keys().await?.iter().find(|key| key.kid == kid) {
        None => faults
            .push(format!("no key of this server has the kid `{kid}`: it was removed, or the token is not from here")),
        Some(key) => match key.open(&sealing_key(&config)?) {
            Err(error) => faults.push(error.to_string()),
            Ok(key) => faults.extend(signature_faults(&header, &key, token)),
        },
    }
    faults.extend(claim_faults(&claims, issuer.as_str(), shell.now()));
    // Of a token that is not ours, nothing is known that could be revoked.
    if faults.is_empty() {
        faults.extend(revocation_faults(&claims, &everything(&store).await?));
    }
    let value = json!({"valid": faults.is_empty(), "faults": faults, "header": header, "claims": claims});
    shell.print(&value, || explain(&header, &claims, &faults))?;
    if faults.is_empty() { Ok(()) } else { bail!("the token is not valid: {}", faults.join("; ")) }
}

/// Header and claims of a JWT in compact form.
fn parts(token: &str) -> anyhow::Result<(Map<String, Value>, Map<String, Value>)> {
    let segments: Vec<&str> = token.split('.').collect();
    let [header, claims, _signature] = segments.as_slice() else {
        bail!("not a JWT: it has {} parts where there are three, separated by dots", segments.len());
    };
    let read = |name: &str, segment: &str| -> anyhow::Result<Map<String, Value>> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(segment).with_context(|| format!("the {name} is not base64url"))?;
        serde_json::from_slice(&bytes).with_context(|| format!("the {name} is not a JSON object"))
    };
    Ok((read("header", header)?, read("claims part", claims)?))
}

fn signature_faults(header: &Map<String, Value>, key: &SigningKey, token: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let member = |name: &str| header.get(name).and_then(Value::as_str).unwrap_or_default();
    let names_it = member("alg") == key.alg().as_str() || key.alg() == Alg::EdDsa && member("alg") == "Ed25519";
    if !names_it {
        faults.push(format!("alg is `{}` and the key is for {}", member("alg"), key.alg()));
    }
    if !TokenTyp::ALL.iter().any(|typ| typ.as_str() == member("typ")) {
        faults.push(format!(
            "typ is `{}`; an access token has at+jwt (RFC 9068 section 2.1), or JWT where its resource says so",
            member("typ")
        ));
    }
    if !key.verifies(token) {
        faults.push("the signature does not verify: the token was altered".to_owned());
    }
    faults
}

fn claim_faults(claims: &Map<String, Value>, issuer: &str, now: UnixTime) -> Vec<String> {
    let mut faults = Vec::new();
    match claims.get("iss").and_then(Value::as_str) {
        Some(iss) if iss == issuer => {}
        iss => faults.push(format!("iss is `{}` and this server is {issuer}", iss.unwrap_or_default())),
    }
    match claims.get("exp").and_then(Value::as_i64).map(UnixTime) {
        None => faults.push("exp is missing".to_owned()),
        Some(exp) if exp <= now => faults.push(format!("expired at {exp}, {} s ago", now.0 - exp.0)),
        Some(_) => {}
    }
    match claims.get("iat").and_then(Value::as_i64).map(UnixTime) {
        // As introspection has it: the clock of the replica that issued it may be a little ahead.
        Some(iat) if iat > now.plus(CLOCKS) => {
            faults.push(format!("issued at {iat}, which is ahead of this machine's clock by {} s", iat.0 - now.0));
        }
        _ => {}
    }
    faults
}

fn revocation_faults(claims: &Map<String, Value>, known: &Changes) -> Vec<String> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    let iat = UnixTime(claims.get("iat").and_then(Value::as_i64).unwrap_or_default());
    let mut faults = Vec::new();
    if known.revoked.iter().any(|(jti, _)| jti == text("jti")) {
        faults.push("it was revoked".to_owned());
    }
    if let Some(at) = known.not_before.filter(|at| iat <= *at) {
        faults.push(format!("all tokens that were issued until {at} were revoked"));
    }
    let id = text("client_id");
    match known.clients.get(id).and_then(Option::as_ref) {
        None => faults.push(format!("there is no client {id} any more")),
        Some(Err(fault)) => faults.push(fault.to_string()),
        Some(Ok(client)) if !client.enabled => faults.push(format!("client {id} is disabled")),
        Some(Ok(client)) if iat <= client.not_before => {
            faults.push(format!("all tokens that client {id} was issued until {} were revoked", client.not_before));
        }
        Some(Ok(_)) => {}
    }
    faults
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

/// Longest token that is read; grantd's own have at most some 6 KiB.
const MAX_TOKEN: u64 = 64 << 10;

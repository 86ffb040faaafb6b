//! Clients to measure with: some with real secrets, made by `grantd client create`, and any number that fill the registry.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::client_key::ClientKey;
use crate::limit::SCOPE;
use crate::process::Room;
use crate::site::Site;

/// A client and its secret.
#[derive(Debug, Clone)]
pub struct Registered {
    /// `client_id`.
    pub id: String,
    /// `client_secret`.
    pub secret: String,
}

/// Registers `count` clients with secrets that work. Each takes a hash, so have a thousand at most.
///
/// # Errors
/// With what the command says.
pub fn register(site: &Site, count: usize) -> anyhow::Result<Vec<Registered>> {
    (0..count)
        .map(|number| {
            let id = format!("app-{number:04}");
            let scopes = ["--scope", "api:read api:write", "--default-scope", SCOPE, "--json"];
            let done = site.command(&["client", "create", &id]).args(scopes).output().context("grantd")?;
            if !done.status.success() {
                bail!("grantd client create: {}", String::from_utf8_lossy(&done.stderr));
            }
            let answer: serde_json::Value = serde_json::from_slice(&done.stdout)?;
            let secret = answer.get("client_secret").and_then(serde_json::Value::as_str).context("no client_secret")?;
            Ok(Registered { id, secret: secret.to_owned() })
        })
        .collect()
}

/// Registers `count` clients that have a key each and no secret.
///
/// # Errors
/// With what the command says.
pub fn register_keys(site: &Site, room: &Room, count: usize) -> anyhow::Result<Vec<(String, ClientKey)>> {
    let file = room.path("client.jwk");
    let register = |number| {
        let (id, key) = (format!("keyed-{number:04}"), ClientKey::generate()?);
        std::fs::write(&file, key.jwk())?;
        let scopes = ["--scope", "api:read api:write", "--default-scope", SCOPE];
        let create = [&["client", "create", &id, "--no-secret"], &scopes[..]].concat();
        for arguments in [&create[..], &["client", "key", "add", &id, "--jwk", &file.to_string_lossy()]] {
            let done = site.command(arguments).output().context("grantd")?;
            if !done.status.success() {
                bail!("grantd {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr));
            }
        }
        Ok((id, key))
    };
    (0..count).map(register).collect()
}

/// SQL, true on both databases, that registers `count` clients with hashes that no secret has.
#[must_use]
pub fn filler(count: usize) -> String {
    let numbers = format!("with recursive n (i) as (select 1 union all select i + 1 from n where i < {count})");
    format!(
        "{numbers} insert into client (client_id, scope, default_scope)
         select 'filler-' || i, 'api:read api:write', '{SCOPE}' from n;
         {numbers} insert into client_secret (secret_id, client_id, hash, imported, tag_key)
         select 'filler' || i, 'filler-' || i, '{UNUSED_HASH}', 0, (select max(kid) from secret_tag_key) from n;\n"
    )
}

/// `POST /token` by HTTP Basic, as bytes.
#[must_use]
pub fn token_request(id: &str, secret: &str) -> Vec<u8> {
    let basic = BASE64_STANDARD.encode(format!("{id}:{secret}"));
    post_form(&[("Authorization", format!("Basic {basic}"))], "grant_type=client_credentials")
}

/// `POST /token` with header fields and a form, as bytes.
#[must_use]
pub fn post_form(fields: &[(&str, String)], form: &str) -> Vec<u8> {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "POST /token HTTP/1.1\r\nHost: auth.example.com\r\n{fields}\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    )
    .into_bytes()
}

/// One for each of the first `count` clients.
#[must_use]
pub fn token_requests(clients: &[Registered], count: usize) -> Vec<Vec<u8>> {
    clients.iter().take(count).map(|client| token_request(&client.id, &client.secret)).collect()
}

/// The same requests, each the last of its connection.
#[must_use]
pub fn closing(requests: &[Vec<u8>]) -> Arc<[Vec<u8>]> {
    let close = |request: &Vec<u8>| {
        let line = request.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let (line, rest) = request.split_at(line);
        [line, b"Connection: close\r\n", rest].concat()
    };
    requests.iter().map(close).collect()
}

const UNUSED_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$4PTs6i9jvSbk26IegYamZi+9v3lOmSCppfpnmuUDP68";

//! Clients to measure with: registered as an operator does, or by SQL when they only fill the registry.

use std::sync::Arc;

use anyhow::Context as _;

use crate::client_key::ClientKey;
use crate::grantd::Grantd;
use crate::http::token_request;
use crate::program::field;

/// A registered client and its secret.
#[derive(Debug, Clone)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// `client_secret`.
    pub secret: String,
    /// Id of the secret.
    pub secret_id: String,
    /// Whether the secret was imported: such a secret carries no tag.
    pub imported: bool,
    /// Its token request, ready to send.
    pub request: Arc<[u8]>,
}

impl Client {
    /// The client with that secret.
    #[must_use]
    pub fn new(id: &str, secret: String, secret_id: String, imported: bool) -> Self {
        let request = token_request(id, &secret).into();
        Self { id: id.to_owned(), secret, secret_id, imported, request }
    }
}

/// Registers a client with a secret that grantd generates; `more` is appended to the command.
pub async fn register(grantd: &Grantd, id: &str, more: &[&str]) -> anyhow::Result<Client> {
    let printed = create(grantd, id, more).await?;
    let text = |name| field(&printed, name).with_context(|| format!("grantd printed no {name}"));
    Ok(Client::new(id, text("client_secret")?, text("secret_id")?, false))
}

/// Registers a client and imports its secret.
pub async fn register_imported(grantd: &Grantd, id: &str, secret: &str) -> anyhow::Result<Client> {
    create(grantd, id, &["--no-secret"]).await?;
    let printed = grantd.run_ok(&["client", "secret", "import", id, "--json"], secret).await?.stdout;
    let secret_id = field(&printed, "secret_id").context("grantd printed no secret_id")?;
    Ok(Client::new(id, secret.to_owned(), secret_id, true))
}

/// Registers a client that has a key and no secret.
pub async fn register_key(grantd: &Grantd, id: &str) -> anyhow::Result<ClientKey> {
    let key = ClientKey::generate()?;
    create(grantd, id, &["--no-secret"]).await?;
    grantd.run_ok(&["client", "key", "add", id, "--jwk", "-"], &key.jwk()).await?;
    Ok(key)
}

async fn create(grantd: &Grantd, id: &str, more: &[&str]) -> anyhow::Result<String> {
    let command = [&["client", "create", id, "--json"][..], &SCOPES, more].concat();
    Ok(grantd.run_ok(&command, "").await?.stdout)
}

/// SQL, true on both databases, that registers `count` clients with hashes that no secret has: `prefix-1`, `prefix-2`, ….
/// With `imported`, every tenth has no tag, as after an import.
#[must_use]
pub fn idle_clients(prefix: &str, count: usize, imported: bool) -> String {
    let numbers = format!("with recursive n (i) as (select 1 union all select i + 1 from n where i < {count})");
    let is_imported = if imported { "i % 10 = 0" } else { "1 = 0" };
    format!(
        "{numbers} insert into client (client_id, scope, default_scope)
         select '{prefix}-' || i, 'api:read api:write', '{SCOPE}' from n where i <= {count};
         {numbers} insert into client_secret (secret_id, client_id, hash, imported, tag_key)
         select '{prefix}' || i, '{prefix}-' || i, '{UNUSED_HASH}', case when {is_imported} then 1 else 0 end,
             case when {is_imported} then null else (select max(kid) from secret_tag_key) end
         from n where i <= {count};\n"
    )
}

/// The scope of a token when the request names none.
pub const SCOPE: &str = "api:read";
/// Arguments that give a client its scopes.
pub const SCOPES: [&str; 4] = ["--scope", "api:read api:write", "--default-scope", SCOPE];
const UNUSED_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$4PTs6i9jvSbk26IegYamZi+9v3lOmSCppfpnmuUDP68";

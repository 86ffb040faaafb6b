//! `grantd client`: register clients, change them, switch them off.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::secret::{self, found, secret_line};
use super::{Shell, key_value, seed, tag_key};
use crate::model::client::{Client, RESERVED_CLAIMS};
use crate::model::client_id::ClientId;
use crate::model::resource::ResourceId;
use crate::model::scope::Scope;
use crate::model::time::Span;
use crate::store::Store;
use crate::store::changes::Changes;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Register a client, with a first secret that is shown once
    Create(Create),
    /// List clients
    List,
    /// Show a client and when each of its secrets was made, ends and was last used
    Show {
        /// The client id
        id: ClientId,
    },
    /// Let a client authenticate again
    Enable {
        /// The client id
        id: ClientId,
    },
    /// Let a client authenticate no more, keeping its registration
    Disable {
        /// The client id
        id: ClientId,
    },
    /// Delete a client with its secrets
    Delete {
        /// The client id
        id: ClientId,
    },
    /// Change a client; what is not named stays
    Set(Set),
    /// A client's secrets
    #[command(subcommand)]
    Secret(secret::Command),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The client id: 1 to 128 of A-Z a-z 0-9 . _ ~ -
    id: ClientId,
    /// Scopes it may ask for, separated by spaces
    #[arg(long, default_value = "")]
    scope: Scope,
    /// What it gets when it asks for none
    #[arg(long, default_value = "")]
    default_scope: Scope,
    /// A resource it may ask tokens for (repeatable); none means the server's default audience
    #[arg(long, value_name = "URI")]
    resource: Vec<ResourceId>,
    /// How long its tokens live
    #[arg(long, value_name = "SPAN")]
    token_ttl: Option<Span>,
    /// A further claim of its tokens (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    claim: Vec<(String, String)>,
    /// Bind its tokens to a DPoP key, or issue none
    #[arg(long)]
    require_dpop: bool,
    /// Bind its tokens to a certificate, or issue none
    #[arg(long)]
    require_mtls_binding: bool,
    /// Make no secret
    #[arg(long)]
    no_secret: bool,
    /// Create nothing: print a migration for the seeds directory, and the secret on stderr
    #[arg(long)]
    sql: bool,
    /// Write the secret into this new file instead of printing it
    #[arg(long, value_name = "FILE", conflicts_with = "no_secret")]
    secret_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// The client id
    id: ClientId,
    /// Scopes it may ask for
    #[arg(long)]
    scope: Option<Scope>,
    /// What it gets when it asks for none
    #[arg(long)]
    default_scope: Option<Scope>,
    /// The resources it may ask tokens for, all of them (repeatable)
    #[arg(long, value_name = "URI")]
    resource: Vec<ResourceId>,
    /// Take all resources from it
    #[arg(long, conflicts_with = "resource")]
    no_resources: bool,
    /// How long its tokens live
    #[arg(long, value_name = "SPAN")]
    token_ttl: Option<Span>,
    /// Let its tokens live as long as the resource or the server says
    #[arg(long, conflicts_with = "token_ttl")]
    default_token_ttl: bool,
    /// The further claims of its tokens, all of them (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    claim: Vec<(String, String)>,
    /// Take all further claims from it
    #[arg(long, conflicts_with = "claim")]
    no_claims: bool,
    /// Whether its tokens must be bound to a DPoP key
    #[arg(long, value_name = "BOOL")]
    require_dpop: Option<bool>,
    /// Whether its tokens must be bound to a certificate
    #[arg(long, value_name = "BOOL")]
    require_mtls_binding: Option<bool>,
}

impl Command {
    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => create.run(shell).await,
            Self::List => list(shell).await,
            Self::Show { id } => show(shell, &id).await,
            Self::Enable { id } => switch(shell, &id, true).await,
            Self::Disable { id } => switch(shell, &id, false).await,
            Self::Delete { id } => {
                let (_, store) = shell.store().await?;
                found(store.delete_client(id.as_str()).await?, &id)?;
                shell.say(&format!("client {id} is deleted; tokens it has live until they expire"))
            }
            Self::Set(set) => set.run(shell).await,
            Self::Secret(command) => command.run(shell).await,
        }
    }
}

impl Create {
    async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let client = Client {
            resources: self.resource,
            token_ttl: checked_ttl(self.token_ttl)?,
            claims: checked_claims(self.claim)?,
            require_dpop: self.require_dpop,
            require_mtls_binding: self.require_mtls_binding,
            ..Client::new(self.id, self.scope, self.default_scope, shell.clock.now())
        };
        if !client.default_scope.is_subset_of(&client.scope) {
            bail!("--default-scope must be a part of --scope");
        }
        let config = shell.config()?;
        if self.sql {
            let tag_keys = if self.no_secret { Vec::new() } else { tag_key::for_seed(&config).await? };
            let make = || shell.new_secret(&config, &client.client_id, &tag_keys, String::new(), None);
            let secret = (!self.no_secret).then(make).transpose()?;
            let migration = seed::client(&client, secret.as_ref().map(|(_, stored)| stored));
            match (&secret, &self.secret_file) {
                (Some((secret, _)), Some(file)) => secret::write_to_file(secret, file)?,
                (Some((secret, _)), None) => shell.say(secret.expose())?,
                (None, _) => {}
            }
            return shell.print(&json!({"sql": migration}), || migration.clone());
        }
        let (_, store) = shell.store().await?;
        let tag_keys = if self.no_secret { Vec::new() } else { tag_key::usable(shell, &config, &store).await? };
        let make = || shell.new_secret(&config, &client.client_id, &tag_keys, String::new(), None);
        let secret = (!self.no_secret).then(make).transpose()?;
        if let Some((secret, _)) = &secret
            && let Some(file) = &self.secret_file
        {
            secret::write_to_file(secret, file)?;
        }
        store.create_client(&client, secret.as_ref().map(|(_, stored)| stored)).await?;
        let (id, shown) = (client.client_id.as_str(), self.secret_file.is_none());
        let Some((secret, stored)) = secret else {
            return shell.print(&json!({"client_id": id}), || format!("client_id      {id}"));
        };
        let mut value =
            Map::from_iter([("client_id".into(), id.into()), ("secret_id".into(), stored.secret_id.clone().into())]);
        if shown {
            value.insert("client_secret".into(), secret.expose().into());
        }
        shell.print(&value, || {
            let mut text = format!("client_id      {id}\nsecret_id      {}\n", stored.secret_id);
            if shown {
                text += &format!(
                    "client_secret  {}\n\nThe secret is not stored and will not be shown again.",
                    secret.expose()
                );
            }
            text
        })
    }
}

impl Set {
    async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let (_, store) = shell.store().await?;
        let mut client = one(&store, &self.id).await?;
        client.scope = self.scope.unwrap_or(client.scope);
        client.default_scope = self.default_scope.unwrap_or(client.default_scope);
        if self.no_resources || !self.resource.is_empty() {
            client.resources = self.resource;
        }
        if self.default_token_ttl || self.token_ttl.is_some() {
            client.token_ttl = checked_ttl(self.token_ttl)?;
        }
        if self.no_claims || !self.claim.is_empty() {
            client.claims = checked_claims(self.claim)?;
        }
        client.require_dpop = self.require_dpop.unwrap_or(client.require_dpop);
        client.require_mtls_binding = self.require_mtls_binding.unwrap_or(client.require_mtls_binding);
        if !client.default_scope.is_subset_of(&client.scope) {
            bail!(
                "the default scope `{}` must be a part of the scope `{}`; name both",
                client.default_scope,
                client.scope
            );
        }
        found(store.update_client(&client).await?, &self.id)?;
        shell.say(&format!("client {} is changed, within a second on every replica", self.id))
    }
}

async fn switch(shell: &Shell, id: &ClientId, enabled: bool) -> anyhow::Result<()> {
    let (_, store) = shell.store().await?;
    found(store.set_client_enabled(id.as_str(), enabled).await?, id)?;
    let done = if enabled { "enabled" } else { "disabled; tokens it has live until they expire" };
    shell.say(&format!("client {id} is {done}"))
}

async fn list(shell: &Shell) -> anyhow::Result<()> {
    let (_, store) = shell.store().await?;
    let clients = everything(&store).await?.clients;
    let mut rows: Vec<(String, Value, String)> = clients
        .into_iter()
        .filter_map(|(id, client)| {
            Some(match client? {
                Ok(client) => {
                    let state = if client.enabled { "enabled" } else { "disabled" };
                    (id.clone(), summary(&client), format!("{id:<32} {state:<9} {}\n", client.scope))
                }
                Err(fault) => {
                    let value = json!({"client_id": id, "malformed": fault.to_string()});
                    (id.clone(), value, format!("{id:<32} malformed {fault}\n"))
                }
            })
        })
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let values: Vec<&Value> = rows.iter().map(|(_, value, _)| value).collect();
    shell.print(&values, || rows.iter().map(|(_, _, line)| line.as_str()).collect())
}

async fn show(shell: &Shell, id: &ClientId) -> anyhow::Result<()> {
    let (_, store) = shell.store().await?;
    let client = one(&store, id).await?;
    let secrets = store.secrets(Some(id.as_str())).await?;
    let mut value = summary(&client);
    if let Value::Object(members) = &mut value {
        members.insert("secrets".into(), serde_json::to_value(&secrets)?);
    }
    shell.print(&value, || {
        let list = |resources: &[ResourceId]| resources.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let mut text = format!(
            "client_id             {}\nenabled               {}\ncreated               {}\nscope                 {}\ndefault_scope         {}\nresources             {}\ntoken_ttl             {}\nauth_methods          {}\nrequire_dpop          {}\nrequire_mtls_binding  {}\nclaims                {}\n",
            client.client_id, client.enabled, client.created_at, client.scope, client.default_scope, list(&client.resources),
            client.token_ttl.map_or_else(|| "default".into(), |ttl| ttl.to_string()),
            client.auth_methods.as_deref().unwrap_or("any"), client.require_dpop, client.require_mtls_binding,
            Value::Object(client.claims.clone()),
        );
        for secret in &secrets {
            text += &secret_line(secret);
        }
        text
    })
}

fn summary(client: &Client) -> Value {
    json!({
        "client_id": client.client_id,
        "enabled": client.enabled,
        "created_at": client.created_at,
        "scope": client.scope.as_str(),
        "default_scope": client.default_scope.as_str(),
        "resources": client.resources.iter().map(ResourceId::as_str).collect::<Vec<_>>(),
        "token_ttl": client.token_ttl.map(Span::seconds),
        "auth_methods": client.auth_methods,
        "claims": client.claims,
        "require_dpop": client.require_dpop,
        "require_mtls_binding": client.require_mtls_binding,
    })
}

/// Everything the database holds, read as the server reads it.
pub(super) async fn everything(store: &Store) -> anyhow::Result<Changes> {
    let mut feed = store.feed().await?;
    let changes = feed.changes(None).await?;
    feed.close().await;
    Ok(changes)
}

async fn one(store: &Store, id: &ClientId) -> anyhow::Result<Client> {
    match everything(store).await?.clients.remove(id.as_str()).flatten() {
        Some(client) => Ok(Arc::unwrap_or_clone(client?)),
        None => bail!("there is no client {id}; `grantd client list` lists them"),
    }
}

/// Tokens live for a day at most.
pub(super) fn checked_ttl(ttl: Option<Span>) -> anyhow::Result<Option<Span>> {
    match ttl {
        Some(ttl) if !(1..=86400).contains(&ttl.seconds()) => bail!("--token-ttl is from 1s to 24h"),
        ttl => Ok(ttl),
    }
}

fn checked_claims(claims: Vec<(String, String)>) -> anyhow::Result<Map<String, Value>> {
    let mut checked = Map::new();
    for (name, value) in claims {
        if RESERVED_CLAIMS.contains(&name.as_str()) {
            bail!("--claim {name}: grantd sets this claim itself");
        }
        if checked.insert(name.clone(), value.into()).is_some() {
            bail!("--claim {name} is given twice");
        }
    }
    Ok(checked)
}

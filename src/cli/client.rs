//! `grantd client`: register clients, change them, switch them off.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client_set::{Set, checked_claims, checked_ttl};
use super::registered::{everything, one};
use super::secret::{self, found, secret_line};
use super::{Shell, WHERE, client_cert, client_key, key_value, seed, tag_key};
use crate::crypto::jwk::Alg;
use crate::model::client::Client;
use crate::model::client_id::ClientId;
use crate::model::credential::{StoredCertificate, StoredKey};
use crate::model::jwks_uri::JwksUri;
use crate::model::resource::ResourceId;
use crate::model::scope::Scope;
use crate::model::time::Span;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Register a client, with a first secret that is shown once
    Create(Create),
    /// List clients
    List,
    /// Show a client and when each of its credentials was made, ends and was last used
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
    /// Revoke all tokens that a client was issued until now; it may ask for new ones
    RevokeTokens {
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
    /// A client's public keys, for `private_key_jwt`
    #[command(subcommand)]
    Key(client_key::Command),
    /// A client's certificates, for mutual TLS
    #[command(subcommand)]
    Cert(client_cert::Command),
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

impl Command {
    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => create.run(shell).await,
            Self::List => list(shell).await,
            Self::Show { id } => show(shell, &id).await,
            Self::Enable { id } => switch(shell, &id, true).await,
            Self::Disable { id } => switch(shell, &id, false).await,
            Self::RevokeTokens { id } => {
                let (_, store) = shell.store().await?;
                found(store.revoke_tokens_of(id.as_str(), shell.now()).await?, &id)?;
                shell.say(&format!("the tokens of client {id} are revoked{WHERE}"))
            }
            Self::Delete { id } => {
                let (_, store) = shell.store().await?;
                found(store.delete_client(id.as_str()).await?, &id)?;
                shell.say(&format!("client {id} is deleted and its tokens are revoked{WHERE}"))
            }
            Self::Set(set) => set.run(shell).await,
            Self::Secret(command) => command.run(shell).await,
            Self::Key(command) => command.run(shell).await,
            Self::Cert(command) => command.run(shell).await,
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
            ..Client::new(self.id, self.scope, self.default_scope, shell.now())
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
        let client = Client { created_at: shell.now(), ..client };
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

async fn switch(shell: &Shell, id: &ClientId, enabled: bool) -> anyhow::Result<()> {
    let (_, store) = shell.store().await?;
    found(store.set_client_enabled(id.as_str(), enabled).await?, id)?;
    let done = if enabled { "enabled".to_owned() } else { format!("disabled and its tokens count for nothing{WHERE}") };
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
    let (of_keys, of_certificates) = (store.key_uses().await?, store.certificate_uses().await?);
    let key_used = |key: &StoredKey| of_keys.get(&(id.to_string(), key.kid.to_string())).copied();
    let cert_used = |one: &StoredCertificate| of_certificates.get(&*one.cert_id).copied();
    let keys = || client.keys.iter().map(|key| (key, key_used(key)));
    let certificates = || client.certificates.iter().map(|one| (one, cert_used(one)));
    let mut value = summary(&client);
    if let Value::Object(members) = &mut value {
        members.insert("secrets".into(), serde_json::to_value(&secrets)?);
        members.insert("keys".into(), keys().map(|(key, used)| client_key::key_value(key, used)).collect());
        let certificates = certificates().map(|(one, used)| client_cert::certificate_value(one, used)).collect();
        members.insert("certificates".into(), certificates);
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
        if let Some(uri) = &client.jwks_uri {
            text += &format!("jwks_uri              {uri}\n");
        }
        if client.not_before.0 > 0 {
            text += &format!("tokens revoked        until {}\n", client.not_before);
        }
        text.extend(secrets.iter().map(secret_line));
        if let Some(alg) = client.introspection_signed_response_alg {
            text += &format!("introspection signed  {alg}\n");
        }
        text.extend(keys().map(|(key, used)| client_key::key_line(key, used)));
        text.extend(certificates().map(|(one, used)| client_cert::certificate_line(one, used)));
        text
    })
}

fn summary(client: &Client) -> Value {
    json!({
        "client_id": client.client_id,
        "enabled": client.enabled,
        "created_at": client.created_at,
        "not_before": Some(client.not_before).filter(|at| at.0 > 0),
        "scope": client.scope.as_str(),
        "default_scope": client.default_scope.as_str(),
        "resources": client.resources.iter().map(ResourceId::as_str).collect::<Vec<_>>(),
        "token_ttl": client.token_ttl.map(Span::seconds),
        "auth_methods": client.auth_methods,
        "claims": client.claims,
        "require_dpop": client.require_dpop,
        "require_mtls_binding": client.require_mtls_binding,
        "jwks_uri": client.jwks_uri.as_ref().map(JwksUri::as_str),
        "introspection_signed_response_alg": client.introspection_signed_response_alg.map(Alg::as_str),
    })
}

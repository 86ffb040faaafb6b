//! `grantd client`: register clients, change them, switch them off.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::claims::{self, json_claim};
use super::client_set::Set;
use super::disclosure::{self, SHOWN_ONCE, SecretFile};
use super::open::Purpose;
use super::registered::{each_once, everything, one, summary};
use super::secret::{self, found, secret_line};
use super::spans::{assertion_lifetime, from_now, token_ttl};
use super::{Shell, WHERE, client_cert, client_key, key_value, seed, tag_key, token_size};
use crate::crypto::secret_tag::TagKey;
use crate::model::client::{AssertionAudience, Client};
use crate::model::client_id::ClientId;
use crate::model::credential::{StoredCertificate, StoredKey};
use crate::model::resource::ResourceId;
use crate::model::scope::Scope;
use crate::model::time::Span;
use crate::telemetry::printable::one_line;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Register a client, with a first secret that is shown once
    Create(Create),
    /// List clients
    List,
    /// Show a client, and when each of its credentials was made, expires and was last used
    Show {
        /// The client id
        id: ClientId,
    },
    /// Enable a client that was disabled
    Enable {
        /// The client id
        id: ClientId,
    },
    /// Disable a client without deleting it
    Disable {
        /// The client id
        id: ClientId,
    },
    /// Revoke all tokens issued to a client until now; it may ask for new ones
    RevokeTokens {
        /// The client id
        id: ClientId,
    },
    /// Delete a client and its credentials, and revoke its tokens
    Delete {
        /// The client id
        id: ClientId,
    },
    /// Change a client; options that are not given leave their value as it is
    Set(Set),
    /// Manage a client's secrets
    #[command(subcommand)]
    Secret(secret::Command),
    /// Manage a client's public keys, for `private_key_jwt`
    #[command(subcommand)]
    Key(client_key::Command),
    /// Manage a client's certificates, for mutual TLS
    #[command(subcommand)]
    Cert(client_cert::Command),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The client id: 1 to 255 printable ASCII characters with no space at either end
    id: ClientId,
    /// Scopes the client may ask for, separated by spaces
    #[arg(long, default_value = "")]
    scope: Scope,
    /// Scopes of a token when the client asks for none
    #[arg(long, default_value = "")]
    default_scope: Scope,
    /// Resource the client may ask tokens for (repeatable); none means the server's default audience
    #[arg(long, value_name = "URI")]
    resource: Vec<ResourceId>,
    /// Lifetime of the client's tokens, from 1s to 24h [default: the resource's or the server's]
    #[arg(long, value_name = "SPAN", value_parser = token_ttl)]
    token_ttl: Option<Span>,
    /// Further claim of the client's tokens, a string (repeatable)
    #[arg(long, value_name = "NAME=TEXT", value_parser = key_value)]
    claim: Vec<(String, String)>,
    /// Further claim of the client's tokens, any JSON value (repeatable)
    #[arg(long, value_name = "NAME=JSON", value_parser = json_claim)]
    claim_json: Vec<(String, Value)>,
    /// Issue only tokens that are bound to a DPoP key
    #[arg(long)]
    require_dpop: bool,
    /// Issue only tokens that are bound to a certificate
    #[arg(long)]
    require_mtls_binding: bool,
    /// Whom the client's assertions may be addressed to: `issuer`, or `token-endpoint` for either [default: issuer]
    #[arg(long, value_name = "AUDIENCE")]
    assertion_audience: Option<AssertionAudience>,
    /// Longest lifetime of the client's assertions, from 1m to 1h [default: 5m]
    #[arg(long, value_name = "SPAN", value_parser = assertion_lifetime)]
    assertion_lifetime: Option<Span>,
    /// Let the first secret expire after this time [default: never]
    #[arg(long, value_name = "SPAN", value_parser = from_now, conflicts_with = "no_secret")]
    expires_in: Option<Span>,
    /// Make no secret
    #[arg(long)]
    no_secret: bool,
    /// Create nothing: print a migration for the seeds directory, and the secret on stderr
    #[arg(long)]
    sql: bool,
    /// Write the secret to this new file, readable by its owner alone, instead of printing it
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
                let (_, store) = shell.store(Purpose::Change).await?;
                found(store.revoke_tokens_of(id.as_str(), shell.now()).await?, &id)?;
                shell.say(&format!("the tokens of client {id} are revoked{WHERE}"))
            }
            Self::Delete { id } => {
                let (_, store) = shell.store(Purpose::Change).await?;
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
            resources: each_once(self.resource),
            token_ttl: self.token_ttl,
            claims: claims::checked(shell, self.claim, self.claim_json)?,
            require_dpop: self.require_dpop,
            require_mtls_binding: self.require_mtls_binding,
            assertion_audience: self.assertion_audience.unwrap_or_default(),
            assertion_lifetime: self.assertion_lifetime,
            ..Client::new(self.id, self.scope, self.default_scope, shell.now())
        };
        if !client.default_scope.is_subset_of(&client.scope) {
            bail!("--default-scope must be a part of --scope");
        }
        let config = shell.config()?;
        let make = |id: &ClientId, tag_keys: &[TagKey]| {
            let make = || shell.new_secret(&config, id, tag_keys, String::new(), self.expires_in);
            (!self.no_secret).then(make).transpose()
        };
        if self.sql {
            let tag_keys = if self.no_secret { Vec::new() } else { tag_key::for_seed(&config).await? };
            let secret = make(&client.client_id, &tag_keys)?;
            let migration = seed::client(&client, secret.as_ref().map(|(_, stored)| stored));
            let file = match (&secret, &self.secret_file) {
                (Some((secret, _)), Some(file)) => Some(SecretFile::write(file, secret)?),
                (Some((secret, _)), None) => shell.say(secret.expose()).map(|()| None)?,
                (None, _) => None,
            };
            shell.print(&json!({"sql": migration}), || migration.clone())?;
            return file.map_or(Ok(()), SecretFile::publish);
        }
        let (_, store) = shell.store(Purpose::Create).await?;
        let client = Client { created_at: shell.now(), ..client };
        let tag_keys = if self.no_secret { Vec::new() } else { tag_key::usable(shell, &config, &store).await? };
        let secret = make(&client.client_id, &tag_keys)?;
        let file = match (&secret, &self.secret_file) {
            (Some((secret, _)), Some(file)) => Some(SecretFile::write(file, secret)?),
            _ => None,
        };
        token_size::remark(shell, &config, &store, &client).await?;
        store.create_client(&client, secret.as_ref().map(|(_, stored)| stored)).await?;
        let id = &client.client_id;
        let Some((secret, stored)) = secret else {
            return shell.print(&json!({"client_id": id}), || format!("client_id      {id}"));
        };
        let secret_id = stored.secret_id.as_str();
        let text = format!("client_id      {id}\nsecret_id      {secret_id}\n");
        if let Some(file) = file {
            file.publish()?;
            return shell.print(&json!({"client_id": id, "secret_id": secret_id}), || text);
        }
        let secret = secret.expose();
        let value = json!({"client_id": id, "secret_id": secret_id, "client_secret": secret});
        let text = || format!("{text}client_secret  {secret}\n\n{SHOWN_ONCE}");
        disclosure::show_once(shell, &store, (id, secret_id), &value, text).await
    }
}

async fn switch(shell: &Shell, id: &ClientId, enabled: bool) -> anyhow::Result<()> {
    let (_, store) = shell.store(Purpose::Change).await?;
    let before = everything(&store).await?.clients.remove(id.as_str()).flatten();
    let already = before.is_some_and(|client| client.is_ok_and(|client| client.enabled == enabled));
    // Written all the same: somebody may have changed it since.
    found(store.set_client_enabled(id.as_str(), enabled).await?, id)?;
    let state = if enabled { "enabled" } else { "disabled" };
    if already {
        return shell.say(&format!("nothing changed: client {id} is {state} already"));
    }
    let tokens = if enabled { String::new() } else { format!(" and its tokens count for nothing{WHERE}") };
    shell.say(&format!("client {id} is {state}{tokens}"))
}

async fn list(shell: &Shell) -> anyhow::Result<()> {
    let (_, store) = shell.store(Purpose::Look).await?;
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
                    (id.clone(), value, format!("{id:<32} malformed {}\n", one_line(&fault.to_string())))
                }
            })
        })
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let values: Vec<&Value> = rows.iter().map(|(_, value, _)| value).collect();
    shell.print(&values, || rows.iter().map(|(_, _, line)| line.as_str()).collect())
}

async fn show(shell: &Shell, id: &ClientId) -> anyhow::Result<()> {
    let (_, store) = shell.store(Purpose::Look).await?;
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
        if client.assertion_audience != AssertionAudience::default() {
            text += &format!("assertion_audience    {}\n", client.assertion_audience.as_str());
        }
        if let Some(lifetime) = client.assertion_lifetime {
            text += &format!("assertion_lifetime    {lifetime}\n");
        }
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

//! `grantd client`: registers, changes, disables and deletes clients.

mod cert;
mod federation;
pub(super) mod key;
mod secret;
mod set;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::claims::{self, json_claim};
use super::disclosure::{self, SHOWN_ONCE, SecretFile};
use super::open::{self, Purpose};
use super::{REVOCATION_REACH, Shell, key_value};
use crate::admin::clients::{ClientPatch, document};
use crate::admin::secrets::{GeneratedSecret, SecretOptions};
use crate::admin::{AdminError, Change, seed};
use crate::model::client::{AssertionAudience, CLIENT_CREDENTIALS, Client};
use crate::model::client_id::ClientId;
use crate::model::lifetime::{AssertionLifetime, ExpiresIn, TokenTtl};
use crate::model::resource::ResourceId;
use crate::model::scope::Scope;
use crate::model::time::Span;
use crate::serve::prepare::is_absent;
use crate::telemetry::printable::one_line;

use secret::secret_line;
use set::Set;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Register a client, with a first secret that is shown once
    Create(Create),
    /// List clients
    List,
    /// Show a client, with the creation, expiry and last use of each of its credentials
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
    Key(key::Command),
    /// Manage a client's certificates, for mutual TLS
    #[command(subcommand)]
    Cert(cert::Command),
    /// Manage a client's federation rules, for tokens of trusted issuers
    #[command(subcommand)]
    Federation(federation::Command),
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
    #[arg(long, value_name = "SPAN")]
    token_ttl: Option<TokenTtl>,
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
    /// Accepted audience of the client's assertions: `issuer`, or `token-endpoint` for either [default: issuer]
    #[arg(long, value_name = "AUDIENCE")]
    assertion_audience: Option<AssertionAudience>,
    /// Longest lifetime of the client's assertions, from 1m to 1h [default: 5m]
    #[arg(long, value_name = "SPAN")]
    assertion_lifetime: Option<AssertionLifetime>,
    /// Time until the first secret expires [default: never]
    #[arg(long, value_name = "SPAN", conflicts_with = "no_secret")]
    expires_in: Option<ExpiresIn>,
    /// Create the client without a secret
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
                shell.admin(Purpose::Change).await?.revoke_tokens_of(&id).await?;
                shell.info(&format!("the tokens of client {id} are revoked{REVOCATION_REACH}"))
            }
            Self::Delete { id } => {
                shell.admin(Purpose::Change).await?.delete_client(&id).await?;
                shell.info(&format!("client {id} is deleted and its tokens are revoked{REVOCATION_REACH}"))
            }
            Self::Set(set) => set.run(shell).await,
            Self::Secret(command) => command.run(shell).await,
            Self::Key(command) => command.run(shell).await,
            Self::Cert(command) => command.run(shell).await,
            Self::Federation(command) => command.run(shell).await,
        }
    }
}

impl Create {
    async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let patch = ClientPatch {
            scope: Change::To(self.scope),
            default_scope: Change::To(self.default_scope),
            resources: Change::To(self.resource),
            token_ttl: Change::To(self.token_ttl),
            claims: Change::To(claims::registered(shell, self.claim, self.claim_json)?),
            require_dpop: Change::To(self.require_dpop),
            require_mtls_binding: Change::To(self.require_mtls_binding),
            assertion_audience: self.assertion_audience.into(),
            assertion_lifetime: Change::To(self.assertion_lifetime),
            ..ClientPatch::default()
        };
        let client = patch.new_client(self.id).map_err(AdminError::from)?;
        let options = (!self.no_secret).then_some(SecretOptions { label: String::new(), expires_in: self.expires_in });
        if self.sql {
            return print_seed(shell, &client, options, self.secret_file.as_deref()).await;
        }
        let admin = shell.admin(Purpose::Create).await?;
        let secret = match options {
            Some(options) => Some(shell.after_warnings(admin.generate_secret(&client.client_id, options).await?)),
            None => None,
        };
        let file = secret_file(secret.as_ref(), self.secret_file.as_deref())?;
        let created = admin.create_client(client, secret.as_ref().map(|made| &made.stored)).await?;
        let id = &shell.after_warnings(created).client_id;
        let Some(GeneratedSecret { secret, stored }) = secret else {
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
        disclosure::show_once(shell, &admin, (id, secret_id), &value, text).await
    }
}

/// Prints the migration that creates a client on stdout, and its secret on stderr.
async fn print_seed(
    shell: &Shell,
    client: &Client,
    options: Option<SecretOptions>,
    path: Option<&Path>,
) -> anyhow::Result<()> {
    let config = shell.config()?;
    // The seed itself says in a comment what it lacks, since stderr carries the secret and nothing else.
    let reachable = open::missing(&config.database).is_none() && !is_absent(&config.sealing_key_file);
    let admin = open::without_database(&config);
    let secret = match options {
        Some(options) => {
            let made = admin.generate_secret_for_seed(&client.client_id, options, reachable).await?;
            Some(shell.after_warnings(made))
        }
        None => None,
    };
    let migration = seed::client(client, secret.as_ref().map(|made| &made.stored));
    let file = secret_file(secret.as_ref(), path)?;
    if let (Some(made), None) = (&secret, &file) {
        shell.info(made.secret.expose())?;
    }
    shell.print(&json!({"sql": migration}), || migration.clone())?;
    file.map_or(Ok(()), SecretFile::publish)
}

/// Writes the secret to the file of `--secret-file`, when there are both.
fn secret_file(made: Option<&GeneratedSecret>, path: Option<&Path>) -> anyhow::Result<Option<SecretFile>> {
    path.zip(made).map(|(path, made)| SecretFile::write(path, &made.secret)).transpose()
}

async fn switch(shell: &Shell, id: &ClientId, enabled: bool) -> anyhow::Result<()> {
    let changed = shell.admin(Purpose::Change).await?.set_client_enabled(id, enabled).await?;
    let state = if enabled { "enabled" } else { "disabled" };
    if !changed {
        return shell.info(&format!("nothing changed: client {id} is already {state}"));
    }
    let tokens = if enabled { String::new() } else { format!(" and its tokens are inactive{REVOCATION_REACH}") };
    shell.info(&format!("client {id} is {state}{tokens}"))
}

async fn list(shell: &Shell) -> anyhow::Result<()> {
    let mut clients = shell.admin(Purpose::Read).await?.clients(None).await?;
    let mut list = shell.list();
    while let Some(range) = clients.next().await? {
        for (id, client) in range {
            match client {
                Ok(client) => {
                    let state = if client.enabled { "enabled" } else { "disabled" };
                    list.item(|| document(&client), || format!("{id:<32} {state:<9} {}", client.scopes.allowed()))?;
                }
                Err(fault) => list.item(
                    || json!({"client_id": id, "malformed": fault.to_string()}),
                    || format!("{id:<32} malformed {}", one_line(&fault.to_string())),
                )?,
            }
        }
    }
    list.end()
}

async fn show(shell: &Shell, id: &ClientId) -> anyhow::Result<()> {
    let details = shell.admin(Purpose::Read).await?.client_details(id).await?;
    shell.print(&details.document(), || {
        let client = &details.client;
        let resources: Vec<&str> = client.resources.iter().map(ResourceId::as_str).collect();
        let mut text = format!(
            "client_id             {}\nenabled               {}\ncreated               {}\nscope                 {}\ndefault_scope         {}\nresources             {}\ntoken_ttl             {}\nauth_methods          {}\nrequire_dpop          {}\nrequire_mtls_binding  {}\nclaims                {}\n",
            client.client_id, client.enabled, client.created_at, client.scopes.allowed(), client.scopes.default_scope(),
            resources.join(" "), client.token_ttl.map_or_else(|| "default".into(), |ttl| Span::from(ttl).to_string()),
            client.auth_methods.as_deref().unwrap_or("any"), client.require_dpop, client.require_mtls_binding,
            Value::Object(client.claims.members().clone()),
        );
        if client.assertion_audience != AssertionAudience::default() {
            text += &format!("assertion_audience    {}\n", client.assertion_audience.as_str());
        }
        if let Some(lifetime) = client.assertion_lifetime {
            text += &format!("assertion_lifetime    {}\n", Span::from(lifetime));
        }
        if client.grant_types() != CLIENT_CREDENTIALS {
            text += &format!("grant_types           {}\n", client.grant_types());
        }
        if let Some(uri) = &client.jwks_uri {
            text += &format!("jwks_uri              {uri}\n");
        }
        if client.not_before.0 > 0 {
            text += &format!("tokens revoked        until {}\n", client.not_before);
        }
        text.extend(details.secrets.iter().map(secret_line));
        if let Some(alg) = client.introspection_signed_response_alg {
            text += &format!("introspection signed  {alg}\n");
        }
        text.extend(details.keys.iter().map(key::key_line));
        text.extend(details.certificates.iter().map(cert::certificate_line));
        text.extend(details.rules.iter().map(federation::rule_line));
        text
    })
}

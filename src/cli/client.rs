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
use super::look::Tone;
use super::next_step::SecretIn;
use super::open::{self, Purpose};
use super::table::{Cell, Column};
use super::{REVOCATION_REACH, Shell, confirm, key_value, next_step, read_secret_from_stdin, states};
use crate::admin::clients::ClientPatch;
use crate::admin::lifecycle::ClientFilter;
use crate::admin::secrets::{GeneratedSecret, SecretOptions};
use crate::admin::{AdminError, Change, seed};
use crate::crypto::secret::ClientSecret;
use crate::model::client::{AssertionAudience, CLIENT_CREDENTIALS};
use crate::model::client_id::ClientId;
use crate::model::lifetime::{AssertionLifetime, ExpiresIn, TokenTtl, UnusedFor};
use crate::model::resource::ResourceId;
use crate::model::scope::Scope;
use crate::model::time::Span;
use crate::serve::prepare::is_absent;

use set::Set;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Register a client, with a first secret that is shown once
    Create(Create),
    /// List clients
    #[command(visible_alias = "ls")]
    List(List),
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
    /// Delete a client and its credentials, and revoke its tokens; on a terminal it asks first
    #[command(visible_alias = "rm")]
    Delete {
        /// The client id
        id: ClientId,
        /// Delete without asking
        #[arg(long)]
        yes: bool,
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
pub(super) struct List {
    /// Only clients of which no credential was used for this long, such as 90d (minimum 1m)
    #[arg(long, value_name = "SPAN")]
    unused: Option<UnusedFor>,
    /// Only clients of this owner; '' for those without one
    #[arg(long)]
    owner: Option<String>,
    /// Only clients that expire within this time, such as 30d
    #[arg(long, value_name = "SPAN")]
    expiring: Option<Span>,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The client id: 1 to 255 printable ASCII characters with no space at either end
    id: ClientId,
    /// Purpose of the client, at most 512 characters
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// Team or person that answers for the client, at most 128 characters
    #[arg(long, default_value = "")]
    owner: String,
    /// Time until the client expires: it gets no tokens then, and those it has are inactive [default: never]
    #[arg(long, value_name = "SPAN")]
    expires_in: Option<ExpiresIn>,
    /// Scopes the client may ask for, separated by spaces
    #[arg(long, help_heading = "Tokens", default_value = "")]
    scope: Scope,
    /// Scopes of a token when the client asks for none
    #[arg(long, help_heading = "Tokens", default_value = "")]
    default_scope: Scope,
    /// Resource the client may ask tokens for (repeatable); none means the server's default audience
    #[arg(long, help_heading = "Tokens", value_name = "URI")]
    resource: Vec<ResourceId>,
    /// Lifetime of the client's tokens, from 1s to 24h [default: the resource's or the server's]
    #[arg(long, help_heading = "Tokens", value_name = "SPAN")]
    token_ttl: Option<TokenTtl>,
    /// Further claim of the client's tokens, a string (repeatable)
    #[arg(long, help_heading = "Tokens", value_name = "NAME=TEXT", value_parser = key_value)]
    claim: Vec<(String, String)>,
    /// Further claim of the client's tokens, any JSON value (repeatable)
    #[arg(long, help_heading = "Tokens", value_name = "NAME=JSON", value_parser = json_claim)]
    claim_json: Vec<(String, Value)>,
    /// Issue only tokens that are bound to a DPoP key
    #[arg(long, help_heading = "Tokens")]
    require_dpop: bool,
    /// Issue only tokens that are bound to a certificate
    #[arg(long, help_heading = "Tokens")]
    require_mtls_binding: bool,
    /// Accepted audience of the client's assertions: `issuer`, or `token-endpoint` for either [default: issuer]
    #[arg(long, help_heading = "Client assertions", value_name = "AUDIENCE")]
    assertion_audience: Option<AssertionAudience>,
    /// Longest lifetime of the client's assertions, from 1m to 1h [default: 5m]
    #[arg(long, help_heading = "Client assertions", value_name = "SPAN")]
    assertion_lifetime: Option<AssertionLifetime>,
    /// Time until the first secret expires, at most `secrets.max_age` [default: `secrets.max_age`, or never without it]
    #[arg(long, help_heading = "First secret", value_name = "SPAN", conflicts_with = "no_secret")]
    secret_expires_in: Option<ExpiresIn>,
    /// Create the client without a secret
    #[arg(long, help_heading = "First secret")]
    no_secret: bool,
    /// Read the first secret, which was chosen elsewhere, from stdin
    #[arg(long, conflicts_with_all = ["no_secret", "secret_file"])]
    import_secret: bool,
    /// Create nothing: print a migration for the seeds directory, and the secret on stderr
    #[arg(long)]
    sql: bool,
    /// Write the secret to this new file, readable by its owner alone, instead of printing it
    #[arg(long, help_heading = "First secret", value_name = "FILE", conflicts_with = "no_secret")]
    secret_file: Option<PathBuf>,
}

impl Command {
    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => create.run(shell).await,
            Self::List(filter) => list(shell, filter).await,
            Self::Show { id } => show(shell, &id).await,
            Self::Enable { id } => switch(shell, &id, true).await,
            Self::Disable { id } => switch(shell, &id, false).await,
            Self::RevokeTokens { id } => {
                shell.admin(Purpose::Change).await?.revoke_tokens_of(&id).await?;
                shell.info(&format!("the tokens of client {id} are revoked{REVOCATION_REACH}"))
            }
            Self::Delete { id, yes } => {
                let admin = shell.admin(Purpose::Change).await?;
                if !yes && confirm::can_ask() {
                    confirm::deletion_of_client(&admin, &id).await?;
                }
                admin.delete_client(&id).await?;
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
            description: Change::To(self.description),
            owner: Change::To(self.owner),
            expires_in: Change::To(self.expires_in),
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
        let chosen = self.import_secret.then(read_secret_from_stdin).transpose()?;
        let options = SecretOptions { label: String::new(), expires_in: self.secret_expires_in };
        let options = (!self.no_secret).then_some((options, chosen));
        if self.sql {
            return print_seed(shell, (patch, self.id), options, self.secret_file.as_deref()).await;
        }
        let admin = shell.admin(Purpose::Create).await?;
        let client = patch.new_client(self.id, admin.now()).map_err(AdminError::from)?;
        let client_id = &client.client.client_id;
        let secret = match options {
            Some((options, None)) => Some(shell.after_warnings(admin.generate_secret(client_id, options).await?)),
            Some((options, Some(secret))) => {
                let stored = shell.after_warnings(admin.imported_secret(client_id, &secret, options).await?);
                Some(GeneratedSecret { secret, stored })
            }
            None => None,
        };
        let file = secret_file(secret.as_ref(), self.secret_file.as_deref())?;
        let created = admin.create_client(client, secret.as_ref().map(|made| &made.stored)).await?;
        let client = shell.after_warnings(created);
        let id = &client.client_id;
        let Some(GeneratedSecret { secret, stored }) = secret else {
            shell.print(&json!({"client_id": id}), || format!("client_id      {id}"))?;
            return next_step::after_client(shell, &client, SecretIn::None);
        };
        let secret_id = stored.secret_id.as_str();
        let text = format!("client_id      {id}\nsecret_id      {secret_id}\n");
        if self.import_secret {
            return shell.print(&json!({"client_id": id, "secret_id": secret_id}), || text);
        }
        if let Some(file) = file {
            file.publish()?;
            shell.print(&json!({"client_id": id, "secret_id": secret_id}), || text)?;
            let place = self.secret_file.as_deref().map_or(SecretIn::Output, SecretIn::File);
            return next_step::after_client(shell, &client, place);
        }
        let secret = secret.expose();
        let value = json!({"client_id": id, "secret_id": secret_id, "client_secret": secret});
        let text = || format!("{text}client_secret  {secret}\n\n{SHOWN_ONCE}");
        disclosure::show_once(shell, &admin, (id, secret_id), &value, text).await?;
        next_step::after_client(shell, &client, SecretIn::Output)
    }
}

/// Prints the migration that creates a client on stdout, and its secret on stderr.
async fn print_seed(
    shell: &Shell,
    (values, id): (ClientPatch, ClientId),
    options: Option<(SecretOptions, Option<ClientSecret>)>,
    path: Option<&Path>,
) -> anyhow::Result<()> {
    let config = shell.config()?;
    // The seed itself says in a comment what it lacks, since stderr carries the secret and nothing else.
    let reachable = open::missing(&config.database).is_none() && !config.sealing.file().is_some_and(is_absent);
    let admin = open::without_database(&config);
    let client = values.new_client(id, admin.now()).map_err(AdminError::from)?;
    let client_id = &client.client.client_id;
    let is_chosen = matches!(options, Some((_, Some(_))));
    let secret = match options {
        Some((options, None)) => {
            let made = admin.generate_secret_for_seed(client_id, options, reachable).await?;
            Some(shell.after_warnings(made))
        }
        Some((options, Some(secret))) => {
            let stored = shell.after_warnings(admin.imported_secret_for_seed(&secret, options)?);
            Some(GeneratedSecret { secret, stored })
        }
        None => None,
    };
    let migration = seed::client(&client, secret.as_ref().map(|made| &made.stored));
    let file = secret_file(secret.as_ref(), path)?;
    if let (Some(made), None, false) = (&secret, &file, is_chosen) {
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

async fn list(shell: &Shell, List { unused, owner, expiring }: List) -> anyhow::Result<()> {
    let admin = shell.admin(Purpose::Read).await?;
    let mut clients = admin.client_list(ClientFilter { owner, unused, expiring }).await?;
    let (mut list, times) = (shell.list(CLIENTS), shell.times(&admin));
    while let Some(range) = clients.next().await? {
        for listed in range {
            let id = &listed.client_id;
            let row = || match &listed.client {
                Ok(client) => {
                    let scope = Cell::new(client.scopes.allowed().as_str());
                    vec![Cell::new(id), states::of_client(client, times), times.cell(client.created_at), scope]
                }
                Err(fault) => {
                    let state = Cell::toned("malformed", Tone::Bad);
                    vec![Cell::new(id), state, Cell::new(""), Cell::new(fault.to_string())]
                }
            };
            list.item(|| listed.document(clients.filter()), row)?;
        }
    }
    list.end()
}

async fn show(shell: &Shell, id: &ClientId) -> anyhow::Result<()> {
    let admin = shell.admin(Purpose::Read).await?;
    let (details, times) = (admin.client_details(id).await?, shell.times(&admin));
    shell.print_sheet(&details.document(), |sheet| {
        let client = &details.client;
        let resources: Vec<&str> = client.resources.iter().map(ResourceId::as_str).collect();
        let ttl = client.token_ttl.map_or_else(|| "default".into(), |ttl| Span::from(ttl).to_string());
        let mut fact = |name, text: &str| sheet.fact(name, Cell::new(text));
        fact("client_id", client.client_id.as_str());
        fact("enabled", if client.enabled { "true" } else { "false" });
        fact("created", &times.words(client.created_at));
        fact("scope", client.scopes.allowed().as_str());
        fact("default_scope", client.scopes.default_scope().as_str());
        fact("resources", &resources.join(" "));
        fact("token_ttl", &ttl);
        fact("auth_methods", client.auth_methods.as_deref().unwrap_or("any"));
        fact("require_dpop", if client.require_dpop { "true" } else { "false" });
        fact("require_mtls_binding", if client.require_mtls_binding { "true" } else { "false" });
        fact("claims", &Value::Object(client.claims.members().clone()).to_string());
        for (name, value) in [("description", &details.annotations.description), ("owner", &details.annotations.owner)]
        {
            if !value.is_empty() {
                fact(name, value);
            }
        }
        if let Some(end) = client.expires_at {
            fact("expires", &times.words(end.at()));
        }
        if client.assertion_audience != AssertionAudience::default() {
            fact("assertion_audience", client.assertion_audience.as_str());
        }
        if let Some(lifetime) = client.assertion_lifetime {
            fact("assertion_lifetime", &Span::from(lifetime).to_string());
        }
        if client.grant_types() != CLIENT_CREDENTIALS {
            fact("grant_types", &client.grant_types());
        }
        if let Some(uri) = &client.jwks_uri {
            fact("jwks_uri", uri.as_str());
        }
        if let Some(alg) = client.introspection_signed_response_alg {
            fact("introspection signed", alg.as_str());
        }
        if client.not_before.0 > 0 {
            fact("tokens revoked", &format!("those issued until {}", client.not_before));
        }
        sheet.fact("state", states::of_client(client, times));
        sheet.table(secret::OF_CLIENT, details.secrets.iter().map(|secret| secret::row(secret, times)));
        sheet.table(key::OF_CLIENT, details.keys.iter().map(|key| key::row(key, times)));
        sheet.table(cert::OF_CLIENT, details.certificates.iter().map(|certificate| cert::row(certificate, times)));
        sheet.table(federation::OF_CLIENT, details.rules.iter().map(|rule| federation::row(rule, times)));
    })
}

const CLIENTS: &[Column] =
    &[Column::whole("CLIENT"), Column::whole("STATE"), Column::whole("CREATED"), Column::shrinking("SCOPE")];

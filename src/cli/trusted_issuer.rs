//! `grantd trusted-issuer`: issuers whose JWTs prove who a client is.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::key;
use super::federation::keys::{self, FoundKeys};
use super::look::Tone;
use super::open::Purpose;
use super::table::{Cell, Column};
use super::{Shell, confirm};
use crate::admin::Change;
use crate::admin::trusted_issuers::{IssuerDetails, IssuerFields, IssuerPatch, KeyLocation};
use crate::model::federation::kind::IssuerKind;
use crate::model::federation::trusted_issuer::KeySource;
use crate::model::lifetime::FederatedLifetime;
use crate::model::time::Span;
use crate::telemetry::printable::one_line;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Trust an issuer, after its discovery document and its keys were fetched once
    Create(Create),
    /// List trusted issuers
    #[command(visible_alias = "ls")]
    List,
    /// Show a trusted issuer
    Show {
        /// The issuer, byte for byte as registered
        issuer: String,
    },
    /// Change a trusted issuer; options that are not given leave their value as it is
    Set(Set),
    /// Accept tokens of an issuer that was disabled
    Enable {
        /// The issuer, byte for byte as registered
        issuer: String,
    },
    /// Refuse tokens of an issuer, and keep its registration and its rules
    Disable {
        /// The issuer, byte for byte as registered
        issuer: String,
    },
    /// Delete a trusted issuer that no rule names
    #[command(visible_alias = "rm")]
    Delete {
        /// The issuer, byte for byte as registered
        issuer: String,
        /// Delete the rules that name it too, of all clients
        #[arg(long)]
        with_rules: bool,
        /// Delete without asking
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The exact `iss` of its tokens, an https URL; for SPIFFE the trust domain, `spiffe://example.org`
    issuer: String,
    /// Kind of the issuer: github, gitlab, kubernetes, spiffe or oidc; decides what its rules have to pin
    #[arg(long)]
    kind: IssuerKind,
    #[command(flatten)]
    keys: KeyOptions,
    /// The only accepted `aud` of its tokens [default: the issuer of this server]
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
    /// Longest lifetime of its tokens, from 1m to 24h [default: 1h]
    #[arg(long, value_name = "SPAN")]
    max_lifetime: Option<FederatedLifetime>,
    /// File with the CAs of its hosts, in PEM, instead of the public ones
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Fetch nothing: register the issuer without looking at its documents
    #[arg(long)]
    offline: bool,
}

/// Place of the keys of an issuer. Without any of these, the discovery document names it.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct KeyOptions {
    /// URL of its JWK Set [default: the one that its discovery document names]
    #[arg(long, value_name = "URL")]
    jwks_uri: Option<String>,
    /// File with its JWK Set, which is then pinned; `-` is stdin
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// URL of the bundle endpoint of a SPIFFE trust domain
    #[arg(long, value_name = "URL")]
    bundle_uri: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// The issuer, byte for byte as registered
    issuer: String,
    #[command(flatten)]
    changes: Changes,
    /// Fetch nothing: change the issuer without looking at its documents
    #[arg(long)]
    offline: bool,
}

/// Options of `trusted-issuer set`. At least one is required.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// URL of its JWK Set
    #[arg(long, value_name = "URL", conflicts_with_all = ["jwks", "bundle_uri", "discovery"])]
    jwks_uri: Option<String>,
    /// File with its JWK Set, which is then pinned; `-` is stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bundle_uri", "discovery"])]
    jwks: Option<PathBuf>,
    /// URL of the bundle endpoint of a SPIFFE trust domain
    #[arg(long, value_name = "URL", conflicts_with = "discovery")]
    bundle_uri: Option<String>,
    /// Read from its discovery document where the keys are
    #[arg(long)]
    discovery: bool,
    /// The only accepted `aud` of its tokens
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
    /// Accept the issuer of this server as the only `aud`
    #[arg(long, conflicts_with = "audience")]
    default_audience: bool,
    /// Longest lifetime of its tokens, from 1m to 24h
    #[arg(long, value_name = "SPAN")]
    max_lifetime: Option<FederatedLifetime>,
    /// Use the default lifetime, 1h
    #[arg(long, conflicts_with = "max_lifetime")]
    default_max_lifetime: bool,
    /// File with the CAs of its hosts, in PEM, instead of the public ones
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Trust the public CAs for its hosts
    #[arg(long, conflicts_with = "ca_file")]
    public_cas: bool,
}

impl Command {
    fn purpose(&self) -> Purpose {
        match self {
            Self::List | Self::Show { .. } => Purpose::Read,
            Self::Set(_) | Self::Enable { .. } | Self::Disable { .. } | Self::Delete { .. } => Purpose::Change,
            Self::Create(_) => Purpose::Create,
        }
    }

    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let purpose = self.purpose();
        match self {
            Self::Create(create) => create.run(shell).await,
            Self::List => list(shell).await,
            Self::Show { issuer } => {
                let details = shell.admin(purpose).await?.trusted_issuer(&issuer).await?;
                shell.print(&details.document(), || text(&details))
            }
            Self::Set(set) => set.run(shell).await,
            Self::Enable { issuer } => switch(shell, &issuer, true).await,
            Self::Disable { issuer } => switch(shell, &issuer, false).await,
            Self::Delete { issuer, with_rules, yes } => {
                let admin = shell.admin(purpose).await?;
                if !yes && confirm::can_ask() {
                    confirm::deletion_of_issuer(&admin, &issuer, with_rules).await?;
                }
                let rules = admin.delete_trusted_issuer(&issuer, with_rules).await?;
                let rules = match rules {
                    0 => String::new(),
                    1 => " with 1 rule".to_owned(),
                    rules => format!(" with {rules} rules"),
                };
                shell.info(&format!("issuer {issuer} is deleted{rules}, within a second on every replica"))
            }
        }
    }
}

impl Create {
    async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let fields = IssuerFields {
            issuer: self.issuer,
            kind: self.kind,
            keys: self.keys.read()?,
            audience: self.audience,
            max_lifetime: self.max_lifetime,
            ca_pem: self.ca_file.as_deref().map(read_pem).transpose()?,
        };
        let admin = shell.admin(Purpose::Create).await?;
        let issuer = admin.new_trusted_issuer(&fields)?;
        let found = if self.offline { None } else { Some(keys::fetch(&shell.config()?, &issuer).await?) };
        let details = shell.after_warnings(admin.create_trusted_issuer(issuer).await?);
        print_with_keys(shell, &details, found.as_ref())
    }
}

impl KeyOptions {
    fn read(self) -> anyhow::Result<KeyLocation> {
        key_location(self.jwks_uri, self.jwks.as_deref(), self.bundle_uri)
    }
}

impl Set {
    async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let (issuer, changes) = (self.issuer, self.changes);
        let names_keys =
            changes.discovery || changes.jwks_uri.is_some() || changes.jwks.is_some() || changes.bundle_uri.is_some();
        let keys = key_location(changes.jwks_uri, changes.jwks.as_deref(), changes.bundle_uri)?;
        let ca_pem = changes.ca_file.as_deref().map(read_pem).transpose()?;
        let patch = IssuerPatch {
            keys: names_keys.then_some(keys).into(),
            audience: Change::of(changes.default_audience, changes.audience),
            max_lifetime: Change::of(changes.default_max_lifetime, changes.max_lifetime),
            ca_pem: Change::of(changes.public_cas, ca_pem),
        };
        let admin = shell.admin(Purpose::Change).await?;
        // Other changes do not concern the documents.
        if !self.offline && (names_keys || changes.ca_file.is_some() || changes.public_cas) {
            let after = admin.changed_trusted_issuer(&issuer, &patch).await?;
            let found = keys::fetch(&shell.config()?, &after).await?;
            shell.info(&found.to_string())?;
        }
        if admin.change_trusted_issuer(&issuer, &patch).await? {
            shell.info(&format!("issuer {issuer} is changed, within a second on every replica"))
        } else {
            shell.info(&format!("nothing changed: issuer {issuer} already has these values"))
        }
    }
}

async fn list(shell: &Shell) -> anyhow::Result<()> {
    let mut list = shell.list(COLUMNS);
    for issuer in shell.admin(Purpose::Read).await?.trusted_issuers().await? {
        match issuer {
            Ok(details) => {
                let row = || {
                    let issuer = &details.issuer;
                    let (state, tone) = if issuer.enabled { ("enabled", Tone::Good) } else { ("DISABLED", Tone::Bad) };
                    let state = Cell::toned(state, tone);
                    let rules = Cell::new(details.rules.to_string());
                    vec![Cell::new(&*issuer.issuer), Cell::new(issuer.kind.as_str()), state, rules]
                };
                list.item(|| details.document(), row)?;
            }
            Err(fault) => {
                let row = || vec![Cell::new(fault.to_string()), Cell::new(""), Cell::toned("malformed", Tone::Bad)];
                list.item(|| json!({"malformed": fault.to_string()}), row)?;
            }
        }
    }
    list.end()
}

async fn switch(shell: &Shell, issuer: &str, enabled: bool) -> anyhow::Result<()> {
    let changed = shell.admin(Purpose::Change).await?.set_trusted_issuer_enabled(issuer, enabled).await?;
    let state = if enabled { "enabled" } else { "disabled" };
    if !changed {
        return shell.info(&format!("nothing changed: issuer {issuer} is already {state}"));
    }
    let effect = if enabled { "" } else { " and its tokens authenticate no client" };
    shell.info(&format!("issuer {issuer} is {state}{effect}, within a second on every replica"))
}

fn print_with_keys(shell: &Shell, details: &IssuerDetails, found: Option<&FoundKeys>) -> anyhow::Result<()> {
    let mut document = details.document();
    if let Value::Object(members) = &mut document {
        members.insert("found".into(), found.map(FoundKeys::document).into());
    }
    shell.print(&document, || match found {
        Some(found) => format!("{}found         {}\n", text(details), one_line(&found.to_string())),
        None => format!("{}found         nothing was fetched\n", text(details)),
    })
}

fn text(details: &IssuerDetails) -> String {
    let issuer = &details.issuer;
    let keys = match &issuer.keys {
        KeySource::Discovery(uri) => format!("by discovery at {uri}"),
        KeySource::JwksUri(uri) => format!("at {uri}"),
        KeySource::Bundle(uri) => format!("bundle at {uri}"),
        KeySource::Pinned(pinned) => format!("pinned, {} of them", pinned.keys.len()),
    };
    format!(
        "issuer        {}\nkind          {}\nenabled       {}\ncreated       {}\nkeys          {}\naudience      {}\nmax_lifetime  {}\nca            {}\nrules         {}\n",
        one_line(&issuer.issuer),
        issuer.kind,
        issuer.enabled,
        issuer.created_at,
        one_line(&keys),
        issuer.audience.as_deref().map_or_else(|| "the issuer of this server".into(), one_line),
        issuer.max_lifetime.map_or_else(|| "default".into(), |lifetime| Span::from(lifetime).to_string()),
        if issuer.ca_pem.is_some() { "its own" } else { "public" },
        details.rules,
    )
}

fn key_location(
    jwks_uri: Option<String>,
    jwks: Option<&Path>,
    bundle_uri: Option<String>,
) -> anyhow::Result<KeyLocation> {
    let jwks = jwks.map(|path| read_text(path, "--jwks")).transpose()?;
    Ok(KeyLocation { jwks_uri, jwks, bundle_uri })
}

fn read_pem(path: &Path) -> anyhow::Result<String> {
    let text = read_text(path, "--ca-file")?;
    if text.contains("PRIVATE KEY") {
        bail!("--ca-file {}: it has a private key; name a file with the certificates of the CAs alone", path.display());
    }
    keys::check_cas(&text).with_context(|| format!("--ca-file {}", path.display()))?;
    Ok(text)
}

fn read_text(path: &Path, option: &str) -> anyhow::Result<String> {
    let name = || format!("{option} {}", path.display());
    String::from_utf8(key::read(path).with_context(name)?).with_context(name)
}

const COLUMNS: &[Column] =
    &[Column::whole("ISSUER"), Column::whole("KIND"), Column::whole("STATE"), Column::whole("RULES")];

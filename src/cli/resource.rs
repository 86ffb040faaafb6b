//! `grantd resource`: protected resources, their scopes, and the clients that may introspect their tokens.

use clap::{Args, Subcommand};

use super::open::Purpose;
use super::table::{Cell, Column};
use super::{Shell, confirm, next_step};
use crate::admin::Change;
use crate::admin::resources::{ResourcePatch, document};
use crate::crypto::jwk::Alg;
use crate::model::client_id::ClientId;
use crate::model::lifetime::TokenTtl;
use crate::model::resource::{Resource, ResourceId, TokenTyp};
use crate::model::scope::Scope;
use crate::model::time::Span;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Register a resource
    Create(Create),
    /// List resources
    #[command(visible_alias = "ls")]
    List,
    /// Show a resource
    Show {
        /// The resource identifier
        uri: ResourceId,
    },
    /// Change a resource; options that are not given leave their value as it is
    Set(Set),
    /// Delete a resource that no client uses; on a terminal it asks first
    #[command(visible_alias = "rm")]
    Delete {
        /// The resource identifier
        uri: ResourceId,
        /// Delete without asking
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The resource identifier: an absolute URI without fragment
    uri: ResourceId,
    /// Scopes the resource understands, separated by spaces
    #[arg(long)]
    scope: Scope,
    /// Algorithm of tokens for the resource: ES256, EdDSA, PS256 or RS256 [default: token.alg]
    #[arg(long)]
    alg: Option<Alg>,
    /// Lifetime of tokens for the resource, from 1s to 24h [default: token.ttl]
    #[arg(long, value_name = "SPAN")]
    token_ttl: Option<TokenTtl>,
    /// `typ` of tokens for the resource: `at+jwt`, or `JWT` for libraries that refuse it [default: at+jwt]
    #[arg(long, value_name = "TYP")]
    token_typ: Option<TokenTyp>,
    /// Refer to the status list in tokens for the resource, so that its API learns of revocations
    #[arg(long)]
    status_list: bool,
    /// Client that may introspect tokens for the resource (repeatable)
    #[arg(long, value_name = "CLIENT")]
    introspect_by: Vec<ClientId>,
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// The resource identifier
    uri: ResourceId,
    #[command(flatten)]
    changes: Changes,
}

/// Options of `resource set`. At least one is required.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// Scopes the resource understands, separated by spaces
    #[arg(long)]
    scope: Option<Scope>,
    /// Algorithm of tokens for the resource: ES256, EdDSA, PS256 or RS256
    #[arg(long)]
    alg: Option<Alg>,
    /// Use the server's algorithm
    #[arg(long, conflicts_with = "alg")]
    default_alg: bool,
    /// Lifetime of tokens for the resource, from 1s to 24h
    #[arg(long, value_name = "SPAN")]
    token_ttl: Option<TokenTtl>,
    /// Use the server's lifetime
    #[arg(long, conflicts_with = "token_ttl")]
    default_token_ttl: bool,
    /// `typ` of tokens for the resource: `at+jwt`, or `JWT` for libraries that refuse it
    #[arg(long, value_name = "TYP")]
    token_typ: Option<TokenTyp>,
    /// Whether new tokens for the resource refer to the status list
    #[arg(long, value_name = "BOOL")]
    status_list: Option<bool>,
    /// Client that may introspect tokens for the resource (repeatable); replaces all introspectors
    #[arg(long, value_name = "CLIENT")]
    introspect_by: Vec<ClientId>,
    /// Permit no client to introspect tokens for the resource
    #[arg(long, conflicts_with = "introspect_by")]
    introspect_by_none: bool,
}

impl Command {
    fn purpose(&self) -> Purpose {
        match self {
            Self::List | Self::Show { .. } => Purpose::Read,
            Self::Set(_) | Self::Delete { .. } => Purpose::Change,
            Self::Create(_) => Purpose::Create,
        }
    }

    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let admin = shell.admin(self.purpose()).await?;
        match self {
            Self::Create(Create { uri, scope, alg, token_ttl, token_typ, status_list, introspect_by }) => {
                let token_typ = token_typ.unwrap_or_default();
                let (identifier, introspectors) = (uri, introspect_by);
                let resource = Resource { identifier, scope, alg, token_ttl, token_typ, status_list, introspectors };
                let resource = admin.create_resource(resource).await?;
                print(shell, &resource)?;
                next_step::after_resource(shell, &resource)
            }
            Self::List => shell.print_list(COLUMNS, &admin.resources().await?, document, row),
            Self::Show { uri } => {
                let resource = admin.resource(&uri).await?;
                print(shell, &resource)
            }
            Self::Set(Set { uri, changes }) => {
                let named = changes.introspect_by_none || !changes.introspect_by.is_empty();
                let patch = ResourcePatch {
                    scope: changes.scope.into(),
                    alg: Change::of(changes.default_alg, changes.alg),
                    token_ttl: Change::of(changes.default_token_ttl, changes.token_ttl),
                    token_typ: changes.token_typ.into(),
                    status_list: changes.status_list.into(),
                    introspectors: named.then_some(changes.introspect_by).into(),
                };
                if admin.change_resource(&uri, patch).await? {
                    shell.info(&format!("resource {uri} is changed, within a second on every replica"))
                } else {
                    shell.info(&format!("nothing changed: resource {uri} already has these values"))
                }
            }
            Self::Delete { uri, yes } => {
                if !yes && confirm::can_ask() {
                    confirm::deletion_of_resource(&admin, &uri).await?;
                }
                admin.delete_resource(&uri).await?;
                shell.info(&format!("resource {uri} is deleted"))
            }
        }
    }
}

fn print(shell: &Shell, resource: &Resource) -> anyhow::Result<()> {
    shell.print_sheet(&document(resource), |sheet| {
        let mut fact = |name, text: &str| sheet.fact(name, Cell::new(text));
        fact("identifier", resource.identifier.as_str());
        fact("scope", resource.scope.as_str());
        fact("alg", resource.alg.map_or("default", Alg::as_str));
        fact("token_ttl", &ttl(resource));
        fact("token_typ", resource.token_typ.as_str());
        fact("status_list", if resource.status_list { "true" } else { "false" });
        fact("introspect_by", &introspectors(resource));
    })
}

fn row(resource: &Resource) -> Vec<Cell<'_>> {
    vec![
        Cell::new(resource.identifier.as_str()),
        Cell::new(resource.alg.map_or("default", Alg::as_str)),
        Cell::new(ttl(resource)),
        Cell::new(resource.scope.as_str()),
        Cell::new(introspectors(resource)),
    ]
}

fn ttl(resource: &Resource) -> String {
    resource.token_ttl.map_or_else(|| "default".into(), |ttl| Span::from(ttl).to_string())
}

fn introspectors(resource: &Resource) -> String {
    resource.introspectors.iter().map(ClientId::as_str).collect::<Vec<_>>().join(" ")
}

const COLUMNS: &[Column] = &[
    Column::whole("RESOURCE"),
    Column::whole("ALG"),
    Column::whole("TOKEN TTL"),
    Column::shrinking("SCOPE"),
    Column::shrinking("INTROSPECTED BY"),
];

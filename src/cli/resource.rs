//! `grantd resource`: protected resources, the scopes they understand, and who may introspect tokens for them.

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Shell;
use super::open::Purpose;
use super::registered::{each_once, everything};
use super::spans::token_ttl;
use crate::crypto::jwk::Alg;
use crate::model::client_id::ClientId;
use crate::model::resource::{Resource, ResourceId, TokenTyp};
use crate::model::scope::Scope;
use crate::model::time::Span;
use crate::store::Store;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Register a resource
    Create(Create),
    /// List resources
    List,
    /// Show a resource
    Show {
        /// The resource identifier
        uri: ResourceId,
    },
    /// Change a resource; options that are not given leave their value as it is
    Set(Set),
    /// Delete a resource that no client uses
    Delete {
        /// The resource identifier
        uri: ResourceId,
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
    #[arg(long, value_name = "SPAN", value_parser = token_ttl)]
    token_ttl: Option<Span>,
    /// `typ` of tokens for the resource: `at+jwt`, or `JWT` for libraries that refuse it [default: at+jwt]
    #[arg(long, value_name = "TYP")]
    token_typ: Option<TokenTyp>,
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

/// What can be changed. Without any of it the command is wrong usage.
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
    #[arg(long, value_name = "SPAN", value_parser = token_ttl)]
    token_ttl: Option<Span>,
    /// Use the server's lifetime
    #[arg(long, conflicts_with = "token_ttl")]
    default_token_ttl: bool,
    /// `typ` of tokens for the resource: `at+jwt`, or `JWT` for libraries that refuse it
    #[arg(long, value_name = "TYP")]
    token_typ: Option<TokenTyp>,
    /// Clients that may introspect tokens for the resource, all of them (repeatable)
    #[arg(long, value_name = "CLIENT")]
    introspect_by: Vec<ClientId>,
    /// Permit no client to introspect tokens for the resource
    #[arg(long, conflicts_with = "introspect_by")]
    introspect_by_none: bool,
}

impl Command {
    fn purpose(&self) -> Purpose {
        match self {
            Self::List | Self::Show { .. } => Purpose::Look,
            Self::Set(_) | Self::Delete { .. } => Purpose::Change,
            Self::Create(_) => Purpose::Create,
        }
    }

    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let (_, store) = shell.store(self.purpose()).await?;
        let now = shell.now();
        match self {
            Self::Create(Create { uri, scope, alg, token_ttl, token_typ, introspect_by }) => {
                let introspectors = each_once(introspect_by);
                let token_typ = token_typ.unwrap_or_default();
                let resource = Resource { identifier: uri, scope, alg, token_ttl, token_typ, introspectors };
                store.save_resource(&resource, false, now).await?;
                shell.print(&summary(&resource), || text(&resource))
            }
            Self::List => {
                let resources = all(&store).await?;
                let values: Vec<Value> = resources.iter().map(summary).collect();
                shell.print(&values, || {
                    resources
                        .iter()
                        .map(|resource| format!("{:<40} {}\n", resource.identifier, resource.scope))
                        .collect()
                })
            }
            Self::Show { uri } => {
                let resource = one(&store, &uri).await?;
                shell.print(&summary(&resource), || text(&resource))
            }
            Self::Set(Set { uri, changes }) => {
                let mut resource = one(&store, &uri).await?;
                // A table has no order.
                resource.introspectors.sort_by(|a, b| a.as_str().cmp(b.as_str()));
                let before = summary(&resource);
                resource.scope = changes.scope.unwrap_or(resource.scope);
                if changes.default_alg || changes.alg.is_some() {
                    resource.alg = changes.alg;
                }
                if changes.default_token_ttl || changes.token_ttl.is_some() {
                    resource.token_ttl = changes.token_ttl;
                }
                resource.token_typ = changes.token_typ.unwrap_or(resource.token_typ);
                if changes.introspect_by_none || !changes.introspect_by.is_empty() {
                    resource.introspectors = each_once(changes.introspect_by);
                    resource.introspectors.sort_by(|a, b| a.as_str().cmp(b.as_str()));
                }
                if summary(&resource) == before {
                    return shell.say(&format!("nothing changed: resource {uri} has these values already"));
                }
                found(store.save_resource(&resource, true, now).await?, &uri)?;
                shell.say(&format!("resource {uri} is changed, within a second on every replica"))
            }
            Self::Delete { uri } => {
                found(store.delete_resource(uri.as_str()).await?, &uri)?;
                shell.say(&format!("resource {uri} is deleted"))
            }
        }
    }
}

async fn all(store: &Store) -> anyhow::Result<Vec<Resource>> {
    Ok(everything(store).await?.resources.unwrap_or_default().into_iter().collect::<Result<_, _>>()?)
}

async fn one(store: &Store, uri: &ResourceId) -> anyhow::Result<Resource> {
    let resource = all(store).await?.into_iter().find(|resource| resource.identifier == *uri);
    resource.map_or_else(|| Err(missing(uri)), Ok)
}

fn found(found: bool, uri: &ResourceId) -> anyhow::Result<()> {
    if found { Ok(()) } else { bail!(missing(uri)) }
}

fn missing(uri: &ResourceId) -> anyhow::Error {
    anyhow::anyhow!("there is no resource {uri}; `grantd resource list` lists them")
}

fn summary(resource: &Resource) -> Value {
    json!({
        "identifier": resource.identifier.as_str(),
        "scope": resource.scope.as_str(),
        "alg": resource.alg.map(Alg::as_str),
        "token_ttl": resource.token_ttl.map(Span::seconds),
        "token_typ": resource.token_typ.as_str(),
        "introspect_by": resource.introspectors,
    })
}

fn text(resource: &Resource) -> String {
    let introspectors: Vec<&str> = resource.introspectors.iter().map(ClientId::as_str).collect();
    format!(
        "identifier     {}\nscope          {}\nalg            {}\ntoken_ttl      {}\ntoken_typ      {}\nintrospect_by  {}",
        resource.identifier,
        resource.scope,
        resource.alg.map_or("default", Alg::as_str),
        resource.token_ttl.map_or_else(|| "default".into(), |ttl| ttl.to_string()),
        resource.token_typ.as_str(),
        introspectors.join(" ")
    )
}

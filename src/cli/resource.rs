//! `grantd resource`: protected resources, the scopes they understand, and who may introspect tokens for them.

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Shell;
use super::client_set::checked_ttl;
use super::registered::everything;
use crate::crypto::jwk::Alg;
use crate::model::client_id::ClientId;
use crate::model::resource::{Resource, ResourceId};
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
        /// Its identifier
        uri: ResourceId,
    },
    /// Change a resource; what is not named stays
    Set(Set),
    /// Delete a resource that no client uses
    Delete {
        /// Its identifier
        uri: ResourceId,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Its identifier: an absolute URI without fragment
    uri: ResourceId,
    /// The scopes it understands, separated by spaces
    #[arg(long)]
    scope: Scope,
    /// How its tokens are signed: ES256, EdDSA, PS256 or RS256
    #[arg(long)]
    alg: Option<Alg>,
    /// How long its tokens live
    #[arg(long, value_name = "SPAN")]
    token_ttl: Option<Span>,
    /// A client that may introspect its tokens (repeatable)
    #[arg(long, value_name = "CLIENT")]
    introspect_by: Vec<ClientId>,
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// Its identifier
    uri: ResourceId,
    /// The scopes it understands
    #[arg(long)]
    scope: Option<Scope>,
    /// How its tokens are signed
    #[arg(long)]
    alg: Option<Alg>,
    /// Sign its tokens as the server does by default
    #[arg(long, conflicts_with = "alg")]
    default_alg: bool,
    /// How long its tokens live
    #[arg(long, value_name = "SPAN")]
    token_ttl: Option<Span>,
    /// Let its tokens live as long as the server says
    #[arg(long, conflicts_with = "token_ttl")]
    default_token_ttl: bool,
    /// The clients that may introspect its tokens, all of them (repeatable)
    #[arg(long, value_name = "CLIENT")]
    introspect_by: Vec<ClientId>,
    /// Let no client introspect its tokens
    #[arg(long, conflicts_with = "introspect_by")]
    introspect_by_none: bool,
}

impl Command {
    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let (_, store) = shell.store().await?;
        let now = shell.now();
        match self {
            Self::Create(Create { uri, scope, alg, token_ttl, introspect_by }) => {
                let token_ttl = checked_ttl(token_ttl)?;
                let resource = Resource { identifier: uri, scope, alg, token_ttl, introspectors: introspect_by };
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
            Self::Set(set) => {
                let mut resource = one(&store, &set.uri).await?;
                resource.scope = set.scope.unwrap_or(resource.scope);
                if set.default_alg || set.alg.is_some() {
                    resource.alg = set.alg;
                }
                if set.default_token_ttl || set.token_ttl.is_some() {
                    resource.token_ttl = checked_ttl(set.token_ttl)?;
                }
                if set.introspect_by_none || !set.introspect_by.is_empty() {
                    resource.introspectors = set.introspect_by;
                }
                found(store.save_resource(&resource, true, now).await?, &set.uri)?;
                shell.say(&format!("resource {} is changed, within a second on every replica", set.uri))
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
        "introspect_by": resource.introspectors,
    })
}

fn text(resource: &Resource) -> String {
    let introspectors: Vec<&str> = resource.introspectors.iter().map(ClientId::as_str).collect();
    format!(
        "identifier     {}\nscope          {}\nalg            {}\ntoken_ttl      {}\nintrospect_by  {}",
        resource.identifier,
        resource.scope,
        resource.alg.map_or("default", Alg::as_str),
        resource.token_ttl.map_or_else(|| "default".into(), |ttl| ttl.to_string()),
        introspectors.join(" ")
    )
}

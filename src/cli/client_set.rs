//! `grantd client set`: change a client; what is not named stays.

use anyhow::bail;
use clap::Args;
use serde_json::{Map, Value};

use super::registered::one;
use super::secret::found;
use super::{Shell, key_value};
use crate::crypto::jwk::Alg;
use crate::model::client::RESERVED_CLAIMS;
use crate::model::client_id::ClientId;
use crate::model::jwks_uri::JwksUri;
use crate::model::resource::ResourceId;
use crate::model::scope::Scope;
use crate::model::time::Span;

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
    /// Where it publishes its keys for `private_key_jwt`, an https URL
    #[arg(long, value_name = "URL")]
    jwks_uri: Option<JwksUri>,
    /// Fetch its keys no more
    #[arg(long, conflicts_with = "jwks_uri")]
    no_jwks_uri: bool,
    /// The only ways it may authenticate, by their names in the metadata, separated by spaces
    #[arg(long, value_name = "NAMES")]
    auth_methods: Option<String>,
    /// Let it authenticate by whatever it has
    #[arg(long, conflicts_with = "auth_methods")]
    any_auth_method: bool,
    /// What signs the introspection responses that it asks for: ES256, EdDSA, PS256 or RS256
    #[arg(long, value_name = "ALG")]
    introspection_signed_response_alg: Option<Alg>,
    /// Let them be signed by the server's algorithm
    #[arg(long, conflicts_with = "introspection_signed_response_alg")]
    no_introspection_signed_response_alg: bool,
    /// Whether its tokens must be bound to a certificate
    #[arg(long, value_name = "BOOL")]
    require_mtls_binding: Option<bool>,
}

impl Set {
    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
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
        if self.no_introspection_signed_response_alg || self.introspection_signed_response_alg.is_some() {
            client.introspection_signed_response_alg = self.introspection_signed_response_alg;
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
        // First what can be refused.
        if self.no_jwks_uri || self.jwks_uri.is_some() {
            found(store.set_jwks_uri(self.id.as_str(), self.jwks_uri.as_ref().map(JwksUri::as_str)).await?, &self.id)?;
        }
        if self.any_auth_method || self.auth_methods.is_some() {
            found(store.set_auth_methods(self.id.as_str(), self.auth_methods.as_deref()).await?, &self.id)?;
        }
        found(store.update_client(&client).await?, &self.id)?;
        shell.say(&format!("client {} is changed, within a second on every replica", self.id))
    }
}

/// Tokens live for a day at most.
pub(super) fn checked_ttl(ttl: Option<Span>) -> anyhow::Result<Option<Span>> {
    match ttl {
        Some(ttl) if !(1..=86400).contains(&ttl.seconds()) => bail!("--token-ttl is from 1s to 24h"),
        ttl => Ok(ttl),
    }
}

pub(super) fn checked_claims(claims: Vec<(String, String)>) -> anyhow::Result<Map<String, Value>> {
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

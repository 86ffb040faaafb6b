//! `grantd client set`: changes a client. Options that are not given leave their value as it is.

use clap::Args;
use serde_json::Value;

use crate::admin::Change;
use crate::admin::clients::ClientPatch;
use crate::cli::claims::{self, json_claim};
use crate::cli::open::Purpose;
use crate::cli::{Shell, key_value};
use crate::crypto::jwk::Alg;
use crate::model::client::{AssertionAudience, GrantTypes};
use crate::model::client_id::ClientId;
use crate::model::jwks_uri::JwksUri;
use crate::model::lifetime::{AssertionLifetime, ExpiresIn, TokenTtl};
use crate::model::resource::ResourceId;
use crate::model::scope::Scope;

#[derive(Debug, Args)]
pub(in crate::cli) struct Set {
    /// The client id
    id: ClientId,
    #[command(flatten)]
    changes: Changes,
}

/// Options of `client set`. At least one is required.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// Purpose of the client, at most 512 characters; '' for none
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Team or person that answers for the client, at most 128 characters; '' for none
    #[arg(long)]
    owner: Option<String>,
    /// Time from now until the client expires
    #[arg(long, value_name = "SPAN")]
    expires_in: Option<ExpiresIn>,
    /// Remove the end of the client
    #[arg(long, conflicts_with = "expires_in")]
    never_expires: bool,
    /// Scopes the client may ask for, separated by spaces
    #[arg(long, help_heading = "Tokens")]
    scope: Option<Scope>,
    /// Scopes of a token when the client asks for none
    #[arg(long, help_heading = "Tokens")]
    default_scope: Option<Scope>,
    /// Resource the client may ask tokens for (repeatable); replaces all resources
    #[arg(long, help_heading = "Tokens", value_name = "URI")]
    resource: Vec<ResourceId>,
    /// Remove all resources from the client
    #[arg(long, help_heading = "Tokens", conflicts_with = "resource")]
    no_resources: bool,
    /// Lifetime of the client's tokens, from 1s to 24h
    #[arg(long, help_heading = "Tokens", value_name = "SPAN")]
    token_ttl: Option<TokenTtl>,
    /// Use the lifetime of the resource or the server
    #[arg(long, help_heading = "Tokens", conflicts_with = "token_ttl")]
    default_token_ttl: bool,
    /// Further claim of the client's tokens, a string (repeatable); replaces all further claims
    #[arg(long, help_heading = "Tokens", value_name = "NAME=TEXT", value_parser = key_value)]
    claim: Vec<(String, String)>,
    /// Further claim of the client's tokens, any JSON value (repeatable); replaces all further claims
    #[arg(long, help_heading = "Tokens", value_name = "NAME=JSON", value_parser = json_claim)]
    claim_json: Vec<(String, Value)>,
    /// Remove all further claims
    #[arg(long, help_heading = "Tokens", conflicts_with_all = ["claim", "claim_json"])]
    no_claims: bool,
    /// Whether the client's tokens must be bound to a DPoP key
    #[arg(long, help_heading = "Tokens", value_name = "BOOL")]
    require_dpop: Option<bool>,
    /// URL where the client publishes its JWK Set for `private_key_jwt`; https
    #[arg(long, help_heading = "Authentication", value_name = "URL")]
    jwks_uri: Option<JwksUri>,
    /// Remove the client's `jwks_uri`
    #[arg(long, help_heading = "Authentication", conflicts_with = "jwks_uri")]
    no_jwks_uri: bool,
    /// The only authentication methods the client may use, by their names in the metadata, separated by spaces
    #[arg(long, help_heading = "Authentication", value_name = "NAMES")]
    auth_methods: Option<String>,
    /// Permit every authentication method the client has a credential for
    #[arg(long, help_heading = "Authentication", conflicts_with = "auth_methods")]
    any_auth_method: bool,
    /// Grants that the client may use, separated by spaces: `client_credentials`,
    /// `urn:ietf:params:oauth:grant-type:jwt-bearer`, or none of them
    #[arg(long, value_name = "NAMES")]
    grant_types: Option<GrantTypes>,
    /// Algorithm of signed introspection responses to the client: ES256, EdDSA, PS256 or RS256
    #[arg(long, help_heading = "Introspection", value_name = "ALG")]
    introspection_signed_response_alg: Option<Alg>,
    /// Sign introspection responses to the client with the server's algorithm
    #[arg(long, help_heading = "Introspection", conflicts_with = "introspection_signed_response_alg")]
    no_introspection_signed_response_alg: bool,
    /// Accepted audience of the client's assertions: `issuer`, or `token-endpoint` for either
    #[arg(long, help_heading = "Client assertions", value_name = "AUDIENCE")]
    assertion_audience: Option<AssertionAudience>,
    /// Longest lifetime of the client's assertions, from 1m to 1h
    #[arg(long, help_heading = "Client assertions", value_name = "SPAN")]
    assertion_lifetime: Option<AssertionLifetime>,
    /// Use the default lifetime of assertions, 5m
    #[arg(long, help_heading = "Client assertions", conflicts_with = "assertion_lifetime")]
    default_assertion_lifetime: bool,
    /// Whether the client's tokens must be bound to a certificate
    #[arg(long, help_heading = "Tokens", value_name = "BOOL")]
    require_mtls_binding: Option<bool>,
}

impl Set {
    pub(in crate::cli) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let (id, changes) = (self.id, self.changes);
        let admin = shell.admin(Purpose::Change).await?;
        let has_claims = !changes.claim.is_empty() || !changes.claim_json.is_empty();
        let claims = (has_claims || changes.no_claims)
            .then(|| claims::registered(shell, changes.claim, changes.claim_json))
            .transpose()?;
        let resources = (changes.no_resources || !changes.resource.is_empty()).then_some(changes.resource);
        let patch = ClientPatch {
            description: changes.description.into(),
            owner: changes.owner.into(),
            expires_in: Change::of(changes.never_expires, changes.expires_in),
            scope: changes.scope.into(),
            default_scope: changes.default_scope.into(),
            resources: resources.into(),
            token_ttl: Change::of(changes.default_token_ttl, changes.token_ttl),
            claims: claims.into(),
            auth_methods: Change::of(changes.any_auth_method, changes.auth_methods.map(String::into_boxed_str)),
            grant_types: changes.grant_types.into(),
            jwks_uri: Change::of(changes.no_jwks_uri, changes.jwks_uri),
            require_dpop: changes.require_dpop.into(),
            require_mtls_binding: changes.require_mtls_binding.into(),
            assertion_audience: changes.assertion_audience.into(),
            assertion_lifetime: Change::of(changes.default_assertion_lifetime, changes.assertion_lifetime),
            introspection_signed_response_alg: Change::of(
                changes.no_introspection_signed_response_alg,
                changes.introspection_signed_response_alg,
            ),
        };
        if shell.after_warnings(admin.change_client(&id, patch).await?) {
            shell.info(&format!("client {id} is changed, within a second on every replica"))
        } else {
            shell.info(&format!("nothing changed: client {id} already has these values"))
        }
    }
}

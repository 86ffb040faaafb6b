//! The decision (RFC 6749 sections 3.3 and 4.4, RFC 8707, RFC 9068 section 3): pure, from the registry and the request.

use std::sync::Arc;

use serde::Serialize;

use super::error::GrantError;
use crate::crypto::jwk::Alg;
use crate::model::client::Client;
use crate::model::profile::Profile;
use crate::model::resource::{Resource, ResourceId, TokenTyp};
use crate::model::scope::{MAX_BYTES, MAX_TOKENS, Scope};
use crate::model::time::Span;
use crate::state::registry::snapshot::Snapshot;

/// What a token is bound to, as it stands in `cnf` (RFC 7800): nothing, a key, a certificate, or both.
///
/// RFC 9449 and RFC 8705 have a member each. Who proves both gets a token that needs both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// RFC 9449 section 6.1: the thumbprint of the DPoP key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jkt: Option<String>,
    /// RFC 8705 section 3.1: the SHA-256 of the certificate.
    #[serde(rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    pub x5t_s256: Option<String>,
}

impl Binding {
    /// Whether the token is a bearer token.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.jkt.is_none() && self.x5t_s256.is_none()
    }

    /// RFC 9449 section 5: "A `token_type` of DPoP MUST be included in the access token response to signal to the client that
    /// the access token was bound to its DPoP key". A certificate changes nothing here (RFC 8705 section 3).
    #[must_use]
    pub fn token_type(&self) -> &'static str {
        if self.jkt.is_some() { "DPoP" } else { "Bearer" }
    }
}

/// What is asked for, unread.
#[derive(Debug, Default)]
pub struct Asked<'a> {
    /// `scope`.
    pub scope: Option<&'a str>,
    /// Every `resource` (RFC 8707) and its alias `audience`.
    pub resources: Vec<&'a str>,
}

/// What tokens are like when neither client nor resource says.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// `aud` for clients without resources.
    pub audience: Arc<str>,
    /// How long tokens live.
    pub ttl: Span,
    /// How they are signed.
    pub alg: Alg,
}

/// What was decided: the token to be minted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Never more than the client may ask for, and nothing that `aud` does not understand.
    pub scope: Scope,
    /// One token, one audience (RFC 9700 section 2.3).
    pub aud: Arc<str>,
    /// How long it lives.
    pub ttl: Span,
    /// How it is signed.
    pub alg: Alg,
    /// The `typ` of its header.
    pub typ: TokenTyp,
    /// What it is bound to.
    pub binding: Binding,
}

/// Whether `client` may have tokens at all, bound like this.
///
/// # Errors
/// [`GrantError`].
pub fn admit(profile: Profile, client: &Client, binding: &Binding) -> Result<(), GrantError> {
    if !client.client_credentials {
        return Err(GrantError::GrantNotAllowed);
    }
    // RFC 9449 section 5.2: "If the value is true, the authorization server MUST reject token requests from the client that
    // do not contain the DPoP header."
    if client.require_dpop && binding.jkt.is_none() {
        return Err(GrantError::DpopRequired);
    }
    if client.require_mtls_binding && binding.x5t_s256.is_none() {
        return Err(GrantError::MtlsBindingRequired);
    }
    if profile.needs_binding() && binding.is_none() {
        return Err(GrantError::BindingRequired);
    }
    Ok(())
}

/// Decides what `client` gets, once it is [admitted](admit).
///
/// # Errors
/// [`GrantError`]; scope faults are named before resource faults.
pub fn decide(
    client: &Client,
    snapshot: &Snapshot,
    defaults: &Defaults,
    asked: &Asked<'_>,
    binding: Binding,
) -> Result<Grant, GrantError> {
    // RFC 6749 section 3.3: a scope outside what is allowed is refused, never silently narrowed.
    let asked_scope = asked.scope.map(|scope| scope.parse::<Scope>().map_err(|_| malformed(scope))).transpose()?;
    if let Some(scope) = asked_scope.as_ref().filter(|scope| !scope.is_subset_of(client.scopes.allowed())) {
        return Err(not_allowed(scope, client.scopes.allowed()));
    }

    let (scope, resource) = match named_resource(client, snapshot, defaults, asked)? {
        Named::Resource(resource) => {
            (asked_scope.unwrap_or_else(|| client.scopes.default_scope().intersection(&resource.scope)), Some(resource))
        }
        Named::DefaultAudience => (asked_scope.unwrap_or_else(|| client.scopes.default_scope().clone()), None),
        Named::None => {
            let scope = asked_scope.unwrap_or_else(|| client.scopes.default_scope().clone());
            if scope.is_empty() {
                return Err(GrantError::ScopeMissing);
            }
            let resource = inferred_resource(client, snapshot, &scope)?;
            (scope, resource)
        }
    };
    // "If the client omits the scope parameter … the authorization server MUST either process the request using a
    // pre-defined default value or fail the request".
    if scope.is_empty() {
        return Err(GrantError::ScopeMissing);
    }
    // RFC 9068 section 2.2.3: every scope "MUST have meaning for the resources indicated in the aud claim".
    if resource.is_some_and(|resource| !scope.is_subset_of(&resource.scope)) {
        return Err(GrantError::ScopeNotForResource);
    }
    let limits = [client.token_ttl, resource.and_then(|resource| resource.token_ttl)];
    Ok(Grant {
        scope,
        aud: resource.map_or_else(|| Arc::clone(&defaults.audience), |resource| resource.identifier.shared()),
        ttl: limits.into_iter().flatten().min().map_or(defaults.ttl, Span::from),
        alg: resource.and_then(|resource| resource.alg).unwrap_or(defaults.alg),
        typ: resource.map_or_else(TokenTyp::default, |resource| resource.token_typ),
        binding,
    })
}

/// Why a `grant_type` is none that is offered. A line end behind it comes from a form that was read from a file.
#[must_use]
pub fn unsupported(grant_type: &str) -> GrantError {
    if grant_type.trim().eq_ignore_ascii_case("client_credentials") {
        GrantError::GrantTypeSpelling
    } else {
        GrantError::UnsupportedGrantType
    }
}

/// What is wrong with a text that is no scope.
fn malformed(scope: &str) -> GrantError {
    let words = || scope.split(char::is_whitespace).filter(|word| !word.is_empty());
    let respaced = words().collect::<Vec<_>>().join(" ");
    match respaced.parse::<Scope>() {
        Ok(_) => GrantError::ScopeBlank,
        Err(_) if respaced.len() > MAX_BYTES || words().nth(MAX_TOKENS).is_some() => GrantError::ScopeTooLong,
        Err(_) => GrantError::ScopeMalformed,
    }
}

/// A comma may be part of a scope, so `read,write` is one scope, and most likely meant as two.
fn not_allowed(asked: &Scope, allowed: &Scope) -> GrantError {
    let separated = |token: &str| token.contains([',', ';']) && !allowed.contains(token);
    if asked.tokens().any(separated) { GrantError::ScopeSeparator } else { GrantError::ScopeNotAllowed }
}

enum Named<'a> {
    Resource(&'a Resource),
    DefaultAudience,
    None,
}

fn named_resource<'a>(
    client: &Client,
    snapshot: &'a Snapshot,
    defaults: &Defaults,
    asked: &Asked<'_>,
) -> Result<Named<'a>, GrantError> {
    let Some((first, others)) = asked.resources.split_first() else { return Ok(Named::None) };
    if others.iter().any(|other| other != first) {
        return Err(GrantError::SeveralResources);
    }
    if client.resources.is_empty() && **first == *defaults.audience {
        return Ok(Named::DefaultAudience);
    }
    let identifier: ResourceId = first.parse().map_err(|_| {
        let blank = first.contains(char::is_whitespace);
        if blank { GrantError::ResourceBlank } else { GrantError::ResourceMalformed }
    })?;
    if !client.resources.contains(&identifier) {
        return Err(GrantError::ResourceNotAllowed);
    }
    snapshot
        .resource(identifier.as_str())
        .map(|resource| Named::Resource(resource))
        .ok_or(GrantError::ResourceNotAllowed)
}

/// RFC 9068 section 3: without a resource parameter the audience is inferred from the scopes; "if the values in the scope
/// parameter refer to different default resource indicator values, the authorization server SHOULD reject the request".
fn inferred_resource<'a>(
    client: &Client,
    snapshot: &'a Snapshot,
    scope: &Scope,
) -> Result<Option<&'a Resource>, GrantError> {
    if client.resources.is_empty() {
        return Ok(None);
    }
    let mut fitting = client
        .resources
        .iter()
        .filter_map(|identifier| snapshot.resource(identifier.as_str()))
        .filter(|resource| scope.is_subset_of(&resource.scope));
    match (fitting.next(), fitting.next()) {
        (Some(resource), None) => Ok(Some(resource)),
        (None, _) => Err(GrantError::ScopeNotForResource),
        (Some(_), Some(_)) => Err(GrantError::ResourceAmbiguous),
    }
}

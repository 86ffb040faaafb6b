//! The decision (RFC 6749 sections 3.3 and 4.4, RFC 8707, RFC 9068 section 3): pure, from the registry and the request.

use std::sync::Arc;

use serde::Serialize;

use super::client_auth::AuthenticatedClient;
use super::dpop::Proof;
use super::error::{Error, GrantError, RequestError};
use crate::crypto::jwk::Alg;
use crate::model::certificate::PeerCertificate;
use crate::model::client::{AuthMethod, CLIENT_CREDENTIALS, Client, JWT_BEARER};
use crate::model::profile::Profile;
use crate::model::resource::{Resource, ResourceId, TokenTyp};
use crate::model::scope::{MAX_BYTES, MAX_TOKENS, Scope};
use crate::model::status::StatusIndex;
use crate::model::time::{Span, UnixTime};
use crate::state::registry::snapshot::Snapshot;

/// The keys that a token is bound to, as they stand in `cnf` (RFC 7800): none, a DPoP key, a certificate, or both.
///
/// RFC 9449 and RFC 8705 have a member each. A client that proves both gets a token that needs both.
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

    /// The binding of a token for this client: to the key of its proof, and to its certificate where the certificate
    /// authenticated it or its tokens must be bound.
    #[must_use]
    pub fn new(
        profile: Profile,
        authenticated: &AuthenticatedClient,
        proof: Option<&Proof>,
        certificate: Option<&PeerCertificate>,
    ) -> Self {
        // RFC 8705 section 3 binds where the client is registered for it. A client that authenticates by its certificate has
        // it there at each request, unless it shows a proof: then its API may be reached without a certificate.
        let by_certificate =
            matches!(authenticated.method, AuthMethod::TlsClientAuth | AuthMethod::SelfSignedTlsClientAuth);
        let registered = by_certificate && proof.is_none() || authenticated.client.require_mtls_binding;
        // An X.509-SVID is replaced at half of its hour, and a token that is bound to it would die with it. So it is bound
        // only where it has to be; where the profile wants binding, the SVID counts as mutual TLS.
        let is_svid = authenticated.method == AuthMethod::SpiffeX509;
        // Where a token has to be bound to something, the certificate is what there is.
        let binds = registered || profile.needs_binding() && (proof.is_none() || is_svid);
        Self {
            jkt: proof.map(|proof| proof.jkt.clone()),
            x5t_s256: certificate.filter(|_| binds).map(|peer| peer.certificate.x5t_s256()),
        }
    }

    /// RFC 9449 section 5: "A `token_type` of DPoP MUST be included in the access token response to signal to the client that
    /// the access token was bound to its DPoP key". A certificate changes nothing here (RFC 8705 section 3).
    #[must_use]
    pub fn token_type(&self) -> &'static str {
        if self.jkt.is_some() { "DPoP" } else { "Bearer" }
    }
}

/// The access that a token request asks for, unread.
#[derive(Debug, Default)]
pub struct RequestedAccess<'a> {
    /// `scope`.
    pub scope: Option<&'a str>,
    /// Every `resource` (RFC 8707) and its alias `audience`.
    pub resources: Vec<&'a str>,
}

/// The properties of tokens that neither client nor resource sets.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// `aud` for clients without resources.
    pub audience: Arc<str>,
    /// How long tokens live.
    pub ttl: Span,
    /// How they are signed.
    pub alg: Alg,
}

/// The decision: the token to be signed.
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
    /// The keys that it is bound to.
    pub binding: Binding,
    /// The status index that it refers to, where the resource wants that.
    pub status: Option<StatusIndex>,
}

/// Grant of a token request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantType {
    /// RFC 6749 section 4.4.
    ClientCredentials,
    /// RFC 7523 section 2.1: the token of a trusted issuer says which client asks.
    JwtBearer,
}

impl GrantType {
    /// Reads `grant_type`. `jwt_bearer` says whether that grant is offered; `client_credentials` does not ask.
    ///
    /// # Errors
    /// [`RequestError::NoGrantType`] or [`GrantError`].
    pub fn read(grant_type: Option<&str>, jwt_bearer: impl Fn() -> bool) -> Result<Self, Error> {
        match grant_type {
            Some(CLIENT_CREDENTIALS) => Ok(Self::ClientCredentials),
            Some(JWT_BEARER) if jwt_bearer() => Ok(Self::JwtBearer),
            None => Err(RequestError::NoGrantType.into()),
            // A line end behind it comes from a form that was read from a file.
            Some(other) if other.trim().eq_ignore_ascii_case(CLIENT_CREDENTIALS) => {
                Err(GrantError::GrantTypeSpelling.into())
            }
            // The metadata lists the same grants, so the description tells a stranger nothing more.
            Some(_) if jwt_bearer() => Err(GrantError::NeitherGrantType.into()),
            Some(_) => Err(GrantError::UnsupportedGrantType.into()),
        }
    }

    /// The refusal of this grant for an error of authentication.
    #[must_use]
    pub fn refusal(self, error: Error) -> Error {
        match self {
            Self::ClientCredentials => error,
            Self::JwtBearer => error.of_grant(),
        }
    }
}

impl Grant {
    /// Ends the grant no later than an X.509-SVID that its token is bound to.
    pub fn within_certificate(&mut self, method: AuthMethod, certificate: Option<&PeerCertificate>, now: UnixTime) {
        let bound = certificate.filter(|_| method == AuthMethod::SpiffeX509 && self.binding.x5t_s256.is_some());
        if let Some(peer) = bound {
            // RFC 6749 section 5.1: a token lives for some time at least, also where the certificate has just ended.
            let left = u64::try_from(peer.certificate.not_after() - now.0).unwrap_or(0).max(1);
            self.ttl = self.ttl.min(Span::from_secs(left));
        }
    }
}

/// Whether `client` may have tokens at all, bound like this.
///
/// # Errors
/// [`GrantError`].
pub fn admit(profile: Profile, client: &Client, grant: GrantType, binding: &Binding) -> Result<(), GrantError> {
    let is_allowed = match grant {
        GrantType::ClientCredentials => client.client_credentials,
        GrantType::JwtBearer => client.jwt_bearer,
    };
    if !is_allowed {
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
    profile: Profile,
    client: &Client,
    snapshot: &Snapshot,
    defaults: &Defaults,
    access: &RequestedAccess<'_>,
    binding: Binding,
) -> Result<Grant, GrantError> {
    // RFC 6749 section 3.3: a scope outside what is allowed is refused, never silently narrowed.
    let asked_scope = access.scope.map(|scope| scope.parse::<Scope>().map_err(|_| malformed(scope))).transpose()?;
    if let Some(scope) = asked_scope.as_ref().filter(|scope| !scope.is_subset_of(client.scopes.allowed())) {
        return Err(not_allowed(scope, client.scopes.allowed()));
    }

    let (scope, resource) = match named_resource(client, snapshot, defaults, access)? {
        NamedResource::Known(resource) => {
            (asked_scope.unwrap_or_else(|| client.scopes.default_scope().intersection(&resource.scope)), Some(resource))
        }
        NamedResource::DefaultAudience => (asked_scope.unwrap_or_else(|| client.scopes.default_scope().clone()), None),
        NamedResource::None => {
            let scope = asked_scope.unwrap_or_else(|| client.scopes.default_scope().clone());
            let resource = match (scope.is_empty(), &*client.resources) {
                (true, [only]) => snapshot.resource(only.as_str()).map(|resource| &**resource),
                (true, _) => None,
                (false, _) => inferred_resource(client, snapshot, &scope)?,
            };
            (scope, resource)
        }
    };
    // "If the client omits the scope parameter … the authorization server MUST either process the request using a
    // pre-defined default value or fail the request". A resource without scopes gives tokens without one, for services that
    // know nothing of scopes.
    if scope.is_empty() && resource.is_none_or(|resource| !resource.scope.is_empty()) {
        return Err(GrantError::ScopeMissing);
    }
    // RFC 9068 section 2.2.3: every scope "MUST have meaning for the resources indicated in the aud claim".
    if resource.is_some_and(|resource| !scope.is_subset_of(&resource.scope)) {
        return Err(GrantError::ScopeNotForResource);
    }
    // The default audience opts in by being registered.
    let has_status = match resource {
        Some(resource) => resource.status_list,
        None => snapshot.resource(&defaults.audience).is_some_and(|resource| resource.status_list),
    };
    let limits = [client.token_ttl, resource.and_then(|resource| resource.token_ttl)];
    Ok(Grant {
        scope,
        aud: resource.map_or_else(|| Arc::clone(&defaults.audience), |resource| resource.identifier.shared()),
        ttl: limits.into_iter().flatten().min().map_or(defaults.ttl, Span::from),
        alg: resource.and_then(|resource| resource.alg).unwrap_or(defaults.alg),
        typ: resource.map_or_else(TokenTyp::default, |resource| profile.token_typ(resource.token_typ)),
        binding,
        status: has_status.then(|| snapshot.status_index(client)),
    })
}

/// The fault of a text that is no scope.
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

enum NamedResource<'a> {
    Known(&'a Resource),
    DefaultAudience,
    None,
}

fn named_resource<'a>(
    client: &Client,
    snapshot: &'a Snapshot,
    defaults: &Defaults,
    access: &RequestedAccess<'_>,
) -> Result<NamedResource<'a>, GrantError> {
    let Some((first, others)) = access.resources.split_first() else { return Ok(NamedResource::None) };
    if others.iter().any(|other| other != first) {
        return Err(GrantError::SeveralResources);
    }
    if client.resources.is_empty() && **first == *defaults.audience {
        return Ok(NamedResource::DefaultAudience);
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
        .map(|resource| NamedResource::Known(resource))
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

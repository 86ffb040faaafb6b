//! Authorization server metadata (RFC 8414): exactly what works, and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::crypto::jwk::Alg;
use crate::model::client::{AuthMethod, CLIENT_CREDENTIALS, JWT_BEARER};
use crate::model::document::Document;
use crate::model::federation::kind::IssuerKind;
use crate::model::issuer::Issuer;
use crate::model::profile::Profile;
use crate::state::keyring::Keyring;
use crate::state::registry::snapshot::Snapshot;

/// The offer of mutual TLS (RFC 8705).
#[derive(Debug, Clone, Default)]
pub struct MutualTls {
    /// Whether certificates of clients come here, by whatever way.
    pub offered: bool,
    /// Whether a CA vouches for some of them.
    pub with_ca: bool,
    /// Where the listener is that asks for them, when it is ours.
    pub alias: Option<Issuer>,
}

impl MutualTls {
    fn permits(&self, method: AuthMethod) -> bool {
        match method {
            AuthMethod::ClientSecretBasic
            | AuthMethod::ClientSecretPost
            | AuthMethod::PrivateKeyJwt
            | AuthMethod::SpiffeJwt => true,
            AuthMethod::TlsClientAuth => self.offered && self.with_ca,
            AuthMethod::SelfSignedTlsClientAuth | AuthMethod::SpiffeX509 => self.offered,
            // Metadata names a federated token private_key_jwt.
            AuthMethod::FederatedJwt => false,
        }
    }
}

/// Whether an enabled trusted issuer makes a method of federation work. Every other method is offered whatever issuers there
/// are.
#[must_use]
pub fn offers(profile: Profile, snapshot: &Snapshot, method: AuthMethod) -> bool {
    let is_spiffe = match method {
        AuthMethod::FederatedJwt => false,
        AuthMethod::SpiffeJwt | AuthMethod::SpiffeX509 => true,
        _ => return true,
    };
    let mut enabled = snapshot.trusted_issuers().filter(|issuer| issuer.enabled);
    profile.permits_method(method) && enabled.any(|issuer| (issuer.kind == IssuerKind::Spiffe) == is_spiffe)
}

/// The metadata as the registry stands.
#[derive(Debug)]
pub struct Metadata {
    /// `/.well-known/oauth-authorization-server`.
    pub authorization_server: Document,
    /// `/.well-known/openid-configuration`, for libraries that look there alone: the same, and two members without which some
    /// of them do not start.
    pub openid_configuration: Document,
}

/// The metadata as of a revision of the registry.
#[derive(Debug, Default)]
pub struct CachedMetadata(Option<(i64, Arc<Metadata>)>);

impl CachedMetadata {
    /// The documents of `revision`.
    #[must_use]
    pub fn new(revision: i64, documents: Arc<Metadata>) -> Self {
        Self(Some((revision, documents)))
    }

    /// The documents, if they are those of `revision`.
    #[must_use]
    pub fn at(&self, revision: i64) -> Option<Arc<Metadata>> {
        self.0.as_ref().filter(|(made_at, _)| *made_at == revision).map(|(_, documents)| Arc::clone(documents))
    }
}

/// The metadata documents as the registry stands.
///
/// `response_types_supported` is left out although section 2 calls it required: it would be empty, and section 3.2 says
/// "Claims with zero elements MUST be omitted".
#[must_use]
pub fn documents(
    issuer: &Issuer,
    profile: Profile,
    mutual_tls: &MutualTls,
    keyring: &Keyring,
    snapshot: &Snapshot,
) -> Metadata {
    let offered = |method: &AuthMethod| {
        mutual_tls.permits(*method) && profile.permits_method(*method) && offers(profile, snapshot, *method)
    };
    let methods: Vec<&str> = AuthMethod::ALL.into_iter().filter(offered).map(AuthMethod::as_str).collect();
    let algs = profile.alg_names();
    let signing: Vec<&str> =
        Alg::ALL.into_iter().filter(|alg| profile.permits_alg(*alg)).map(|alg| keyring.alg_name(alg)).collect();
    let grant_types: Vec<&str> =
        [(true, CLIENT_CREDENTIALS), (offers(profile, snapshot, AuthMethod::FederatedJwt), JWT_BEARER)]
            .into_iter()
            .filter_map(|(offered, name)| offered.then_some(name))
            .collect();
    let fixed = json!({
        "issuer": issuer.as_str(),
        "token_endpoint": issuer.endpoint("/token"),
        "jwks_uri": issuer.endpoint("/jwks"),
        "grant_types_supported": grant_types,
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": algs,
        "introspection_endpoint": issuer.endpoint("/introspect"),
        "introspection_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_signing_alg_values_supported": algs,
        "introspection_signing_alg_values_supported": signing,
        "revocation_endpoint": issuer.endpoint("/revoke"),
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": algs,
        "dpop_signing_alg_values_supported": algs,
        // draft-ietf-oauth-status-list section 9.1.
        "status_list_aggregation_endpoint": issuer.endpoint("/token-status"),
    });
    let mut metadata = fixed;
    let mut add = |name: &str, value: Value| {
        if let Value::Object(members) = &mut metadata {
            members.insert(name.to_owned(), value);
        }
    };
    let scopes: BTreeSet<&str> = snapshot.resources().flat_map(|resource| resource.scope.tokens()).collect();
    let resources: BTreeSet<&str> = snapshot.resources().map(|resource| resource.identifier.as_str()).collect();
    if mutual_tls.offered {
        add("tls_client_certificate_bound_access_tokens", true.into());
    }
    // RFC 8705 section 5: "a JSON object containing alternative authorization server endpoints that, when present, an
    // OAuth client intending to do mutual TLS uses in preference to the conventional endpoints".
    if let Some(alias) = &mutual_tls.alias {
        let aliases = json!({
            "token_endpoint": alias.endpoint("/token"),
            "introspection_endpoint": alias.endpoint("/introspect"),
            "revocation_endpoint": alias.endpoint("/revoke"),
        });
        add("mtls_endpoint_aliases", aliases);
    }
    for (name, values) in [("scopes_supported", scopes), ("protected_resources", resources)] {
        if !values.is_empty() {
            add(name, values.into_iter().collect());
        }
    }
    let authorization_server = Document::new(&metadata);
    // OpenID Connect Discovery section 3 requires both. There are no ID Tokens; readers take the second for the algorithms of
    // tokens in general.
    if let Value::Object(members) = &mut metadata {
        members.insert("subject_types_supported".to_owned(), json!(["public"]));
        members.insert("id_token_signing_alg_values_supported".to_owned(), signing.into());
    }
    Metadata { authorization_server, openid_configuration: Document::new(&metadata) }
}

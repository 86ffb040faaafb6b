//! Clients: create, change, disable, enable, delete, show, and revoke their tokens.

use serde_json::{Value, json};

use super::change::{Change, as_a_table};
use super::client_certs::ClientCertificate;
use super::client_keys::ClientKey;
use super::{Admin, AdminError, AdminResult, Outcome};
use crate::crypto::jwk::Alg;
use crate::model::claims::RegisteredClaims;
use crate::model::client::{Annotations, AssertionAudience, Client, ClientScope, DefaultScopeError, GrantTypes};
use crate::model::client_id::ClientId;
use crate::model::jwks_uri::JwksUri;
use crate::model::lifetime::{AssertionLifetime, ExpiresIn, TokenTtl};
use crate::model::resource::ResourceId;
use crate::model::scope::Scope;
use crate::model::time::{Expiry, Span, UnixTime};
use crate::store::federation::StoredRule;
use crate::store::secrets::{NewSecret, SecretSummary};

/// Changes of a client's registration. Each field is named like its column.
#[derive(Debug, Clone, Default)]
pub struct ClientPatch {
    pub description: Change<String>,
    pub owner: Change<String>,
    /// Time from now until the client expires.
    pub expires_in: Change<Option<ExpiresIn>>,
    pub scope: Change<Scope>,
    pub default_scope: Change<Scope>,
    pub resources: Change<Vec<ResourceId>>,
    pub token_ttl: Change<Option<TokenTtl>>,
    pub claims: Change<RegisteredClaims>,
    pub auth_methods: Change<Option<Box<str>>>,
    pub grant_types: Change<GrantTypes>,
    pub jwks_uri: Change<Option<JwksUri>>,
    pub require_dpop: Change<bool>,
    pub require_mtls_binding: Change<bool>,
    pub assertion_audience: Change<AssertionAudience>,
    pub assertion_lifetime: Change<Option<AssertionLifetime>>,
    pub introspection_signed_response_alg: Change<Option<Alg>>,
}

impl ClientPatch {
    /// Makes the client with that id and these values, as of `now`.
    pub fn new_client(self, client_id: ClientId, now: UnixTime) -> Result<NewClient, DefaultScopeError> {
        let mut client = Client::new(client_id, ClientScope::default(), now);
        let mut annotations = Annotations::default();
        self.apply(&mut client, &mut annotations, now)?;
        Ok(NewClient { client, annotations })
    }

    fn apply(self, client: &mut Client, annotations: &mut Annotations, now: UnixTime) -> Result<(), DefaultScopeError> {
        self.description.apply(&mut annotations.description);
        self.owner.apply(&mut annotations.owner);
        if let Change::To(expires_in) = self.expires_in {
            client.expires_at = expires_in.and_then(|span| Expiry::new(now.plus(span.into())));
        }
        let mut scope = client.scopes.allowed().clone();
        let mut default_scope = client.scopes.default_scope().clone();
        self.scope.apply(&mut scope);
        self.default_scope.apply(&mut default_scope);
        client.scopes = ClientScope::new(scope, default_scope)?;
        let mut resources = std::mem::take(&mut client.resources).into_vec();
        self.resources.apply(&mut resources);
        client.resources = as_a_table(resources).into();
        self.token_ttl.apply(&mut client.token_ttl);
        self.claims.apply(&mut client.claims);
        self.auth_methods.apply(&mut client.auth_methods);
        if let Change::To(grants) = self.grant_types {
            grants.apply(client);
        }
        self.jwks_uri.apply(&mut client.jwks_uri);
        self.require_dpop.apply(&mut client.require_dpop);
        self.require_mtls_binding.apply(&mut client.require_mtls_binding);
        self.assertion_audience.apply(&mut client.assertion_audience);
        self.assertion_lifetime.apply(&mut client.assertion_lifetime);
        self.introspection_signed_response_alg.apply(&mut client.introspection_signed_response_alg);
        Ok(())
    }
}

/// Client to be created, with what administrators note about it.
#[derive(Debug)]
pub struct NewClient {
    pub client: Client,
    pub annotations: Annotations,
}

/// Client with its credentials and their last uses.
#[derive(Debug)]
pub struct ClientDetails {
    pub client: Client,
    pub annotations: Annotations,
    pub secrets: Vec<SecretSummary>,
    pub keys: Vec<ClientKey>,
    pub certificates: Vec<ClientCertificate>,
    pub rules: Vec<StoredRule>,
}

impl ClientDetails {
    /// Returns the client as JSON, with its credentials.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut value = document(&self.client, &self.annotations);
        if let Value::Object(members) = &mut value {
            members.insert("secrets".into(), json!(self.secrets));
            members.insert("keys".into(), self.keys.iter().map(ClientKey::document).collect());
            let certificates = self.certificates.iter().map(ClientCertificate::document).collect();
            members.insert("certificates".into(), certificates);
            members.insert("federation".into(), self.rules.iter().map(StoredRule::document).collect());
        }
        value
    }
}

/// Returns a client's registration as JSON, without its credentials.
#[must_use]
pub fn document(client: &Client, annotations: &Annotations) -> Value {
    json!({
        "client_id": client.client_id,
        "description": annotations.description,
        "owner": annotations.owner,
        "expires_at": client.expires_at,
        "enabled": client.enabled,
        "created_at": client.created_at,
        "not_before": Some(client.not_before).filter(|at| at.0 > 0),
        "scope": client.scopes.allowed().as_str(),
        "default_scope": client.scopes.default_scope().as_str(),
        "resources": client.resources.iter().map(ResourceId::as_str).collect::<Vec<_>>(),
        "token_ttl": client.token_ttl.map(|ttl| Span::from(ttl).seconds()),
        "auth_methods": client.auth_methods,
        "grant_types": client.grant_types(),
        "claims": client.claims.members(),
        "require_dpop": client.require_dpop,
        "require_mtls_binding": client.require_mtls_binding,
        "jwks_uri": client.jwks_uri.as_ref().map(JwksUri::as_str),
        "assertion_audience": client.assertion_audience.as_str(),
        "assertion_lifetime": client.assertion_lifetime.map(|lifetime| Span::from(lifetime).seconds()),
        "introspection_signed_response_alg": client.introspection_signed_response_alg.map(Alg::as_str),
    })
}

impl Admin {
    /// Creates a client, with an optional first secret.
    pub async fn create_client(&self, new: NewClient, secret: Option<&NewSecret>) -> AdminResult<Client> {
        let NewClient { client, annotations } = new;
        let client = Client { created_at: self.now(), ..client };
        let warnings = self.token_size(&client).await?;
        let secrets: Vec<&NewSecret> = secret.into_iter().collect();
        self.store.add_client(&client, &annotations, &secrets).await?;
        Ok(Outcome { value: client, warnings })
    }

    /// Changes a client. The value is `false` when the client has these values already.
    pub async fn change_client(&self, id: &ClientId, patch: ClientPatch) -> AdminResult<bool> {
        let now = self.now();
        let change = |client: &mut Client, annotations: &mut Annotations| {
            patch.clone().apply(client, annotations, now).map_err(AdminError::from)
        };
        let updated = self.store.update_client(id.as_str(), change).await?;
        let (client, is_changed) = updated.ok_or_else(|| AdminError::NoSuchClient(id.clone()))?;
        // The change is made, so a failure to work out its warnings is no error.
        let warnings = if is_changed { self.token_size(&client).await.unwrap_or_default() } else { Vec::new() };
        Ok(Outcome { value: is_changed, warnings })
    }

    /// Enables or disables a client. `Ok(false)` when it already was.
    pub async fn set_client_enabled(&self, id: &ClientId, enabled: bool) -> Result<bool, AdminError> {
        // A client whose rows cannot be read can be disabled too.
        let before = self.store.client(id.as_str()).await;
        // Written in any case, since another administrator may have changed it meanwhile.
        found(self.store.set_client_enabled(id.as_str(), enabled).await?, id)?;
        Ok(!matches!(before, Ok(Some(client)) if client.enabled == enabled))
    }

    /// Deletes a client with its credentials, and so revokes its tokens.
    pub async fn delete_client(&self, id: &ClientId) -> Result<(), AdminError> {
        found(self.store.delete_client(id.as_str()).await?, id)
    }

    /// Revokes all tokens that a client was issued until now. The client may ask for new ones.
    pub async fn revoke_tokens_of(&self, id: &ClientId) -> Result<(), AdminError> {
        found(self.store.revoke_tokens_of(id.as_str(), self.now()).await?, id)
    }

    /// Returns one client, without loading the others.
    pub async fn client(&self, id: &ClientId) -> Result<Client, AdminError> {
        self.store.client(id.as_str()).await?.ok_or_else(|| AdminError::NoSuchClient(id.clone()))
    }

    /// Returns one client with its credentials and their last uses.
    pub async fn client_details(&self, id: &ClientId) -> Result<ClientDetails, AdminError> {
        let client = self.client(id).await?;
        let secrets = self.store.secrets(id.as_str()).await?;
        let (keys, certificates) = (self.keys_of(&[&client]).await?, self.certificates_of(&[&client]).await?);
        let annotations = self.store.annotations(id.as_str(), id.as_str()).await?.remove(id.as_str());
        let annotations = annotations.unwrap_or_default();
        let rules = self.store.federation_rules_of_client(id.as_str()).await?;
        Ok(ClientDetails { client, annotations, secrets, keys, certificates, rules })
    }
}

/// Turns "no row" into an error.
fn found(found: bool, id: &ClientId) -> Result<(), AdminError> {
    if found { Ok(()) } else { Err(AdminError::NoSuchClient(id.clone())) }
}

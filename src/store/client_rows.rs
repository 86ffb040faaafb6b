//! Rows of clients and their credentials, and the clients that are made of them.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, Hasher as _};
use std::sync::Arc;

use foldhash::fast::RandomState;
use foldhash::quality::{FixedState, FoldHasher};

use super::client_certs::{CertificateRow, certificate_of};
use super::client_keys::{KeyRow, key_of};
use super::columns::{expiry, flag, lifetime, moment, secret_end};
use super::federation::{RuleRow, rule_of};
use super::rows::borrowed_row;
use super::{Refusal, StoreError};
use crate::crypto::jwk::KeyError;
use crate::crypto::secret_verifier::Verifier;
use crate::model::claims::RegisteredClaims;
use crate::model::client::{CLIENT_CREDENTIALS, Client, ClientScope, JWT_BEARER};
use crate::model::credential::{SecretOrigin, StoredSecret};
use crate::model::federation::rule::Rules;
use crate::model::resource::ResourceId;
use crate::model::scope::{Scope, ScopeError};

borrowed_row!(
    /// Row of a client.
    ClientRow of "client" by "order by c.client_id" {
        client_id: &'r str,
        scope: &'r str,
        default_scope: &'r str,
        grant_types: &'r str,
        auth_methods: Option<&'r str>,
        token_ttl: Option<i64>,
        claims: &'r str,
        require_dpop: i64,
        require_mtls_binding: i64,
        enabled: i64,
        created_at: i64,
        jwks_uri: Option<&'r str>,
        not_before: i64,
        introspection_signed_response_alg: Option<&'r str>,
        assertion_lifetime: Option<i64>,
        assertion_audience: &'r str,
        expires_at: Option<i64>,
        status_index: i64,
    }
);
borrowed_row!(
    /// Row of a resource that a client may ask for.
    ResourceLink of "client_resource" by "order by c.client_id, c.identifier" { client_id: &'r str, identifier: &'r str }
);
borrowed_row!(
    /// Row of a client's secret.
    SecretRow of "client_secret" by "order by c.client_id, c.created_at desc, c.secret_id" {
        client_id: &'r str,
        created_at: i64,
        secret_id: &'r str,
        hash: &'r str,
        imported: i64,
        tag_key: Option<&'r str>,
        verifier: Option<&'r str>,
        expires_at: Option<i64>,
        revoked_at: Option<i64>,
    }
);

/// A client as it was read; an error when one of its rows cannot be read.
pub type ReadClient = Result<Arc<Client>, StoreError>;

/// Assembles clients from rows: first those of clients, in the order of their ids, then those of each other table, in the
/// same order. A row that cannot be read makes its own client an error, and no other.
pub(super) struct ClientAssembler<'s> {
    shared: &'s mut SharedTexts,
    drafts: Vec<Draft>,
    /// The client of the last row.
    at: usize,
}

struct Draft {
    id: String,
    fingerprint: FoldHasher<'static>,
    /// In its final place, which is not moved any more; only this draft knows it.
    client: Result<Arc<Client>, String>,
}

impl<'s> ClientAssembler<'s> {
    /// Makes an assembler without clients.
    pub(super) fn new(shared: &'s mut SharedTexts) -> Self {
        Self { shared, drafts: Vec::new(), at: 0 }
    }

    /// The id of the last client.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.drafts.last().map(|draft| draft.id.as_str())
    }

    pub(super) fn add_client(&mut self, row: &ClientRow<'_>) {
        let mut fingerprint = FixedState::default().build_hasher();
        row.hash(&mut fingerprint);
        let client = client_of(row, self.shared).map(Arc::new);
        self.drafts.push(Draft { id: row.client_id.to_owned(), fingerprint, client });
    }

    pub(super) fn add_resource(&mut self, row: &ResourceLink<'_>) {
        let resource = self.shared.resource(row.identifier);
        self.add(row.client_id, row, resource, |client, resource| push(&mut client.resources, resource));
    }

    pub(super) fn add_secret(&mut self, row: &SecretRow<'_>) {
        self.add(row.client_id, row, secret_of(row), |client, secret| push(&mut client.secrets, secret));
    }

    pub(super) fn add_key(&mut self, row: &KeyRow<'_>) {
        self.add(row.client_id, row, key_of(row), |client, key| push(&mut client.keys, key));
    }

    pub(super) fn add_certificate(&mut self, row: &CertificateRow<'_>) {
        self.add(row.client_id, row, certificate_of(row), |client, one| push(&mut client.certificates, one));
    }

    pub(super) fn add_rule(&mut self, row: &RuleRow<'_>) {
        let rule = rule_of(row, self.shared.issuer(row.issuer));
        self.add(row.client_id, row, rule, |client, rule| client.federation.push(rule));
    }

    /// Adds what a row of a client is, and its hash to the client's fingerprint.
    fn add<T>(&mut self, client_id: &str, row: &impl Hash, read: Result<T, String>, put: impl FnOnce(&mut Client, T)) {
        let is_at = |at: usize| self.drafts.get(at).is_some_and(|draft| draft.id == client_id);
        // Mostly the client of the last row, or the one behind it. The rows of another table begin with the first client
        // again.
        let near = [self.at, self.at + 1].into_iter().find(|at| is_at(*at));
        // The error is the place where the client would be.
        let found = || self.drafts.binary_search_by(|draft| draft.id.as_str().cmp(client_id)).ok();
        let Some(at) = near.or_else(found) else { return };
        let Some(draft) = self.drafts.get_mut(at) else { return };
        self.at = at;
        row.hash(&mut draft.fingerprint);
        match (read, &mut draft.client) {
            (Ok(one), Ok(client)) => put(Arc::make_mut(client), one),
            (Err(reason), Ok(_)) => draft.client = Err(reason),
            (_, Err(_)) => {}
        }
    }

    /// Returns the clients, in the order of their ids.
    pub(super) fn finish(self) -> Vec<(String, ReadClient)> {
        let finish = |Draft { id, fingerprint, client }: Draft| {
            let client = client.and_then(|mut client| {
                Arc::make_mut(&mut client).fingerprint = fingerprint.finish();
                if client.jwks_uri.is_some() && !client.keys.is_empty() {
                    return Err(format!("jwks_uri: {}", Refusal::KeysOrJwksUri));
                }
                Ok(client)
            });
            let malformed = |reason| StoreError::Malformed { kind: "client", id: id.clone(), reason };
            let client = client.map_err(malformed);
            (id, client)
        };
        self.drafts.into_iter().map(finish).collect()
    }
}

/// Adds an item to a list that stays small and is kept for long.
fn push<T>(list: &mut Box<[T]>, item: T) {
    let mut items = std::mem::take(list).into_vec();
    items.reserve_exact(1);
    items.push(item);
    *list = items.into_boxed_slice();
}

/// Texts that many clients have: they share one copy.
#[derive(Debug, Default)]
pub(super) struct SharedTexts {
    scopes: HashMap<String, Scope, RandomState>,
    resources: HashMap<String, ResourceId, RandomState>,
    issuers: HashMap<String, Arc<str>, RandomState>,
}

impl SharedTexts {
    fn scope(&mut self, text: &str) -> Result<Scope, ScopeError> {
        match self.scopes.get(text) {
            Some(scope) => Ok(scope.clone()),
            None => {
                let scope: Scope = text.parse()?;
                // Each client may have a scope of its own, which nobody shares.
                if self.scopes.len() < SHARED_MAX {
                    self.scopes.insert(text.to_owned(), scope.clone());
                }
                Ok(scope)
            }
        }
    }

    fn resource(&mut self, identifier: &str) -> Result<ResourceId, String> {
        if let Some(resource) = self.resources.get(identifier) {
            return Ok(resource.clone());
        }
        let resource: ResourceId =
            identifier.parse().map_err(|error| format!("client_resource.identifier: {error}"))?;
        if self.resources.len() < SHARED_MAX {
            self.resources.insert(identifier.to_owned(), resource.clone());
        }
        Ok(resource)
    }

    fn issuer(&mut self, issuer: &str) -> Arc<str> {
        if let Some(shared) = self.issuers.get(issuer) {
            return Arc::clone(shared);
        }
        let shared: Arc<str> = issuer.into();
        if self.issuers.len() < SHARED_MAX {
            self.issuers.insert(issuer.to_owned(), Arc::clone(&shared));
        }
        shared
    }
}

fn client_of(row: &ClientRow<'_>, shared: &mut SharedTexts) -> Result<Client, String> {
    let at = |column: &'static str| move |error: &dyn std::fmt::Display| format!("{column}: {error}");
    let allowed = shared.scope(row.scope).map_err(|error| at("scope")(&error))?;
    let default = if row.default_scope == row.scope {
        allowed.clone()
    } else {
        shared.scope(row.default_scope).map_err(|error| at("default_scope")(&error))?
    };
    let (client_credentials, jwt_bearer) = grants(row.grant_types);
    Ok(Client {
        client_id: row.client_id.parse().map_err(|error| at("client_id")(&error))?,
        scopes: ClientScope::new(allowed, default).map_err(|error| at("default_scope")(&error))?,
        resources: Box::default(),
        client_credentials,
        jwt_bearer,
        auth_methods: row.auth_methods.map(Into::into),
        token_ttl: row.token_ttl.map(|seconds| lifetime("token_ttl", seconds)).transpose()?,
        claims: RegisteredClaims::of_row(row.claims).map_err(|error| at("claims")(&error))?,
        require_dpop: flag("require_dpop", row.require_dpop)?,
        require_mtls_binding: flag("require_mtls_binding", row.require_mtls_binding)?,
        enabled: flag("enabled", row.enabled)?,
        expires_at: row.expires_at.map(|at| expiry("expires_at", at)).transpose()?,
        created_at: moment("created_at", row.created_at)?,
        not_before: moment("not_before", row.not_before)?,
        secrets: Box::default(),
        keys: Box::default(),
        jwks_uri: row.jwks_uri.map(str::parse).transpose().map_err(|error| at("jwks_uri")(&error))?,
        certificates: Box::default(),
        introspection_signed_response_alg: row
            .introspection_signed_response_alg
            .map(str::parse)
            .transpose()
            .map_err(|error: KeyError| at("introspection_signed_response_alg")(&error))?,
        assertion_lifetime: row
            .assertion_lifetime
            .map(|seconds| lifetime("assertion_lifetime", seconds))
            .transpose()?,
        assertion_audience: row.assertion_audience.parse().map_err(|error| at("assertion_audience")(&error))?,
        federation: Rules::default(),
        status_index: row.status_index,
        fingerprint: 0,
    })
}

/// Whether the grants of a client are those of client credentials, and of JWTs. Most clients have the first alone.
fn grants(names: &str) -> (bool, bool) {
    let has = |grant| names.split(' ').any(|name| name == grant);
    if names == CLIENT_CREDENTIALS { (true, false) } else { (has(CLIENT_CREDENTIALS), has(JWT_BEARER)) }
}

fn secret_of(row: &SecretRow<'_>) -> Result<StoredSecret, String> {
    let secret_id = row.secret_id;
    let origin = match (flag("imported", row.imported)?, row.tag_key) {
        (true, _) => SecretOrigin::Imported,
        (false, None) => SecretOrigin::Untagged,
        (false, Some(kid)) => {
            SecretOrigin::Tagged(kid.parse().map_err(|error| format!("client_secret {secret_id}: tag_key: {error}"))?)
        }
    };
    // A verifier that cannot be read is none: the hash decides.
    let verifier = row.verifier.and_then(|text| text.parse().ok()).map(|verifier: Verifier| verifier.stored());
    Ok(StoredSecret {
        origin,
        verifier,
        hash: row.hash.parse().map_err(|error| format!("client_secret {secret_id}: hash: {error}"))?,
        secret_id: secret_id.into(),
        expires_at: row.expires_at.map(|at| secret_end("client_secret.expires_at", at)).transpose()?,
        revoked_at: row.revoked_at.map(|at| secret_end("client_secret.revoked_at", at)).transpose()?,
        cache: Arc::default(),
    })
}

/// Maximum number of texts that are remembered to be shared.
const SHARED_MAX: usize = 10_000;

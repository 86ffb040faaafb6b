//! Rows of clients and their credentials, and the clients that are made of them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::iter::Peekable;
use std::sync::Arc;
use std::vec;

use super::client_certs::{CertificateRow, certificate_of};
use super::client_keys::{KeyRow, key_of};
use super::columns::{flag, lifetime, moment};
use super::rows::row;
use super::{Refusal, StoreError};
use crate::crypto::jwk::KeyError;
use crate::crypto::secret_verifier::Verifier;
use crate::model::client::{Client, ClientScope};
use crate::model::credential::{SecretOrigin, StoredCertificate, StoredKey, StoredSecret};
use crate::model::resource::ResourceId;
use crate::model::scope::{Scope, ScopeError};

row!(
    /// Row of a client.
    ClientRow of "client", also as text, by "" {
        client_id: String,
        scope: String,
        default_scope: String,
        grant_types: String,
        auth_methods: Option<String>,
        token_ttl: Option<i64>,
        claims: String,
        require_dpop: i64,
        require_mtls_binding: i64,
        enabled: i64,
        created_at: i64,
        jwks_uri: Option<String>,
        not_before: i64,
        introspection_signed_response_alg: Option<String>,
        assertion_lifetime: Option<i64>,
        assertion_audience: String,
    }
);
row!(
    /// Row of a resource that a client may ask for.
    ResourceLink of "client_resource", also as text, by "order by c.client_id, c.identifier" { client_id: String, identifier: String }
);
row!(
    /// Row of a client's secret.
    SecretRow of "client_secret", also as text, by "order by c.client_id, c.created_at desc, c.secret_id" {
        client_id: String,
        created_at: i64,
        secret_id: String,
        hash: String,
        imported: i64,
        tag_key: Option<String>,
        verifier: Option<String>,
        expires_at: Option<i64>,
        revoked_at: Option<i64>,
    }
);

/// A client by its id; an error when one of its rows cannot be read.
pub(super) type ReadClient = (String, Result<Arc<Client>, StoreError>);

/// Rows of clients.
#[derive(Default)]
pub(super) struct ClientRows {
    pub(super) clients: Vec<ClientRow>,
    pub(super) resources: Vec<ResourceLink>,
    pub(super) secrets: Vec<SecretRow>,
    pub(super) keys: Vec<KeyRow>,
    pub(super) certificates: Vec<CertificateRow>,
}

impl ClientRows {
    /// Makes the clients, in the order of their ids. A row that cannot be read makes its own client an error, and no
    /// other.
    pub(super) fn assemble(mut self, shared: &mut SharedTexts) -> Vec<ReadClient> {
        // Rows in this order already, as most statements return them, are sorted in one pass.
        self.clients.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        self.resources.sort_by(|a, b| (&a.client_id, &a.identifier).cmp(&(&b.client_id, &b.identifier)));
        self.secrets.sort_by(|a, b| {
            (&a.client_id, b.created_at, &a.secret_id).cmp(&(&b.client_id, a.created_at, &b.secret_id))
        });
        self.keys.sort_by(|a, b| (&a.client_id, b.created_at, &a.kid).cmp(&(&b.client_id, a.created_at, &b.kid)));
        self.certificates
            .sort_by(|a, b| (&a.client_id, b.created_at, &a.cert_id).cmp(&(&b.client_id, a.created_at, &b.cert_id)));
        let mut resources = self.resources.into_iter().peekable();
        let mut secrets = self.secrets.into_iter().peekable();
        let mut keys = self.keys.into_iter().peekable();
        let mut certificates = self.certificates.into_iter().peekable();
        let mut assembled = Vec::with_capacity(self.clients.len());
        for row in self.clients {
            let id = row.client_id.clone();
            let mut fingerprint = DefaultHasher::new();
            row.hash(&mut fingerprint);
            // All rows are taken, so that those of the next client come next whatever is wrong with one.
            let parts = Parts {
                resources: taken(
                    &mut resources,
                    &id,
                    |row| &row.client_id,
                    &mut fingerprint,
                    |row| shared.resource(&row),
                ),
                secrets: taken(&mut secrets, &id, |row| &row.client_id, &mut fingerprint, secret_of),
                keys: taken(&mut keys, &id, |row| &row.client_id, &mut fingerprint, key_of),
                certificates: taken(&mut certificates, &id, |row| &row.client_id, &mut fingerprint, certificate_of),
            };
            let client = client_of(row, parts, shared, fingerprint.finish()).map(Arc::new);
            let malformed = |reason| StoreError::Malformed { kind: "client", id: id.clone(), reason };
            let client = client.map_err(malformed);
            assembled.push((id, client));
        }
        assembled
    }
}

type Taken<T> = Result<Vec<T>, String>;

struct Parts {
    resources: Taken<ResourceId>,
    secrets: Taken<StoredSecret>,
    keys: Taken<StoredKey>,
    certificates: Taken<StoredCertificate>,
}

/// Takes the rows of one client from rows in the order of clients, and adds them to its fingerprint.
fn taken<R: Hash, T>(
    rows: &mut Peekable<vec::IntoIter<R>>,
    client_id: &str,
    id_of: impl Fn(&R) -> &String,
    fingerprint: &mut DefaultHasher,
    mut read: impl FnMut(R) -> Result<T, String>,
) -> Taken<T> {
    // The rows of a client that has none itself cannot exist; they would stop the rows of all that follow.
    while rows.next_if(|row| id_of(row).as_str() < client_id).is_some() {}
    let (mut all, mut fault) = (Vec::new(), None);
    while let Some(row) = rows.next_if(|row| id_of(row) == client_id) {
        row.hash(fingerprint);
        match read(row) {
            Ok(one) => all.push(one),
            Err(reason) => fault = fault.or(Some(reason)),
        }
    }
    all.shrink_to_fit();
    fault.map_or(Ok(all), Err)
}

/// Texts that many clients have: they share one copy.
#[derive(Debug, Default)]
pub(super) struct SharedTexts {
    scopes: HashMap<String, Scope>,
    resources: HashMap<String, ResourceId>,
}

impl SharedTexts {
    fn scope(&mut self, text: String) -> Result<Scope, ScopeError> {
        match self.scopes.get(&text) {
            Some(scope) => Ok(scope.clone()),
            None => {
                let scope: Scope = text.parse()?;
                // Each client may have a scope of its own, which nobody shares.
                if self.scopes.len() < SHARED_MAX {
                    self.scopes.insert(text, scope.clone());
                }
                Ok(scope)
            }
        }
    }

    fn resource(&mut self, row: &ResourceLink) -> Result<ResourceId, String> {
        if let Some(resource) = self.resources.get(&row.identifier) {
            return Ok(resource.clone());
        }
        let resource: ResourceId =
            row.identifier.parse().map_err(|error| format!("client_resource.identifier: {error}"))?;
        if self.resources.len() < SHARED_MAX {
            self.resources.insert(row.identifier.clone(), resource.clone());
        }
        Ok(resource)
    }
}

fn client_of(row: ClientRow, parts: Parts, shared: &mut SharedTexts, fingerprint: u64) -> Result<Client, String> {
    let at = |column: &'static str| move |error: &dyn std::fmt::Display| format!("{column}: {error}");
    let all_by_default = row.default_scope == row.scope;
    let allowed = shared.scope(row.scope).map_err(|error| at("scope")(&error))?;
    let default = match all_by_default {
        true => allowed.clone(),
        false => shared.scope(row.default_scope).map_err(|error| at("default_scope")(&error))?,
    };
    let client = Client {
        client_id: row.client_id.parse().map_err(|error| at("client_id")(&error))?,
        scopes: ClientScope::new(allowed, default).map_err(|error| at("default_scope")(&error))?,
        resources: parts.resources?,
        client_credentials: row.grant_types.split(' ').any(|name| name == "client_credentials"),
        auth_methods: row.auth_methods.map(Into::into),
        token_ttl: row.token_ttl.map(|seconds| lifetime("token_ttl", seconds)).transpose()?,
        claims: row.claims.parse().map_err(|error| at("claims")(&error))?,
        require_dpop: flag("require_dpop", row.require_dpop)?,
        require_mtls_binding: flag("require_mtls_binding", row.require_mtls_binding)?,
        enabled: flag("enabled", row.enabled)?,
        created_at: moment("created_at", row.created_at)?,
        not_before: moment("not_before", row.not_before)?,
        secrets: parts.secrets?,
        keys: parts.keys?,
        jwks_uri: row.jwks_uri.map(|uri| uri.parse()).transpose().map_err(|error| at("jwks_uri")(&error))?,
        certificates: parts.certificates?,
        introspection_signed_response_alg: row
            .introspection_signed_response_alg
            .map(|alg| alg.parse())
            .transpose()
            .map_err(|error: KeyError| at("introspection_signed_response_alg")(&error))?,
        assertion_lifetime: row
            .assertion_lifetime
            .map(|seconds| lifetime("assertion_lifetime", seconds))
            .transpose()?,
        assertion_audience: row.assertion_audience.parse().map_err(|error| at("assertion_audience")(&error))?,
        fingerprint,
    };
    if client.jwks_uri.is_some() && !client.keys.is_empty() {
        return Err(format!("jwks_uri: {}", Refusal::KeysOrJwksUri));
    }
    Ok(client)
}

fn secret_of(row: SecretRow) -> Result<StoredSecret, String> {
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
        expires_at: row.expires_at.map(|at| moment("client_secret.expires_at", at)).transpose()?,
        revoked_at: row.revoked_at.map(|at| moment("client_secret.revoked_at", at)).transpose()?,
        cache: Arc::default(),
    })
}

/// Maximum number of texts that are remembered to be shared.
const SHARED_MAX: usize = 10_000;

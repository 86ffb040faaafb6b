//! Clients of other authorization servers: what can be registered of them, and the registration.

mod foreign;
mod hydra;
mod keycloak;

use std::collections::{BTreeMap, HashSet};

use futures_util::StreamExt as _;
use serde::Serialize;
use serde_json::Value;

use super::clients::NewClient;
use super::{Admin, AdminError};
use crate::crypto::secret::{HashMemory, SecretHash, new_secret_id};
use crate::model::credential::SecretOrigin;
use crate::model::resource::{Resource, ResourceId, TokenTyp};
use crate::model::scope::Scope;
use crate::model::time::UnixTime;
use crate::store::StoreError;
use crate::store::secrets::NewSecret;
use foreign::{ForeignSecret, Registration, Unfit};

pub use foreign::{ForeignClient, ForeignFileError};

/// The authorization server that a file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignServer {
    /// Ory Hydra: what its admin API lists, or its command line.
    Hydra,
    /// Keycloak: the export of a realm.
    Keycloak,
}

/// Extent of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportMode {
    /// Clients are registered.
    Register,
    /// The plan is made, and nothing changes.
    Plan,
    /// The plan is made for a database that does not exist yet.
    PlanForNewDatabase,
}

/// Plan of an import, or its outcome.
#[derive(Debug, Serialize)]
pub struct ImportPlan {
    pub clients: Vec<PlannedClient>,
    pub resources: Vec<PlannedResource>,
}

/// Client in a plan.
#[derive(Debug, Serialize)]
pub struct PlannedClient {
    pub client_id: String,
    pub action: Action,
    /// The reason for skipping it or failing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The state of its credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
    pub scope: String,
    pub notes: Vec<String>,
}

/// Action on a client of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Register it.
    Create,
    /// Leave the client as it is, since its id is registered already.
    Exists,
    /// Skip a client that may not use `client_credentials`.
    Skip,
    /// Report a client that cannot be registered.
    Fail,
}

/// Resource that clients of the file ask tokens for.
#[derive(Debug, Serialize)]
pub struct PlannedResource {
    pub identifier: String,
    pub scope: String,
    /// Whether it is registered with the clients; otherwise it was there before.
    pub is_new: bool,
}

impl ForeignServer {
    /// Reads the clients of a file. One that cannot be registered is no error of the others.
    pub fn read(self, file: &[u8], now: UnixTime) -> Result<Vec<ForeignClient>, ForeignFileError> {
        let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
        let document: Value = serde_json::from_slice(file)?;
        match self {
            Self::Hydra => hydra::clients(document, now),
            Self::Keycloak => keycloak::clients(document, now),
        }
    }
}

impl Admin {
    /// Plans the registration of clients and, with [`ImportMode::Register`], registers them: each with its credentials in one
    /// transaction. A client whose id is registered stays as it is, so a second import changes nothing. `progress` is
    /// called after each client.
    pub async fn import_clients(
        &self,
        clients: Vec<ForeignClient>,
        mode: ImportMode,
        progress: &mut (dyn FnMut() + Send),
    ) -> Result<ImportPlan, AdminError> {
        let ids: Vec<&str> = clients.iter().map(|client| client.client_id.as_str()).collect();
        let existing = match mode {
            ImportMode::PlanForNewDatabase => HashSet::new(),
            ImportMode::Plan | ImportMode::Register => self.store.existing_clients(&ids).await?,
        };
        let (mut plan, mut registrations, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        for ForeignClient { client_id, read } in clients {
            let is_twin = !seen.insert(client_id.clone());
            let (planned, registration) = planned(&client_id, read, |id| existing.contains(id), is_twin);
            if let Some(registration) = registration {
                registrations.push((plan.len(), registration));
            }
            plan.push(planned);
        }
        let resources = self.plan_resources(mode, &mut plan, &registrations).await?;
        if mode == ImportMode::Register {
            for resource in resources.iter().filter(|resource| resource.is_new) {
                self.create_planned(resource).await?;
            }
            self.register(&mut plan, registrations, progress).await?;
        }
        Ok(ImportPlan { clients: plan, resources })
    }

    /// Returns the resources of the clients, each with the scopes of those that may ask for it, and notes what an existing
    /// one does not understand.
    async fn plan_resources(
        &self,
        mode: ImportMode,
        plan: &mut [PlannedClient],
        registrations: &[(usize, Registration)],
    ) -> Result<Vec<PlannedResource>, AdminError> {
        let existing = match mode {
            ImportMode::PlanForNewDatabase => Vec::new(),
            ImportMode::Plan | ImportMode::Register => self.resources().await?,
        };
        let existing: BTreeMap<String, Scope> =
            existing.into_iter().map(|resource| (resource.identifier.as_str().to_owned(), resource.scope)).collect();
        let mut wanted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (at, Registration { new, .. }) in registrations {
            for resource in &new.client.resources {
                let scope = new.client.scopes.allowed();
                wanted.entry(resource.as_str()).or_default().extend(scope.tokens());
                let understood = existing.get(resource.as_str());
                let missing = understood.filter(|understood| !scope.is_subset_of(understood));
                if let (Some(_), Some(planned)) = (missing, plan.get_mut(*at)) {
                    planned.notes.push(format!(
                        "resource {resource} is registered and does not understand all of its scopes: `grantd resource set`"
                    ));
                }
            }
        }
        let resource = |(identifier, mut scopes): (&str, Vec<&str>)| {
            scopes.sort_unstable();
            scopes.dedup();
            let known = existing.get(identifier);
            PlannedResource {
                identifier: identifier.to_owned(),
                scope: known.map_or_else(|| scopes.join(" "), |scope| scope.as_str().to_owned()),
                is_new: known.is_none(),
            }
        };
        Ok(wanted.into_iter().map(resource).collect())
    }

    async fn create_planned(&self, planned: &PlannedResource) -> Result<(), AdminError> {
        let malformed =
            |reason: String| StoreError::Malformed { kind: "resource", id: planned.identifier.clone(), reason };
        let identifier: Result<ResourceId, _> = planned.identifier.parse();
        let scope: Result<Scope, _> = planned.scope.parse();
        let resource = Resource {
            identifier: identifier.map_err(|error| malformed(error.to_string()))?,
            scope: scope.map_err(|error| malformed(error.to_string()))?,
            alg: None,
            token_ttl: None,
            token_typ: TokenTyp::default(),
            status_list: false,
            introspectors: Vec::new(),
        };
        self.create_resource(resource).await.map(drop)
    }

    /// Registers the clients of a plan. Their secrets are hashed on all processors, ahead of the client that is written.
    async fn register(
        &self,
        plan: &mut [PlannedClient],
        registrations: Vec<(usize, Registration)>,
        progress: &mut (dyn FnMut() + Send),
    ) -> Result<(), AdminError> {
        let (now, cost) = (self.now(), self.policy.argon2);
        let expires_at = self.secret_expiry(None, now)?;
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let hashed = registrations.into_iter().map(|(at, Registration { new, secret, .. })| async move {
            let hashing = tokio::task::spawn_blocking(move || -> Result<Option<NewSecret>, AdminError> {
                match secret {
                    ForeignSecret::Clear(secret) => {
                        let hash = SecretHash::new(secret.expose(), cost, &mut HashMemory::default())?;
                        let own_id = secret.secret_id().map(str::to_owned);
                        let origin = if own_id.is_some() { SecretOrigin::Untagged } else { SecretOrigin::Imported };
                        let secret_id = own_id.map_or_else(new_secret_id, Ok)?;
                        let label = LABEL.to_owned();
                        let (verifier, created_at) = (None, now);
                        Ok(Some(NewSecret { secret_id, hash, origin, verifier, label, created_at, expires_at }))
                    }
                    ForeignSecret::Missing(_) | ForeignSecret::NotNeeded => Ok(None),
                }
            });
            (at, new, hashing.await)
        });
        let mut hashed = std::pin::pin!(futures_util::stream::iter(hashed).buffered(processors));
        while let Some((at, NewClient { client, annotations }, secret)) = hashed.next().await {
            let secret = secret??;
            let secrets: Vec<&NewSecret> = secret.iter().collect();
            match self.store.add_client(&client, &annotations, &secrets).await {
                Ok(()) => {}
                Err(error @ (StoreError::Refused(_) | StoreError::Taken { .. })) => {
                    if let Some(planned) = plan.get_mut(at) {
                        (planned.action, planned.reason) = (Action::Fail, Some(error.to_string()));
                    }
                }
                Err(error) => return Err(error.into()),
            }
            progress();
        }
        Ok(())
    }
}

/// The place of a client in the plan, and its registration if it is to be registered.
fn planned(
    client_id: &str,
    read: Result<Registration, Unfit>,
    exists: impl Fn(&str) -> bool,
    is_twin: bool,
) -> (PlannedClient, Option<Registration>) {
    let bare = |action, reason: Option<String>| PlannedClient {
        client_id: client_id.to_owned(),
        action,
        reason,
        credentials: None,
        scope: String::new(),
        notes: Vec::new(),
    };
    match read {
        Err(Unfit::NotAMachine(reason)) => (bare(Action::Skip, Some(reason.to_owned())), None),
        _ if is_twin => (bare(Action::Fail, Some("the file has another client with this id".to_owned())), None),
        Ok(_) if exists(client_id) => (bare(Action::Exists, None), None),
        Err(Unfit::Faulty(reason)) => (bare(Action::Fail, Some(reason)), None),
        Ok(registration) => {
            let client = &registration.new.client;
            let credentials = match &registration.secret {
                ForeignSecret::Clear(_) => "its secret is hashed".to_owned(),
                ForeignSecret::Missing(reason) => format!("needs a new secret: {reason}"),
                ForeignSecret::NotNeeded if client.jwks_uri.is_some() => "keys at its jwks_uri".to_owned(),
                ForeignSecret::NotNeeded if !client.keys.is_empty() => format!("public keys: {}", client.keys.len()),
                ForeignSecret::NotNeeded => "the name in its certificate".to_owned(),
            };
            let planned = PlannedClient {
                credentials: Some(credentials),
                scope: client.scopes.allowed().as_str().to_owned(),
                notes: registration.notes.clone(),
                ..bare(Action::Create, None)
            };
            (planned, Some(registration))
        }
    }
}

/// Label of imported secrets.
const LABEL: &str = "imported";

//! Every client and resource in memory: an immutable snapshot behind an atomic pointer, swapped whole.
//!
//! A token request reads it without lock, await or SQL. [`feed`] keeps it current; its age is known.

pub mod feed;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use crate::crypto::jwk::Alg;
use crate::crypto::secret::HashParams;
use crate::model::client::Client;
use crate::model::client_id::ClientId;
use crate::model::resource::{Resource, ResourceId};
use crate::model::time::Span;
use crate::store::changes::Changes;
use crate::store::secrets::MAX_IMPORTED;

/// The current snapshot and how old it is.
#[derive(Debug)]
pub struct Registry {
    snapshot: ArcSwap<Snapshot>,
    started: Instant,
    /// Microseconds after `started` of the last poll that found the snapshot current, plus one; 0 before any.
    current_at: AtomicU64,
    max_stale: Duration,
    /// What stands between us and the database, for readiness.
    trouble: Mutex<Option<String>>,
}

/// What the database held at one revision.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The database's revision; 0 before anything was read.
    pub revision: i64,
    clients: HashMap<ClientId, Arc<Client>>,
    resources: HashMap<ResourceId, Arc<Resource>>,
    /// Rows that cannot be understood, with the reason.
    broken: BTreeMap<String, String>,
    /// How many imported secrets a wrong guess is held against, for every client alike.
    guesses: usize,
    /// How often each cost of hashing occurs, so that an unknown client costs what some known one would.
    costs: Vec<(HashParams, usize)>,
}

/// How far the snapshot may be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// As good as asking the database: what is not in it does not exist.
    Current,
    /// Known clients are served; of others nothing is known.
    Stale(Duration),
    /// Older than `registry.max_stale`, or never read: nobody is served.
    Unusable,
}

impl Registry {
    /// An empty registry, unusable until the feed has filled it.
    #[must_use]
    pub fn new(max_stale: Span) -> Self {
        Self {
            snapshot: ArcSwap::default(),
            started: Instant::now(),
            current_at: AtomicU64::new(0),
            max_stale: max_stale.duration(),
            trouble: Mutex::new(Some("nothing has been read from the database yet".into())),
        }
    }

    /// The snapshot as it is now. Hold it for one request, not longer.
    #[must_use]
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// How far the snapshot may be trusted now.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        match self.age() {
            Some(age) if age < CURRENT_FOR => Freshness::Current,
            Some(age) if age < self.max_stale => Freshness::Stale(age),
            _ => Freshness::Unusable,
        }
    }

    /// The time since the database last confirmed the snapshot; `None` before it ever did.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let at = self.current_at.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.started.elapsed().saturating_sub(Duration::from_micros(at)))
    }

    /// What keeps the feed from the database, if anything does.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the snapshot as confirmed at `since`, the moment before the database was asked.
    pub(crate) fn confirm(&self, since: Instant) {
        let micros = since.saturating_duration_since(self.started).as_micros();
        self.current_at.store(u64::try_from(micros).unwrap_or(u64::MAX - 1) + 1, Ordering::Release);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes trouble. Returns whether it is new, so that it is logged once.
    pub(crate) fn note_trouble(&self, trouble: &str) -> bool {
        let mut noted = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let news = noted.as_deref() != Some(trouble);
        if news {
            *noted = Some(trouble.to_owned());
        }
        news
    }

    /// Applies changes to a copy and puts it in place.
    pub(crate) fn apply(&self, changes: Changes) {
        self.snapshot.store(Arc::new(self.snapshot.load().with(changes)));
    }
}

impl Snapshot {
    /// The client of that id.
    #[must_use]
    pub fn client(&self, client_id: &str) -> Option<&Arc<Client>> {
        self.clients.get(client_id)
    }

    /// The resource of that identifier, compared to the letter.
    #[must_use]
    pub fn resource(&self, identifier: &str) -> Option<&Arc<Resource>> {
        self.resources.get(identifier)
    }

    /// All clients, in no order.
    #[must_use]
    pub fn clients(&self) -> impl ExactSizeIterator<Item = &Arc<Client>> {
        self.clients.values()
    }

    /// All resources, in no order.
    #[must_use]
    pub fn resources(&self) -> impl ExactSizeIterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// Rows that cannot be understood, with the reason.
    #[must_use]
    pub fn broken(&self) -> &BTreeMap<String, String> {
        &self.broken
    }

    /// How many imported secrets a wrong guess is held against.
    #[must_use]
    pub fn guesses(&self) -> usize {
        self.guesses
    }

    /// The cost of a hash that does not exist: that of the `nth` of those that do, counting round.
    #[must_use]
    pub fn decoy_cost(&self, nth: u64) -> HashParams {
        let total: usize = self.costs.iter().map(|(_, count)| count).sum();
        let mut nth = usize::try_from(nth % u64::try_from(total.max(1)).unwrap_or(1)).unwrap_or(0);
        for (cost, count) in &self.costs {
            match nth.checked_sub(*count) {
                Some(rest) => nth = rest,
                None => return *cost,
            }
        }
        HashParams::default()
    }

    /// The algorithms that resources ask for.
    pub fn algs(&self) -> impl Iterator<Item = Alg> {
        self.resources.values().filter_map(|resource| resource.alg)
    }

    fn with(&self, changes: Changes) -> Self {
        let (mut clients, mut broken) = if changes.complete {
            (HashMap::with_capacity(changes.clients.len()), BTreeMap::new())
        } else {
            (self.clients.clone(), self.broken.clone())
        };
        for (id, client) in changes.clients {
            if !changes.complete {
                let what = if client.is_some() { "loaded" } else { "gone" };
                tracing::info!(event = "client.changed", client_id = id, revision = changes.revision, what);
            }
            let name = format!("client {id}");
            clients.remove(id.as_str());
            broken.remove(&name);
            match client {
                Some(Ok(client)) => {
                    clients.insert(client.client_id.clone(), Arc::new(keep_uses(client, self.client(&id))));
                }
                Some(Err(fault)) => {
                    tracing::error!(event = "client.malformed", client_id = id, reason = %fault, "this client cannot authenticate until its row is mended");
                    broken.insert(name, fault.to_string());
                }
                None => {}
            }
        }
        let resources = match changes.resources {
            None => self.resources.clone(),
            Some(rows) => {
                broken.retain(|name, _| !name.starts_with("resource "));
                let mut resources = HashMap::with_capacity(rows.len());
                for row in rows {
                    match row {
                        Ok(resource) => {
                            resources.insert(resource.identifier.clone(), Arc::new(resource));
                        }
                        Err(fault) => {
                            tracing::error!(event = "resource.malformed", reason = %fault, "no token is issued for this resource until its row is mended");
                            broken.insert(format!("resource {}", broken.len()), fault.to_string());
                        }
                    }
                }
                resources
            }
        };
        let (guesses, costs) = survey(clients.values());
        Self { revision: changes.revision, clients, resources, broken, guesses, costs }
    }
}

/// What a wrong guess has to cost, over all clients: how many trials, and at which parameters.
fn survey<'a>(clients: impl Iterator<Item = &'a Arc<Client>>) -> (usize, Vec<(HashParams, usize)>) {
    let mut guesses = 1;
    let mut costs: HashMap<HashParams, usize> = HashMap::new();
    for client in clients {
        let imported = client.secrets.iter().filter(|secret| secret.imported).count();
        guesses = guesses.max(imported.min(usize::try_from(MAX_IMPORTED).unwrap_or(1)));
        for secret in &client.secrets {
            *costs.entry(secret.hash.params()).or_default() += 1;
        }
    }
    let mut costs: Vec<_> = costs.into_iter().collect();
    costs.sort_by_key(|(cost, _)| (cost.m, cost.t, cost.p));
    (guesses, costs)
}

/// A secret that is reloaded keeps the times of use that are not written down yet.
fn keep_uses(mut client: Client, before: Option<&Arc<Client>>) -> Client {
    for secret in &mut client.secrets {
        let known = before.and_then(|before| before.secrets.iter().find(|known| known.secret_id == secret.secret_id));
        if let Some(known) = known {
            secret.last_used_at = Arc::clone(&known.last_used_at);
        }
    }
    client
}

/// A snapshot confirmed this lately is as good as the database: revocations are promised within a second or two.
pub(crate) const CURRENT_FOR: Duration = Duration::from_secs(2);

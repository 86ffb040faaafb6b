//! Contents of the registry at one revision, indexed for requests.
//!
//! Clients are spread over shards: the next snapshot copies the shards that changed and shares the others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::crypto::jwk::Alg;
use crate::crypto::secret::HashParams;
use crate::crypto::secret_tag::{TagKey, TagKid};
use crate::model::client::Client;
use crate::model::client_id::ClientId;
use crate::model::credential::{KeyCounts, SecretOrigin, StoredKey};
use crate::model::event::Event;
use crate::model::resource::{Resource, ResourceId};
use crate::model::time::UnixTime;
use crate::store::StoreError;
use crate::store::changes::{Changes, Position};
use crate::store::secrets::MAX_IMPORTED;

/// All clients and resources at one revision, immutable.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The revision; 0 before the first load.
    pub revision: i64,
    /// The id of that revision.
    pub history: Arc<str>,
    clients: Vec<Arc<Shard>>,
    resources: HashMap<ResourceId, Arc<Resource>>,
    /// Rows that cannot be read, by name, with the reason.
    malformed: BTreeMap<String, String>,
    tag_keys: Arc<[TagKey]>,
    not_before: Option<UnixTime>,
    guess_cost: GuessCost,
    key_counts: KeyCounts,
    /// Number of secrets at each hashing cost. An unknown client gets the cost of some existing secret.
    costs: Vec<(HashParams, usize)>,
}

/// Number of hashes that a wrong guess costs. It is the same for every client, whether or not the client exists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuessCost {
    /// Cost of a guess without a secret id: the largest number of imported secrets of any client.
    pub without_id: usize,
    /// Cost of a guess with a secret id and without a valid tag: 1 when a secret without a verifiable tag exists, else
    /// 0.
    pub with_id: usize,
}

impl Snapshot {
    /// The position of the snapshot in the database's history.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { revision: self.revision, history: Arc::clone(&self.history) }
    }

    /// The cut-off of the tokens of all clients.
    #[must_use]
    pub fn not_before(&self) -> Option<UnixTime> {
        self.not_before
    }

    /// Returns the client with that id.
    #[must_use]
    pub fn client(&self, client_id: &str) -> Option<&Arc<Client>> {
        self.clients.get(shard_of(client_id))?.clients.get(client_id)
    }

    /// Returns the resource with that identifier, compared character for character.
    #[must_use]
    pub fn resource(&self, identifier: &str) -> Option<&Arc<Resource>> {
        self.resources.get(identifier)
    }

    /// Returns all clients, in no order.
    pub fn clients(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.clients.iter().flat_map(|shard| shard.clients.values())
    }

    /// The number of clients.
    #[must_use]
    pub fn client_count(&self) -> usize {
        self.clients.iter().map(|shard| shard.clients.len()).sum()
    }

    /// Returns all resources, in no order.
    #[must_use]
    pub fn resources(&self) -> impl ExactSizeIterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// Rows that cannot be read, by name, with the reason.
    #[must_use]
    pub fn malformed(&self) -> &BTreeMap<String, String> {
        &self.malformed
    }

    /// Whether the rows of this client cannot be read.
    #[must_use]
    pub fn is_malformed(&self, client_id: &str) -> bool {
        !self.malformed.is_empty() && self.malformed.contains_key(&format!("client {client_id}"))
    }

    /// Whether a token that `client` was issued at `iat` is revoked by a cut-off. The latest of the applicable cut-offs
    /// decides.
    #[must_use]
    pub fn cuts_off(&self, client: &Client, iat: UnixTime) -> bool {
        self.not_before.into_iter().chain([client.not_before]).any(|not_before| iat <= not_before)
    }

    /// The keys that verify tags of secrets.
    #[must_use]
    pub fn tag_keys(&self) -> &[TagKey] {
        &self.tag_keys
    }

    /// The number of hashes that a wrong guess costs.
    #[must_use]
    pub fn guess_cost(&self) -> GuessCost {
        self.guess_cost
    }

    /// The largest number of registered keys of any client, for each algorithm.
    #[must_use]
    pub fn key_counts(&self) -> KeyCounts {
        self.key_counts
    }

    /// Returns the cost of a decoy hash: that of the `nth` existing secret, modulo their number.
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

    /// Returns the algorithms that resources and introspection responses use.
    pub fn algs(&self) -> impl Iterator<Item = Alg> {
        let of_clients = self.clients.iter().flat_map(|shard| shard.summary.algs.iter().copied());
        self.resources.values().filter_map(|resource| resource.alg).chain(of_clients)
    }

    /// Builds the next snapshot.
    pub(super) fn next(&self, changes: Changes, tag_keys: Option<Vec<TagKey>>) -> Self {
        let mut next = Self {
            revision: changes.position.revision,
            history: Arc::clone(&changes.position.history),
            clients: self.clients.clone(),
            resources: self.resources.clone(),
            malformed: self.malformed.clone(),
            not_before: changes.not_before.or(self.not_before),
            tag_keys: tag_keys.map_or_else(|| Arc::clone(&self.tag_keys), Into::into),
            ..Self::default()
        };
        if changes.complete || next.clients.is_empty() {
            next.clients = (0..SHARDS).map(|_| Arc::default()).collect();
            next.malformed.clear();
        }
        next.update_clients(self, changes.clients, changes.complete, changes.position.revision);
        if let Some(rows) = changes.resources {
            next.replace_resources(rows);
        }
        next.summarize();
        next
    }

    fn update_clients(
        &mut self,
        before: &Self,
        changed: HashMap<String, Option<Result<Arc<Client>, StoreError>>>,
        complete: bool,
        revision: i64,
    ) {
        let mut by_shard: HashMap<usize, Vec<_>> = HashMap::new();
        for (id, client) in changed {
            by_shard.entry(shard_of(&id)).or_default().push((id, client));
        }
        for (number, changed) in by_shard {
            let Some(shard) = self.clients.get_mut(number) else { continue };
            let shard = Arc::make_mut(shard);
            for (id, client) in changed {
                if !complete {
                    let what = if client.is_some() { "loaded" } else { "gone" };
                    tracing::info!(event = Event::ClientChanged.as_str(), client_id = id, revision, what);
                }
                let name = format!("client {id}");
                shard.clients.remove(id.as_str());
                self.malformed.remove(&name);
                match client {
                    Some(Ok(client)) => {
                        let known = before.client(&id);
                        let is_new = |key: &&StoredKey| {
                            !known.is_some_and(|known| known.keys.iter().any(|old| old.kid == key.kid))
                        };
                        client.keys.iter().filter(is_new).for_each(|key| key.warn_about_certificate(&id));
                        let client = keep_usage(client, known);
                        shard.clients.insert(client.client_id.clone(), client);
                    }
                    Some(Err(fault)) => {
                        tracing::error!(event = Event::ClientMalformed.as_str(), client_id = id, reason = %fault, "this client cannot authenticate until its row is corrected");
                        self.malformed.insert(name, fault.to_string());
                    }
                    None => {}
                }
            }
            shard.clients.shrink_to_fit();
            shard.summary = ShardSummary::of(shard.clients.values());
        }
    }

    fn replace_resources(&mut self, rows: Vec<Result<Resource, StoreError>>) {
        self.malformed.retain(|name, _| !name.starts_with("resource "));
        self.resources = HashMap::with_capacity(rows.len());
        for row in rows {
            match row {
                Ok(resource) => {
                    self.resources.insert(resource.identifier.clone(), Arc::new(resource));
                }
                Err(fault) => {
                    tracing::error!(event = Event::ResourceMalformed.as_str(), reason = %fault, "no token is issued for this resource until its row is corrected");
                    self.malformed.insert(format!("resource {}", self.malformed.len()), fault.to_string());
                }
            }
        }
    }

    /// Computes the cost of a wrong guess over all clients.
    fn summarize(&mut self) {
        let known: Vec<TagKid> = self.tag_keys.iter().map(TagKey::kid).collect();
        let mut costs: HashMap<HashParams, usize> = HashMap::new();
        for summary in self.clients.iter().map(|shard| &shard.summary) {
            self.guess_cost.without_id = self.guess_cost.without_id.max(summary.imported);
            self.key_counts = self.key_counts.max(summary.key_counts);
            if summary.tag_kids.iter().any(|kid| kid.is_none_or(|kid| !known.contains(&kid))) {
                self.guess_cost.with_id = 1;
            }
            for (cost, count) in &summary.costs {
                *costs.entry(*cost).or_default() += count;
            }
        }
        self.costs = costs.into_iter().collect();
        self.costs.sort_by_key(|(cost, _)| (cost.m, cost.t, cost.p));
    }
}

/// Part of the clients, with their contribution to the cost of guesses.
#[derive(Debug, Default, Clone)]
struct Shard {
    clients: HashMap<ClientId, Arc<Client>>,
    summary: ShardSummary,
}

#[derive(Debug, Default, Clone)]
struct ShardSummary {
    /// Largest number of imported secrets of one client, up to the number that is tried.
    imported: usize,
    /// Tag keys of the secrets that carry an id; `None` for those without a tag.
    tag_kids: Vec<Option<TagKid>>,
    key_counts: KeyCounts,
    costs: Vec<(HashParams, usize)>,
    /// Algorithms of signed introspection responses.
    algs: BTreeSet<Alg>,
}

impl ShardSummary {
    fn of<'a>(clients: impl Iterator<Item = &'a Arc<Client>>) -> Self {
        let mut summary = Self::default();
        for client in clients {
            summary.key_counts = summary.key_counts.max(KeyCounts::of(&client.keys));
            summary.algs.extend(client.introspection_signed_response_alg);
            let mut imported = 0;
            for secret in &client.secrets {
                let kid = match secret.origin {
                    SecretOrigin::Imported => {
                        imported += 1;
                        continue;
                    }
                    SecretOrigin::Untagged => None,
                    SecretOrigin::Tagged(kid) => Some(kid),
                };
                if !summary.tag_kids.contains(&kid) {
                    summary.tag_kids.push(kid);
                }
            }
            summary.imported = summary.imported.max(imported.min(usize::try_from(MAX_IMPORTED).unwrap_or(1)));
            for cost in client.secrets.iter().map(|secret| secret.hash.params()) {
                match summary.costs.iter_mut().find(|(known, _)| *known == cost) {
                    Some((_, count)) => *count += 1,
                    None => summary.costs.push((cost, 1)),
                }
            }
        }
        summary
    }
}

/// Carries the cached verifications and last uses of credentials over to a client that was loaded again. A secret whose
/// hash has changed loses its cached verification.
fn keep_usage(mut client: Arc<Client>, before: Option<&Arc<Client>>) -> Arc<Client> {
    let Some(before) = before else { return client };
    // The client was just made, so this does not copy it.
    let new = Arc::make_mut(&mut client);
    for secret in &mut new.secrets {
        let known = before.secrets.iter().find(|known| known.secret_id == secret.secret_id);
        match known {
            Some(known) if known.hash == secret.hash => secret.cache = Arc::clone(&known.cache),
            Some(known) => secret.cache = Arc::new(known.cache.without_mac()),
            None => {}
        }
    }
    for key in &mut new.keys {
        if let Some(known) = before.keys.iter().find(|known| known.kid == key.kid) {
            key.used = Arc::clone(&known.used);
        }
    }
    for one in &mut new.certificates {
        if let Some(known) = before.certificates.iter().find(|known| known.cert_id == one.cert_id) {
            one.used = Arc::clone(&known.used);
        }
    }
    client
}

/// FNV-1a. Only administrators add ids, so a hash with predictable collisions does no harm.
fn shard_of(client_id: &str) -> usize {
    let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = client_id.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    usize::try_from(hash >> 56).unwrap_or(0) % SHARDS
}

const SHARDS: usize = 256;

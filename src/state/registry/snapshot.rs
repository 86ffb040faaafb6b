//! Contents of the registry at one revision, indexed for requests.
//!
//! The next snapshot shares with the one before it whatever has not changed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::clients::Clients;
use super::difference::Difference;
use super::rule_index::RuleKeys;
use super::succession::succeeding;

use crate::crypto::jwk::Alg;
use crate::crypto::secret::HashParams;
use crate::crypto::secret_tag::{TagKey, TagKid};
use crate::model::client::Client;
use crate::model::credential::KeyCounts;
use crate::model::event::Event;
use crate::model::federation::trusted_issuer::TrustedIssuer;
use crate::model::resource::{Resource, ResourceId};
use crate::model::status::StatusIndex;
use crate::model::time::UnixTime;
use crate::store::changes::{Changes, Position};
use crate::store::ranges::ClientRange;
use crate::store::{ReadClient, StoreError};

/// All clients and resources at one revision, immutable.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The revision; 0 before the first load.
    pub revision: i64,
    /// The id of that revision.
    pub history: Arc<str>,
    pub(super) clients: Clients,
    resources: Arc<HashMap<ResourceId, Arc<Resource>>>,
    issuers: Arc<HashMap<Arc<str>, Arc<TrustedIssuer>>>,
    /// Rows that cannot be read, by name, with the reason.
    malformed: BTreeMap<String, String>,
    tag_keys: Arc<[TagKey]>,
    not_before: Option<UnixTime>,
    /// Position of the list from which the numbers of clients are counted.
    status_list: i64,
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

    /// The status index of a client's present epoch.
    #[must_use]
    pub fn status_index(&self, client: &Client) -> StatusIndex {
        StatusIndex::new(self.status_list, client.status_index)
    }

    /// The highest status index of any client.
    #[must_use]
    pub fn last_status_index(&self) -> StatusIndex {
        let last = self.clients.summaries().map(|summary| summary.last_status_index).max();
        StatusIndex::new(self.status_list, last.unwrap_or(0))
    }

    /// The lowest status index that a client can have.
    #[must_use]
    pub fn first_status_index(&self) -> StatusIndex {
        StatusIndex::new(self.status_list, 0)
    }

    /// Returns the status indices of the clients whose end has come at `now`.
    pub fn expired_status(&self, now: UnixTime) -> impl Iterator<Item = StatusIndex> {
        let ends = self.clients.summaries().flat_map(|summary| &summary.ends);
        let expired = ends.filter(move |(end, _)| end.is_over(now));
        expired.map(|(_, number)| StatusIndex::new(self.status_list, *number))
    }

    /// Returns the client with that id.
    #[must_use]
    pub fn client(&self, client_id: &str) -> Option<&Arc<Client>> {
        self.clients.get(client_id)
    }

    /// Returns the client that has a generated secret of that id. Every range of clients is asked.
    #[must_use]
    pub fn owner_of_secret(&self, secret_id: &str) -> Option<&Arc<Client>> {
        self.clients.owner_of_secret(secret_id)
    }

    /// Returns the resource with that identifier, compared character for character.
    #[must_use]
    pub fn resource(&self, identifier: &str) -> Option<&Arc<Resource>> {
        self.resources.get(identifier)
    }

    /// Returns the trusted issuer of that name, compared byte for byte.
    #[must_use]
    pub fn trusted_issuer(&self, issuer: &str) -> Option<&Arc<TrustedIssuer>> {
        self.issuers.get(issuer)
    }

    /// Returns all trusted issuers, in no order.
    #[must_use]
    pub fn trusted_issuers(&self) -> impl ExactSizeIterator<Item = &Arc<TrustedIssuer>> {
        self.issuers.values()
    }

    /// Returns the clients with a rule that a token can match, each once. The rules have to be checked.
    #[must_use]
    pub fn clients_with_rule(&self, keys: &RuleKeys) -> Vec<&Arc<Client>> {
        self.clients.with_rule(keys)
    }

    /// Returns all clients, in no order.
    pub fn clients(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.clients.iter()
    }

    /// The number of clients.
    #[must_use]
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// Returns, for each kind of credential, the first end after `now` of those that authenticate an enabled client.
    #[must_use]
    pub fn soonest_ends(&self, now: UnixTime) -> BTreeMap<&'static str, UnixTime> {
        self.clients.soonest_ends(now)
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
        let of_clients = self.clients.summaries().flat_map(|summary| summary.algs.iter().copied());
        self.resources.values().filter_map(|resource| resource.alg).chain(of_clients)
    }

    /// Builds the next snapshot from changes.
    pub(super) fn next(&self, changes: Changes, tag_keys: Option<Vec<TagKey>>) -> Self {
        let mut next = Self {
            revision: changes.position.revision,
            history: Arc::clone(&changes.position.history),
            not_before: changes.not_before.or(self.not_before),
            status_list: changes.status_list.unwrap_or(self.status_list),
            tag_keys: tag_keys.map_or_else(|| Arc::clone(&self.tag_keys), Into::into),
            ..self.same()
        };
        if !changes.clients.is_empty() {
            next.change_clients(self, changes.clients);
        }
        if let Some(rows) = changes.resources {
            next.replace_resources(rows);
        }
        if let Some(rows) = changes.issuers {
            next.replace_issuers(rows);
        }
        next.summarize();
        next
    }

    /// Builds the next snapshot from a range of clients that was read anew, and counts in `difference` what is not as it
    /// was. With `keep_cut_offs`, a cut-off that the range lacks stays in force.
    pub(super) fn with_range(&self, range: ClientRange, keep_cut_offs: bool, difference: &mut Difference) -> Self {
        let ClientRange { after, through, clients, .. } = range;
        let (after, through) = (after.as_deref(), through.as_deref());
        let mut next = self.same();
        next.malformed.retain(|name, _| {
            let id = name.strip_prefix("client ");
            !id.is_some_and(|id| after.is_none_or(|after| id > after) && through.is_none_or(|through| id <= through))
        });
        let (mut present, mut known) = (Vec::with_capacity(clients.len()), 0);
        for (id, client) in clients {
            let before = self.client(&id);
            known += usize::from(before.is_some());
            match client {
                // The same rows: the client in memory stays, with what it remembers.
                Ok(client) if before.is_some_and(|before| before.fingerprint == client.fingerprint) => {
                    present.extend(before.cloned());
                }
                Ok(client) => {
                    difference.note_client(before, &client, self.is_malformed(&id));
                    present.push(succeeding(client, before, keep_cut_offs));
                }
                Err(fault) => next.note_malformed(&id, &fault, self),
            }
        }
        difference.clients.gone += self.clients.between(after, through).count().saturating_sub(known);
        if keep_cut_offs {
            let there: HashSet<i64> = present.iter().map(|client| client.status_index).collect();
            let gone = self.clients.between(after, through).filter(|client| !there.contains(&client.status_index));
            difference.lost_status.extend(gone.map(|client| self.status_index(client)));
        }
        next.clients = self.clients.with_range(after, through, &present);
        next.summarize();
        next
    }

    /// Returns the same snapshot, to be changed. What is computed from clients is left out.
    fn same(&self) -> Self {
        Self {
            revision: self.revision,
            history: Arc::clone(&self.history),
            clients: self.clients.clone(),
            resources: Arc::clone(&self.resources),
            issuers: Arc::clone(&self.issuers),
            malformed: self.malformed.clone(),
            tag_keys: Arc::clone(&self.tag_keys),
            not_before: self.not_before,
            status_list: self.status_list,
            ..Self::default()
        }
    }

    fn change_clients(&mut self, before: &Self, clients: Vec<(String, Option<ReadClient>)>) {
        let revision = self.revision;
        if clients.len() > NAMED_CHANGES {
            tracing::info!(
                event = Event::ClientChanged.as_str(),
                clients = clients.len(),
                revision,
                "more clients have changed than are named"
            );
        } else {
            for (id, client) in &clients {
                let what = if client.is_some() { "loaded" } else { "gone" };
                tracing::info!(event = Event::ClientChanged.as_str(), client_id = id, revision, what);
            }
        }
        let mut changes = Vec::with_capacity(clients.len());
        for (id, client) in clients {
            self.malformed.remove(&format!("client {id}"));
            let client = match client {
                Some(Ok(client)) => Some(succeeding(client, before.client(&id), false)),
                Some(Err(fault)) => {
                    self.note_malformed(&id, &fault, before);
                    None
                }
                None => None,
            };
            changes.push((id, client));
        }
        self.clients = self.clients.changed(changes);
    }

    /// Records that the rows of a client cannot be read. Logs it unless the snapshot `before` had the same fault, or has
    /// many.
    fn note_malformed(&mut self, id: &str, fault: &StoreError, before: &Self) {
        let (name, reason) = (format!("client {id}"), fault.to_string());
        let is_new = before.malformed.get(&name).is_none_or(|known| *known != reason);
        if is_new && self.malformed.len() < NAMED_CHANGES {
            tracing::error!(
                event = Event::ClientMalformed.as_str(),
                client_id = id,
                reason,
                "this client cannot authenticate until its row is corrected"
            );
        } else if is_new && self.malformed.len() == NAMED_CHANGES {
            tracing::error!(
                event = Event::ClientMalformed.as_str(),
                reason = "more rows than are named",
                "`grantd doctor` counts the clients whose rows cannot be read"
            );
        }
        self.malformed.insert(name, reason);
    }

    fn replace_resources(&mut self, rows: Vec<Result<Resource, StoreError>>) {
        self.malformed.retain(|name, _| !name.starts_with("resource "));
        let mut resources = HashMap::with_capacity(rows.len());
        for row in rows {
            match row {
                Ok(resource) => {
                    resources.insert(resource.identifier.clone(), Arc::new(resource));
                }
                Err(fault) => {
                    tracing::error!(event = Event::ResourceMalformed.as_str(), reason = %fault, "no token is issued for this resource until its row is corrected");
                    self.malformed.insert(format!("resource {}", self.malformed.len()), fault.to_string());
                }
            }
        }
        self.resources = Arc::new(resources);
    }

    /// An issuer that has not changed stays the same value, so that what is remembered of its tokens stays too.
    fn replace_issuers(&mut self, rows: Vec<Result<TrustedIssuer, StoreError>>) {
        self.malformed.retain(|name, _| !name.starts_with("trusted issuer "));
        let mut issuers = HashMap::with_capacity(rows.len());
        for row in rows {
            match row {
                Ok(issuer) => {
                    let known = self.issuers.get(&issuer.issuer).filter(|known| ***known == issuer).cloned();
                    issuers.insert(Arc::clone(&issuer.issuer), known.unwrap_or_else(|| Arc::new(issuer)));
                }
                Err(fault) => {
                    tracing::error!(event = Event::IssuerMalformed.as_str(), reason = %fault, "no token of this issuer is accepted until its row is corrected");
                    self.malformed.insert(format!("trusted issuer {}", self.malformed.len()), fault.to_string());
                }
            }
        }
        self.issuers = Arc::new(issuers);
    }

    /// Computes the cost of a wrong guess over all clients.
    fn summarize(&mut self) {
        let known: Vec<TagKid> = self.tag_keys.iter().map(TagKey::kid).collect();
        let mut costs: HashMap<HashParams, usize> = HashMap::new();
        for summary in self.clients.summaries() {
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

/// Maximum number of changed clients or issuers, or of clients that cannot be read, that the log names one by one.
pub(super) const NAMED_CHANGES: usize = 100;

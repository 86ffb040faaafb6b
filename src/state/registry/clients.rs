//! All clients by id, in ranges of ids: a change copies the range that it touches and shares the others, and a load
//! replaces one range after the other.

#![expect(clippy::mutable_key_type, reason = "the id of a client, which is the key, does not change")]

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use super::rule_index::{RuleIndex, RuleKeys};
use super::summary::Summary;
use crate::model::client::Client;
use crate::model::time::UnixTime;

/// All clients, in ranges of their ids.
#[derive(Debug, Default, Clone)]
pub(super) struct Clients {
    /// In the order of their first ids. The first range begins with the empty text.
    ranges: Vec<Arc<Range>>,
}

/// Clients from an id to the first of the next range.
#[derive(Debug, Default)]
struct Range {
    first: Box<str>,
    clients: HashSet<ById>,
    summary: Summary,
    rules: RuleIndex,
    /// The ends of credentials that were found last. A scrape of the metrics reads each range again only when one of them
    /// has come.
    ends: Mutex<Option<Ends>>,
}

/// First ends of credentials to come, by kind.
type Ends = BTreeMap<&'static str, UnixTime>;

/// Client that is found by its id.
#[derive(Debug, Clone)]
struct ById(Arc<Client>);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        self.0.client_id.as_str()
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.client_id.as_str().hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.client_id == other.0.client_id
    }
}

impl Eq for ById {}

impl Clients {
    /// Returns the client with that id.
    pub(super) fn get(&self, client_id: &str) -> Option<&Arc<Client>> {
        let range = self.ranges.get(self.position(client_id)?)?;
        range.clients.get(client_id).map(|client| &client.0)
    }

    /// Returns the client that has a generated secret of that id.
    pub(super) fn owner_of_secret(&self, secret_id: &str) -> Option<&Arc<Client>> {
        let has = |client: &Client| client.secrets.iter().any(|secret| *secret.secret_id == *secret_id);
        let mut ranges = self.ranges.iter().filter(|range| range.summary.may_have_secret(secret_id));
        ranges.find_map(|range| range.clients.iter().map(|client| &client.0).find(|client| has(client)))
    }

    /// Returns the clients that have a rule of one of these keys, each once.
    pub(super) fn with_rule(&self, keys: &RuleKeys) -> Vec<&Arc<Client>> {
        let mut found: Vec<&Arc<Client>> = Vec::new();
        for range in &self.ranges {
            for client in range.rules.find(keys).filter_map(|id| range.clients.get(id.as_str())).map(|one| &one.0) {
                if !found.iter().any(|known| Arc::ptr_eq(known, client)) {
                    found.push(client);
                }
            }
        }
        found
    }

    /// Returns all clients, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.ranges.iter().flat_map(|range| range.clients.iter().map(|client| &client.0))
    }

    /// The number of clients.
    pub(super) fn len(&self) -> usize {
        self.ranges.iter().map(|range| range.clients.len()).sum()
    }

    /// Returns the summary of each range.
    pub(super) fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.ranges.iter().map(|range| &range.summary)
    }

    /// Returns, for clients and each kind of credential, the first end after `now`; only of enabled clients that live.
    pub(super) fn soonest_ends(&self, now: UnixTime) -> Ends {
        let mut soonest = Ends::new();
        for range in &self.ranges {
            let mut known = range.ends.lock().unwrap_or_else(PoisonError::into_inner);
            let ends = known.take().filter(|ends| ends.values().all(|at| *at > now));
            for (kind, at) in known.insert(ends.unwrap_or_else(|| range.ends_after(now))) {
                note_end(&mut soonest, kind, *at);
            }
        }
        soonest
    }

    /// The position of the range that an id belongs to.
    fn position(&self, client_id: &str) -> Option<usize> {
        self.ranges.partition_point(|range| *range.first <= *client_id).checked_sub(1)
    }

    /// Returns the same clients, with at least one range.
    fn with_a_first(&self) -> Self {
        let mut ranges = self.ranges.clone();
        if ranges.is_empty() {
            ranges.push(Arc::default());
        }
        Self { ranges }
    }

    /// Returns all clients after some are replaced, added or, with `None`, removed.
    pub(super) fn changed(&self, changes: Vec<(String, Option<Arc<Client>>)>) -> Self {
        let before = self.with_a_first();
        let mut touched: HashMap<usize, HashSet<ById>> = HashMap::new();
        for (id, client) in changes {
            let Some((position, range)) =
                before.position(&id).and_then(|position| Some((position, before.ranges.get(position)?)))
            else {
                continue;
            };
            let clients = touched.entry(position).or_insert_with(|| range.clients.clone());
            match client {
                Some(client) => drop(clients.replace(ById(client))),
                None => drop(clients.take(id.as_str())),
            }
        }
        let mut ranges = Vec::with_capacity(before.ranges.len() + touched.len());
        for (position, range) in before.ranges.into_iter().enumerate() {
            match touched.remove(&position) {
                None => ranges.push(range),
                Some(clients) if clients.len() <= 2 * WIDTH => ranges.push(Range::of(range.first.clone(), clients)),
                Some(clients) => {
                    let mut clients: Vec<_> = clients.into_iter().map(|client| client.0).collect();
                    clients.sort_unstable_by(|a, b| a.client_id.cmp(&b.client_id));
                    ranges.extend(split(&range.first, &clients));
                }
            }
        }
        Self { ranges }
    }

    /// Returns all clients after those behind `after` up to `through` are replaced by `clients`, which are in order.
    /// `None` for the beginning and the end.
    pub(super) fn with_range(&self, after: Option<&str>, through: Option<&str>, clients: &[Arc<Client>]) -> Self {
        let (low, high) = (behind(after), through.map(|through| behind(Some(through))));
        let before = self.with_a_first();
        let mut ranges = Vec::with_capacity(before.ranges.len() + clients.len() / WIDTH + 2);
        let ends = before.ranges.iter().skip(1).map(|next| Some(&*next.first)).chain([None]);
        let (mut kept_behind, mut new_first) = (Vec::new(), low.clone());
        for (range, end) in before.ranges.iter().zip(ends) {
            if end.is_some_and(|end| end <= &*low) {
                ranges.push(Arc::clone(range));
                continue;
            }
            if high.as_deref().is_some_and(|high| *range.first >= *high) {
                kept_behind.push(Arc::clone(range));
                continue;
            }
            let part = |is_in: &dyn Fn(&str) -> bool| -> HashSet<ById> {
                range.clients.iter().filter(|client| is_in(client.0.client_id.as_str())).cloned().collect()
            };
            let left = part(&|id| *id < *low);
            match (left.is_empty(), *range.first < *low) {
                (false, _) => ranges.push(Range::of(range.first.clone(), left)),
                (true, true) => new_first.clone_from(&range.first),
                (true, false) => {}
            }
            if let Some(high) = &high
                && end.is_none_or(|end| end > &**high)
            {
                kept_behind.push(Range::of(high.clone(), part(&|id| *id >= **high)));
            }
        }
        ranges.extend(split(&new_first, clients));
        ranges.extend(kept_behind);
        Self { ranges }
    }

    /// Returns the clients behind `after` up to `through`, in no order.
    pub(super) fn between(&self, after: Option<&str>, through: Option<&str>) -> impl Iterator<Item = &Arc<Client>> {
        let (low, high) = (behind(after), through.map(|through| behind(Some(through))));
        let first = self.position(&low).unwrap_or(0);
        let ranges = self.ranges.iter().skip(first);
        let is_below = move |id: &str| high.as_deref().is_none_or(|high| *id < *high);
        ranges
            .flat_map(|range| range.clients.iter().map(|client| &client.0))
            .filter(move |client| *client.client_id.as_str() >= *low && is_below(client.client_id.as_str()))
    }
}

impl Range {
    fn of(first: Box<str>, mut clients: HashSet<ById>) -> Arc<Self> {
        clients.shrink_to_fit();
        let summary = Summary::of(clients.iter().map(|client| &client.0));
        let rules = RuleIndex::of(clients.iter().map(|client| &client.0));
        Arc::new(Self { first, clients, summary, rules, ends: Mutex::default() })
    }

    fn ends_after(&self, now: UnixTime) -> Ends {
        let mut ends = Ends::new();
        let lives = |client: &&Arc<Client>| client.enabled && !client.has_expired(now);
        for client in self.clients.iter().map(|client| &client.0).filter(lives) {
            let credentials = client.credential_ends().map(|end| (end.kind, end.expires_at));
            let whole = client.expires_at.map(|end| ("client", end.at()));
            for (kind, at) in credentials.chain(whole).filter(|(_, at)| *at > now) {
                note_end(&mut ends, kind, at);
            }
        }
        ends
    }
}

/// Adds an end; the first of each kind stays.
fn note_end(ends: &mut Ends, kind: &'static str, at: UnixTime) {
    let first = ends.entry(kind).or_insert(at);
    *first = at.min(*first);
}

/// Makes ranges of clients in order. The first range begins with `first`.
fn split(first: &str, clients: &[Arc<Client>]) -> Vec<Arc<Range>> {
    if clients.is_empty() {
        return vec![Range::of(first.into(), HashSet::new())];
    }
    let range = |(number, clients): (usize, &[Arc<Client>])| {
        let own_first = clients.first().map(|client| client.client_id.as_str().into());
        let first = own_first.filter(|_| number > 0).unwrap_or_else(|| first.into());
        Range::of(first, clients.iter().cloned().map(ById).collect())
    };
    clients.chunks(WIDTH).enumerate().map(range).collect()
}

/// The smallest text behind an id; ids are printable.
fn behind(id: Option<&str>) -> Box<str> {
    id.map(|id| format!("{id}\0").into()).unwrap_or_default()
}

/// Clients of a range after a load. A change copies one range and reads its clients. A hash table of 512 places holds as
/// many.
const WIDTH: usize = 448;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::client::ClientScope;

    fn client(number: usize) -> Arc<Client> {
        let id = format!("app-{number:06}").parse().unwrap();
        Arc::new(Client::new(id, ClientScope::default(), UnixTime(0)))
    }

    fn ids(clients: &Clients) -> Vec<String> {
        let mut ids: Vec<String> = clients.iter().map(|client| client.client_id.to_string()).collect();
        ids.sort();
        ids
    }

    fn id(number: usize) -> String {
        format!("app-{number:06}")
    }

    /// Checks that each client is found by its id, and that ranges are in order.
    fn check(clients: &Clients, wanted: &BTreeSet<usize>) {
        assert_eq!(ids(clients), wanted.iter().map(|number| id(*number)).collect::<Vec<_>>());
        assert!(wanted.iter().all(|number| clients.get(&id(*number)).is_some()), "each is in the range of its id");
        assert_eq!(clients.len(), wanted.len());
        assert!(
            clients.ranges.is_sorted_by(|a, b| a.first < b.first),
            "{:?}",
            clients.ranges.iter().map(|r| &r.first).collect::<Vec<_>>()
        );
        assert!(clients.ranges.first().is_none_or(|range| range.first.is_empty()));
    }

    #[test]
    fn ranges_that_are_loaded_and_changed_in_any_order_hold_each_client_once() {
        let (mut clients, mut wanted) = (Clients::default(), BTreeSet::new());
        let mut seed = 7_usize;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for round in 0..300 {
            if random(2) == 0 {
                let (low, width) = (random(9000), random(4000));
                let present: Vec<usize> =
                    (low + 1..=low + width).filter(|number| number % (2 + round % 3) == 0).collect();
                let (low_id, high_id) = (id(low), id(low + width));
                let (after, through) = (Some(low_id.as_str()), Some(high_id.as_str()));
                assert_eq!(clients.between(after, through).count(), wanted.range(low + 1..=low + width).count());
                clients = clients.with_range(
                    after,
                    through,
                    &present.iter().map(|number| client(*number)).collect::<Vec<_>>(),
                );
                wanted.retain(|number| *number <= low || *number > low + width);
                wanted.extend(present);
            } else {
                let changes: Vec<(usize, bool)> = (0..random(400)).map(|_| (random(10_000), random(3) > 0)).collect();
                for (number, is_there) in &changes {
                    if *is_there {
                        wanted.insert(*number);
                    } else {
                        wanted.remove(number);
                    }
                }
                let change = |(number, is_there): (usize, bool)| (id(number), is_there.then(|| client(number)));
                clients = clients.changed(changes.into_iter().map(change).collect());
            }
            check(&clients, &wanted);
        }
        clients = clients.with_range(None, None, &(0..5000).map(client).collect::<Vec<_>>());
        check(&clients, &(0..5000).collect());
        assert!(clients.ranges.len() >= 4);
        clients = clients.with_range(None, None, &[]);
        check(&clients, &BTreeSet::new());
    }
}

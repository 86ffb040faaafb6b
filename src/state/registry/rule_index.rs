//! Clients of a range by the issuer and the subject of their federation rules.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crate::model::client::Client;
use crate::model::client_id::ClientId;
use crate::model::federation::kind::IssuerKind;
use crate::model::federation::subject;

/// Clients that have rules, by the hash of a rule's issuer and subject. Ranges without rules have an empty list, which
/// takes no memory.
#[derive(Debug, Default, Clone)]
pub(super) struct RuleIndex(Box<[(u64, ClientId)]>);

/// Hashes of the rules that a token can match.
#[derive(Debug)]
pub struct RuleKeys(Vec<u64>);

impl RuleKeys {
    /// Returns the keys of the rules that a token of `issuer` about `sub` can match.
    #[must_use]
    pub fn new(issuer: &str, kind: IssuerKind, sub: &str) -> Self {
        let mut keys: Vec<u64> =
            subject::candidates(kind.separators(), sub).map(|subject| key(issuer, &subject)).collect();
        keys.sort_unstable();
        keys.dedup();
        Self(keys)
    }
}

impl RuleIndex {
    /// Lists the rules of clients.
    pub(super) fn of<'a>(clients: impl Iterator<Item = &'a Arc<Client>>) -> Self {
        let of_client = |client: &'a Arc<Client>| {
            let rules = client.federation.as_slice().iter();
            rules.map(|rule| (key(&rule.issuer, rule.subject.as_str()), client.client_id.clone()))
        };
        let mut listed: Vec<_> = clients.flat_map(of_client).collect();
        listed.sort_unstable();
        listed.dedup();
        Self(listed.into())
    }

    /// Returns the ids of the clients with a rule of one of these keys. Two texts may have one hash, so the rule has to be
    /// checked.
    pub(super) fn find<'a>(&'a self, keys: &'a RuleKeys) -> impl Iterator<Item = &'a ClientId> {
        let keys = if self.0.is_empty() { &[][..] } else { &keys.0 };
        keys.iter().flat_map(|key| {
            let first = self.0.partition_point(|(listed, _)| listed < key);
            let rest = self.0.get(first..).unwrap_or_default();
            rest.iter().take_while(move |(listed, _)| listed == key).map(|(_, client_id)| client_id)
        })
    }
}

fn key(issuer: &str, subject: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (issuer, subject).hash(&mut hasher);
    hasher.finish()
}

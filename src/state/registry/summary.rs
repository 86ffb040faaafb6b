//! Contribution of clients to the figures that hold for all: the cost of a guess, the algorithms in use, and status indices.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::crypto::jwk::Alg;
use crate::crypto::secret::HashParams;
use crate::crypto::secret_tag::TagKid;
use crate::model::client::Client;
use crate::model::credential::{KeyCounts, SecretOrigin};
use crate::model::lifetime::TokenTtl;
use crate::model::time::Expiry;
use crate::store::secrets::MAX_IMPORTED;

/// Contribution of some clients to what holds for all: the cost of guesses, and algorithms in use.
#[derive(Debug, Default, Clone)]
pub(super) struct Summary {
    /// Largest number of imported secrets of one client, up to the number that is tried.
    pub(super) imported: usize,
    /// Tag keys of the secrets that carry an id; `None` for those without a tag.
    pub(super) tag_kids: Vec<Option<TagKid>>,
    pub(super) key_counts: KeyCounts,
    pub(super) costs: Vec<(HashParams, usize)>,
    /// Algorithms of signed introspection responses.
    pub(super) algs: BTreeSet<Alg>,
    /// Longest lifetime of tokens that a client has of its own.
    pub(super) longest_ttl: Option<TokenTtl>,
    /// Highest number of an epoch.
    pub(super) last_status_index: i64,
    /// Ends of clients, with the numbers of their epochs.
    pub(super) ends: Vec<(Expiry, i64)>,
    /// Fingerprints of the ids of secrets, sorted: four bytes for each secret that carries its id.
    secret_ids: Box<[u32]>,
}

impl Summary {
    /// Summarizes clients.
    pub(super) fn of<'a>(clients: impl Iterator<Item = &'a Arc<Client>>) -> Self {
        let mut summary = Self::default();
        let mut secret_ids = Vec::new();
        for client in clients {
            summary.key_counts = summary.key_counts.max(KeyCounts::of(&client.keys));
            summary.algs.extend(client.introspection_signed_response_alg);
            summary.longest_ttl = summary.longest_ttl.max(client.token_ttl);
            summary.last_status_index = summary.last_status_index.max(client.status_index);
            summary.ends.extend(client.expires_at.map(|end| (end, client.status_index)));
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
                secret_ids.push(fingerprint(&secret.secret_id));
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
        secret_ids.sort_unstable();
        summary.secret_ids = secret_ids.into();
        summary
    }

    /// Whether one of the clients may have a secret of that id: always where one has, and else once in 4 billion.
    pub(super) fn may_have_secret(&self, secret_id: &str) -> bool {
        self.secret_ids.binary_search(&fingerprint(secret_id)).is_ok()
    }
}

/// FNV-1a of an id, in 32 bits.
fn fingerprint(secret_id: &str) -> u32 {
    secret_id.bytes().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

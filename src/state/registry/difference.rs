//! Differences between a full load and the snapshot: their numbers, and the revocations that must not be lost.

use std::collections::HashSet;

use super::snapshot::Snapshot;
use crate::model::time::UnixTime;
use crate::store::changes::Changes;
use crate::store::keys::SealedKey;

/// Numbers of added, deleted and changed items.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) came: usize,
    pub(super) gone: usize,
    pub(super) changed: usize,
}

impl Counts {
    fn total(self) -> usize {
        self.came + self.gone + self.changed
    }
}

/// Differences of a full load from the snapshot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) clients: Counts,
    pub(super) resources: Counts,
    pub(super) keys: Counts,
    /// Clients that were disabled and are enabled in the load.
    pub(super) enabled_again: Vec<String>,
    /// Clients with a cut-off that the load lacks.
    pub(super) lost_cutoffs: Vec<(String, UnixTime)>,
    /// Cut-off of all tokens, when the load lacks it.
    pub(super) lost_global_cutoff: Option<UnixTime>,
}

impl Difference {
    /// Number of differences.
    pub(super) fn total(&self) -> usize {
        let cutoffs = self.lost_cutoffs.len() + usize::from(self.lost_global_cutoff.is_some());
        self.clients.total() + self.resources.total() + self.keys.total() + cutoffs
    }

    /// Compares `changes`, which must be complete, with the snapshot.
    pub(super) fn between(held: &Snapshot, held_keys: &[SealedKey], changes: &Changes) -> Self {
        let mut difference = Self::default();
        for (id, row) in &changes.clients {
            let Some(Ok(client)) = row else { continue };
            match held.client(id) {
                None if held.is_malformed(id) => {}
                None => difference.clients.came += 1,
                Some(before) if before.fingerprint != client.fingerprint => {
                    difference.clients.changed += 1;
                    if !before.enabled && client.enabled {
                        difference.enabled_again.push(id.clone());
                    }
                    if before.not_before > client.not_before {
                        difference.lost_cutoffs.push((id.clone(), before.not_before));
                    }
                }
                Some(_) => {}
            }
        }
        difference.clients.gone =
            held.clients().filter(|client| !changes.clients.contains_key(client.client_id.as_str())).count();
        if let Some(rows) = &changes.resources {
            let new: Vec<_> = rows.iter().filter_map(|row| row.as_ref().ok()).collect();
            for resource in &new {
                match held.resource(resource.identifier.as_str()) {
                    None => difference.resources.came += 1,
                    Some(before) if **before != **resource => difference.resources.changed += 1,
                    Some(_) => {}
                }
            }
            let there: HashSet<&str> = new.iter().map(|resource| resource.identifier.as_str()).collect();
            difference.resources.gone =
                held.resources().filter(|resource| !there.contains(resource.identifier.as_str())).count();
        }
        if let Some(keys) = &changes.keys {
            let (before, now) = (kids(held_keys), kids(keys));
            difference.keys.came = now.difference(&before).count();
            difference.keys.gone = before.difference(&now).count();
            let same =
                |key: &&SealedKey| held_keys.iter().any(|held| held.kid == key.kid && held.active_at == key.active_at);
            difference.keys.changed = keys.iter().filter(|key| before.contains(&*key.kid) && !same(key)).count();
        }
        difference.lost_global_cutoff =
            held.not_before().filter(|held| *held > changes.not_before.unwrap_or(UnixTime(0)));
        difference.enabled_again.sort();
        difference.lost_cutoffs.sort();
        difference
    }
}

fn kids(keys: &[SealedKey]) -> HashSet<&str> {
    keys.iter().map(|key| key.kid.as_str()).collect()
}

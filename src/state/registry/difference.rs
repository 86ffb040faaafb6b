//! Differences between a full load and the snapshot: their numbers, and the revocations that must not be lost.

use std::sync::Arc;

use crate::model::client::Client;
use crate::model::client_id::ClientId;
use crate::model::status::StatusIndex;
use crate::model::time::UnixTime;

/// Numbers of added, deleted and changed items.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) came: usize,
    pub(super) gone: usize,
    pub(super) changed: usize,
}

impl Counts {
    pub(super) fn total(self) -> usize {
        self.came + self.gone + self.changed
    }
}

/// Differences of a full load from the snapshot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::state) struct Difference {
    pub(super) clients: Counts,
    pub(super) resources: Counts,
    pub(super) issuers: Counts,
    pub(super) keys: Counts,
    /// Clients that were disabled and are enabled in the load.
    pub(super) enabled_again: Vec<ClientId>,
    /// Clients with a cut-off that the load lacks.
    pub(super) lost_cutoffs: Vec<(ClientId, UnixTime)>,
    /// Status indices of clients that the load lacks or that have another index there.
    pub(super) lost_status: Vec<StatusIndex>,
    /// Cut-off of all tokens, when the load lacks it.
    pub(super) lost_global_cutoff: Option<UnixTime>,
}

impl Difference {
    /// Number of differences.
    pub(super) fn total(&self) -> usize {
        let cutoffs = self.lost_cutoffs.len() + usize::from(self.lost_global_cutoff.is_some());
        self.clients.total() + self.resources.total() + self.issuers.total() + self.keys.total() + cutoffs
    }

    /// Counts a client that is not as it was. A client whose rows could not be read before is no news.
    pub(super) fn note_client(&mut self, before: Option<&Arc<Client>>, client: &Client, was_malformed: bool) {
        let Some(before) = before else {
            self.clients.came += usize::from(!was_malformed);
            return;
        };
        self.clients.changed += 1;
        if !before.enabled && client.enabled {
            self.enabled_again.push(client.client_id.clone());
        }
        if before.not_before > client.not_before {
            self.lost_cutoffs.push((client.client_id.clone(), before.not_before));
        }
    }
}

//! Revocations and removals that the database has lost. They stay in force in this process, and are written again.

use std::collections::{HashMap, HashSet, VecDeque};

use super::Registry;
use super::difference::Difference;
use crate::model::event::Event;
use crate::model::status::{EndedEpochs, StatusIndex};
use crate::model::time::UnixTime;
use crate::model::token_id::TokenId;
use crate::store::changes::{Changes, Position};
use crate::store::keys::SealedKey;
use crate::store::{Store, StoreError};

/// Removed signing keys, and the lost changes that have to be written again.
#[derive(Debug, Default)]
pub(super) struct LostChanges {
    /// Removed keys by id, with the time at which the last token that they signed expires.
    removed_keys: HashMap<String, UnixTime>,
    /// In the order in which the losses were found.
    pending: VecDeque<LostChange>,
}

/// Change that the database has lost.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LostChange {
    Revocation(TokenId, UnixTime),
    CutOff(Option<String>, UnixTime),
    RemovedKey(String),
    Ended(EndedEpochs),
}

impl LostChanges {
    /// Records the keys that an ordinary change removed or brought back.
    pub(super) fn note_keys(&mut self, before: &[SealedKey], now_there: &[SealedKey], now: UnixTime) {
        let there: HashSet<&str> = now_there.iter().map(|key| key.kid.as_str()).collect();
        self.removed_keys.retain(|kid, until| *until > now && !there.contains(kid.as_str()));
        let removed = before.iter().filter(|key| !there.contains(key.kid.as_str()));
        self.removed_keys.extend(removed.map(|key| (key.kid.clone(), UnixTime(now.0 + LONGEST_LIFE))));
    }

    /// Keeps in force what a database with another history has lost of revocations, keys and the cut-off of all clients:
    /// adjusts `changes`, which have all but the clients, logs each loss, and queues it to be written again. Returns the
    /// number of lost revocations.
    pub(super) fn keep_in_force(
        &mut self,
        registry: &Registry,
        difference: &Difference,
        changes: &mut Changes,
        now: UnixTime,
    ) -> usize {
        // An id that no token can have revokes none; it is logged where the changes are applied.
        let there: HashSet<TokenId> = changes.revoked.iter().filter_map(|(jti, _)| jti.parse().ok()).collect();
        let revocations = registry.revoked.missing_from(&there, now);
        let lost = revocations.len();
        self.pending.extend(registry.ended.missing_from(&changes.ended).into_iter().map(LostChange::Ended));
        if let Some(not_before) = difference.lost_global_cutoff {
            tracing::error!(event = Event::RegistryLost.as_str(), what = "cut-off of all clients", until = %not_before, "all tokens up to then stay revoked");
            self.pending.push_back(LostChange::CutOff(None, not_before));
            changes.not_before = Some(not_before);
        }
        for (number, (jti, expires_at)) in revocations.into_iter().enumerate() {
            if number < NAMED_LOSSES {
                tracing::error!(event = Event::RegistryLost.as_str(), jti = %jti, what = "revocation", until = %expires_at, "the token stays revoked");
            }
            self.pending.push_back(LostChange::Revocation(jti, expires_at));
        }
        self.removed_keys.retain(|_, until| *until > now);
        if let Some(keys) = &mut changes.keys {
            for key in keys.iter().filter(|key| self.removed_keys.contains_key(&key.kid)) {
                tracing::error!(
                    event = Event::RegistryLost.as_str(),
                    kid = key.kid,
                    what = "removed key",
                    "the signing key stays removed"
                );
                self.pending.push_back(LostChange::RemovedKey(key.kid.clone()));
            }
            keys.retain(|key| !self.removed_keys.contains_key(&key.kid));
        }
        lost
    }

    /// Logs what a database with another history has changed, once its clients are read, and queues their lost cut-offs
    /// to be written again. The snapshot has kept them in force.
    pub(super) fn conclude(
        &mut self,
        from: &Position,
        to: &Position,
        difference: &Difference,
        revocations_lost: usize,
    ) {
        tracing::error!(
            event = Event::RegistryHistoryChanged.as_str(),
            from_revision = from.revision,
            from_history = &*from.history,
            to_revision = to.revision,
            to_history = &*to.history,
            clients_came = difference.clients.came,
            clients_gone = difference.clients.gone,
            clients_changed = difference.clients.changed,
            resources_changed = difference.resources.came + difference.resources.gone + difference.resources.changed,
            keys_came = difference.keys.came,
            keys_gone = difference.keys.gone,
            revocations_lost,
            "the database has another history: it was restored, or a failover lost changes; everything was loaded again"
        );
        for client_id in difference.enabled_again.iter().take(NAMED_LOSSES) {
            tracing::error!(
                event = Event::RegistryLost.as_str(),
                %client_id,
                what = "disabled client",
                "a disabled client is enabled again; if that was not intended, run `grantd client disable`"
            );
        }
        for (number, (client_id, not_before)) in difference.lost_cutoffs.iter().enumerate() {
            if number < NAMED_LOSSES {
                tracing::error!(event = Event::RegistryLost.as_str(), %client_id, what = "cut-off", until = %not_before, "the tokens of this client stay revoked");
            }
            self.pending.push_back(LostChange::CutOff(Some(client_id.to_string()), *not_before));
        }
    }

    /// Queues the epochs of clients that the database has lost, which end in this process.
    pub(super) fn queue_ended(&mut self, difference: &Difference, now: UnixTime) {
        let ended = |index: &StatusIndex| LostChange::Ended(EndedEpochs { first: *index, last: *index, ended_at: now });
        self.pending.extend(difference.lost_status.iter().map(ended));
    }

    /// Writes some of the lost changes again, and leaves the others for the next times, so that polls go on. A change that
    /// cannot be written is kept.
    pub(super) async fn rewrite(&mut self, store: &Store, now: UnixTime) {
        let mut written = 0;
        for _ in 0..REWRITTEN_AT_ONCE {
            let Some(lost) = self.pending.front().cloned() else { break };
            let done = match &lost {
                LostChange::Revocation(jti, expires_at) => store.revoke_token(jti, "", *expires_at, now).await,
                LostChange::CutOff(Some(client_id), at) => store.restore_cut_off_of(client_id, *at).await,
                LostChange::CutOff(None, at) => store.restore_cut_off(*at).await,
                LostChange::Ended(epochs) => store.restore_ended(epochs).await,
                LostChange::RemovedKey(kid) => store.remove_key(kid, None).await.map(drop),
            };
            match done {
                Ok(()) => written += 1,
                // The database refuses the write, and would refuse it again.
                Err(error @ (StoreError::Refused(_) | StoreError::Denied(_))) => {
                    tracing::error!(event = Event::RegistryLost.as_str(), reason = %error, "the database refuses this change; it is in force in this process only");
                }
                Err(error) => {
                    tracing::warn!(event = Event::RegistryLost.as_str(), reason = %error, left = self.pending.len(), "the changes are written again later");
                    break;
                }
            }
            self.pending.pop_front();
        }
        if written > 0 {
            tracing::warn!(
                event = Event::RegistryRewritten.as_str(),
                written,
                "revocations that the database had lost were written again"
            );
        }
    }

    /// Drops the queued changes, for `registry.rewrite_lost_revocations = false`.
    pub(super) fn discard_pending(&mut self) {
        self.pending.clear();
    }

    /// Whether changes wait to be written again.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }
}

/// Longest time for which a token is accepted, in seconds: a day, and two minutes for clock skew.
const LONGEST_LIFE: i64 = 86_400 + 120;
/// Maximum number of losses of a kind that the log names one by one.
const NAMED_LOSSES: usize = 100;
/// Maximum number of changes that are written again between two polls.
const REWRITTEN_AT_ONCE: usize = 100;

//! Loads of everything: at the start, after a change of more than can be noted, after a change of history, and by time to
//! find changes that nothing announced.
//!
//! A load reads one range of clients after the other and puts each in place, with polls in between. So it takes little
//! memory, other changes are not held up, and it makes progress however slow the processor or the database is.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{Feed, SETTLING};
use crate::model::event::Event;
use crate::model::status::EndedEpochs;
use crate::model::time::UnixTime;
use crate::state::registry::Freshness;
use crate::state::registry::difference::Difference;
use crate::state::registry::snapshot::Snapshot;
use crate::store::StoreError;
use crate::store::changes::{ChangeReader, Changes, Position};
use crate::store::keys::SealedKey;
use crate::store::ranges::RangeReader;

/// Reason for a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Nothing has been read yet.
    Start,
    /// More has changed than is noted one by one.
    Announced,
    /// The database has another history than the snapshot.
    OtherHistory,
    /// A load is due by time.
    Routine,
}

/// Load in progress.
#[derive(Debug)]
pub(super) struct Load {
    cause: Cause,
    ranges: RangeReader,
    /// The position before the load.
    from: Position,
    /// Whether the snapshot was current when the load began.
    was_current: bool,
    began: Instant,
    logged_at: Instant,
    /// Differences from what was in memory.
    difference: Difference,
    /// Number of differences that no change explains.
    unexplained: usize,
    revocations_lost: usize,
}

impl Load {
    /// Whether the snapshot counts as current while the load goes on. It does during a bulk change, which takes effect
    /// range by range within seconds.
    pub(super) fn leaves_current(&self) -> bool {
        match self.cause {
            Cause::Routine => true,
            Cause::Announced => self.was_current && self.began.elapsed() < BULK_PATIENCE,
            Cause::Start | Cause::OtherHistory => false,
        }
    }
}

impl Feed {
    /// Reads everything but clients, puts it in place, and begins to load the clients.
    pub(super) async fn begin_load(&mut self, reader: &mut ChangeReader, cause: Cause) -> Result<(), StoreError> {
        let from = self.context.registry.snapshot().position();
        let mut changes = reader.all_but_clients().await?;
        self.refuse_missing_keys(&changes)?;
        let difference = difference_from(&self.context.registry.snapshot(), &self.keys, &changes);
        let mut revocations_lost = 0;
        if cause == Cause::OtherHistory {
            self.end_former_lists(&changes);
            self.context.registry.history_changes.inc();
            let now = self.database_time();
            revocations_lost = self.lost_changes.keep_in_force(&self.context.registry, &difference, &mut changes, now);
            self.unsettled_until = Some(Instant::now() + SETTLING);
        }
        self.load_again = false;
        self.load = Some(Load {
            cause,
            ranges: RangeReader::default(),
            was_current: self.context.registry.freshness() == Freshness::Current,
            began: Instant::now(),
            logged_at: Instant::now(),
            unexplained: if changes.position == from { difference.total() } else { 0 },
            difference,
            from,
            revocations_lost,
        });
        self.apply(changes, false);
        Ok(())
    }

    /// Reads the next range of clients and puts it in place. The last one ends the load.
    pub(super) async fn load_range(&mut self) -> Result<(), StoreError> {
        let (Some(load), Some(mut reader)) = (&mut self.load, self.connection.take()) else { return Ok(()) };
        let range = load.ranges.next(&mut reader).await?;
        self.connection.put_back(reader);
        let is_last = range.through.is_none();
        let at_held = range.position == self.context.registry.snapshot().position();
        let before = load.difference.clients.total();
        let known = load.difference.lost_status.len();
        self.context.registry.apply_range(range, load.cause == Cause::OtherHistory, &mut load.difference);
        let lost = load.difference.lost_status.iter().skip(known);
        let ended_at = self.context.database_time();
        let ended: Vec<_> = lost.map(|index| EndedEpochs { first: *index, last: *index, ended_at }).collect();
        self.context.registry.ended.add(&ended);
        if at_held {
            load.unexplained += load.difference.clients.total() - before;
        }
        if load.logged_at.elapsed() >= LOG_EVERY {
            load.logged_at = Instant::now();
            tracing::info!(
                event = Event::RegistryLoading.as_str(),
                clients = self.context.registry.snapshot().client_count(),
                seconds = load.began.elapsed().as_secs(),
                "everything is being read"
            );
        }
        if is_last && let Some(load) = self.load.take() {
            self.end_load(&load);
        }
        Ok(())
    }

    fn end_load(&mut self, load: &Load) {
        let Load { cause, from, difference, unexplained, revocations_lost, .. } = load;
        let to = self.context.registry.snapshot().position();
        match cause {
            Cause::Start => {}
            Cause::Announced => {
                let counts = difference.clients;
                tracing::info!(
                    event = Event::ClientChanged.as_str(),
                    came = counts.came,
                    gone = counts.gone,
                    changed = counts.changed,
                    clients = counts.total(),
                    revision = to.revision,
                    duration_ms = u64::try_from(load.began.elapsed().as_millis()).unwrap_or(u64::MAX),
                    "more had changed than is noted one by one; everything was read again"
                );
            }
            Cause::OtherHistory => {
                self.lost_changes.conclude(from, &to, difference, *revocations_lost);
                self.lost_changes.queue_ended(difference, self.context.database_time());
                if !self.context.registry.options().rewrite_lost_revocations {
                    self.lost_changes.discard_pending();
                }
            }
            Cause::Routine => {
                if *unexplained > 0 && self.unsettled_until.is_none() {
                    self.context.registry.differences.inc();
                    tracing::error!(
                        event = Event::RegistryDifference.as_str(),
                        ?difference,
                        "the registry differed from the database although no change was announced; the contents of the database are in force now"
                    );
                }
            }
        }
    }
}

/// Compares all but the clients with the snapshot. `changes` has all resources and keys.
fn difference_from(held: &Snapshot, held_keys: &[SealedKey], changes: &Changes) -> Difference {
    let mut difference = Difference::default();
    if let Some(rows) = &changes.resources {
        // A row that cannot be read is logged where the resources are put in place.
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
    if let Some(rows) = &changes.issuers {
        // As above: logged where the issuers are put in place.
        let new: Vec<_> = rows.iter().filter_map(|row| row.as_ref().ok()).collect();
        for issuer in &new {
            match held.trusted_issuer(&issuer.issuer) {
                None => difference.issuers.came += 1,
                Some(before) if **before != **issuer => difference.issuers.changed += 1,
                Some(_) => {}
            }
        }
        let there: HashSet<&str> = new.iter().map(|issuer| &*issuer.issuer).collect();
        difference.issuers.gone = held.trusted_issuers().filter(|issuer| !there.contains(&*issuer.issuer)).count();
    }
    if let Some(keys) = &changes.keys {
        let (before, now) = (kids(held_keys), kids(keys));
        difference.keys.came = now.difference(&before).count();
        difference.keys.gone = before.difference(&now).count();
        let same =
            |key: &&SealedKey| held_keys.iter().any(|held| held.kid == key.kid && held.active_at == key.active_at);
        difference.keys.changed = keys.iter().filter(|key| before.contains(&*key.kid) && !same(key)).count();
    }
    difference.lost_global_cutoff = held.not_before().filter(|held| *held > changes.not_before.unwrap_or(UnixTime(0)));
    difference
}

fn kids(keys: &[SealedKey]) -> HashSet<&str> {
    keys.iter().map(|key| key.kid.as_str()).collect()
}

/// Time for which a snapshot counts as current while a bulk change is being read.
const BULK_PATIENCE: Duration = Duration::from_secs(30);
/// Interval between log lines about a load in progress.
const LOG_EVERY: Duration = Duration::from_secs(10);

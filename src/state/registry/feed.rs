//! The change feed: polls the revision, and loads newer changes into the registry and the keyring.

mod connection;
mod context;
mod first_keys;
mod key_upkeep;
mod load;

use std::time::{Duration, Instant};

use super::last_used::LastUsedWriter;
use super::lost_changes::LostChanges;
use super::{SkewChange, issuer_changes};
use crate::crypto::random;
use crate::model::event::Event;
use crate::model::status::{EndedEpochs, StatusIndex};
use crate::model::time::UnixTime;
use crate::store::StoreError;
use crate::store::changes::{ChangeReader, Changes, Poll, Since};
use crate::store::keys::SealedKey;
use crate::store::leases::SWEEP;
use crate::store::migrations::{MigrationError, Schema};

use connection::{Connection, Last};
pub use context::{FeedContext, PendingMigrations};
use first_keys::FirstKeys;
use key_upkeep::KeyUpkeep;
use load::{Cause, Load};

/// Keeps a registry and a keyring up to date with the database.
#[derive(Debug)]
pub struct Feed {
    context: FeedContext,
    connection: Connection,
    /// The load of everything that is in progress.
    load: Option<Load>,
    /// Whether everything has changed since the last load began.
    load_again: bool,
    keys: Vec<SealedKey>,
    first_keys: FirstKeys,
    key_upkeep: KeyUpkeep,
    last_used: LastUsedWriter,
    lost_changes: LostChanges,
    /// Time of the next full load.
    reload_at: Instant,
    /// Time until which each poll is a full load, since a database with another history may still be filling.
    unsettled_until: Option<Instant>,
}

impl Feed {
    /// Makes a feed that has not polled yet.
    #[must_use]
    pub fn new(context: FeedContext) -> Self {
        let last_used = LastUsedWriter::new();
        let reload = context.registry.options().reload;
        Self {
            context,
            connection: Connection::default(),
            load: None,
            load_again: false,
            keys: Vec::new(),
            first_keys: FirstKeys::default(),
            key_upkeep: KeyUpkeep::default(),
            last_used,
            lost_changes: LostChanges::default(),
            reload_at: Instant::now() + reload,
            unsettled_until: None,
        }
    }

    /// Polls until `stop` changes. An error is logged when it begins and when it ends, not at every poll.
    pub async fn run(mut self, mut stop: tokio::sync::watch::Receiver<bool>) {
        let mut in_trouble = self.context.registry.age().is_none();
        loop {
            let stepped = tokio::select! {
                stepped = self.step() => stepped,
                _ = stop.changed() => break,
            };
            let pause = match stepped {
                Ok(()) => {
                    if std::mem::take(&mut in_trouble) {
                        tracing::info!(
                            event = Event::RegistryCurrent.as_str(),
                            revision = self.context.registry.snapshot().revision,
                            "the registry follows the database"
                        );
                    }
                    self.connection.pause(self.context.registry.options().poll)
                }
                Err(error) => {
                    in_trouble = true;
                    // Keys begin to sign and end without the database, too.
                    self.context.keyring.publish(self.database_time());
                    if self.context.registry.note_trouble(&error.to_string()) {
                        tracing::error!(event = Event::RegistryTrouble.as_str(), reason = %error, "known clients are served from memory until registry.max_stale");
                    }
                    self.context.registry.options().poll.min(RETRY) + jitter(256)
                }
            };
            let Self { connection, context, .. } = &mut self;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Changes in quick succession are loaded together, and replicas do not all ask at once.
                () = connection.notified() => tokio::time::sleep(TOGETHER + jitter(16)).await,
                () = context.store.moved() => {}
                _ = stop.changed() => break,
            }
        }
        self.last_used.write(&self.context.registry.uses, &self.context.store);
        self.last_used.finish().await;
        self.connection.close().await;
    }

    /// Polls once, and reads what changed. A load of everything is read to its end, with polls in between.
    ///
    /// # Errors
    /// [`StoreError`]. Its connection is not used again; a load goes on where it stopped.
    pub async fn step(&mut self) -> Result<(), StoreError> {
        let mut is_first = true;
        loop {
            self.poll(is_first).await?;
            if self.load.is_none() {
                break;
            }
            is_first = false;
            self.load_range().await?;
        }
        self.first_keys.make_missing(&self.context, &self.keys).await;
        self.key_upkeep.raise_max_ttl(&self.context, &self.keys).await;
        self.key_upkeep.attend(&self.context);
        self.rewrite_lost_changes().await;
        if self.last_used.is_due() {
            self.last_used.write(&self.context.registry.uses, &self.context.store);
        }
        Ok(())
    }

    /// Polls, and reads the changes, or begins a load of everything. One that is due by time begins only when it
    /// `may_begin`.
    async fn poll(&mut self, may_begin: bool) -> Result<(), StoreError> {
        let asked_at = Instant::now();
        // Taken out, so that an error or a dropped future drops the connection together with any statement in progress.
        let mut reader = self.connected().await?;
        let held = self.context.registry.snapshot().position();
        let mut told = self.connection.is_told(&reader.take_notifications());
        let interval = self.context.registry.options().poll;
        let is_loaded = self.load.is_none() && !self.load_again && self.unsettled_until.is_none();
        if !told && may_begin && is_loaded && self.connection.awaits_notifications(&reader, interval) {
            told = self.connection.is_told(&reader.await_notifications().await?);
            if !told {
                self.context.keyring.publish(self.database_time());
                self.context.registry.confirm(asked_at);
                self.connection.note_last(Last::Notifications);
                self.connection.put_back(reader);
                return Ok(());
            }
        }
        // A notification means that there is a change, so the statement that polls reads the changes, too.
        let (poll, since) = if told && held.revision > 0 {
            reader.poll_since(&held).await.map(|(poll, since)| (poll, Some(since)))?
        } else {
            (reader.poll().await?, None)
        };
        let Poll { position, read_only, standby, now, exchange } = poll;
        let revision = position.revision;
        let arrived = reader.take_notifications();
        let is_announced = told || arrived.iter().any(|of| (held.revision + 1..=revision).contains(of));
        self.connection.note_poll(position != held, is_announced);
        self.context.registry.note_standby(standby);
        self.compare_clocks(now, exchange);
        if read_only && self.context.registry.age().is_some() {
            // A demoted primary or a lagging standby may be behind the snapshot.
            return Err(StoreError::ReadOnly);
        }
        if held.revision == 0 {
            self.begin_load(&mut reader, Cause::Start).await?;
        } else if position != held {
            let since = match since {
                Some(since) => since,
                None => reader.since(&held).await?,
            };
            match since {
                Since::Changes(changes) => {
                    self.refuse_missing_keys(&changes)?;
                    self.apply(changes, true);
                }
                Since::OtherHistory => self.begin_load(&mut reader, Cause::OtherHistory).await?,
                Since::Everything(position) => {
                    self.load_again = true;
                    self.apply(Changes { position, ..Changes::default() }, true);
                }
            }
        }
        // Not put off by further changes: these may come with every poll.
        if self.load.is_none() {
            if self.load_again {
                self.begin_load(&mut reader, Cause::Announced).await?;
            } else if may_begin && self.wants_everything() {
                self.begin_load(&mut reader, Cause::Routine).await?;
            }
        }
        self.context.keyring.publish(self.database_time());
        if self.load.as_ref().is_none_or(Load::leaves_current) {
            if read_only {
                // Used at the start, when there is no snapshot, and marked as possibly stale.
                self.context.registry.confirm_behind(asked_at);
                return Err(StoreError::ReadOnly);
            }
            self.context.registry.confirm(asked_at);
        }
        self.read_lease(&mut reader).await?;
        self.connection.note_read(held.revision, revision);
        self.connection.note_arrived(&arrived);
        self.connection.note_last(Last::Poll);
        self.connection.put_back(reader);
        Ok(())
    }

    /// Reads how long another replica sweeps, when that is due.
    async fn read_lease(&self, reader: &mut ChangeReader) -> Result<(), StoreError> {
        let other = &self.context.registry.other_sweeper;
        if !reader.is_listening() || !other.is_due(self.database_time()) {
            return Ok(());
        }
        match reader.end_of_lease(SWEEP).await {
            Ok(until) => other.note(until),
            // Then the lease is asked for, which tells more.
            Err(StoreError::Denied(_) | StoreError::Locked(_)) => other.note(None),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes the connection, or makes a new one when it is old, or leads to a former server or file.
    async fn connected(&mut self) -> Result<ChangeReader, StoreError> {
        let store = self.context.store.clone();
        let known = self.connection.take_usable(&store).await;
        if let Err(error) = store.check_file() {
            self.context.registry.note_incomplete(&error.to_string());
            return Err(error);
        }
        match known? {
            Some(reader) => Ok(reader),
            None => {
                let reader = self.connect().await?;
                self.connection.note_new();
                Ok(reader)
            }
        }
    }

    /// Whether a full load is due.
    fn wants_everything(&mut self) -> bool {
        let now = Instant::now();
        if self.unsettled_until.is_some_and(|until| now >= until) {
            self.unsettled_until = None;
        }
        if now < self.reload_at && self.unsettled_until.is_none() {
            return false;
        }
        let reload = self.context.registry.options().reload;
        // Spread, so that replicas that started together do not load together.
        self.reload_at =
            now + reload.mul_f64(0.9) + jitter(256) * u32::try_from(reload.as_secs().min(1200) / 5).unwrap_or(1);
        true
    }

    /// Refuses a database that has lost its signing keys.
    fn refuse_missing_keys(&self, changes: &Changes) -> Result<(), StoreError> {
        if changes.keys.as_ref().is_some_and(Vec::is_empty) && !self.keys.is_empty() {
            // A database without keys is being restored. The keys in memory stay, and so does the snapshot.
            let reason = "the database holds no signing key, and it did: is it being restored? `grantd key generate` makes one if they are lost";
            self.context.registry.note_incomplete(reason);
            return Err(StoreError::Schema(reason.to_owned()));
        }
        Ok(())
    }

    async fn rewrite_lost_changes(&mut self) {
        if self.lost_changes.has_pending() {
            let (store, now) = (self.context.store.clone(), self.database_time());
            self.lost_changes.rewrite(&store, now).await;
        }
    }

    /// The present second by the database's clock.
    fn database_time(&self) -> UnixTime {
        self.context.database_time()
    }

    fn compare_clocks(&self, database: i64, exchange: Duration) {
        let Some(ahead) = self.context.clock.ahead_of(database, exchange) else { return };
        let seconds = std::time::Duration::from_millis(ahead.unsigned_abs()).as_secs_f64();
        let side = if ahead > 0 { "ahead" } else { "behind" };
        match self.context.registry.note_clock(ahead) {
            Some(SkewChange::Apart) => {
                tracing::warn!(
                    event = Event::ClockSkew.as_str(),
                    seconds,
                    side,
                    "the clocks of this machine and of the database differ; synchronise both by NTP"
                );
            }
            Some(SkewChange::Together) => {
                tracing::info!(event = Event::ClockSkew.as_str(), seconds, side, "the clocks agree again");
            }
            None => {}
        }
    }

    /// Connects to a database that has the schema, after applying pending migrations.
    async fn connect(&mut self) -> Result<ChangeReader, StoreError> {
        if let Some(PendingMigrations { database, seeds }) = &self.context.pending_migrations {
            self.context.store.migrate(database, seeds.as_deref()).await.map_err(|error| match error {
                MigrationError::Store(error) => error,
                other => StoreError::Schema(other.to_string()),
            })?;
            self.context.pending_migrations = None;
        }
        match self.context.store.schema().await? {
            Schema::Usable | Schema::Newer { .. } => self.context.store.reader().await,
            Schema::Older { pending } => {
                Err(StoreError::Schema(format!("the database lacks {pending} migrations: run `grantd migrate`")))
            }
        }
    }

    /// Ends the status lists that numbers are no longer counted from. The database says so too, unless it was restored or its
    /// row was deleted; then tokens with these indices could not be revoked any more.
    fn end_former_lists(&self, changes: &Changes) {
        let snapshot = self.context.registry.snapshot();
        let first = snapshot.first_status_index();
        let is_former = |list: i64| snapshot.revision > 0 && StatusIndex::new(list, 0) != first;
        if changes.status_list.is_some_and(is_former) {
            let last = StatusIndex::new(snapshot.last_status_index().list(), -1);
            let ended_at = self.database_time();
            self.context.registry.ended.add(&[EndedEpochs { first, last, ended_at }]);
        }
    }

    /// Puts changes in place. They are logged when they were `announced`.
    fn apply(&mut self, changes: Changes, announced: bool) {
        self.end_former_lists(&changes);
        if changes.resources.is_some() && announced {
            tracing::info!(event = Event::ResourceChanged.as_str(), revision = changes.position.revision);
        }
        if let Some(issuers) = changes.issuers.as_ref().filter(|_| announced) {
            issuer_changes::log(&self.context.registry.snapshot(), issuers, changes.position.revision);
        }
        if let Some(keys) = &changes.keys {
            let is_in = |kid: &str, keys: &[SealedKey]| keys.iter().any(|key| key.kid == kid);
            for key in keys.iter().filter(|key| announced && !is_in(&key.kid, &self.keys)) {
                tracing::info!(event = Event::KeyChanged.as_str(), kid = key.kid, alg = key.alg, signs_from = %key.active_at, what = "published");
            }
            let now = self.context.registry.database_time(self.context.clock.now());
            self.lost_changes.note_keys(&self.keys, keys, now);
            for key in self.keys.iter().filter(|key| !is_in(&key.kid, keys)) {
                tracing::info!(event = Event::KeyChanged.as_str(), kid = key.kid, alg = key.alg, what = "removed");
            }
            for fault in self.context.keyring.load(keys, &self.context.sealing_key) {
                tracing::error!(event = Event::KeyMalformed.as_str(), reason = %fault, "this signing key is left out");
            }
            self.keys.clone_from(keys);
        }
        let tag_keys = changes.tag_keys.as_ref().map(|sealed| {
            self.first_keys.note_tag_keys(!sealed.is_empty());
            let (opened, faults): (Vec<_>, Vec<_>) =
                sealed.iter().map(|key| key.open(&self.context.sealing_key)).partition(Result::is_ok);
            for fault in faults.into_iter().filter_map(Result::err) {
                tracing::error!(event = Event::KeyMalformed.as_str(), reason = %fault, "this tag key is left out; secrets that it tagged are verified by their hash alone");
            }
            // The others are logged above.
            opened.into_iter().filter_map(Result::ok).collect()
        });
        self.context.registry.apply(changes, tag_keys);
    }
}

/// Random delay below `most` milliseconds, at most 256, so that replicas do not act at the same moment.
fn jitter(most: u64) -> Duration {
    random::<1>().map_or(Duration::ZERO, |[byte]| Duration::from_millis(u64::from(byte) * most / 256))
}

/// Maximum time from a failed poll to the next.
const RETRY: Duration = Duration::from_millis(250);
/// Time from a notification to the poll that it brings forward.
const TOGETHER: Duration = Duration::from_millis(5);
/// Time for which a database with another history is loaded in full at each poll: a restore fills it table by table.
const SETTLING: Duration = Duration::from_secs(10);

//! The change feed: polls the revision, and loads newer changes into the registry and the keyring.

mod first_keys;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::difference::Difference;
use super::last_used::LastUsedWriter;
use super::lost_changes::LostChanges;
use super::{Registry, SkewChange};
use crate::crypto::jwk::Alg;
use crate::crypto::random;
use crate::crypto::seal::SealingKey;
use crate::model::event::Event;
use crate::model::time::{Clock, UnixTime};
use crate::state::keyring::Keyring;
use crate::store::changes::{ChangeReader, Changes, Poll, Position};
use crate::store::keys::SealedKey;
use crate::store::migrations::{MigrationError, Schema};
use crate::store::{Database, Store, StoreError};

use first_keys::FirstKeys;

/// Keeps a registry and a keyring up to date with the database.
#[derive(Debug)]
pub struct Feed {
    context: FeedContext,
    connection: Option<ChangeReader>,
    keys: Vec<SealedKey>,
    first_keys: FirstKeys,
    last_used: LastUsedWriter,
    lost_changes: LostChanges,
    /// Time of the next full load.
    reload_at: Instant,
    /// Time until which each poll is a full load, since a database with another history may still be filling.
    unsettled_until: Option<Instant>,
    /// Time at which the connection was made.
    connected_at: Instant,
}

/// Dependencies of a [`Feed`].
#[derive(Debug)]
pub struct FeedContext {
    /// The database.
    pub store: Store,
    /// The registry to fill.
    pub registry: Arc<Registry>,
    /// The keyring to fill.
    pub keyring: Arc<Keyring>,
    /// Opens signing keys and tag keys.
    pub sealing_key: Arc<SealingKey>,
    /// The clock.
    pub clock: Clock,
    /// Algorithm of tokens for resources that name none.
    pub default_alg: Alg,
    /// Migrations that could not be applied at the start.
    pub pending_migrations: Option<PendingMigrations>,
}

/// Migrations to apply once the database is available.
#[derive(Debug)]
pub struct PendingMigrations {
    /// The database.
    pub database: Database,
    /// Seeds to apply after the schema.
    pub seeds: Option<PathBuf>,
}

impl FeedContext {
    /// The present second by the database's clock.
    fn database_time(&self) -> UnixTime {
        self.registry.database_time(self.clock.now())
    }
}

impl Feed {
    /// Makes a feed that has not polled yet.
    #[must_use]
    pub fn new(context: FeedContext) -> Self {
        let last_used = LastUsedWriter::new(context.clock.now());
        let reload = context.registry.options().reload;
        Self {
            context,
            connection: None,
            keys: Vec::new(),
            first_keys: FirstKeys::default(),
            last_used,
            lost_changes: LostChanges::default(),
            reload_at: Instant::now() + reload,
            unsettled_until: None,
            connected_at: Instant::now(),
        }
    }

    /// Polls until `stop` changes. An error is logged when it begins and when it ends, not at every poll.
    pub async fn run(mut self, mut stop: tokio::sync::watch::Receiver<bool>) {
        let mut in_trouble = self.context.registry.age().is_none();
        let notified_by_database = Arc::new(Notify::new());
        let poll = self.context.registry.options().poll;
        let listening =
            tokio::spawn(listen(self.context.store.clone(), Arc::clone(&notified_by_database), poll.max(LISTEN_AGAIN)));
        loop {
            let pause = match self.step().await {
                Ok(()) => {
                    if std::mem::take(&mut in_trouble) {
                        tracing::info!(
                            event = Event::RegistryCurrent.as_str(),
                            revision = self.context.registry.snapshot().revision,
                            "the registry follows the database"
                        );
                    }
                    poll
                }
                Err(error) => {
                    in_trouble = true;
                    if self.context.registry.note_trouble(&error.to_string()) {
                        tracing::error!(event = Event::RegistryTrouble.as_str(), reason = %error, "known clients are served from memory until registry.max_stale");
                    }
                    poll.min(RETRY) + jitter()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Changes in quick succession are loaded together.
                () = notified_by_database.notified(), if !in_trouble => tokio::time::sleep(TOGETHER).await,
                () = self.context.store.moved() => {}
                _ = stop.changed() => break,
            }
        }
        listening.abort();
        self.last_used.write(&self.context.registry, &self.context.store, self.context.clock.now());
        self.last_used.finish().await;
        if let Some(connection) = self.connection.take() {
            connection.close().await;
        }
    }

    /// Polls once, and loads any changes.
    ///
    /// # Errors
    /// [`StoreError`]. Its connection is not used again.
    pub async fn step(&mut self) -> Result<(), StoreError> {
        let asked_at = Instant::now();
        // Taken out, so that an error or a dropped future drops the connection together with any statement in progress.
        // Connections to a demoted primary stay open, so none is kept for long.
        let known = self.connection.take();
        if let Err(error) = self.context.store.check_file() {
            self.context.registry.note_incomplete(&error.to_string());
            return Err(error);
        }
        let age = self.connected_at.elapsed();
        let known = known.filter(|_| age < LIFETIME && !self.context.store.is_outdated(age));
        let mut connection = match known {
            Some(connection) => connection,
            None => {
                let connection = self.connect().await?;
                self.connected_at = Instant::now();
                connection
            }
        };
        let held = self.context.registry.snapshot().position();
        let polled_at = Instant::now();
        let Poll { position, read_only, standby, now } = connection.poll().await?;
        self.context.registry.note_standby(standby);
        self.compare_clocks(now, polled_at.elapsed());
        if read_only && held.revision > 0 {
            // A demoted primary or a lagging standby may be behind the snapshot.
            return Err(StoreError::ReadOnly);
        }
        let whole = self.wants_everything();
        if position != held || whole {
            let since = Some(&held).filter(|held| held.revision > 0);
            let changes = connection.changes(since, whole).await?;
            self.apply_checked(changes, &held)?;
        }
        self.context.keyring.publish(self.database_time());
        if read_only {
            // Used at the start, when there is no snapshot, and marked as possibly stale.
            self.context.registry.confirm_behind(asked_at);
            return Err(StoreError::ReadOnly);
        }
        self.connection = Some(connection);
        self.context.registry.confirm(asked_at);
        self.first_keys.make_missing(&self.context, &self.keys).await;
        self.rewrite_lost_changes().await;
        if self.last_used.is_due() {
            self.last_used.write(&self.context.registry, &self.context.store, self.context.clock.now());
        }
        Ok(())
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
            now + reload.mul_f64(0.9) + jitter() * u32::try_from(reload.as_secs().min(1200) / 5).unwrap_or(1);
        true
    }

    /// Applies changes, after keeping in force revocations that the database has lost.
    fn apply_checked(&mut self, mut changes: Changes, held: &Position) -> Result<(), StoreError> {
        if changes.keys.as_ref().is_some_and(Vec::is_empty) && !self.keys.is_empty() {
            // A database without keys is being restored. The keys in memory stay, and so does the snapshot.
            let reason = "the database holds no signing key, and it did: is it being restored? `grantd key generate` makes one if they are lost";
            self.context.registry.note_incomplete(reason);
            return Err(StoreError::Schema(reason.to_owned()));
        }
        if changes.complete && held.revision > 0 {
            let difference = Difference::between(&self.context.registry.snapshot(), &self.keys, &changes);
            if changes.position == *held {
                if difference.total() > 0 && self.unsettled_until.is_none() {
                    self.context.registry.differences.inc();
                    tracing::error!(
                        event = Event::RegistryDifference.as_str(),
                        ?difference,
                        "the registry differed from the database although no change was announced; the contents of the database are in force now"
                    );
                }
            } else if changes.other_history {
                self.context.registry.history_changes.inc();
                let now = self.database_time();
                self.lost_changes.keep_in_force(&self.context.registry, held, &difference, &mut changes, now);
                if !self.context.registry.options().rewrite_lost_revocations {
                    self.lost_changes.discard_pending();
                }
                self.unsettled_until = Some(Instant::now() + SETTLING);
            }
        }
        self.apply(changes);
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
            Schema::Usable | Schema::Newer { .. } => self.context.store.change_reader().await,
            Schema::Older { pending } => {
                Err(StoreError::Schema(format!("the database lacks {pending} migrations: run `grantd migrate`")))
            }
        }
    }

    fn apply(&mut self, changes: Changes) {
        if changes.resources.is_some() && !changes.complete {
            tracing::info!(event = Event::ResourceChanged.as_str(), revision = changes.position.revision);
        }
        if let Some(keys) = &changes.keys {
            let is_in = |kid: &str, keys: &[SealedKey]| keys.iter().any(|key| key.kid == kid);
            for key in keys.iter().filter(|key| !changes.complete && !is_in(&key.kid, &self.keys)) {
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
            opened.into_iter().filter_map(Result::ok).collect()
        });
        self.context.registry.apply(changes, tag_keys);
    }
}

/// Listens for notifications of the database. Changes that are missed are found by the next poll.
async fn listen(store: Store, notified_by_database: Arc<Notify>, again: Duration) {
    while store.has_hints() {
        if let Err(error) = store.listen(&notified_by_database).await {
            tracing::debug!(event = Event::RegistryNoHints.as_str(), reason = %error, "changes are found by polling alone");
        }
        tokio::time::sleep(again + jitter()).await;
    }
}

/// Random delay of up to 255 ms, so that replicas do not reconnect at the same moment.
fn jitter() -> Duration {
    random::<1>().map_or(Duration::ZERO, |[byte]| Duration::from_millis(u64::from(byte)))
}

/// Maximum time from a failed poll to the next.
const RETRY: Duration = Duration::from_millis(250);
/// Time from a notification to the poll that it brings forward.
const TOGETHER: Duration = Duration::from_millis(10);
/// Minimum time between two listening connections, so that a suspended database is not woken more often than by the
/// poll.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// Maximum age of a connection: those to a demoted primary stay open.
const LIFETIME: Duration = Duration::from_mins(1);
/// Time for which a database with another history is loaded in full at each poll: a restore fills it table by table.
const SETTLING: Duration = Duration::from_secs(10);

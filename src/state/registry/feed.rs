//! The change feed: polls the revision, loads what is newer, and says for how long it could not.

use std::collections::BTreeSet;
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
use crate::model::time::{Clock, Span, UnixTime};
use crate::state::keyring::Keyring;
use crate::store::changes::{ChangeReader, Changes, Poll, Position};
use crate::store::keys::{SealedKey, new_key};
use crate::store::migrations::{MigrationError, Schema};
use crate::store::tag_keys::SealedTagKey;
use crate::store::{Database, Store, StoreError};

/// Keeps a registry and a keyring as the database says.
#[derive(Debug)]
pub struct Feed {
    context: FeedContext,
    connection: Option<ChangeReader>,
    keys: Vec<SealedKey>,
    /// Whether the database has a key that tags secrets; one that does not open counts.
    has_tag_key: bool,
    /// Algorithms whose missing key has been reported.
    reported_missing: BTreeSet<Alg>,
    last_used: LastUsedWriter,
    lost_changes: LostChanges,
    /// When everything is loaded again and compared.
    reload_at: Instant,
    /// Until when everything is loaded at each poll, since a database with another past may still be filled.
    unsettled_until: Option<Instant>,
    /// When the connection was made; none is kept for long.
    connected_at: Instant,
}

/// What [`Feed`] is made of.
#[derive(Debug)]
pub struct FeedContext {
    /// The database.
    pub store: Store,
    /// What it fills.
    pub registry: Arc<Registry>,
    /// What it fills.
    pub keyring: Arc<Keyring>,
    /// Opens signing keys.
    pub sealing_key: Arc<SealingKey>,
    /// The time.
    pub clock: Clock,
    /// How tokens are signed when a resource does not say.
    pub default_alg: Alg,
    /// Migrations that could not be applied at the start.
    pub pending_migrations: Option<PendingMigrations>,
}

/// What is to be migrated once the database is there.
#[derive(Debug)]
pub struct PendingMigrations {
    /// The database.
    pub database: Database,
    /// Seeds to apply after the schema.
    pub seeds: Option<PathBuf>,
}

impl Feed {
    /// A feed that has not polled yet.
    #[must_use]
    pub fn new(context: FeedContext) -> Self {
        let last_used = LastUsedWriter::new(context.clock.now());
        let reload = context.registry.options().reload;
        Self {
            context,
            connection: None,
            keys: Vec::new(),
            has_tag_key: false,
            reported_missing: BTreeSet::new(),
            last_used,
            lost_changes: LostChanges::default(),
            reload_at: Instant::now() + reload,
            unsettled_until: None,
            connected_at: Instant::now(),
        }
    }

    /// Polls until the end of the program. Trouble is logged when it comes and when it goes, not at every poll.
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
                // What comes in a row is read in one go.
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

    /// One round: poll, and when something changed, load it.
    ///
    /// # Errors
    /// [`StoreError`]. The connection it came from is not used again.
    pub async fn step(&mut self) -> Result<(), StoreError> {
        let asked_at = Instant::now();
        // Taken out, so that an error or a dropped future drops the connection with whatever is half done on it. A connection
        // to a primary that was demoted lives on, so none is kept for long.
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
            // A demoted primary or a standby that lags: what it says may be older than what we know.
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
            // Better than nothing, and known to be no more than that.
            self.context.registry.confirm_behind(asked_at);
            return Err(StoreError::ReadOnly);
        }
        self.connection = Some(connection);
        self.context.registry.confirm(asked_at);
        self.make_missing_keys().await;
        self.rewrite_lost_changes().await;
        if self.last_used.is_due() {
            self.last_used.write(&self.context.registry, &self.context.store, self.context.clock.now());
        }
        Ok(())
    }

    /// Whether everything is to be loaded, whatever has changed.
    fn wants_everything(&mut self) -> bool {
        let now = Instant::now();
        if self.unsettled_until.is_some_and(|until| now >= until) {
            self.unsettled_until = None;
        }
        if now < self.reload_at && self.unsettled_until.is_none() {
            return false;
        }
        let reload = self.context.registry.options().reload;
        // Replicas that started together do not read everything together.
        self.reload_at =
            now + reload.mul_f64(0.9) + jitter() * u32::try_from(reload.as_secs().min(1200) / 5).unwrap_or(1);
        true
    }

    /// Takes changes in, after a look at what must not get lost.
    fn apply_checked(&mut self, mut changes: Changes, held: &Position) -> Result<(), StoreError> {
        if changes.keys.as_ref().is_some_and(Vec::is_empty) && !self.keys.is_empty() {
            // A database that is being restored. The keys that are held stay, and so does all else.
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
                        "what was held is not what the database holds, although no change was announced; it has been loaded"
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
        self.context.registry.database_time(self.context.clock.now())
    }

    fn compare_clocks(&self, database: i64, exchange: Duration) {
        let Some(ahead) = self.context.clock.ahead_of(database, exchange) else { return };
        let seconds = std::time::Duration::from_millis(ahead.unsigned_abs()).as_secs_f64();
        let side = if ahead > 0 { "ahead" } else { "behind" };
        match self.context.registry.note_clock(ahead) {
            Some(SkewChange::Apart) => {
                tracing::warn!(event = Event::ClockSkew.as_str(), seconds, side, "set the clocks by NTP; they differ");
            }
            Some(SkewChange::Together) => {
                tracing::info!(event = Event::ClockSkew.as_str(), seconds, side, "the clocks agree again");
            }
            None => {}
        }
    }

    /// Connects to a database whose schema is there, migrating it first when that is still pending_migrations.
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
            self.has_tag_key = !sealed.is_empty();
            let (opened, faults): (Vec<_>, Vec<_>) =
                sealed.iter().map(|key| key.open(&self.context.sealing_key)).partition(Result::is_ok);
            for fault in faults.into_iter().filter_map(Result::err) {
                tracing::error!(event = Event::KeyMalformed.as_str(), reason = %fault, "secrets that it tagged are checked by their hash alone");
            }
            opened.into_iter().filter_map(Result::ok).collect()
        });
        self.context.registry.apply(changes, tag_keys);
    }

    /// Makes a first key for each algorithm in use that has none. That it fails keeps nobody else from getting tokens.
    async fn make_missing_keys(&mut self) {
        let now = self.database_time();
        if !self.has_tag_key
            && let Err(error) = self.make_first_tag_key(now).await
        {
            tracing::warn!(event = Event::KeyNotMade.as_str(), reason = %error, "new secrets carry no tag");
        }
        let wanted: BTreeSet<Alg> = self.context.registry.snapshot().algs().chain([self.context.default_alg]).collect();
        for alg in wanted {
            // Keys that are there and only do not open are a fault to be mended, not replaced.
            let has_any = self.keys.iter().any(|key| key.alg == alg.as_str());
            if has_any || self.context.keyring.signing(alg, now).is_some() {
                continue;
            }
            if let Err(error) = self.make_first_key(alg).await
                && self.reported_missing.insert(alg)
            {
                tracing::error!(event = Event::KeyNotMade.as_str(), %alg, reason = %error, "no token can be signed with this algorithm");
            }
        }
    }

    async fn make_first_key(&self, alg: Alg) -> Result<(), StoreError> {
        let (sealing_key, now) = (Arc::clone(&self.context.sealing_key), self.database_time());
        // RSA keys take their time.
        let made = tokio::task::spawn_blocking(move || new_key(alg, &sealing_key, now, Span::from_secs(0))).await;
        let key = made.map_err(|error| StoreError::Malformed {
            kind: "signing key",
            id: alg.to_string(),
            reason: error.to_string(),
        })??;
        if self.context.store.add_first_key(&key).await? {
            tracing::info!(
                event = Event::KeyChanged.as_str(),
                kid = key.kid,
                alg = key.alg,
                what = "made the first of its algorithm"
            );
        }
        Ok(())
    }

    async fn make_first_tag_key(&mut self, now: UnixTime) -> Result<(), StoreError> {
        // Tried once; the next change of a tag key says how it stands.
        self.has_tag_key = true;
        let key = SealedTagKey::generate(&self.context.sealing_key, now)?;
        if self.context.store.add_tag_key(&key, true).await? {
            tracing::info!(
                event = Event::KeyChanged.as_str(),
                kid = key.kid,
                what = "made the first that tags secrets"
            );
        }
        Ok(())
    }
}

/// Listens for notifications for as long as there are any; what is missed meanwhile is found by the next poll.
async fn listen(store: Store, notified_by_database: Arc<Notify>, again: Duration) {
    while store.has_hints() {
        if let Err(error) = store.listen(&notified_by_database).await {
            tracing::debug!(event = Event::RegistryNoHints.as_str(), reason = %error, "changes are found by the poll alone");
        }
        tokio::time::sleep(again + jitter()).await;
    }
}

/// Replicas that lost the same database do not all come back in the same millisecond.
fn jitter() -> Duration {
    random::<1>().map_or(Duration::ZERO, |[byte]| Duration::from_millis(u64::from(byte)))
}

/// From a poll that failed to the next, at most.
const RETRY: Duration = Duration::from_millis(250);
/// From a notification to the poll that it brings forward.
const TOGETHER: Duration = Duration::from_millis(10);
/// From the end of a connection that listened to the next, at least: a database that sleeps is not woken sooner than by the poll.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// Connections to a primary that was demoted live on; none is kept for long.
const LIFETIME: Duration = Duration::from_mins(1);
/// How long a database with another past is read whole at each poll: a restore fills it table by table.
const SETTLING: Duration = Duration::from_secs(10);

//! The change feed: polls the revision, loads what is newer, and says for how long it could not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Registry;
use crate::crypto::jwk::Alg;
use crate::crypto::random;
use crate::crypto::seal::SealingKey;
use crate::keyring::Keyring;
use crate::model::time::{Clock, Span, UnixTime};
use crate::store::changes::{Changes, Feed as Connection, Poll};
use crate::store::keys::{SealedKey, new_key};
use crate::store::migrations::Schema;
use crate::store::{Store, StoreError};

/// Keeps a registry and a keyring as the database says.
#[derive(Debug)]
pub struct Feed {
    with: Parts,
    connection: Option<Connection>,
    keys: Vec<SealedKey>,
    uses_written_at: Instant,
    uses_written_until: UnixTime,
}

/// What [`Feed`] is made of.
#[derive(Debug)]
pub struct Parts {
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
    /// How long tokens live when nothing else says.
    pub default_ttl: Span,
}

impl Feed {
    /// A feed that has not polled yet.
    #[must_use]
    pub fn new(with: Parts) -> Self {
        let uses_written_until = with.clock.now();
        Self { with, connection: None, keys: Vec::new(), uses_written_at: Instant::now(), uses_written_until }
    }

    /// Polls until the end of the program. Trouble is logged when it comes and when it goes, not at every poll.
    pub async fn run(mut self, mut stop: tokio::sync::watch::Receiver<bool>) {
        let mut in_trouble = self.with.registry.age().is_none();
        loop {
            let pause = match self.step().await {
                Ok(()) => {
                    if std::mem::take(&mut in_trouble) {
                        tracing::info!(
                            event = "registry.current",
                            revision = self.with.registry.snapshot().revision,
                            "the registry follows the database"
                        );
                    }
                    POLL
                }
                Err(error) => {
                    in_trouble = true;
                    if self.with.registry.note_trouble(&error.to_string()) {
                        tracing::error!(event = "registry.trouble", reason = %error, "known clients are served from memory until registry.max_stale");
                    }
                    POLL + jitter()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => break,
            }
        }
        if let Err(error) = self.write_uses().await {
            tracing::warn!(event = "registry.trouble", reason = %error, "the last uses of secrets were not written down");
        }
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
        // Taken out, so that an error or a dropped future drops the connection with whatever is half done on it.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                if let Schema::Older { pending } = self.with.store.schema().await? {
                    return Err(StoreError::Schema(format!(
                        "the database lacks {pending} migrations: run `grantd migrate`"
                    )));
                }
                self.with.store.feed().await?
            }
        };
        let known = self.with.registry.snapshot().revision;
        let Poll { revision, read_only } = connection.poll().await?;
        if revision != known {
            // A lower revision is a database restored from a backup: nothing that we know holds any more.
            let since = Some(known).filter(|&known| known > 0 && revision > known);
            let changes = connection.changes(since).await?;
            self.take_in(changes);
        }
        let now = self.with.clock.now();
        let snapshot = self.with.registry.snapshot();
        self.with.keyring.publish(now, snapshot.longest_ttl(self.with.default_ttl));
        let missing: BTreeSet<Alg> = snapshot
            .algs()
            .chain([self.with.default_alg])
            .filter(|alg| self.with.keyring.signing(*alg, now).is_none())
            .collect();
        drop(snapshot);
        if read_only {
            // A connection to a demoted primary would answer like this for ever; the next one may find its successor.
            if known == 0 {
                self.with.registry.confirm(asked_at.checked_sub(Duration::from_secs(3)).unwrap_or(asked_at));
            }
            return Err(StoreError::ReadOnly);
        }
        for alg in missing {
            self.make_first_key(alg).await?;
        }
        self.connection = Some(connection);
        self.with.registry.confirm(asked_at);
        if self.uses_written_at.elapsed() >= WRITE_USES {
            self.write_uses().await?;
        }
        Ok(())
    }

    fn take_in(&mut self, changes: Changes) {
        if changes.resources.is_some() && !changes.complete {
            tracing::info!(event = "resource.changed", revision = changes.revision);
        }
        if let Some(keys) = &changes.keys {
            let is_in = |kid: &str, keys: &[SealedKey]| keys.iter().any(|key| key.kid == kid);
            for key in keys.iter().filter(|key| !changes.complete && !is_in(&key.kid, &self.keys)) {
                tracing::info!(event = "key.changed", kid = key.kid, alg = key.alg, signs_from = %key.active_at, what = "published");
            }
            for key in self.keys.iter().filter(|key| !is_in(&key.kid, keys)) {
                tracing::info!(event = "key.changed", kid = key.kid, alg = key.alg, what = "removed");
            }
            for fault in self.with.keyring.load(keys, &self.with.sealing_key) {
                tracing::error!(event = "key.malformed", reason = %fault, "this signing key is left out");
            }
            self.keys.clone_from(keys);
        }
        self.with.registry.apply(changes);
    }

    /// An algorithm in use has no key: make one, unless its keys are there and only do not open.
    async fn make_first_key(&mut self, alg: Alg) -> Result<(), StoreError> {
        if self.keys.iter().any(|key| key.alg == alg.as_str()) {
            return Ok(());
        }
        let (sealing_key, now) = (Arc::clone(&self.with.sealing_key), self.with.clock.now());
        // RSA keys take their time.
        let made = tokio::task::spawn_blocking(move || new_key(alg, &sealing_key, now, Span::from_secs(0))).await;
        let key = made.map_err(|error| StoreError::Malformed {
            kind: "signing key",
            id: alg.to_string(),
            reason: error.to_string(),
        })??;
        if self.with.store.add_first_key(&key).await? {
            tracing::info!(
                event = "key.changed",
                kid = key.kid,
                alg = key.alg,
                "made the first signing key of its algorithm"
            );
        }
        Ok(())
    }

    /// Writes down which secrets were used since the last time.
    async fn write_uses(&mut self) -> Result<(), StoreError> {
        self.uses_written_at = Instant::now();
        let since = self.uses_written_until;
        let uses: Vec<(Box<str>, UnixTime)> = {
            let snapshot = self.with.registry.snapshot();
            let secrets = snapshot.clients().flat_map(|client| &client.secrets);
            // The present second may see another use, so it is looked at again.
            secrets
                .filter_map(|secret| Some((secret.secret_id.clone(), secret.last_used().filter(|at| *at >= since)?)))
                .collect()
        };
        let now = self.with.clock.now();
        self.with.store.note_secret_use(&uses).await?;
        self.uses_written_until = now;
        Ok(())
    }
}

/// Replicas that lost the same database do not all come back in the same millisecond.
fn jitter() -> Duration {
    random::<1>().map_or(Duration::ZERO, |[byte]| Duration::from_millis(u64::from(byte)))
}

/// How often the revision is read.
const POLL: Duration = Duration::from_millis(250);
/// How often times of use are written down.
const WRITE_USES: Duration = Duration::from_secs(30);

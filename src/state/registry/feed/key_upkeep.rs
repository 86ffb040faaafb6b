//! Upkeep of signing keys: their rotation by time, its announcement in the log, and the longest lifetime of their tokens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinHandle;

use super::FeedContext;
use crate::crypto::jwk::Alg;
use crate::model::event::Event;
use crate::model::time::{Span, UnixTime};
use crate::state::rotation::{LOOK, Rotation, raise_max_ttl};
use crate::store::Store;
use crate::store::keys::SealedKey;

/// State of the upkeep.
#[derive(Debug, Default)]
pub(super) struct KeyUpkeep {
    /// Time of the next look at modules and rotations.
    look_at: Option<Instant>,
    /// Rotations and notices in progress: they wait for the database, and for the generation of keys.
    task: Option<JoinHandle<()>>,
    /// The last notice of each algorithm.
    told: BTreeMap<Alg, UnixTime>,
    /// Time of the next try to raise the lifetime of tokens.
    raise_at: Option<Instant>,
}

impl KeyUpkeep {
    /// Looks at modules, and begins the rotations and the notices that are due. They go on beside the polls.
    pub(super) fn attend(&mut self, context: &FeedContext) {
        let started = Instant::now();
        if self.look_at.is_some_and(|at| started < at) {
            return;
        }
        self.look_at = Some(started + LOOK);
        let now = context.database_time();
        context.keyring.probe_modules(now);
        if let Some(every) = context.keyring.rotate_every
            && self.task.as_ref().is_none_or(JoinHandle::is_finished)
        {
            self.attend_rotations(context, every, now);
        }
    }

    fn attend_rotations(&mut self, context: &FeedContext, every: Span, now: UnixTime) {
        let (mut due, mut notices) = (Vec::new(), Vec::new());
        for (alg, next) in context.keyring.next_rotations(now) {
            // The next key of a module is attached by an administrator.
            if next.must_begin(now) && next.key.module().is_none() {
                let (sealing_key, max_ttl) = (Arc::clone(&context.sealing_key), context.max_ttl());
                due.push(Rotation { sealing_key, alg, every, max_ttl });
            } else if let Some(at) = next.notice(now).filter(|at| self.told.get(&alg) != Some(at)) {
                self.told.insert(alg, at);
                let in_module = next.key.module().is_some();
                notices.push(Notice { alg, kid: next.key.kid().to_owned(), in_module, due_at: next.due_at, at });
            }
        }
        if due.is_empty() && notices.is_empty() {
            return;
        }
        let (store, registry, clock) = (context.store.clone(), Arc::clone(&context.registry), context.clock.clone());
        self.task = Some(tokio::spawn(async move {
            for notice in notices {
                notice.tell(&store).await;
            }
            for rotation in due {
                rotate(rotation, &store, || registry.database_time(clock.now())).await;
            }
        }));
    }

    /// Raises the longest lifetime of the tokens of each key that signs or will sign to the longest that is configured.
    pub(super) async fn raise_max_ttl(&mut self, context: &FeedContext, keys: &[SealedKey]) {
        let (wanted, now) = (context.max_ttl(), context.database_time());
        if keys.iter().all(|key| key.max_ttl >= wanted) || self.raise_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        // What is written comes back with the keys, since a row has changed. A failure is tried again after a while.
        self.raise_at = Some(Instant::now() + LOOK);
        if let Err((key, error)) = raise_max_ttl(&context.store, keys, wanted, now).await {
            tracing::warn!(event = Event::KeyLifetimeNotRaised.as_str(), kid = key.kid, reason = %error, max_ttl = %key.max_ttl, "tokens live no longer than max_ttl until it is raised");
        }
    }
}

/// Notice of a rotation in the log, by one replica for all.
struct Notice {
    alg: Alg,
    kid: String,
    /// Whether an administrator has to attach the next key.
    in_module: bool,
    due_at: UnixTime,
    /// Time from which the notice counts.
    at: UnixTime,
}

impl Notice {
    async fn tell(self, store: &Store) {
        let Self { alg, kid, in_module, due_at, at } = self;
        let told = store.take_notice(&format!("key.rotation_due {alg}"), &kid, at).await;
        // Each replica tells where none may write that one has.
        if told.unwrap_or(true) {
            let then =
                if in_module { "attach the next key of the PKCS #11 module" } else { "another key signs from then on" };
            tracing::info!(event = Event::KeyRotationDue.as_str(), kid, %alg, %due_at, "{then}");
        }
    }
}

async fn rotate(rotation: Rotation, store: &Store, now: impl Fn() -> UnixTime) {
    let alg = rotation.alg;
    match rotation.make_next(store, now).await {
        Ok(Some(key)) => {
            tracing::info!(event = Event::KeyChanged.as_str(), kid = key.kid, alg = key.alg, signs_from = %key.active_at, what = "made by rotation");
        }
        // Another replica was faster, or an administrator.
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(event = Event::KeyNotMade.as_str(), %alg, reason = %error, "the signing key is not rotated yet; it signs until it can be");
        }
    }
}

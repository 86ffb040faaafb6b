//! Rotation of signing keys by time (`keys.rotate_every`): the next key is made and published before it signs.

use std::sync::Arc;
use std::time::Duration;

use super::keyring::{KeyState, NextRotation, PUBLISH_AHEAD, timelines};
use crate::crypto::jwk::Alg;
use crate::crypto::seal::SealingKey;
use crate::model::time::{Span, UnixTime};
use crate::store::keys::{SealedKey, new_key};
use crate::store::{Store, StoreError};

impl<K> NextRotation<K> {
    /// Whether the next key has to be made: it signs at [`due_at`](Self::due_at) if it is made soon.
    #[must_use]
    pub fn must_begin(&self, now: UnixTime) -> bool {
        !self.published && self.due_at <= now.plus(PUBLISH_AHEAD).plus(LEAD)
    }

    /// Returns the time from which the present notice of the rotation counts: a week, a day or an hour before it, and no
    /// earlier than the key began to sign. `None` once the next key is published.
    #[must_use]
    pub fn notice(&self, now: UnixTime) -> Option<UnixTime> {
        let notices = NOTICES.map(|before| UnixTime(self.due_at.0.saturating_sub(before)));
        notices
            .into_iter()
            .rfind(|at| (self.active_at..=now).contains(at))
            .filter(|_| now < self.due_at && !self.published)
    }
}

/// Parameters of a rotation.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// Seals the next key.
    pub sealing_key: Arc<SealingKey>,
    /// Algorithm of the key.
    pub alg: Alg,
    /// Time for which a key signs.
    pub every: Span,
    /// Longest lifetime of the tokens of the next key.
    pub max_ttl: Span,
}

impl Rotation {
    /// Makes the next key if that is due by the rows of the database. It signs when it is due, and no earlier than every
    /// verifier has had time to fetch it. Returns the key; `None` when nothing is due, another replica has made it, or the key
    /// that signs is in a module or does not open.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn make_next(self, store: &Store, now: impl Fn() -> UnixTime) -> Result<Option<SealedKey>, StoreError> {
        let Self { sealing_key, alg, every, max_ttl } = self;
        let keys = store.keys().await?;
        let timeline = timelines(&keys).remove(alg.as_str());
        let next = timeline.as_ref().and_then(|timeline| timeline.next_rotation(now(), every));
        let Some(next) = next.filter(|next| next.must_begin(now())) else { return Ok(None) };
        // A key in a module is never followed by one in memory, unless an administrator makes that. One that does not open may be
        // in a module.
        if !next.key.open(&sealing_key).is_ok_and(|opened| opened.module.is_none()) {
            return Ok(None);
        }
        // Generating an RSA key takes long.
        let generated =
            tokio::task::spawn_blocking(move || new_key(alg, &sealing_key, UnixTime(0), Span::from_secs(0)));
        let key = generated.await.map_err(|error| StoreError::Malformed {
            kind: "signing key",
            id: alg.to_string(),
            reason: error.to_string(),
        })??;
        let created_at = now();
        let active_at = next.due_at.max(created_at.plus(PUBLISH_AHEAD));
        let key = SealedKey { active_at, created_at, max_ttl, ..key };
        Ok(store.add_next_key(&key, next.active_at).await?.then_some(key))
    }
}

/// Raises the longest lifetime of the tokens of each key that signs or will sign to `wanted`.
///
/// # Errors
/// The first key whose row could not be changed, with the fault.
pub async fn raise_max_ttl<'k>(
    store: &Store,
    keys: &'k [SealedKey],
    wanted: Span,
    now: UnixTime,
) -> Result<(), (&'k SealedKey, StoreError)> {
    for (key, state) in timelines(keys).values().flat_map(|timeline| timeline.states(now)) {
        if key.max_ttl < wanted && matches!(state, KeyState::Active | KeyState::Next) {
            store.raise_max_ttl(&key.kid, wanted).await.map_err(|error| (*key, error))?;
        }
    }
    Ok(())
}

/// Time before the publication is due at which replicas begin, so that the next key signs when it is due.
const LEAD: Span = Span::from_secs(30);
/// Seconds before a rotation at which it is announced in the log.
const NOTICES: [i64; 3] = [7 * 86400, 86400, 3600];
/// Interval at which a replica looks whether a rotation is due. A failed rotation is tried again then.
pub const LOOK: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86400;

    fn rotation(active_at: i64, due_at: i64) -> NextRotation<()> {
        NextRotation { key: (), active_at: UnixTime(active_at), due_at: UnixTime(due_at), published: false }
    }

    #[test]
    fn the_next_key_is_made_as_early_as_it_has_to_be_published() {
        let next = rotation(0, 3600);
        assert!(!next.must_begin(UnixTime(3600 - 391)) && next.must_begin(UnixTime(3600 - 390)));
        assert!(next.must_begin(UnixTime(9999)));
        assert!(!NextRotation { published: true, ..next }.must_begin(UnixTime(9999)));
    }

    #[test]
    fn a_rotation_is_announced_a_week_a_day_and_an_hour_before() {
        let quarterly = rotation(0, 90 * DAY);
        let notice = |before| quarterly.notice(UnixTime(90 * DAY - before)).map(|at| 90 * DAY - at.0);
        for (before, told) in [
            (7 * DAY + 1, None),
            (7 * DAY, Some(7 * DAY)),
            (DAY + 1, Some(7 * DAY)),
            (DAY, Some(DAY)),
            (3601, Some(DAY)),
            (3600, Some(3600)),
            (1, Some(3600)),
            (0, None),
        ] {
            assert_eq!(notice(before), told, "{before} s before");
        }
        assert_eq!(rotation(0, 2 * 3600).notice(UnixTime(3599)), None, "it did not sign a day before");
        assert_eq!(rotation(0, 2 * 3600).notice(UnixTime(3600)), Some(UnixTime(3600)));
    }
}

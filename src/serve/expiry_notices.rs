//! Notices of credentials of clients that expire soon. One replica logs each 30 days, 7 days and 1 day ahead.

use std::sync::Arc;

use crate::model::client_id::ClientId;
use crate::model::event::Event;
use crate::model::time::{Span, UnixTime};
use crate::protocol::AuthorizationServer;
use crate::state::registry::Freshness;
use crate::state::registry::snapshot::Snapshot;
use crate::store::{Store, StoreError};

/// Notices that are due.
#[derive(Debug, Default)]
pub struct Notices {
    /// Those of the credentials that expire first, at most a thousand.
    pub named: Vec<Notice>,
    /// Number of the others.
    pub others: usize,
}

/// Notice of a credential that expires soon.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// Expiry of the credential.
    pub expires_at: UnixTime,
    /// The kind of credential, as in `grantd_credential_expires_seconds`.
    pub kind: &'static str,
    /// The client.
    pub client_id: ClientId,
    /// The credential's id.
    pub credential_id: Arc<str>,
}

/// Logs the notices that are due, unless a replica has logged those of this time.
///
/// # Errors
/// [`StoreError`]; the next sweep tries again.
pub(super) async fn log_notices(
    store: &Store,
    server: &Arc<AuthorizationServer>,
    holder: &str,
) -> Result<(), StoreError> {
    let Notices { named, others } = take_notices(store, server, holder).await?;
    for Notice { expires_at, kind, client_id, credential_id } in named {
        tracing::warn!(event = Event::CredentialExpiring.as_str(), %client_id, kind, %credential_id, %expires_at, "a credential of a client expires soon; replace it before");
    }
    if others > 0 {
        tracing::warn!(
            event = Event::CredentialExpiring.as_str(),
            others,
            "more credentials expire soon; `grantd client secret expiring` lists secrets"
        );
    }
    Ok(())
}

/// Takes the lease of the notices for the next ten minutes, and returns those that come due until its end. None while a
/// lease lasts, and none before everything is loaded.
///
/// The end of the lease before says which notices were taken already, so no replica repeats one. Those that a process has
/// taken and not logged when it ends are lost.
///
/// # Errors
/// [`StoreError`].
pub async fn take_notices(
    store: &Store,
    server: &Arc<AuthorizationServer>,
    holder: &str,
) -> Result<Notices, StoreError> {
    let registry = &server.registry;
    let (now, is_loaded) = (server.database_time(), registry.incomplete().is_none());
    if !is_loaded || registry.freshness() != Freshness::Current {
        return Ok(Notices::default());
    }
    let taken = store.end_of_lease(WORK).await?;
    let until = now.plus(PERIOD);
    if taken.is_some_and(|taken| taken >= now) || !store.take_lease(WORK, holder, now, until).await? {
        return Ok(Notices::default());
    }
    let snapshot = Arc::clone(&registry.snapshot());
    // It reads every client in memory, which is no work for a thread that answers requests.
    let found = tokio::task::spawn_blocking(move || notices(&snapshot, taken, now)).await;
    // A panic is on standard error, and otherwise the runtime stops.
    Ok(found.unwrap_or_default())
}

/// Finds the credentials of enabled clients of which a notice comes due after `taken` and within the period from `now`.
fn notices(snapshot: &Snapshot, taken: Option<UnixTime>, now: UnixTime) -> Notices {
    let mut found = Notices::default();
    for client in snapshot.clients().filter(|client| client.enabled && !client.has_expired(now)) {
        for end in client.credential_ends().filter(|end| is_due(end.expires_at, taken, now)) {
            let (client_id, credential_id) = (client.client_id.clone(), Arc::clone(end.credential_id));
            found.named.push(Notice { expires_at: end.expires_at, kind: end.kind, client_id, credential_id });
        }
        if found.named.len() > 2 * NAMED {
            found.shorten();
        }
    }
    found.shorten();
    found
}

impl Notices {
    /// Counts all but those of the credentials that expire first.
    fn shorten(&mut self) {
        self.named.sort_unstable();
        self.others += self.named.len().saturating_sub(NAMED);
        self.named.truncate(NAMED);
    }
}

/// Whether a notice comes due after `taken` and within the period from `now`.
///
/// After a time without notices only the last that was missed counts. It is left to the next one where that is less than a
/// day away, so that no credential is named twice in a day.
fn is_due(expires_at: UnixTime, taken: Option<UnixTime>, now: UnixTime) -> bool {
    let (left, period) = (expires_at.0 - now.0, PERIOD.seconds());
    AHEAD.into_iter().any(|(days, next)| {
        let is_new = taken.is_none_or(|taken| expires_at.0 - taken.0 > days * DAY);
        let is_near_next = next.is_some_and(|next| left <= (next + 1) * DAY + period);
        is_new && 0 < left && left <= days * DAY + period && !is_near_next
    })
}

/// The work of the lease.
const WORK: &str = "expiry notices";
/// Time for which the lease is held.
const PERIOD: Span = Span::from_secs(600);
/// Days before the end at which a notice comes due, each with those of the next notice.
const AHEAD: [(i64, Option<i64>); 3] = [(30, Some(7)), (7, Some(1)), (1, None)];
const DAY: i64 = 86400;
/// Maximum number of credentials that are named at once.
const NAMED: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_800_000_000;

    /// Returns the days before the end at which notices come due, where replicas look at these times only.
    fn days_of_notices(lifetime: i64, looks: impl Fn(i64) -> bool) -> Vec<f64> {
        let (end, mut taken, mut noticed) = (UnixTime(START + lifetime), Some(UnixTime(START)), Vec::new());
        for now in (START..end.0 + DAY).step_by(601).map(UnixTime) {
            if taken.is_some_and(|taken| taken >= now) || !looks(end.0 - now.0) {
                continue;
            }
            if is_due(end, taken, now) {
                #[expect(clippy::cast_precision_loss, reason = "a few million seconds")]
                noticed.push((end.0 - now.0) as f64 / DAY as f64);
            }
            taken = Some(now.plus(PERIOD));
        }
        noticed
    }

    #[test]
    fn a_credential_has_a_notice_30_days_7_days_and_1_day_ahead() {
        for lifetime in [30 * DAY + 601, 31 * DAY, 365 * DAY + 17] {
            let noticed = days_of_notices(lifetime, |_| true);
            let wanted = [30.0, 7.0, 1.0];
            assert_eq!(noticed.len(), 3, "{noticed:?}");
            assert!(noticed.iter().zip(wanted).all(|(days, wanted)| (days - wanted).abs() < 0.01), "{noticed:?}");
        }
        assert_eq!(days_of_notices(8 * DAY, |_| true).len(), 2);
        assert_eq!(days_of_notices(DAY / 2, |_| true).len(), 0, "it was made within a day of its end");
    }

    #[test]
    fn no_credential_has_two_notices_in_a_day_after_a_time_without_replicas() {
        for hours in (0..40 * 24).step_by(3) {
            let noticed = days_of_notices(40 * DAY, |left| left <= hours * 3600);
            assert!(noticed.windows(2).all(|two| two[0] - two[1] >= 1.0), "{hours}: {noticed:?}");
            assert_eq!(noticed.last().is_some_and(|last| *last <= 1.01), hours > 0, "{hours}: {noticed:?}");
        }
        let first = |left: i64| is_due(UnixTime(START + left), None, UnixTime(START));
        assert!(first(30 * DAY) && first(9 * DAY) && first(7 * DAY) && first(1) && !first(31 * DAY) && !first(0));
    }
}

//! Changes of trusted issuers, for the log.

use std::collections::HashMap;
use std::sync::Arc;

use super::snapshot::{NAMED_CHANGES, Snapshot};
use crate::model::event::Event;
use crate::model::federation::trusted_issuer::TrustedIssuer;
use crate::store::StoreError;

/// Logs how `rows`, which are all trusted issuers, differ from those of the snapshot `before`. A row that cannot be read is
/// logged where the issuers are put in place.
pub(super) fn log(before: &Snapshot, rows: &[Result<TrustedIssuer, StoreError>], revision: i64) {
    let there: HashMap<&str, &TrustedIssuer> =
        rows.iter().filter_map(|row| row.as_ref().ok()).map(|issuer| (&*issuer.issuer, issuer)).collect();
    let gone = before.trusted_issuers().filter(|known| !there.contains_key(&*known.issuer));
    let present = there.values().filter_map(|issuer| Some((&issuer.issuer, change(before, issuer)?)));
    let changes: Vec<(&Arc<str>, &str)> = gone.map(|known| (&known.issuer, "gone")).chain(present).collect();
    if changes.len() > NAMED_CHANGES {
        let issuers = changes.len();
        tracing::info!(
            event = Event::IssuerChanged.as_str(),
            issuers,
            revision,
            "more issuers have changed than are named"
        );
        return;
    }
    for (issuer, what) in changes {
        tracing::info!(event = Event::IssuerChanged.as_str(), issuer = &**issuer, revision, what);
    }
}

/// Returns the kind of change of an issuer; `None` when it is the same as before.
fn change(before: &Snapshot, issuer: &TrustedIssuer) -> Option<&'static str> {
    match before.trusted_issuer(&issuer.issuer) {
        None => Some("created"),
        Some(known) if **known == *issuer => None,
        Some(known) if known.enabled == issuer.enabled => Some("changed"),
        Some(_) if issuer.enabled => Some("enabled"),
        Some(_) => Some("disabled"),
    }
}

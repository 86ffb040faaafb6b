//! Refusals of clients whose credential is right, or of which there is no credential to judge.

use super::super::client_secret;
use super::super::error::ClientAuthError;
use crate::model::client::{AuthMethod, Client};
use crate::model::credential::StoredSecret;
use crate::state::registry::moment::Moment;
use crate::state::registry::snapshot::Snapshot;

/// The reason why no client has the id.
pub(super) fn no_such(snapshot: &Snapshot, client_id: &str) -> ClientAuthError {
    if snapshot.is_malformed(client_id) { ClientAuthError::Broken } else { ClientAuthError::Unknown }
}

/// Refuses a client whose credential is right where an administrator decided against it.
pub(super) fn may_authenticate(client: &Client, method: AuthMethod, moment: &Moment) -> Result<(), ClientAuthError> {
    if !client.enabled {
        return Err(ClientAuthError::Disabled);
    }
    if client.has_expired(moment.database_now) {
        return Err(ClientAuthError::Expired);
    }
    if !client.may_use(method) {
        return Err(ClientAuthError::MethodNotAllowed);
    }
    Ok(())
}

/// Refuses a secret that is right and works no more, or a client as [`may_authenticate`] does.
pub(super) fn usable(
    client: &Client,
    method: AuthMethod,
    secret: &StoredSecret,
    moment: &Moment,
) -> Result<(), ClientAuthError> {
    may_authenticate(client, method, moment)?;
    client_secret::usable(secret, moment.now)
}

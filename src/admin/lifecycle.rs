//! The lifecycle of clients: lists of those without use, of an owner, or that end soon, and the advice of `grantd doctor`.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::client_stream::{ClientRange, ClientStream};
use super::clients::document;
use super::{Admin, AdminError};
use crate::model::client::{Annotations, Client};
use crate::model::client_id::ClientId;
use crate::model::lifetime::UnusedFor;
use crate::model::time::{Expiry, Span, UnixTime};
use crate::store::ReadClient;

/// Conditions of a list of clients; all of them hold.
#[derive(Debug, Clone, Default)]
pub struct ClientFilter {
    /// The owner.
    pub owner: Option<String>,
    /// Time for which no credential of the client was used.
    pub unused: Option<UnusedFor>,
    /// Time within which the client expires.
    pub expiring: Option<Span>,
}

/// Client in a list. A client whose rows cannot be read is in lists without conditions only.
#[derive(Debug)]
pub struct ListedClient {
    pub client_id: String,
    pub client: ReadClient,
    pub annotations: Annotations,
    /// The last use of any of its credentials, to within half a minute; read only for [`ClientFilter::unused`].
    pub last_used_at: Option<UnixTime>,
}

/// List of clients, range after range.
#[derive(Debug)]
pub struct ClientList<'a> {
    admin: &'a Admin,
    filter: ClientFilter,
    clients: ClientStream,
}

/// Advice about a client, which works as it is.
#[derive(Debug, thiserror::Error)]
pub enum Advice {
    #[error("it has no owner")]
    Ownerless,
    #[error("{}", not_used(*.0))]
    Unused(Option<UnixTime>),
    #[error("its secret {secret_id} {}, and secrets.max_age is {limit}", ends(*.expires_at))]
    LongLivedSecret { secret_id: Arc<str>, expires_at: Option<UnixTime>, limit: Span },
}

impl ListedClient {
    /// Returns the client as JSON.
    #[must_use]
    pub fn document(&self, filter: &ClientFilter) -> Value {
        let client = match &self.client {
            Ok(client) => client,
            Err(fault) => return json!({"client_id": self.client_id, "malformed": fault.to_string()}),
        };
        let mut value = document(client, &self.annotations);
        if let (Value::Object(members), Some(_)) = (&mut value, filter.unused) {
            members.insert("last_used_at".into(), json!(self.last_used_at));
        }
        value
    }
}

impl ClientList<'_> {
    /// The conditions.
    #[must_use]
    pub fn filter(&self) -> &ClientFilter {
        &self.filter
    }

    /// Returns the clients of the next range that meet the conditions; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<ListedClient>>, AdminError> {
        let Some(range) = self.clients.next().await? else { return Ok(None) };
        let (mut annotations, uses) = self.admin.about(&range, self.filter.unused.is_some()).await?;
        let listed = range.into_iter().map(|(client_id, client)| ListedClient {
            annotations: annotations.remove(&client_id).unwrap_or_default(),
            last_used_at: uses.get(&client_id).copied(),
            client_id,
            client,
        });
        let now = self.admin.now();
        Ok(Some(listed.filter(|listed| self.filter.takes(listed, now)).collect()))
    }
}

impl ClientFilter {
    fn takes(&self, listed: &ListedClient, now: UnixTime) -> bool {
        let Ok(client) = &listed.client else {
            return self.owner.is_none() && self.unused.is_none() && self.expiring.is_none();
        };
        let is_in = |end: Expiry, within: Span| !end.is_over(now) && end.is_over(now.plus(within));
        self.owner.as_ref().is_none_or(|owner| *owner == listed.annotations.owner)
            && self.expiring.is_none_or(|within| client.expires_at.is_some_and(|end| is_in(end, within)))
            && self.unused.is_none_or(|span| is_unused(client, listed.last_used_at, span.into(), now))
    }
}

impl Admin {
    /// Returns the clients that meet some conditions.
    pub async fn client_list(&self, filter: ClientFilter) -> Result<ClientList<'_>, AdminError> {
        Ok(ClientList { admin: self, filter, clients: self.clients(None).await? })
    }

    /// Returns the advice about the clients of a range.
    pub async fn client_advice(&self, range: &ClientRange) -> Result<Vec<(ClientId, Advice)>, AdminError> {
        let (annotations, uses) = self.about(range, true).await?;
        let (mut advice, now) = (Vec::new(), self.now());
        // A client whose rows cannot be read is a fault, which `doctor` names by itself.
        let clients = range.iter().filter_map(|(id, client)| Some((id, client.as_ref().ok()?)));
        for (id, client) in clients.filter(|(_, client)| client.enabled && !client.has_expired(now)) {
            if annotations.get(id).is_none_or(|noted| noted.owner.is_empty()) {
                advice.push((client.client_id.clone(), Advice::Ownerless));
            }
            let last_used_at = uses.get(id).copied();
            if is_unused(client, last_used_at, UNUSED, now) {
                advice.push((client.client_id.clone(), Advice::Unused(last_used_at)));
            }
            advice.extend(self.long_lived_secrets(client).map(|secret| (client.client_id.clone(), secret)));
        }
        Ok(advice)
    }

    /// Returns the secrets of a client that work for longer than a new one would.
    fn long_lived_secrets<'a>(&self, client: &'a Client) -> impl Iterator<Item = Advice> + use<'a> {
        let (now, limit) = (self.now(), self.policy.secret_max_age);
        client.secrets.iter().filter(|secret| secret.revoked_at.is_none()).filter_map(move |secret| {
            let limit = Span::from(limit?);
            let (secret_id, expires_at) = (Arc::clone(&secret.secret_id), secret.expires_at.map(Expiry::at));
            let is_longer = expires_at.is_none_or(|at| at > now.plus(limit));
            is_longer.then_some(Advice::LongLivedSecret { secret_id, expires_at, limit })
        })
    }

    /// Returns the annotations of the clients of a range, and their last uses where they are wanted.
    async fn about(
        &self,
        range: &ClientRange,
        with_uses: bool,
    ) -> Result<(HashMap<String, Annotations>, HashMap<String, UnixTime>), AdminError> {
        let (Some((first, _)), Some((last, _))) = (range.first(), range.last()) else { return Ok(Default::default()) };
        let annotations = self.store.annotations(first, last).await?;
        let uses = if with_uses { self.store.clients_last_used(first, last).await? } else { HashMap::new() };
        Ok((annotations, uses))
    }
}

/// Whether no credential of a client was used for a time. Of keys that a client publishes no use is recorded, so such a
/// client never counts as unused, nor does one that is younger.
fn is_unused(client: &Client, last_used_at: Option<UnixTime>, span: Span, now: UnixTime) -> bool {
    let since = UnixTime(now.0.saturating_sub(span.seconds()));
    client.jwks_uri.is_none() && client.created_at <= since && last_used_at.is_none_or(|at| at <= since)
}

fn ends(expires_at: Option<UnixTime>) -> String {
    expires_at.map_or_else(|| "never expires".to_owned(), |at| format!("expires at {at}"))
}

fn not_used(last_used_at: Option<UnixTime>) -> String {
    last_used_at.map_or_else(
        || "none of its credentials was ever used".to_owned(),
        |at| format!("none of its credentials was used since {at}"),
    )
}

/// Time without use after which `grantd doctor` names a client: 90 days.
const UNUSED: Span = Span::from_secs(90 * 86400);

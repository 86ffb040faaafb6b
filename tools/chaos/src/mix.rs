//! Streams of dishonest requests, and of single honest clients beside them.

use std::sync::Arc;

use grantd_kit::clients::Client;
use grantd_kit::http::token_request;

use crate::chance::{below, salt, scatter, tagged_secret, untagged_secret};
use crate::driver::{Kind, Request};
use crate::registrations::Registrations;

/// Makes the n-th request of a stream.
pub type Requests = Box<dyn Fn(u64) -> Request + Send + Sync>;

/// A flood in thirds: a registered client with a wrong secret, an unknown client, and the client under attack.
pub fn flood(registrations: &Arc<Registrations>, victim: &str) -> Requests {
    let (registrations, victim, salt) = (Arc::clone(registrations), victim.to_owned(), salt());
    Box::new(move |n| {
        let n = n.wrapping_add(salt);
        match n % 3 {
            0 => bogus(Kind::WrongSecret, n, &registrations.any_id(n)),
            1 => bogus(Kind::UnknownClient, n, &unknown_id(n)),
            _ => bogus(Kind::Victim, n, &victim),
        }
    })
}

/// Clients that do not exist.
pub fn unknown() -> Requests {
    let salt = salt();
    Box::new(move |n| bogus(Kind::UnknownClient, n.wrapping_add(salt), &unknown_id(n.wrapping_add(salt))))
}

/// Clients that exist, with secrets that are not theirs.
pub fn wrong_secrets(registrations: &Arc<Registrations>) -> Requests {
    let (registrations, salt) = (Arc::clone(registrations), salt());
    Box::new(move |n| {
        let n = n.wrapping_add(salt);
        bogus(Kind::WrongSecret, n, &registrations.any_id(n))
    })
}

/// One client with its right secret, to all replicas in turn.
pub fn only(kind: Kind, known: &Client) -> Requests {
    let bytes = Arc::clone(&known.request);
    Box::new(move |n| Request { kind, replica: below(n, 3), bytes: Arc::clone(&bytes) })
}

/// Each pair once, in order; the last again if there are not enough.
pub fn pairs(kind: Kind, pairs: Vec<(Client, usize)>) -> Requests {
    Box::new(move |n| {
        let pair = usize::try_from(n).ok().and_then(|n| pairs.get(n)).or(pairs.last());
        let (bytes, replica) = pair.map(|(known, replica)| (Arc::clone(&known.request), *replica)).unwrap_or_default();
        Request { kind, replica, bytes }
    })
}

/// An id of the same length as those that are registered.
pub fn unknown_id(n: u64) -> String {
    format!("nobody-{:05}", scatter(n) % 100_000)
}

/// Half the wrong secrets look like those that grantd makes.
fn bogus(kind: Kind, n: u64, client_id: &str) -> Request {
    let secret = if scatter(n).is_multiple_of(2) { tagged_secret(n) } else { untagged_secret(n) };
    Request { kind, replica: below(n ^ 0x0bad, 3), bytes: token_request(client_id, &secret).into() }
}

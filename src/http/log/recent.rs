//! The last refusals of this process, in bounded memory, for `GET /v1/refusals`.

use std::collections::VecDeque;
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::about_tokens::LineContext;
use super::{Log, LogRecord, RequestId, cut};
use crate::model::client::AuthMethod;
use crate::model::time::UnixTime;
use crate::protocol::Attempt;
use crate::protocol::compared::Compared;
use crate::protocol::error::Error;
use crate::protocol::error::reason::Reason;
use crate::protocol::error::verification::Refusal;
use crate::protocol::verification::VerificationOutcome;

/// A refusal, as the process keeps it. It holds no secret and no part of one. It takes over what the request has, rather than
/// copy it: thousands of made-up secrets a second pass through here.
#[derive(Debug, Clone)]
pub struct RecentRefusal {
    /// The id of the request, as its answer has it.
    pub request_id: RequestId,
    /// The second in which it was answered.
    pub at: UnixTime,
    /// The client that the request named, known or not, cut at 256 bytes.
    pub client_id: Option<String>,
    /// The address of the client, trusted proxies taken off.
    pub remote_addr: IpAddr,
    /// The reason.
    pub cause: Cause,
    /// The authentication method, as far as it was known.
    pub method: Option<AuthMethod>,
    /// The credential that was right, even when it could no longer be used.
    pub credential_id: Option<Arc<str>>,
    /// The id in a secret that matched nothing. It may be made up, so it is shown only where a client has such a secret.
    pub presented_secret_id: Option<Box<str>>,
    /// The values that decided.
    pub compared: Compared,
}

/// The reason of a refusal.
#[derive(Debug, Clone)]
pub enum Cause {
    /// Of a request for or about a token.
    Request(Error),
    /// Of a request to an API, about which a gateway asked.
    Verification(Refusal),
}

impl Cause {
    /// The reason code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Request(error) => error.reason(),
            Self::Verification(refusal) => refusal.reason(),
        }
    }
}

impl Display for Cause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(error) => error.fmt(f),
            Self::Verification(refusal) => refusal.fmt(f),
        }
    }
}

/// The last refusals, at most 4,096 and at most 4 MiB of them.
#[derive(Debug, Default)]
pub struct RecentRefusals(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    /// The oldest first.
    refusals: VecDeque<RecentRefusal>,
    bytes: usize,
}

impl RecentRefusals {
    /// Adds a refusal, in place of the oldest ones when there are too many.
    pub fn add(&self, refusal: RecentRefusal) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.bytes += refusal.bytes();
        ring.refusals.push_back(refusal);
        let oldest = ring.take_surplus();
        while ring.take_surplus().is_some() {}
        // Freed without the lock: usually it is one.
        drop(ring);
        drop(oldest);
    }

    /// Returns the refusals, the newest first.
    #[must_use]
    pub fn newest_first(&self) -> Vec<RecentRefusal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).refusals.iter().rev().cloned().collect()
    }
}

impl Ring {
    fn take_surplus(&mut self) -> Option<RecentRefusal> {
        if self.refusals.len() <= KEPT && self.bytes <= KEPT_BYTES {
            return None;
        }
        let oldest = self.refusals.pop_front()?;
        self.bytes = self.bytes.saturating_sub(oldest.bytes());
        Some(oldest)
    }
}

impl RecentRefusal {
    /// The memory that it takes, but for what it shares.
    fn bytes(&self) -> usize {
        let client_id = self.client_id.as_ref().map_or(0, String::capacity);
        let secret_id = self.presented_secret_id.as_ref().map_or(0, |id| id.len());
        size_of::<Self>() + client_id + secret_id + self.compared.bytes()
    }
}

impl Log {
    /// Keeps the request, if it was refused.
    pub(super) fn keep(&self, record: LogRecord, context: &LineContext) {
        match record {
            LogRecord::Token(attempt, Err(error))
            | LogRecord::Introspection(attempt, Err(error))
            | LogRecord::Revocation(attempt, Err(error)) => self.keep_attempt(attempt, error, context),
            LogRecord::Verification(outcome, resource) => self.keep_verification(outcome, resource.as_deref(), context),
            LogRecord::Token(..) | LogRecord::Introspection(..) | LogRecord::Revocation(..) => {}
        }
    }

    fn keep_attempt(&self, mut attempt: Attempt, error: Error, context: &LineContext) {
        if let Error::Throttled(throttled) = &error {
            attempt.compared.text("last_reason", throttled.last);
        }
        self.recent.add(RecentRefusal {
            request_id: context.request_id,
            at: self.clock.now(),
            client_id: attempt.client_id.map(short),
            remote_addr: context.source,
            cause: Cause::Request(error),
            method: attempt.method,
            credential_id: attempt.credential_id,
            presented_secret_id: attempt.presented_secret_id,
            compared: attempt.compared,
        });
    }

    /// Requests without a token are left out: they say nothing of a client, and scanners would displace the others.
    fn keep_verification(&self, outcome: VerificationOutcome, resource: Option<&str>, context: &LineContext) {
        let Err(refusal) = outcome.verdict else { return };
        if refusal == Refusal::NoToken {
            return;
        }
        let token = outcome.token.as_ref();
        let mut compared = Compared::default();
        if let Some(resource) = resource {
            compared.text("requested_resource", resource);
        }
        if let Some(token) = token {
            compared.text("aud", &token.aud);
        }
        if let (Refusal::Scope(scope), Some(token)) = (&refusal, token) {
            compared.text("requested_scope", scope.as_str());
            compared.text("token_scope", token.text("scope"));
        }
        self.recent.add(RecentRefusal {
            request_id: context.request_id,
            at: self.clock.now(),
            client_id: token.map(|token| cut(&token.client_id).into()),
            remote_addr: context.source,
            cause: Cause::Verification(refusal),
            method: None,
            credential_id: None,
            presented_secret_id: None,
            compared,
        });
    }
}

/// The id without what is behind its 256th byte, in no more memory than that takes.
fn short(client_id: String) -> String {
    if client_id.capacity() > 256 { cut(&client_id).into() } else { client_id }
}

/// Most refusals that are kept.
pub(crate) const KEPT: usize = 4096;
/// Most bytes that they take.
pub(crate) const KEPT_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::log::RequestIds;
    use crate::protocol::error::ClientAuthError;

    fn refusal(ids: &RequestIds, number: i64, compared: Compared) -> RecentRefusal {
        RecentRefusal {
            request_id: ids.next(),
            at: UnixTime(number),
            client_id: Some("c".into()),
            remote_addr: IpAddr::from([192, 0, 2, 1]),
            cause: Cause::Request(Error::ClientAuth(ClientAuthError::WrongSecret)),
            method: None,
            credential_id: None,
            presented_secret_id: None,
            compared,
        }
    }

    #[test]
    fn the_newest_refusals_stay_within_their_number() {
        let (recent, ids) = (RecentRefusals::default(), RequestIds::new().unwrap());
        for number in 0..5000 {
            recent.add(refusal(&ids, number, Compared::default()));
        }
        let kept = recent.newest_first();
        assert_eq!((kept.len(), kept[0].at, kept[KEPT - 1].at), (KEPT, UnixTime(4999), UnixTime(904)));
    }

    #[test]
    fn large_refusals_stay_within_their_bytes() {
        let (recent, ids) = (RecentRefusals::default(), RequestIds::new().unwrap());
        for number in 0..5000 {
            let mut compared = Compared::default();
            for name in ["requested_scope", "allowed_scope", "requested_resource", "allowed_resource"] {
                compared.text(name, &"x".repeat(10_000));
            }
            recent.add(refusal(&ids, number, compared));
        }
        let kept = recent.newest_first();
        let bytes: usize = kept.iter().map(RecentRefusal::bytes).sum();
        assert!(bytes <= KEPT_BYTES && bytes > KEPT_BYTES - 10_000, "{bytes}");
        assert_eq!((kept[0].at, bytes), (UnixTime(4999), recent.0.lock().unwrap().bytes));
    }
}

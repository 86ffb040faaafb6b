//! One line and one count per request, written here and nowhere else.

mod about_tokens;
pub mod recent;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::http::{HeaderMap, Method, Request, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ipnet::IpNet;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::Caller;
use crate::crypto::{NoEntropy, random};
use crate::model::client::AuthMethod;
use crate::model::event::Event;
use crate::model::time::Clock;
use crate::protocol::error::Error;
use crate::protocol::error::reason::Reason;
use crate::protocol::introspection::IntrospectionResponse;
use crate::protocol::verification::VerificationOutcome;
use crate::protocol::{Attempt, Revocation, TokenResponse};

use about_tokens::{LineContext, federated};
use recent::RecentRefusals;

/// The counters and histograms of requests.
#[derive(Debug, Clone)]
pub struct Counts {
    /// `grantd_token_requests_total`.
    pub token_requests: Family<TokenLabels, Counter>,
    /// `grantd_token_request_seconds`.
    pub token_seconds: Histogram,
    /// `grantd_signing_seconds`.
    pub signing_seconds: Histogram,
    /// `grantd_basic_reading_total`: how Basic secrets that matched were encoded.
    pub basic_readings: Family<ReadingLabels, Counter>,
    /// `grantd_introspections_total`.
    pub introspections: Family<TokenLabels, Counter>,
    /// `grantd_revocations_total`.
    pub revocations: Family<TokenLabels, Counter>,
    /// `grantd_verifications_total`.
    pub verifications: Family<VerificationLabels, Counter>,
    /// Those of it that passed, looked up once.
    passed: Counter,
    /// `grantd_connections_refused_total`.
    pub connections_refused: ConnectionsRefused,
    /// Those of both that count tokens, looked up once: by method, and by reading.
    issued: [Counter; AuthMethod::ALL.len()],
    read: [Counter; 2],
}

/// Labels of `grantd_token_requests_total`, `grantd_introspections_total` and `grantd_revocations_total`; each value is
/// from a closed list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TokenLabels {
    /// `issued` or `refused`; of an introspection `active`, `inactive`, `refused`; of a revocation `done` or `refused`.
    pub result: &'static str,
    /// The reason code, `ok` for a token.
    pub reason: &'static str,
    /// The authentication method, `none` before there is one.
    pub method: &'static str,
}

/// Labels of `grantd_verifications_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerificationLabels {
    /// `passed` or `refused`.
    pub result: &'static str,
    /// The reason code, `ok` for what passed.
    pub reason: &'static str,
}

/// Labels of `grantd_basic_reading_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReadingLabels {
    /// `form` or `raw`.
    pub reading: &'static str,
}

/// Counts connections that were refused before a handler saw a request.
pub type ConnectionsRefused = Family<RefusedLabels, Counter>;

/// Labels of `grantd_connections_refused_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    /// From a closed list.
    pub reason: &'static str,
}

impl Default for Counts {
    fn default() -> Self {
        let token_requests = Family::<TokenLabels, Counter>::default();
        let basic_readings = Family::<ReadingLabels, Counter>::default();
        let verifications = Family::<VerificationLabels, Counter>::default();
        let passed = VerificationLabels { result: "passed", reason: Reason::Ok.as_str() };
        let issued =
            |method: AuthMethod| TokenLabels { result: "issued", reason: Reason::Ok.as_str(), method: method.as_str() };
        Self {
            issued: AuthMethod::ALL.map(|method| token_requests.get_or_create_owned(&issued(method))),
            read: ["form", "raw"].map(|reading| basic_readings.get_or_create_owned(&ReadingLabels { reading })),
            token_requests,
            // From 50 µs to 13 s, each bound the double of the one before.
            token_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 19)),
            // From 4 µs to 8 ms.
            signing_seconds: Histogram::new(exponential_buckets(0.000_004, 2.0, 12)),
            basic_readings,
            introspections: Family::default(),
            revocations: Family::default(),
            passed: verifications.get_or_create_owned(&passed),
            verifications,
            connections_refused: Family::default(),
        }
    }
}

/// The facts for the line of a request to an endpoint that has a line of its own.
#[derive(Debug)]
pub enum LogRecord {
    /// A token request.
    Token(Attempt, Result<TokenResponse, Error>),
    /// An introspection request.
    Introspection(Attempt, Result<IntrospectionResponse, Error>),
    /// A revocation request.
    Revocation(Attempt, Result<Revocation, Error>),
    /// A gateway's question, and the API that it is about.
    Verification(VerificationOutcome, Option<String>),
}

/// An answer, with the facts for its line.
#[derive(Debug)]
pub struct Recorded(pub Response, pub LogRecord);

impl IntoResponse for Recorded {
    fn into_response(self) -> Response {
        let Self(mut response, record) = self;
        response.extensions_mut().insert(Arc::new(record));
        response
    }
}

/// Writes lines, and counts.
#[derive(Debug, Clone)]
pub struct Log {
    /// Proxies whose word on where a request came from is taken.
    pub trusted_proxies: Arc<[IpNet]>,
    /// The counters and histograms of requests.
    pub counts: Counts,
    /// Makes request ids.
    pub request_ids: RequestIds,
    /// Keeps the last refusals.
    pub recent: Arc<RecentRefusals>,
    /// The time of refusals.
    pub clock: Clock,
}

/// A request that has come, as the log names it.
#[derive(Debug)]
pub struct Arrival {
    /// Where it came from, the proxies that we trust taken off.
    pub source: IpAddr,
    /// Chosen by us: an id from outside could make two requests look like one.
    pub request_id: RequestId,
    started: Instant,
    method: Method,
    uri: Uri,
}

/// Ids that no other request has: chance that is this process's own, and a number.
#[derive(Debug, Clone)]
pub struct RequestIds {
    process: [u8; 6],
    next: Arc<AtomicU64>,
}

impl RequestIds {
    /// Ids of this process.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn new() -> Result<Self, NoEntropy> {
        Ok(Self { process: random()?, next: Arc::default() })
    }

    /// The next id.
    #[must_use]
    pub fn next(&self) -> RequestId {
        let number = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut id = [0; 12];
        id.iter_mut().zip(self.process.iter().chain(number.iter().skip(2))).for_each(|(to, from)| *to = *from);
        let mut text = [b'-'; 16];
        // Twelve bytes are sixteen characters.
        BASE64_URL_SAFE_NO_PAD.encode_slice(id, &mut text).unwrap_or_default();
        RequestId(text)
    }
}

/// An id, in base64url.
#[derive(Debug, Clone, Copy)]
pub struct RequestId([u8; 16]);

impl RequestId {
    /// As the log and a header field have it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Log {
    /// Whether `peer` is a proxy whose word is taken.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        is_trusted(peer.to_canonical(), &self.trusted_proxies)
    }

    /// Notes that a request has come.
    pub fn arrival<B>(&self, caller: &Caller, request: &Request<B>) -> Arrival {
        Arrival {
            source: source(caller.address.ip(), request.headers(), &self.trusted_proxies),
            request_id: self.request_ids.next(),
            started: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
        }
    }

    /// Writes the line of a request that has been answered, counts it, and keeps it if it was refused.
    pub fn write(&self, arrival: &Arrival, response: &Response, record: Option<LogRecord>) {
        let seconds = arrival.started.elapsed().as_secs_f64();
        let context = LineContext { source: arrival.source, request_id: arrival.request_id, seconds };
        match &record {
            Some(LogRecord::Token(attempt, granted)) => self.token(attempt, granted.as_ref(), &context),
            Some(LogRecord::Introspection(attempt, introspected)) => {
                self.introspection(attempt, introspected.as_ref(), &context);
            }
            Some(LogRecord::Revocation(attempt, revoked)) => self.revocation(attempt, revoked.as_ref(), &context),
            Some(LogRecord::Verification(outcome, resource)) => {
                self.verification(outcome, resource.as_deref(), &context);
            }
            None => tracing::info!(
                event = Event::Request.as_str(),
                method = cut(arrival.method.as_str()),
                path = cut(arrival.uri.path()),
                status = response.status().as_u16(),
                remote_addr = %arrival.source,
                request_id = arrival.request_id.as_str(),
                duration_us = micros(seconds),
            ),
        }
        if let Some(record) = record {
            self.keep(record, &context);
        }
    }

    fn token(&self, attempt: &Attempt, granted: Result<&TokenResponse, &Error>, context: &LineContext) {
        let LineContext { source, seconds, .. } = *context;
        let request_id = context.request_id.as_str();
        let method = attempt.method.map_or("none", |method| method.as_str());
        let client_id = attempt.client_id.as_deref().map(cut);
        let [federated_issuer, federated_subject, federated_jti] = federated(attempt);
        self.counts.token_seconds.observe(seconds);
        match granted {
            Ok(token) => {
                self.counts.signing_seconds.observe(token.signing.as_secs_f64());
                if let Some(issued) = attempt.method.and_then(|method| self.counts.issued.get(method as usize)) {
                    issued.inc();
                }
                if attempt.method == Some(AuthMethod::ClientSecretBasic)
                    && let Some(read) = self.counts.read.get(usize::from(token.raw_reading))
                {
                    read.inc();
                }
                tracing::info!(
                    event = Event::TokenIssued.as_str(),
                    reason = Reason::Ok.as_str(),
                    client_id,
                    auth_method = method,
                    credential_id = attempt.credential_id.as_deref(),
                    federated_issuer,
                    federated_subject,
                    federated_jti,
                    basic_reading = token.raw_reading.then_some("raw"),
                    scope = token.scope.as_str(),
                    aud = &*token.aud,
                    token_type = token.token_type,
                    jti = token.access_token.jti,
                    kid = token.access_token.key.kid(),
                    remote_addr = %source,
                    request_id,
                    duration_us = micros(seconds),
                );
            }
            Err(error) => {
                let reason = error.reason().as_str();
                let labels = TokenLabels { result: "refused", reason, method };
                self.counts.token_requests.get_or_create(&labels).inc();
                tracing::warn!(
                    event = Event::TokenRefused.as_str(),
                    reason,
                    detail = %error,
                    client_id,
                    auth_method = method,
                    credential_id = attempt.credential_id.as_deref(),
                    federated_issuer,
                    federated_subject,
                    federated_jti,
                    remote_addr = %source,
                    request_id,
                    duration_us = micros(seconds),
                );
            }
        }
    }
}

/// The last address that was not written by somebody we do not trust: proxies append, so the list is read from its end.
///
/// A proxy writes one of the two header fields and passes the other on as the client made it up, so where they differ
/// neither is believed.
#[must_use]
pub fn source(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let forwarded = last_hop(peer, headers, "forwarded", forwarded_for, trusted);
    let x_forwarded_for = last_hop(peer, headers, "x-forwarded-for", address, trusted);
    match (forwarded, x_forwarded_for) {
        (Some(one), Some(other)) if one != other => peer,
        (Some(source), _) | (None, Some(source)) => source,
        (None, None) => peer,
    }
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// Where one header field says the request came from; `None` when it is not there.
fn last_hop(
    peer: IpAddr,
    headers: &HeaderMap,
    name: &str,
    parse: fn(&str) -> Option<IpAddr>,
    trusted: &[IpNet],
) -> Option<IpAddr> {
    let values: Vec<&str> = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    let mut source = None;
    for hop in values.iter().flat_map(|value| value.split(',')).rev() {
        let Some(address) = parse(hop).map(|address| address.to_canonical()) else {
            return Some(source.unwrap_or(peer));
        };
        source = Some(address);
        if !is_trusted(address, trusted) {
            break;
        }
    }
    source
}

/// RFC 7239 section 4: `for=192.0.2.60;proto=https`, `For="[2001:db8::17]:4711"`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let value = element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    })?;
    address(value.trim().trim_matches('"'))
}

/// An address, with or without port and brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    text.parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

/// Returns at most 256 bytes of client input, cut at a character; the writer escapes them.
fn cut(text: &str) -> &str {
    let end = (0..=256.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a duration is positive and short")]
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: &str, header: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in header {
            headers.append(*name, value.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        source(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_the_last_hop_of_a_trusted_proxy_is_believed() {
        assert_eq!(from("192.0.2.1", &[("x-forwarded-for", "198.51.100.1")]), "192.0.2.1", "not a proxy of ours");
        assert_eq!(
            from("10.0.0.1", &[("x-forwarded-for", "203.0.113.9, 198.51.100.1")]),
            "198.51.100.1",
            "the leftmost is forged"
        );
        assert_eq!(
            from("10.0.0.1", &[("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "198.51.100.1, 10.0.0.2")]),
            "198.51.100.1"
        );
        assert_eq!(
            from("10.0.0.1", &[("forwarded", "for=1.1.1.1, for=\"[2001:db9::1]:80\";proto=https")]),
            "2001:db9::1"
        );
        assert_eq!(from("10.0.0.1", &[("x-forwarded-for", "198.51.100.1:4711")]), "198.51.100.1");
        assert_eq!(from("10.0.0.1", &[("x-forwarded-for", "unknown")]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &[]), "10.0.0.1");
        let both = [("x-forwarded-for", "198.51.100.1"), ("forwarded", "for=203.0.113.9")];
        assert_eq!(from("10.0.0.1", &both), "10.0.0.1", "one of them is the client's own");
        assert_eq!(
            from("10.0.0.1", &[("x-forwarded-for", "198.51.100.1"), ("forwarded", "for=198.51.100.1")]),
            "198.51.100.1"
        );
        assert_eq!(from("::ffff:10.0.0.1", &[("x-forwarded-for", "::ffff:198.51.100.1")]), "198.51.100.1");
    }

    #[test]
    fn logged_input_is_cut_at_a_character_boundary() {
        assert_eq!(cut(&"é".repeat(200)).len(), 256);
        assert_eq!(cut(&format!("a{}", "é".repeat(200))).len(), 255);
    }
}

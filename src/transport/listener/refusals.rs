//! Connections and requests that are refused before a handler: counted, and logged at most once a second for each
//! reason and peer.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::PeerIncompatible;
use tokio::time::Instant;

use crate::http::log::{ConnectionsRefused, RefusedLabels, RequestId, RequestIds};
use crate::model::event::Event;

macro_rules! refusals {
    ($($reason:literal $variant:ident $answer:literal $detail:literal)+) => {
        /// Reason for refusing a connection or a request before it reaches an endpoint.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(clippy::doc_markdown, reason = "the texts are log messages too")]
        pub enum RefusalReason { $(#[doc = $detail] $variant),+ }

        impl RefusalReason {
            /// Every reason, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value of the log field and metric label `reason`.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$variant => $reason),+ }
            }

            /// The status of the response, or the way in which the connection ends.
            #[must_use]
            pub const fn answer(self) -> &'static str {
                match self { $(Self::$variant => $answer),+ }
            }

            /// A description of the fault, with the remedy.
            #[must_use]
            pub const fn detail(self) -> &'static str {
                match self { $(Self::$variant => $detail),+ }
            }
        }
    };
}

refusals! {
    "proxy_protocol" ProxyProtocol "400"
        "looks like a PROXY protocol preamble, which grantd does not read; turn it off in the proxy (send-proxy, proxy_protocol)"
    "tls_on_cleartext" TlsOnCleartext "400"
        "looks like a TLS ClientHello, and this port has no TLS; use http:// here, or set server.tls.cert_file and server.tls.key_file"
    "cleartext_on_tls" CleartextOnTls "400"
        "looks like HTTP without TLS, and this port has TLS; use https:// here"
    "http2" Http2 "none"
        "looks like HTTP/2 without negotiation, and grantd speaks HTTP/1.1; configure the proxy or the client for HTTP/1.1"
    "fields_too_large" FieldsTooLarge "431, 414"
        "the request line and the header fields are above 16 KiB, or more than 100 fields"
    "malformed" Malformed "400"
        "not a request in HTTP/1.1"
    "tls_version" TlsVersion "alert"
        "the client offers neither TLS 1.2 nor TLS 1.3"
    "tls_cipher" TlsCipher "alert"
        "client and server have no cipher suite, group or signature scheme in common"
    "tls_alpn" TlsAlpn "alert"
        "the client does not offer HTTP/1.1 by ALPN"
    "tls_alert" TlsAlert "none"
        "the client refused the handshake; often it does not trust the server's certificate, or the certificate has another name"
    "client_certificate" ClientCertificate "alert"
        "the client's certificate cannot be used"
    "tls_handshake" TlsHandshake "alert"
        "the TLS handshake failed"
    "too_many_connections" TooManyConnections "none"
        "more than 100 connections in a second from one address while the server is overloaded; configure clients to keep connections open, and name proxies in server.trusted_proxies"
}

impl RefusalReason {
    /// Recognises another protocol by the first eight bytes of a connection.
    fn by_opening(opening: [u8; 8]) -> Option<Self> {
        match opening {
            [b'P', b'R', b'O', b'X', b'Y', b' ', ..] | [b'\r', b'\n', b'\r', b'\n', 0, b'\r', b'\n', b'Q'] => {
                Some(Self::ProxyProtocol)
            }
            // RFC 8446 section 5.1: a record of type handshake.
            [0x16, 3, ..] => Some(Self::TlsOnCleartext),
            [b'P', b'R', b'I', b' ', b'*', b' ', ..] => Some(Self::Http2),
            _ => None,
        }
    }

    /// Returns the reason for which hyper refused a request, by its response.
    pub(super) fn by_answer(head: &[u8], opening: [u8; 8]) -> Self {
        let too_large = matches!(head.get(9..12), Some(b"414" | b"431"));
        let by_status = if too_large { Self::FieldsTooLarge } else { Self::Malformed };
        Self::by_opening(opening).unwrap_or(by_status)
    }

    /// Returns the reason for which hyper ended a connection without a response; `None` when the peer left or was too
    /// slow.
    pub(super) fn by_http(error: &hyper::Error, opening: [u8; 8]) -> Option<Self> {
        error.is_parse().then(|| Self::by_opening(opening).unwrap_or(Self::Malformed))
    }

    /// Returns the reason for which a handshake failed; `None` when the peer left.
    pub(super) fn by_handshake(error: &io::Error) -> Option<Self> {
        let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Some(match error {
            rustls::Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired,
            ) => Self::TlsVersion,
            rustls::Error::PeerIncompatible(_) => Self::TlsCipher,
            rustls::Error::NoApplicationProtocol => Self::TlsAlpn,
            rustls::Error::AlertReceived(_) => Self::TlsAlert,
            rustls::Error::InvalidCertificate(_)
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::General(_) => Self::ClientCertificate,
            _ => Self::TlsHandshake,
        })
    }
}

/// Counts and logs refused connections.
#[derive(Debug)]
pub struct Refusals {
    counts: ConnectionsRefused,
    request_ids: RequestIds,
    started: Instant,
    hasher: RandomState,
    /// Time of the last log line, in milliseconds after `started` plus one. Several reasons and peers share a slot.
    written: [AtomicU64; SLOTS],
}

impl Refusals {
    /// Makes a counter that counts in `counts` and takes the ids of responses from `request_ids`.
    #[must_use]
    pub fn new(counts: ConnectionsRefused, request_ids: RequestIds) -> Self {
        Self {
            counts,
            request_ids,
            started: Instant::now(),
            hasher: RandomState::new(),
            written: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Returns an id for a response that no handler made.
    pub(super) fn request_id(&self) -> RequestId {
        self.request_ids.next()
    }

    /// Counts a refusal, and logs it unless one with this reason and peer was logged within the last second.
    pub(super) fn note(
        &self,
        refused: RefusalReason,
        peer: IpAddr,
        request_id: Option<RequestId>,
        error: Option<&dyn std::error::Error>,
    ) {
        self.counts.get_or_create(&RefusedLabels { reason: refused.reason() }).inc();
        if self.is_due(refused, peer) {
            tracing::info!(
                event = Event::ConnectionRefused.as_str(),
                reason = refused.reason(),
                detail = refused.detail(),
                error = error.map(tracing::field::display),
                remote_addr = %peer.to_canonical(),
                request_id = request_id.as_ref().map(RequestId::as_str),
            );
        }
    }

    fn is_due(&self, refused: RefusalReason, peer: IpAddr) -> bool {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let slot = self.hasher.hash_one((refused, network(peer))) % SLOTS as u64;
        let Some(slot) = usize::try_from(slot).ok().and_then(|slot| self.written.get(slot)) else { return false };
        let last = slot.load(Ordering::Relaxed);
        (last == 0 || now.saturating_sub(last) >= 1000)
            && slot.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Returns the address of IPv4, and the /64 of IPv6, since a host can use every address of its /64.
pub(super) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

/// Returns the response in place of one that hyper made by itself, with an id, a reason and the usual header fields.
/// `None` when `head` is another response: hyper's own have a status line, three header fields and no body.
pub(super) fn explained(head: &[u8], request_id: impl FnOnce() -> RequestId) -> Option<(Vec<u8>, RequestId)> {
    let text = std::str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().filter(|line| line.starts_with("HTTP/1."))?;
    let (mut date, mut fields) = ("", 0);
    for line in lines {
        fields += 1;
        match line.split_once(": ")? {
            ("connection", "close") | ("content-length", "0") => {}
            ("date", _) => date = line,
            _ => return None,
        }
    }
    let reason = match status.get(9..12)? {
        "414" | "431" => "the request line and the header fields are above 16 KiB, or more than 100 fields",
        _ => "not a request in HTTP/1.1, or its framing is not valid",
    };
    if fields != 3 || date.is_empty() {
        return None;
    }
    let body = format!(r#"{{"error":"invalid_request","error_description":"{reason}"}}"#);
    let request_id = request_id();
    let answer = format!(
        "{status}\r\ncontent-type: application/json\r\ncache-control: no-store\r\npragma: no-cache\r\nx-content-type-options: nosniff\r\nx-request-id: {}\r\nconnection: close\r\ncontent-length: {}\r\n{date}\r\n\r\n{body}",
        request_id.as_str(),
        body.len()
    );
    Some((answer.into_bytes(), request_id))
}

/// Number of slots, which bounds memory and log lines per second.
const SLOTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals() -> Refusals {
        Refusals::new(ConnectionsRefused::default(), RequestIds::new().unwrap())
    }

    #[test]
    fn each_refusal_counts_and_a_line_comes_once_a_second_for_each_kind_and_peer() {
        let refusals = refusals();
        let peer = IpAddr::from([192, 0, 2, 1]);
        assert!(refusals.is_due(RefusalReason::ProxyProtocol, peer));
        for _ in 0..100 {
            assert!(!refusals.is_due(RefusalReason::ProxyProtocol, peer));
            refusals.note(RefusalReason::ProxyProtocol, peer, None, None);
        }
        let labels = RefusedLabels { reason: "proxy_protocol" };
        assert_eq!(refusals.counts.get_or_create(&labels).get(), 100);
        let others =
            (2..=200).filter(|n| refusals.is_due(RefusalReason::ProxyProtocol, [192, 0, 2, *n].into())).count();
        assert!((100..=199).contains(&others), "other peers have lines of their own: {others}");
        let many =
            (0..100_000u32).filter(|n| refusals.is_due(RefusalReason::Malformed, (*n).to_be_bytes().into())).count();
        assert!(many <= 2 * SLOTS, "bounded whoever comes: {many}");
        let of_one_network = (0..50u16).filter(|n| {
            let address: Ipv6Addr = format!("2001:db8::{n:x}").parse().unwrap();
            refusals.is_due(RefusalReason::Http2, address.into())
        });
        assert!(of_one_network.count() <= 1);
    }

    #[test]
    fn an_answer_that_hyper_made_gets_an_id_and_a_reason_and_no_other_does() {
        let id = RequestIds::new().unwrap().next();
        let own = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: Sat, 28 Nov 2026 03:10:39 GMT\r\n\r\n";
        let text = String::from_utf8(explained(own, || id).unwrap().0).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"));
        assert!(head.contains(&format!("\r\nx-request-id: {}\r\n", id.as_str())) && head.ends_with(" GMT"));
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())) && body.contains("16 KiB"), "{text}");
        for other in [
            &b"HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: 0\r\ndate: x\r\n\r\n"[..],
            b"HTTP/1.1 413 Payload Too Large\r\nconnection: close\r\ncontent-length: 9\r\ndate: x\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n",
            b"not HTTP 4",
        ] {
            assert!(explained(other, || id).is_none(), "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn the_first_bytes_tell_what_the_peer_tried_to_speak() {
        for (opening, refused) in [
            (*b"PROXY TC", Some(RefusalReason::ProxyProtocol)),
            (*b"\r\n\r\n\0\r\nQ", Some(RefusalReason::ProxyProtocol)),
            (*b"\x16\x03\x01\x02\0\x01\0\x01", Some(RefusalReason::TlsOnCleartext)),
            (*b"PRI * HT", Some(RefusalReason::Http2)),
            (*b"POST /to", None),
            ([0; 8], None),
        ] {
            assert_eq!(RefusalReason::by_opening(opening), refused, "{opening:?}");
        }
    }
}

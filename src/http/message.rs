//! The requirements on every request: one valid `Host`, and a framing that is understood (RFC 9112).

use std::net::Ipv6Addr;

use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};
use axum::response::Response;

use super::error;

/// The refusal of a request that no handler should see; `None` for all others.
pub(super) fn refusal<B>(request: &Request<B>) -> Option<Response> {
    let headers = request.headers();
    // RFC 9112 section 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that
    // lacks a Host header field and to any request message that contains more than one Host header field line or a Host
    // header field with an invalid field value."
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_11 => {
            return Some(error::plain(StatusCode::BAD_REQUEST, "HTTP/1.1 requests carry one Host header field"));
        }
        (_, Some(_)) => {
            return Some(error::plain(StatusCode::BAD_REQUEST, "a request carries one Host header field, not several"));
        }
        (Some(host), None) if !is_host(host.as_bytes()) => {
            return Some(error::plain(
                StatusCode::BAD_REQUEST,
                "the Host header field is not a host with an optional port",
            ));
        }
        _ => {}
    }
    let mut refusal = transfer_coding(headers)?;
    // What follows on the connection may not be what it seems.
    refusal.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    Some(refusal)
}

/// RFC 9112 section 6.1: "A server that receives a request message with a transfer coding it does not understand SHOULD
/// respond with 501 (Not Implemented)"; and "A sender MUST NOT apply the chunked transfer coding more than once".
fn transfer_coding(headers: &HeaderMap) -> Option<Response> {
    if !headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    let (mut chunked, mut others) = (0, 0);
    for value in headers.get_all(header::TRANSFER_ENCODING) {
        for coding in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if coding.eq_ignore_ascii_case(b"chunked") {
                chunked += 1;
            } else if !coding.is_empty() {
                others += 1;
            }
        }
    }
    if chunked > 1 {
        Some(error::plain(StatusCode::BAD_REQUEST, "the chunked transfer coding is applied once"))
    } else if others > 0 {
        Some(error::plain(StatusCode::NOT_IMPLEMENTED, "the only transfer coding is chunked"))
    } else {
        None
    }
}

/// RFC 9112 section 3.2: `Host = uri-host [ ":" port ]`, with the host and the port of RFC 3986 section 3.2.
fn is_host(text: &[u8]) -> bool {
    let (is_host, rest) = match text.strip_prefix(b"[") {
        Some(literal) => {
            let Some(end) = literal.iter().position(|byte| *byte == b']') else { return false };
            let (literal, rest) = literal.split_at(end);
            (is_ip_literal(literal), rest.strip_prefix(b"]").unwrap_or_default())
        }
        None => {
            let end = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
            let (name, rest) = text.split_at(end);
            (is_name(name), rest)
        }
    };
    let is_port = match rest.strip_prefix(b":") {
        Some(port) => port.iter().all(u8::is_ascii_digit),
        None => rest.is_empty(),
    };
    is_host && is_port
}

/// `reg-name = *( unreserved / pct-encoded / sub-delims )`, and so every `IPv4address`.
fn is_name(name: &[u8]) -> bool {
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        let is_good = match byte {
            b'%' => [bytes.next(), bytes.next()].iter().all(|digit| digit.is_some_and(u8::is_ascii_hexdigit)),
            byte => is_plain(*byte),
        };
        if !is_good {
            return false;
        }
    }
    true
}

/// `IP-literal = "[" ( IPv6address / IPvFuture ) "]"`, within the brackets.
fn is_ip_literal(literal: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(literal) else { return false };
    // IPvFuture = "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )
    let future = text.strip_prefix(['v', 'V']).and_then(|text| text.split_once('.'));
    match future {
        Some((version, address)) => {
            !version.is_empty()
                && version.bytes().all(|byte| byte.is_ascii_hexdigit())
                && !address.is_empty()
                && address.bytes().all(|byte| byte == b':' || is_plain(byte))
        }
        None => text.parse::<Ipv6Addr>().is_ok(),
    }
}

/// `unreserved` or `sub-delims`.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for host in [
            "",
            "a",
            "as.test",
            "as.test:",
            "as.test:8080",
            "192.0.2.1:443",
            "[::1]",
            "[2001:db8::1]:8080",
            "a%2fb",
            "x_y~z",
            "[v1.a:b]",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "a b",
            "user@as.test",
            "as.test/x",
            "http://as.test",
            "as.test:80x",
            "a:80:80",
            "::1",
            "[::1",
            "[::1]x",
            "[fe80::1%eth0]",
            "[as.test]",
            "a%2",
            "a%zz",
            "a?b",
            "a#b",
            "a\\b",
            "\u{e9}.test",
            "[v.x]",
            "[v1.]",
            "a,b c",
            "as.test:-1",
            "<a>",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn chunked_is_the_only_transfer_coding_and_is_applied_once() {
        let refused = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::TRANSFER_ENCODING, value.parse().unwrap());
            }
            transfer_coding(&headers).map_or(0, |refusal| refusal.status().as_u16())
        };
        assert_eq!((refused(&[]), refused(&["chunked"]), refused(&[" , Chunked ,"])), (0, 0, 0));
        assert_eq!(
            (refused(&["gzip, chunked"]), refused(&["gzip", "chunked"]), refused(&["identity, chunked"])),
            (501, 501, 501)
        );
        assert_eq!((refused(&["chunked, chunked"]), refused(&["chunked", "chunked"])), (400, 400));
    }
}

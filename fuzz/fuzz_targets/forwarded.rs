//! Fuzz target of Forwarded and X-Forwarded-For: only trusted proxies decide the source of a request.
//!
//! The input is header fields, one a line: `f` and a value for Forwarded, anything else and a value for X-Forwarded-For.

#![no_main]

use std::net::IpAddr;

use grantd::http::log::source;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

const FORWARDED: &str = "forwarded";
const X_FORWARDED_FOR: &str = "x-forwarded-for";

fuzz_target!(|input: &[u8]| {
    let mut fields: Vec<(&str, HeaderValue)> = Vec::new();
    for line in input.split(|&byte| byte == b'\n').take(16) {
        let Some((kind, value)) = line.split_first() else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { return };
        fields.push((if *kind == b'f' { FORWARDED } else { X_FORWARDED_FOR }, value));
    }
    let headers = map(&fields);
    let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let (stranger, proxy): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [10, 0, 0, 1].into());

    // A peer that is not a trusted proxy is the source, whatever it claims.
    for peer in [stranger, proxy, "::ffff:192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()] {
        assert_eq!(source(peer, &headers, &[]), peer.to_canonical());
    }
    assert_eq!(source(stranger, &headers, &trusted), stranger);
    let said = source(proxy, &headers, &trusted);
    assert_eq!(said, said.to_canonical());

    // The proxy appends its peer to one list. Whatever a client wrote before it, and in the other list, the source is
    // the proxy's peer or, where the lists differ or cannot be read, the proxy.
    let seen: IpAddr = [198, 51, 100, 7].into();
    for (list, hop) in [(FORWARDED, "for=198.51.100.7"), (X_FORWARDED_FOR, "198.51.100.7")] {
        let mut alone: Vec<_> = fields.iter().filter(|(name, _)| *name == list).cloned().collect();
        alone.push((list, HeaderValue::from_static(hop)));
        assert_eq!(source(proxy, &map(&alone), &trusted), seen, "nothing contradicts the proxy");

        let mut appended = fields.clone();
        appended.push((list, HeaderValue::from_static(hop)));
        let mut joined = fields.clone();
        if let Some((_, last)) = joined.iter_mut().rfind(|(name, _)| *name == list) {
            *last = HeaderValue::from_bytes(&[last.as_bytes(), b", ", hop.as_bytes()].concat()).unwrap();
        } else {
            joined.clone_from(&appended);
        }
        for fields in [appended, joined] {
            let said = source(proxy, &map(&fields), &trusted);
            assert!(said == seen || said == proxy, "{said}, which the stranger wrote");
        }
    }
});

fn map(fields: &[(&'static str, HeaderValue)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.clone());
    }
    headers
}

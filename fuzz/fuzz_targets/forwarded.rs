//! Where a request came from: nobody whom we do not trust has a say in it.
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

    // A peer that is no proxy of ours is the source, whatever it says.
    for peer in [stranger, proxy, "::ffff:192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()] {
        assert_eq!(source(peer, &headers, &[]), peer.to_canonical());
    }
    assert_eq!(source(stranger, &headers, &trusted), stranger);
    let said = source(proxy, &headers, &trusted);
    assert_eq!(said, said.to_canonical());

    // Our proxy adds whom it saw to what a stranger sent. Only the list that it writes counts, so the other is left out:
    // a proxy that writes X-Forwarded-For has to take Forwarded off.
    for (list, hop) in [(FORWARDED, "for=198.51.100.7"), (X_FORWARDED_FOR, "198.51.100.7")] {
        let seen: IpAddr = [198, 51, 100, 7].into();
        let mut fields: Vec<_> = fields.iter().filter(|(name, _)| *name == list).cloned().collect();
        fields.push((list, HeaderValue::from_static(hop)));
        assert_eq!(source(proxy, &map(&fields), &trusted), seen, "in a line of its own");

        fields.pop();
        let Some((_, last)) = fields.pop() else { continue };
        let joined = [last.as_bytes(), b", ", hop.as_bytes()].concat();
        fields.push((list, HeaderValue::from_bytes(&joined).unwrap()));
        let said = source(proxy, &map(&fields), &trusted);
        // A line that cannot be read hides the hop; then nothing before it may be believed either.
        assert!(said == seen || said == proxy, "{said}, which the stranger wrote");
    }
});

fn map(fields: &[(&'static str, HeaderValue)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.clone());
    }
    headers
}

//! Cheap random numbers, not secret: they choose clients, source addresses and bogus secrets.

use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// The n-th number of a pseudo-random sequence (`SplitMix64`).
pub fn scatter(n: u64) -> u64 {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A random start, so that a second flood does not look like the first.
pub fn salt() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness, streams look alike; nothing else fails.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// A number below `bound`.
#[expect(clippy::cast_possible_truncation, reason = "the remainder is below a usize")]
pub fn below(n: u64, bound: usize) -> usize {
    (scatter(n) % bound.max(1) as u64) as usize
}

/// One of sixteen million addresses of this machine, outside 127.0.0.0/16 where the servers and their clients are.
pub fn any_loopback(n: u64) -> IpAddr {
    let [a, b, c, ..] = scatter(n ^ 0x5eed).to_le_bytes();
    IpAddr::V4(Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254)))
}

/// One of a few hundred addresses that honest clients have.
pub fn honest_loopback(n: u64) -> IpAddr {
    let [_, a, ..] = scatter(n).to_le_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 0, 1, a.clamp(1, 254)))
}

/// A secret that nobody has, of the shape that grantd makes.
pub fn tagged_secret(n: u64) -> String {
    let letter = |byte: &u8| char::from(if byte & 31 < 26 { b'a' + (byte & 31) } else { b'2' + (byte & 31) - 26 });
    let id: String = bytes(n, 2).iter().map(letter).collect();
    format!("gds_{id}_{}{}", &text(n ^ 0xa5a5, 43), &text(n ^ 0x5a5a, 12))
}

/// A secret that nobody has, such as people choose.
pub fn untagged_secret(n: u64) -> String {
    text(n ^ 0x0f0f, 32)
}

/// `length` characters of base64url.
fn text(n: u64, length: usize) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes(n, 6)).chars().take(length).collect()
}

fn bytes(n: u64, words: u64) -> Vec<u8> {
    (0..words).flat_map(|word| scatter(scatter(n).wrapping_add(word)).to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bogus_secrets_have_the_shape_of_real_ones() {
        let secret = tagged_secret(7);
        let (id, random) = secret.strip_prefix("gds_").and_then(|rest| rest.split_once('_')).unwrap();
        assert_eq!((id.len(), random.len()), (16, 55));
        assert!(id.bytes().all(|byte| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte)));
        assert_ne!(secret, tagged_secret(8));
        assert_eq!(untagged_secret(7).len(), 32);
    }

    #[test]
    fn sources_rotate_within_loopback() {
        let some: std::collections::HashSet<IpAddr> = (0..1000).map(any_loopback).collect();
        assert!(some.len() > 990 && some.iter().all(IpAddr::is_loopback));
        assert!((0..1000).map(honest_loopback).all(|address| address.is_loopback()));
    }
}

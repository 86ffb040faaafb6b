//! Public keys that anyone can sign for: moduli of the ROCA generator (CVE-2017-15361), Ed25519 points of small order (RFC 8032).

/// Whether a modulus, big-endian and not empty, is even or has the fingerprint of the ROCA generator.
///
/// Its primes were `k * M + (65537^a mod M)`, M being a product of small primes. So modulo each of those, both primes and
/// their product are powers of 65537. A modulus made by chance passes with a probability of one in 2^27.
pub(super) fn is_weak_modulus(modulus: &[u8]) -> bool {
    let even = modulus.last().is_none_or(|last| last % 2 == 0);
    even || ROCA.into_iter().all(|prime| is_power_of_65537(residue(modulus, prime), prime))
}

/// Whether a point can be forged for, or is spelt in a way that is not its only one.
pub(super) fn is_weak_ed25519(point: &[u8; 32]) -> bool {
    // The sign of x is of no account: a point and its negative have the same order.
    let mut y = *point;
    if let Some(last) = y.last_mut() {
        *last &= 0x7f;
    }
    // RFC 8032 section 5.1.3: "If the resulting value is >= p, decoding fails." p is 2^255 - 19, least octet first.
    let beyond = y.ends_with(&[0x7f]) && y.iter().skip(1).take(30).all(|&octet| octet == 0xff);
    let least = y.first().copied().unwrap_or_default();
    // 0xec is p - 1, of order 2.
    (beyond && least >= 0xec) || SMALL_ORDER.contains(&y)
}

fn residue(modulus: &[u8], prime: u32) -> u32 {
    modulus.iter().fold(0, |residue, &octet| (residue << 8 | u32::from(octet)) % prime)
}

fn is_power_of_65537(residue: u32, prime: u32) -> bool {
    let mut power = 1;
    loop {
        if power == residue {
            return true;
        }
        power = power * (65537 % prime) % prime;
        if power == 1 {
            return false;
        }
    }
}

/// The primes of M below 168 of which 65537 does not generate every residue; the others tell nothing.
const ROCA: [u32; 17] = [11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157];

/// The y of the points of order 1, 4 and 8.
const SMALL_ORDER: [[u8; 32]; 4] = [
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0; 32],
    [
        38, 232, 149, 143, 194, 178, 39, 176, 69, 195, 244, 137, 242, 239, 152, 240, 213, 223, 172, 5, 211, 198, 51,
        57, 177, 56, 2, 136, 109, 83, 252, 5,
    ],
    [
        199, 23, 106, 112, 61, 77, 216, 79, 186, 60, 11, 118, 13, 16, 103, 15, 42, 32, 83, 250, 44, 57, 204, 198, 78,
        199, 253, 119, 146, 172, 3, 122,
    ],
];

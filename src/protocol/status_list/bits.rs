//! The bits of a status list, and their compressed form.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use miniz_oxide::deflate::compress_to_vec_zlib;

/// Returns `length` bytes in which the bits at `indices` are set. Section 4.1: index 0 is the least significant bit of the first
/// byte.
pub(super) fn set(length: usize, indices: impl Iterator<Item = i64>) -> Vec<u8> {
    let mut bits = vec![0; length];
    // An index below 0 is in no list.
    for index in indices.filter_map(|index| usize::try_from(index).ok()) {
        if let Some(byte) = bits.get_mut(index / 8) {
            *byte |= 1 << (index % 8);
        }
    }
    bits
}

/// Returns `lst`. Section 4.1: "compressed using DEFLATE with the ZLIB data format … Implementations are RECOMMENDED to use the
/// highest compression level available", then base64url.
#[must_use]
pub fn compress(bits: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(compress_to_vec_zlib(bits, HIGHEST))
}

/// The highest level of zlib.
const HIGHEST: u8 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_draft_is_compressed_as_printed_there() {
        let statuses = [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1];
        let indices = (0..).zip(statuses).filter(|(_, status)| *status == 1).map(|(index, _)| index);
        let bits = set(2, indices);
        assert_eq!(bits, [0xb9, 0xa3]);
        let lst = BASE64_URL_SAFE_NO_PAD.decode(compress(&bits)).unwrap();
        assert_eq!(lst, [0x78, 0xda, 0xdb, 0xb9, 0x18, 0x00, 0x02, 0x17, 0x01, 0x5d]);
        assert_eq!(set(2, [-1, 16, 8].into_iter()), [0, 1], "an index outside the list has no bit");
    }
}

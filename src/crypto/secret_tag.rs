//! Tags of client secrets: a MAC under a key of the deployment. A made-up secret has a wrong tag and is refused without
//! a hash.
//!
//! A tag never authenticates: only the argon2id hash does. A lost tag key costs processor time, not access.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::{NoEntropy, equal, hmac_sha256, random};

/// Key that tags client secrets and verifies their tags.
pub struct TagKey {
    kid: TagKid,
    key: hmac::Key,
}

/// Identifier of a tag key: 64 bits, written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagKid([u8; 8]);

/// Error for a text that is not the identifier of a tag key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the id of a tag key is 16 hexadecimal digits in lower case; `grantd key tag list` lists them")]
pub struct TagKidError;

impl TagKey {
    /// Generates a key, and returns it with its bytes for sealing.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn generate() -> Result<(Self, Zeroizing<[u8; KEY_LEN]>), NoEntropy> {
        let bytes = Zeroizing::new(random::<KEY_LEN>()?);
        Ok((Self::new(&bytes), bytes))
    }

    /// Reads the bytes of a stored key. `None` unless they are 32.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::new)
    }

    fn new(bytes: &[u8; KEY_LEN]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        Self { kid: TagKid(hmac_sha256(&key, &[b"grantd tag key id"])), key }
    }

    /// The identifier of the key.
    #[must_use]
    pub fn kid(&self) -> TagKid {
        self.kid
    }

    /// Returns the tag of a secret of `client_id`: 72 bits, so a guessed tag is right once in 4 · 10²¹.
    pub(super) fn tag(&self, client_id: &str, untagged: &str) -> String {
        let mut text = String::with_capacity(TAG_LEN);
        BASE64_URL_SAFE_NO_PAD.encode_string(self.mac(client_id, untagged), &mut text);
        text
    }

    /// Whether `tag` is this key's tag for a secret of `client_id`.
    pub(super) fn verifies(&self, client_id: &str, untagged: &str, tag: &str) -> bool {
        let mut decoded = [0; TAG_BYTES];
        let decoded = BASE64_URL_SAFE_NO_PAD.decode_slice(tag, &mut decoded).ok().map(|_| decoded);
        decoded.is_some_and(|decoded| equal(&decoded, &self.mac(client_id, untagged)))
    }

    fn mac(&self, client_id: &str, untagged: &str) -> [u8; TAG_BYTES] {
        // No client id contains NUL, so client id and secret cannot be split in two ways.
        hmac_sha256(&self.key, &[client_id.as_bytes(), b"\0", untagged.as_bytes()])
    }
}

impl fmt::Debug for TagKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TagKey({})", self.kid)
    }
}

impl fmt::Display for TagKid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for TagKid {
    type Err = TagKidError;

    fn from_str(text: &str) -> Result<Self, TagKidError> {
        let lower_case = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16 && lower_case);
        number.map(|number| Self(number.to_be_bytes())).ok_or(TagKidError)
    }
}

/// Characters that a tag adds to a secret.
pub(super) const TAG_LEN: usize = 12;
const TAG_BYTES: usize = 9;
const KEY_LEN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_for_one_key_one_client_and_one_secret() {
        let (key, bytes) = TagKey::generate().unwrap();
        let tag = key.tag("billing", "gds_a_x");
        assert_eq!(tag.len(), TAG_LEN);
        assert!(TagKey::from_bytes(&*bytes).unwrap().verifies("billing", "gds_a_x", &tag), "it survives storage");
        assert!(!key.verifies("billin", "ggds_a_x", &tag));
        assert!(!key.verifies("billing", "gds_a_y", &tag));
        assert!(!TagKey::generate().unwrap().0.verifies("billing", "gds_a_x", &tag));
        for wrong in ["", "AAAAAAAAAAA", "AAAAAAAAAAAA", "AAAAAAAAAAAAA", "!!!!!!!!!!!!", &"A".repeat(100)] {
            assert!(!key.verifies("billing", "gds_a_x", wrong), "{wrong}");
        }
    }

    #[test]
    fn a_tag_key_is_named_by_16_hexadecimal_digits() {
        let (key, bytes) = TagKey::generate().unwrap();
        assert_eq!(key.kid().to_string().parse(), Ok(key.kid()));
        assert_eq!(TagKey::from_bytes(&*bytes).unwrap().kid(), key.kid());
        for wrong in ["", "0", "+123456789abcdef", "0123456789ABCDEF", "0123456789abcdef0"] {
            assert_eq!(wrong.parse::<TagKid>(), Err(TagKidError), "{wrong}");
        }
    }
}

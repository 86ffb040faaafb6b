//! Client identifiers (RFC 6749 section 2.2).

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// A client identifier of `[A-Za-z0-9._~-]{1,128}`: the same bytes raw, form-encoded and in a log.
///
/// Administrators choose ids; a client never chooses its own (RFC 9700 section 4.15).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

/// Not a client identifier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a client id is 1 to 128 characters of A-Z a-z 0-9 . _ ~ -")]
pub struct ClientIdError;

impl ClientId {
    /// The id itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientId {
    type Err = ClientIdError;

    fn from_str(text: &str) -> Result<Self, ClientIdError> {
        let fits = (1..=128).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-'));
        if fits { Ok(Self(text.into())) } else { Err(ClientIdError) }
    }
}

impl Borrow<str> for ClientId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ClientId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m77_only_the_alphabet_names_a_client() {
        for right in ["a", "billing", "an.identifier_~-9", &"x".repeat(128)] {
            assert_eq!(right.parse::<ClientId>().unwrap().as_str(), right);
        }
        for wrong in ["", "a b", "a:b", "a%2E", "a+b", "é", "а", "a\0", "a\u{200d}", "a\n", &"x".repeat(129)] {
            assert_eq!(wrong.parse::<ClientId>(), Err(ClientIdError), "{wrong:?}");
        }
    }
}

//! Client identifiers (RFC 6749 section 2.2).

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// A client identifier: 1 to 255 printable ASCII characters (RFC 6749 appendix A.1), with no space at either end.
///
/// Administrators choose ids; a client never chooses its own (RFC 9700 section 4.15). An id may be a URL or have spaces, so
/// that clients of other servers keep theirs. Ids of `[A-Za-z0-9._~-]` are the same bytes raw, form-encoded and in a shell.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

/// Error for a text that is not a client identifier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a client id is 1 to 255 printable ASCII characters with no space at either end")]
pub struct ClientIdError;

impl ClientId {
    /// Maximum number of characters.
    pub const MAX_LENGTH: usize = 255;

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id quoted as one word of a POSIX shell, for commands that messages propose.
    #[must_use]
    pub fn in_shell(&self) -> Cow<'_, str> {
        in_shell(&self.0)
    }
}

/// Returns a text quoted as one word of a POSIX shell.
#[must_use]
pub fn in_shell(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':' | b'/' | b'@' | b'+' | b'%' | b'=')
    };
    if !text.is_empty() && text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

impl FromStr for ClientId {
    type Err = ClientIdError;

    fn from_str(text: &str) -> Result<Self, ClientIdError> {
        let fits = (1..=Self::MAX_LENGTH).contains(&text.len())
            && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
            && !text.starts_with(' ')
            && !text.ends_with(' ');
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
    fn a_client_id_is_printable_ascii() {
        let longest = "x".repeat(255);
        for right in ["a", "an.identifier_~-9", "a b", "a:b", "a%2E", "spiffe://ci.example/job", "{\"}\\", &longest] {
            assert_eq!(right.parse::<ClientId>().unwrap().as_str(), right);
        }
        for wrong in ["", " ", " a", "a ", "é", "а", "a\0", "a\u{200d}", "a\n", "a\tb", "a\u{7f}", &"x".repeat(256)] {
            assert_eq!(wrong.parse::<ClientId>(), Err(ClientIdError), "{wrong:?}");
        }
    }

    #[test]
    fn a_shell_reads_what_is_quoted_for_it() {
        let long = "it's $HOME `x` \\ \"y\" #~*";
        for id in ["plain-id", "https://ci.example/a+b%20", "~root", "a b", "'", long] {
            let id: ClientId = id.parse().unwrap();
            let echoed =
                std::process::Command::new("sh").args(["-c", &format!("printf %s {}", id.in_shell())]).output();
            assert_eq!(String::from_utf8(echoed.unwrap().stdout).unwrap(), id.as_str());
        }
    }
}

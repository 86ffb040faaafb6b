//! Ids of access tokens: `jti` (RFC 7519 section 4.1.7).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// Id of an access token: 128 random bits, in base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId([u8; 16]);

/// Error for a text that is not a token id of grantd.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a jti of grantd is 16 octets in base64url, 22 characters")]
pub struct TokenIdError;

impl TokenId {
    /// Index of the part that holds this id when ids are spread over `parts`.
    #[must_use]
    pub fn part(&self, parts: usize) -> usize {
        let [first, ..] = self.0;
        usize::from(first) % parts.max(1)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl FromStr for TokenId {
    type Err = TokenIdError;

    fn from_str(text: &str) -> Result<Self, TokenIdError> {
        let bits = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenIdError)?;
        bits.try_into().map(Self).map_err(|_| TokenIdError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_id_has_one_spelling() {
        let id = TokenId([7; 16]);
        let text = id.to_string();
        assert_eq!((text.len(), text.parse()), (22, Ok(id)));
        for wrong in ["", "AAAA", &text[..21], &format!("{text}A"), &format!("{text}="), &format!("{}x", &text[..21])] {
            assert_eq!(wrong.parse::<TokenId>(), Err(TokenIdError), "{wrong}");
        }
    }
}

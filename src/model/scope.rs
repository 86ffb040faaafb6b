//! Scopes (RFC 6749 section 3.3): sets of case-sensitive tokens, space-delimited on the wire.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Set of scope tokens, in the order in which they were first named. It may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// The wire form. Shared, since many clients and grants have the same scope.
    text: Arc<str>,
}

/// Error for a text outside the grammar of RFC 6749 section 3.3 or the bounds.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "a scope is tokens of printable ASCII without \" and \\, single spaces between them, at most {MAX_TOKENS} tokens and {MAX_BYTES} bytes"
)]
pub struct ScopeError;

impl Scope {
    /// The tokens of the set.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.text.split(' ').filter(|token| !token.is_empty())
    }

    /// Whether `token` is in the set. "The strings are defined by the authorization server" and compared exactly.
    #[must_use]
    pub fn contains(&self, token: &str) -> bool {
        self.tokens().any(|mine| mine == token)
    }

    /// Whether every token of this set is in `other`.
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.text == other.text || self.tokens().all(|token| other.contains(token))
    }

    /// Returns the tokens that are also in `other`, in this set's order.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self::from_distinct(self.tokens().filter(|token| other.contains(token)))
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The wire form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn from_distinct<'a>(tokens: impl Iterator<Item = &'a str>) -> Self {
        let mut text = String::new();
        for token in tokens {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(token);
        }
        Self { text: text.into() }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    /// `scope = scope-token *( SP scope-token )`, `scope-token = 1*( %x21 / %x23-5B / %x5D-7E )`; "" is the empty set.
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.len() > MAX_BYTES || text.split(' ').nth(MAX_TOKENS).is_some() {
            return Err(ScopeError);
        }
        let grammatical = |token: &str| {
            !token.is_empty() && token.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
        };
        let mut distinct: Vec<&str> = Vec::with_capacity(text.len() / 8);
        // Tokens whose hashes differ from all before are not compared with them.
        let (mut seen, mut repeats) = (0_u64, false);
        for token in text.split(' ') {
            if !grammatical(token) {
                return Err(ScopeError);
            }
            let hash = token.bytes().fold(token.len(), |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
            let bit = 1 << (hash % 64);
            if seen & bit != 0 && distinct.contains(&token) {
                repeats = true;
            } else {
                distinct.push(token);
            }
            seen |= bit;
        }
        if !repeats {
            return Ok(Self { text: text.into() });
        }
        Ok(Self::from_distinct(distinct.into_iter()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Maximum number of tokens of a scope.
pub const MAX_TOKENS: usize = 100;
/// Maximum length of a scope, in bytes.
pub const MAX_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        text.parse().unwrap()
    }

    #[test]
    fn a_scope_follows_the_grammar_of_rfc_6749() {
        for wrong in ["a  b", " a", "a ", " ", "a\tb", "a\r\nb", "a\"", "a\\", "\u{7f}", "é", "a\0"] {
            assert_eq!(wrong.parse::<Scope>(), Err(ScopeError), "{wrong:?}");
        }
        for byte in 0u8..=0x7f {
            let text = char::from(byte).to_string();
            let legal = matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
            assert_eq!(text.parse::<Scope>().is_ok(), legal, "{byte:#x}");
        }
    }

    #[test]
    fn a_scope_is_a_case_sensitive_set() {
        assert_eq!(scope("api:read api:read api:write").to_string(), "api:read api:write");
        assert!(scope("b a").is_subset_of(&scope("a b c")));
        assert!(!scope("API:READ").is_subset_of(&scope("api:read")));
        assert_eq!(scope("a b c").intersection(&scope("c a")).to_string(), "a c");
    }

    #[test]
    fn a_long_scope_is_refused_quickly() {
        assert!("a ".repeat(200).trim_end().parse::<Scope>().is_err());
        assert!("x".repeat(4097).parse::<Scope>().is_err());
        let hundred: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
        assert_eq!(scope(&hundred.join(" ")).tokens().count(), 100);
    }
}

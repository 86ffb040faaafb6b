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
        Tokens(&self.text)
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
        if text.len() > MAX_BYTES {
            return Err(ScopeError);
        }
        // One pass over all bytes, without a branch, which the compiler makes one over sixteen bytes at a time.
        if !text.bytes().fold(true, |legal, byte| legal & is_legal(byte)) {
            return Err(ScopeError);
        }
        // A token whose hash differs from all before is not compared with them.
        let mut hashes = [0_u64; MAX_TOKENS];
        let (mut count, mut start, mut repeats) = (0, 0, false);
        while let Some(rest) = text.as_bytes().get(start..) {
            let (len, hash) = first_token(rest);
            if len == 0 {
                return Err(ScopeError);
            }
            if hashes.get(..count).is_some_and(|known| known.contains(&hash)) {
                let (before, rest) = text.split_at_checked(start).unwrap_or_default();
                repeats |= Tokens(before).any(|known| Some(known) == rest.get(..len));
            }
            *hashes.get_mut(count).ok_or(ScopeError)? = hash;
            (count, start) = (count + 1, start + len + 1);
        }
        if !repeats {
            return Ok(Self { text: text.into() });
        }
        let mut distinct: Vec<&str> = Vec::with_capacity(count);
        for token in Tokens(text) {
            if !distinct.contains(&token) {
                distinct.push(token);
            }
        }
        Ok(Self::from_distinct(distinct.into_iter()))
    }
}

/// Whether a byte may be in the text of a scope.
fn is_legal(byte: u8) -> bool {
    (0x20..=0x7e).contains(&byte) && byte != b'"' && byte != b'\\'
}

/// Returns the length of the token that a text begins with, and a hash of it. A load of the registry reads millions of tokens,
/// so it takes eight bytes at a time.
fn first_token(text: &[u8]) -> (usize, u64) {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let (mut len, mut hash) = (0, 0_u64);
    loop {
        let word = eight_bytes(text.get(len..).unwrap_or_default());
        let differing = word ^ (EACH * u64::from(b' '));
        // The lowest bit that is set stands for the first space: only a byte of 0 is less than 1 and has no high bit.
        let spaces = differing.wrapping_sub(EACH) & !differing & (EACH * 0x80);
        let read = spaces.trailing_zeros() / 8;
        let token = if read == 0 { 0 } else { word << (64 - 8 * read) };
        hash = (hash.rotate_left(5) ^ token).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        len += read as usize;
        if read < 8 {
            return (len, hash);
        }
    }
}

/// Reads eight bytes; those behind the end are spaces.
fn eight_bytes(text: &[u8]) -> u64 {
    u64::from_le_bytes(text.first_chunk().copied().unwrap_or_else(|| {
        let mut bytes = [b' '; 8];
        bytes.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
        bytes
    }))
}

/// The tokens of a text between single spaces. Tokens are short, and the search of `str::split` is made for long texts.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.bytes().position(|byte| byte == b' ').unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        Some(token)
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
    fn tokens_of_any_length_are_told_apart() {
        let tokens: Vec<String> = (1..=40).map(|len| "x".repeat(len)).collect();
        assert_eq!(scope(&tokens.join(" ")).tokens().collect::<Vec<_>>(), tokens);
        for one in &tokens {
            for other in &tokens {
                let text = format!("{one} {other} {one}");
                let distinct = if one == other { one.clone() } else { format!("{one} {other}") };
                assert_eq!(scope(&text).as_str(), distinct);
                for wrong in [format!(" {text}"), format!("{text} "), text.replace(' ', "  ")] {
                    assert_eq!(wrong.parse::<Scope>(), Err(ScopeError), "{wrong:?}");
                }
            }
        }
    }

    #[test]
    fn a_long_scope_is_refused_quickly() {
        assert!("a ".repeat(200).trim_end().parse::<Scope>().is_err());
        assert!("x".repeat(4097).parse::<Scope>().is_err());
        let hundred: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
        assert_eq!(scope(&hundred.join(" ")).tokens().count(), 100);
    }
}

//! The request body as a form (RFC 6749 section 3.2 and appendix B): strict, so that no two readings of it exist.

use std::borrow::Cow;
use std::fmt;

use crate::protocol::error::RequestError;

/// Parameters in the order they came, decoded. One of them may be a secret, so `Debug` shows names only.
#[derive(Default)]
pub struct Form<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl fmt::Debug for Form<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pairs.iter().map(|(name, _)| name)).finish()
    }
}

/// The fault of a body that is not a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormError {
    /// A bad escape, bytes that are not UTF-8, or NUL.
    Malformed,
    /// More parameters than any request has.
    TooMany,
}

impl From<FormError> for RequestError {
    fn from(error: FormError) -> Self {
        match error {
            FormError::Malformed => Self::Form,
            FormError::TooMany => Self::TooManyParameters,
        }
    }
}

/// The fault of a parameter that is repeated and must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated;

impl From<Repeated> for RequestError {
    fn from(Repeated: Repeated) -> Self {
        Self::Repeated
    }
}

impl<'a> Form<'a> {
    /// Reads `name=value&name=value`. `+` and `%20` are spaces, `;` is no separator.
    ///
    /// # Errors
    /// [`FormError`]. Nothing is repaired: an escape that does not parse, bytes that are not UTF-8 and NUL are refused,
    /// since two different requests would otherwise read the same.
    pub fn parse(body: &'a [u8]) -> Result<Self, FormError> {
        let mut pairs = Vec::new();
        for pair in body.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == MAX_PARAMETERS {
                return Err(FormError::TooMany);
            }
            let at = pair.iter().position(|&byte| byte == b'=');
            let (name, value) = at.and_then(|at| pair.split_at_checked(at)).unwrap_or((pair, b"="));
            let value = value.get(1..).unwrap_or_default();
            pairs.push((decode(name).ok_or(FormError::Malformed)?, decode(value).ok_or(FormError::Malformed)?));
        }
        Ok(Self { pairs })
    }

    /// The value of a parameter that may stand once.
    ///
    /// "Parameters sent without a value MUST be treated as if they were omitted from the request"; "Request and response
    /// parameters MUST NOT be included more than once."
    ///
    /// # Errors
    /// [`Repeated`], also when the values are equal or empty.
    pub fn one(&self, name: &str) -> Result<Option<&str>, Repeated> {
        let mut values = self.pairs.iter().filter(|(mine, _)| mine == name).map(|(_, value)| &**value);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Repeated),
            (value, None) => Ok(value.filter(|value| !value.is_empty())),
        }
    }

    /// Every value of a parameter that may be repeated (RFC 8707 section 2), empty ones left out.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(mine, value)| mine == name && !value.is_empty()).map(|(_, value)| &**value)
    }

    /// Whether a parameter stands in the form, with or without a value.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(mine, _)| mine == name)
    }
}

/// Decodes one form-urlencoded name or value (appendix B).
#[must_use]
pub fn decode(encoded: &[u8]) -> Option<Cow<'_, str>> {
    // A text without escapes stays where it is. Looking at all bytes takes vector instructions, a search branches at each.
    let special = |byte: u8| u8::from(byte == b'+') | u8::from(byte == b'%') | u8::from(byte == b'\0');
    if encoded.iter().fold(0, |found, byte| found | special(*byte)) == 0 {
        return std::str::from_utf8(encoded).ok().map(Cow::Borrowed);
    }
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.iter().copied();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(decoded).ok().filter(|text| !text.contains('\0')).map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Most parameters of a form.
pub(crate) const MAX_PARAMETERS: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plus_and_percent_escapes_decode_in_either_case() {
        assert_eq!(decode(b"api%3aread+api%3Awrite%20x").unwrap(), "api:read api:write x");
        assert_eq!(decode(b"+%25%26%2B%C2%A3%E2%82%AC").unwrap(), " %&+£€", "RFC 6749 appendix B");
        assert_eq!(decode(b"read:data write:data").unwrap(), "read:data write:data");
    }

    #[test]
    fn malformed_encoding_is_refused_and_never_repaired() {
        for wrong in [&b"%ZZ"[..], b"%", b"%2", b"%FF%FE", b"\x80", b"%c0%80", b"%ed%a0%80", b"%00", b"\0", b"%+1"] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn parameters_do_not_repeat_and_empty_means_absent() {
        let form = Form::parse(b"a=1&b=&c&&resource=x&resource=&resource=y&d=1;e=2&f=1&f=1&g=&g=").unwrap();
        assert_eq!(form.one("a"), Ok(Some("1")));
        assert_eq!(form.one("b"), Ok(None));
        assert_eq!(form.one("c"), Ok(None));
        assert_eq!(form.one("A"), Ok(None));
        assert_eq!(form.one("d"), Ok(Some("1;e=2")));
        assert_eq!(form.one("f"), Err(Repeated));
        assert_eq!(form.one("g"), Err(Repeated));
        assert_eq!(form.all("resource").collect::<Vec<_>>(), ["x", "y"]);
        assert!(form.has("b") && !form.has("z"));
        assert!(!format!("{:?}", Form::parse(b"client_secret=hunter2").unwrap()).contains("hunter2"));
    }

    #[test]
    fn the_number_of_parameters_is_bounded() {
        assert_eq!(Form::parse("a=1&".repeat(10_000).as_bytes()).unwrap_err(), FormError::TooMany);
    }

    proptest! {
        #[test]
        fn form_encoding_round_trips(text in "[^\0]{0,64}") {
            let encoded: String = text.bytes().map(|byte| match byte {
                b' ' => "+".to_owned(),
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
                other => format!("%{other:02X}"),
            }).collect();
            prop_assert_eq!(decode(encoded.as_bytes()).map(Cow::into_owned), Some(text));
        }

        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(form) = Form::parse(&body) {
                for (name, value) in &form.pairs {
                    prop_assert!(!name.contains('\0') && !value.contains('\0'));
                }
            }
        }
    }
}

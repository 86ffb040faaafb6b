//! The claims set of a JWT (RFC 7519 section 4) by type: a claim of the wrong type is an error and never absent.

use serde_json::Value;

use super::JoseError;
use crate::json::Object;

/// Claims, each name once. Absent is `Ok(None)`, malformed is an error: CVE-2026-25537 was to take one for the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims(Object);

/// The `aud` claim (RFC 7519 section 4.1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience<'a> {
    /// A string.
    One(&'a str),
    /// An array of strings, possibly empty.
    Many(Vec<&'a str>),
}

impl Claims {
    pub(super) fn new(members: Object) -> Self {
        Self(members)
    }

    /// A string, byte for byte as it stands once its escapes are resolved; NUL is a byte like others. Never empty.
    ///
    /// # Errors
    /// [`JoseError::Claim`] unless it is a string of 1 to `longest` bytes.
    pub fn string(&self, name: &'static str, longest: usize) -> Result<Option<&str>, JoseError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if (1..=longest).contains(&text.len()) => Ok(Some(text)),
            Some(_) => Err(JoseError::Claim(name)),
        }
    }

    /// A `NumericDate` in whole seconds, which may have been written with a fraction.
    ///
    /// # Errors
    /// [`JoseError::Claim`] unless it is a number from 0 to 2^53 - 1, below which every reader reads every number alike.
    pub fn numeric_date(&self, name: &'static str) -> Result<Option<i64>, JoseError> {
        // RFC 7519 section 2: "A JSON numeric value representing the number of seconds … non-integer values can be represented."
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let seconds = match value.as_i64() {
            Some(seconds) => Some(seconds),
            // Rounded down: an `exp` passes no later than it says.
            None => value.as_f64().filter(|seconds| (0.0..=SAFE_FLOAT).contains(seconds)).map(whole),
        };
        seconds.filter(|seconds| (0..=SAFE).contains(seconds)).map(Some).ok_or(JoseError::Claim(name))
    }

    /// `aud`.
    ///
    /// # Errors
    /// [`JoseError::Claim`] unless it is a string or an array of strings.
    pub fn audience(&self) -> Result<Option<Audience<'_>>, JoseError> {
        match self.0.get("aud") {
            None => Ok(None),
            Some(Value::String(one)) => Ok(Some(Audience::One(one))),
            Some(Value::Array(many)) => {
                let many = many.iter().map(Value::as_str).collect::<Option<_>>().ok_or(JoseError::Claim("aud"))?;
                Ok(Some(Audience::Many(many)))
            }
            Some(_) => Err(JoseError::Claim("aud")),
        }
    }

    /// All claims by name, whatever their types.
    #[must_use]
    pub fn members(&self) -> &Object {
        &self.0
    }

    /// All claims as they stand.
    #[must_use]
    pub fn into_members(self) -> Object {
        self.0
    }
}

impl<'a> Audience<'a> {
    /// The only one there is, be it a string or an array of one.
    #[must_use]
    pub fn sole(&self) -> Option<&'a str> {
        match self {
            Self::One(one) => Some(one),
            Self::Many(many) => match many.as_slice() {
                [one] => Some(one),
                _ => None,
            },
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the caller has bounded it by 2^53")]
fn whole(seconds: f64) -> i64 {
    seconds.floor() as i64
}

/// RFC 7493 section 2.2: beyond 2^53 - 1 numbers lose their precision on the way.
const SAFE: i64 = 9_007_199_254_740_991;
const SAFE_FLOAT: f64 = 9_007_199_254_740_991.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn claims(text: &str) -> Claims {
        Claims::new(json::object(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_numeric_date_is_a_number_and_keeps_its_precision() {
        let read = |value: &str| claims(&format!(r#"{{"exp":{value}}}"#)).numeric_date("exp");
        for (value, seconds) in [
            ("0", 0),
            ("1700000000", 1_700_000_000),
            ("1700000000.5", 1_700_000_000),
            ("1700000000.999999", 1_700_000_000),
            ("1.7e9", 1_700_000_000),
            ("9007199254740991", 9_007_199_254_740_991),
        ] {
            assert_eq!(read(value), Ok(Some(seconds)), "{value}");
        }
        for value in [
            "\"1700000000\"",
            "\"never\"",
            "\"\"",
            "null",
            "true",
            "{}",
            "[]",
            "[1700000000]",
            "-1",
            "-0.5",
            "-1e300",
            "1e20",
            "1e300",
            "9007199254740992",
            "9223372036854775808",
            "18446744073709551615",
            "-9223372036854775808",
        ] {
            assert_eq!(read(value), Err(JoseError::Claim("exp")), "{value}");
        }
        assert_eq!(claims("{}").numeric_date("exp"), Ok(None));
    }

    #[test]
    fn string_claims_are_read_exactly_bounded_and_not_empty() {
        let read =
            |value: &str| claims(&format!(r#"{{"jti":{value}}}"#)).string("jti", 256).map(|jti| jti.map(str::to_owned));
        assert_eq!(read(r#""\u0061""#), read(r#""a""#));
        let distinct = [r#""a""#, r#""A""#, r#""a ""#, r#"" a""#, r#""a\u0000""#, r#""\u00e9""#, r#""e\u0301""#];
        for (at, one) in distinct.iter().enumerate() {
            assert!(read(one).unwrap().is_some(), "{one}");
            assert!(distinct.iter().skip(at + 1).all(|other| read(one) != read(other)), "{one}");
        }
        assert!(read(&format!("\"{}\"", "x".repeat(256))).is_ok());
        for value in ["\"\"", "null", "1", "true", "[\"a\"]", "{}", &format!("\"{}\"", "x".repeat(257))] {
            assert_eq!(read(value), Err(JoseError::Claim("jti")), "{value}");
        }
        assert_eq!(claims("{}").string("jti", 256), Ok(None));
    }

    #[test]
    fn an_audience_tells_a_sole_value_from_several() {
        let sole = |text: &str| claims(text).audience().map(|aud| aud.and_then(|aud| aud.sole().map(str::to_owned)));
        assert_eq!(sole(r#"{"aud":"a"}"#), Ok(Some("a".into())));
        assert_eq!(sole(r#"{"aud":["a"]}"#), Ok(Some("a".into())));
        assert_eq!(sole(r#"{"aud":["a","b"]}"#), Ok(None));
        assert_eq!(sole(r#"{"aud":["a","a"]}"#), Ok(None));
        assert_eq!(sole(r#"{"aud":[]}"#), Ok(None));
        assert_eq!(sole("{}"), Ok(None));
        for text in [r#"{"aud":1}"#, r#"{"aud":null}"#, r#"{"aud":["a",1]}"#, r#"{"aud":{"a":"b"}}"#] {
            assert_eq!(sole(text), Err(JoseError::Claim("aud")), "{text}");
        }
        let both = claims(r#"{"aud":["a","b"]}"#);
        assert_eq!(both.audience(), Ok(Some(Audience::Many(vec!["a", "b"]))));
        assert_eq!(both.into_members().len(), 1);
        assert!(matches!(claims(r#"{"aud":["a"]}"#).audience(), Ok(Some(Audience::Many(_)))));
    }
}

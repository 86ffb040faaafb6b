//! A strict reader of JSON objects (RFC 8259): no name stands twice, and neither depth nor size is the sender's choice; and
//! a fast writer of JSON strings.

use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::map::Entry;

/// A JSON object in which each name stands once, at every level.
pub type Object = serde_json::Map<String, Value>;

/// Reasons for refusing a JSON text. No message quotes the text.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum JsonError {
    /// Not JSON, not UTF-8, or a number out of range.
    #[error("not JSON in UTF-8")]
    Malformed,
    /// JSON, but not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// RFC 7515 section 4: "The Header Parameter names within the JOSE Header MUST be unique". So must claims.
    #[error("a member stands twice")]
    Duplicate,
    /// More than 16 levels.
    #[error("nested too deeply")]
    TooDeep,
    /// More than 1024 values.
    #[error("too many members")]
    TooMany,
}

/// Reads one object and nothing after it. Names are compared after their escapes are resolved.
///
/// # Errors
/// [`JsonError`].
pub fn object(text: &[u8]) -> Result<Object, JsonError> {
    let mut budget = Budget { values: VALUES, fault: None };
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = Strict { budget: &mut budget, levels: DEPTH }.deserialize(&mut reader);
    match (read, budget.fault) {
        (_, Some(fault)) => Err(fault),
        (Ok(Value::Object(object)), _) if reader.end().is_ok() => Ok(object),
        (Ok(Value::Object(_)) | Err(_), _) => Err(JsonError::Malformed),
        (Ok(_), _) => Err(JsonError::NotAnObject),
    }
}

/// Appends `text` as a JSON string (RFC 8259 section 7).
///
/// Nearly every string of a token needs no escape. Looking at all bytes takes vector instructions, and the text is then copied at
/// once; `serde_json` branches at each byte.
pub fn push_string(json: &mut Vec<u8>, text: &str) {
    let escapes = text.bytes().fold(0, |found, byte| found | u8::from(matches!(byte, b'\0'..b' ' | b'"' | b'\\')));
    if escapes != 0 {
        json.extend_from_slice(Value::from(text).to_string().as_bytes());
    } else {
        json.push(b'"');
        json.extend_from_slice(text.as_bytes());
        json.push(b'"');
    }
}

/// The values that may still be read, and the limit that was exceeded, which serde's error cannot carry.
struct Budget {
    values: usize,
    fault: Option<JsonError>,
}

impl Budget {
    fn end<E: serde::de::Error>(&mut self, fault: JsonError) -> E {
        self.fault = Some(fault);
        E::custom("refused")
    }
}

/// Reads one value, `levels` of nesting at most.
struct Strict<'b> {
    budget: &'b mut Budget,
    levels: usize,
}

impl Strict<'_> {
    /// A reader for what stands one level below, paid for.
    fn below<E: serde::de::Error>(&mut self) -> Result<Strict<'_>, E> {
        let Some(levels) = self.levels.checked_sub(1) else { return Err(self.budget.end(JsonError::TooDeep)) };
        let Some(values) = self.budget.values.checked_sub(1) else { return Err(self.budget.end(JsonError::TooMany)) };
        self.budget.values = values;
        Ok(Strict { budget: &mut *self.budget, levels })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(value) = elements.next_element_seed(self.below()?)? {
            array.push(value);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Object::new();
        while let Some(name) = members.next_key::<String>()? {
            match object.entry(name) {
                Entry::Occupied(_) => return Err(self.budget.end(JsonError::Duplicate)),
                Entry::Vacant(entry) => entry.insert(members.next_value_seed(self.below()?)?),
            };
        }
        Ok(Value::Object(object))
    }
}

/// Tokens of other issuers nest four or five levels; this leaves room, and the stack does not notice it.
const DEPTH: usize = 16;

/// A key set of 64 keys with certificates stays below this.
const VALUES: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_reads_as_it_stands() {
        let read = object(br#" {"a":[1,-2,2.5,"x\u0000",null,true,{}],"b":{"a":1}} "#).unwrap();
        assert_eq!(Value::Object(read), json!({"a": [1, -2, 2.5, "x\0", null, true, {}], "b": {"a": 1}}));
        assert_eq!(object(b"{}").unwrap(), Object::new());
    }

    #[test]
    fn duplicate_member_names_are_refused_at_every_level_and_in_every_spelling() {
        for text in [
            r#"{"jti":1,"jti":1}"#,
            r#"{"a":{"b":1,"c":2,"b":3}}"#,
            r#"{"a":[{"b":1},{"b":1,"b":1}]}"#,
            r#"{"aud":"x","\u0061ud":"y"}"#,
            r#"{"":1,"":2}"#,
        ] {
            assert_eq!(object(text.as_bytes()), Err(JsonError::Duplicate), "{text}");
        }
        assert!(object(br#"{"a":1,"A":2,"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn only_one_object_in_utf_8_is_parsed() {
        for text in
            [&b""[..], b"{", b"{}{}", b"{} x", b"{'a':1}", b"{\"a\":1,}", b"\xef\xbb\xbf{}", b"{\"a\":\"\xff\"}"]
        {
            assert_eq!(object(text), Err(JsonError::Malformed), "{text:?}");
        }
        for text in [r#"{"a":01}"#, r#"{"a":NaN}"#, r#"{"a":1e400}"#, r#"{"a":"\ud800"}"#, "{\"a\":\"\n\"}"] {
            assert_eq!(object(text.as_bytes()), Err(JsonError::Malformed), "{text}");
        }
        for text in ["[]", "\"a\"", "1", "null", "[{}]"] {
            assert_eq!(object(text.as_bytes()), Err(JsonError::NotAnObject), "{text}");
        }
    }

    #[test]
    fn nesting_depth_and_number_of_members_are_bounded() {
        let nested = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        assert!(object(nested(DEPTH).as_bytes()).is_ok());
        assert_eq!(object(nested(DEPTH + 1).as_bytes()), Err(JsonError::TooDeep));
        assert_eq!(object(nested(10_000).as_bytes()), Err(JsonError::TooDeep));
        assert_eq!(object(format!(r#"{{"a":{}"#, "[".repeat(100_000)).as_bytes()), Err(JsonError::TooDeep));

        let wide = |members: usize| {
            let members: Vec<String> = (0..members).map(|n| format!("\"{n}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(object(wide(VALUES - 1).as_bytes()).is_ok());
        assert_eq!(object(wide(20_000).as_bytes()), Err(JsonError::TooMany));
        assert_eq!(object(format!(r#"{{"a":[{}0]}}"#, "0,".repeat(20_000)).as_bytes()), Err(JsonError::TooMany));
        assert_eq!(object(format!(r#"{{"a":{}}}"#, "9".repeat(1_000_000)).as_bytes()), Err(JsonError::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = object(&text);
        }

        #[test]
        fn a_written_string_is_what_serde_json_writes(text in any::<String>()) {
            let mut json = Vec::new();
            push_string(&mut json, &text);
            prop_assert_eq!(json, serde_json::to_vec(&text).unwrap());
        }

        #[test]
        fn parsed_json_agrees_with_serde_json(text in r#"\{("[ab]":([0-9.e-]{1,4}|"a"|\[\]|\{"[ab]":1\}),?){0,4}\}"#) {
            if let Ok(read) = object(text.as_bytes()) {
                prop_assert_eq!(Value::Object(read), serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }
}

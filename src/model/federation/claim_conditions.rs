//! Conditions of a rule on claims: each member stands in the token with an equal value.

use std::str::FromStr;

use serde_json::Value;

use crate::crypto::json::{self, JsonError, Object};
use crate::model::claims::ascii_json;

/// Claims that a token has to have, with their values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClaimConditions(Object);

/// Error for claims that no rule can name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClaimConditionsError {
    /// The text is not a JSON object.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The claim has rules of its own.
    #[error("{0} has rules of its own and cannot be named in claims")]
    Reserved(&'static str),
    /// The claims are too many.
    #[error("more than {MAX_CHARACTERS} characters")]
    TooLong,
    /// Two such numbers may be told apart as text and not as values.
    #[error("{0}: a number beyond 2^53; compare it as a string")]
    Number(String),
}

/// A claim that is not as a rule wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimMismatch {
    /// The claim; for a member of an object, the names on the way to it, separated by dots.
    pub name: String,
    /// The value that the rule names.
    pub wanted: Value,
    /// The value in the token; `None` when it has none.
    pub found: Option<Value>,
}

impl ClaimConditions {
    /// The claims by name.
    #[must_use]
    pub fn members(&self) -> &Object {
        &self.0
    }

    /// Whether the rule names no claim.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The claims as JSON in ASCII, for the database.
    #[must_use]
    pub fn to_ascii(&self) -> String {
        ascii_json(&self.0)
    }

    /// Finds the first claim that differs. Strings, numbers and booleans are equal as written (5 is not 5.0), arrays as a
    /// whole. An object of the token may have further members.
    #[must_use]
    pub fn first_mismatch(&self, claims: &Object) -> Option<ClaimMismatch> {
        differs(&self.0, claims)
    }
}

fn differs(wanted: &Object, found: &Object) -> Option<ClaimMismatch> {
    wanted.iter().find_map(|(name, wanted)| match (wanted, found.get(name)) {
        (Value::Object(wanted), Some(Value::Object(found))) => {
            differs(wanted, found).map(|inner| ClaimMismatch { name: format!("{name}.{}", inner.name), ..inner })
        }
        (wanted, Some(found)) if wanted == found => None,
        (wanted, found) => Some(ClaimMismatch { name: name.clone(), wanted: wanted.clone(), found: found.cloned() }),
    })
}

impl TryFrom<Object> for ClaimConditions {
    type Error = ClaimConditionsError;

    fn try_from(members: Object) -> Result<Self, ClaimConditionsError> {
        if let Some(name) = RESERVED.into_iter().find(|name| members.contains_key(*name)) {
            return Err(ClaimConditionsError::Reserved(name));
        }
        if let Some((name, _)) = members.iter().find(|(_, value)| has_inexact_number(value)) {
            return Err(ClaimConditionsError::Number(name.clone()));
        }
        let conditions = Self(members);
        if conditions.to_ascii().len() > MAX_CHARACTERS {
            return Err(ClaimConditionsError::TooLong);
        }
        Ok(conditions)
    }
}

impl FromStr for ClaimConditions {
    type Err = ClaimConditionsError;

    fn from_str(text: &str) -> Result<Self, ClaimConditionsError> {
        // Most rules of some kinds have none.
        if text == "{}" { Ok(Self::default()) } else { json::object(text.as_bytes())?.try_into() }
    }
}

/// Whether a value has a number that a reader may have rounded: an integer that no 64 bits hold is read as a fraction.
fn has_inexact_number(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            !number.is_i64() && !number.is_u64() && number.as_f64().is_none_or(|number| number.abs() >= EXACT)
        }
        Value::Array(values) => values.iter().any(has_inexact_number),
        Value::Object(members) => members.values().any(has_inexact_number),
        _ => false,
    }
}

/// Claims that are checked whatever a rule says.
pub const RESERVED: [&str; 7] = ["iss", "sub", "aud", "exp", "iat", "nbf", "jti"];
/// Length of the longest text of claims.
const MAX_CHARACTERS: usize = 4096;
/// 2^53: every integer below is a number of its own.
const EXACT: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fits(wanted: &str, found: &str) -> bool {
        let found = json::object(found.as_bytes()).unwrap();
        wanted.parse::<ClaimConditions>().unwrap().first_mismatch(&found).is_none()
    }

    #[test]
    fn claims_are_equal_as_written() {
        for (wanted, found) in [
            (r#"{"a":"x"}"#, r#"{"a":"x","b":1}"#),
            (r#"{"a":5}"#, r#"{"a":5}"#),
            (r#"{"a":5.5}"#, r#"{"a":5.5}"#),
            (r#"{"a":true}"#, r#"{"a":true}"#),
            (r#"{"a":null}"#, r#"{"a":null}"#),
            (r#"{"a":[1,2]}"#, r#"{"a":[1,2]}"#),
            (r#"{"kubernetes.io":{"namespace":"pay"}}"#, r#"{"kubernetes.io":{"namespace":"pay","pod":{"name":"x"}}}"#),
            (r#"{"a":{"b":{"c":1}}}"#, r#"{"a":{"b":{"c":1,"d":2},"e":3}}"#),
            ("{}", "{}"),
        ] {
            assert!(fits(wanted, found), "{wanted} {found}");
        }
        for (wanted, found) in [
            (r#"{"a":"x"}"#, "{}"),
            (r#"{"a":"x"}"#, r#"{"a":"X"}"#),
            (r#"{"a":"5"}"#, r#"{"a":5}"#),
            (r#"{"a":5}"#, r#"{"a":5.0}"#),
            (r#"{"a":5}"#, r#"{"a":"5"}"#),
            (r#"{"a":true}"#, r#"{"a":"true"}"#),
            (r#"{"a":false}"#, r#"{"a":null}"#),
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#),
            (r#"{"a":[1]}"#, r#"{"a":[1,2]}"#),
            (r#"{"a":"x"}"#, r#"{"a":["x"]}"#),
            (r#"{"a":[{"b":1}]}"#, r#"{"a":[{"b":1,"c":2}]}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":{"b":2}}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":"b"}"#),
            (r#"{"a":{}}"#, r#"{"a":[]}"#),
        ] {
            assert!(!fits(wanted, found), "{wanted} {found}");
        }
        let wanted: ClaimConditions = r#"{"k":{"n":"pay","s":{"u":1}}}"#.parse().unwrap();
        let found = json!({"k": {"n": "pay", "s": {"u": 2}}});
        let mismatch = wanted.first_mismatch(found.as_object().unwrap()).unwrap();
        assert_eq!(mismatch, ClaimMismatch { name: "k.s.u".into(), wanted: json!(1), found: Some(json!(2)) });
    }

    #[test]
    fn claims_that_are_checked_anyway_cannot_be_named() {
        let read = |text: &str| text.parse::<ClaimConditions>();
        for name in RESERVED {
            assert_eq!(read(&format!(r#"{{"{name}":"x"}}"#)), Err(ClaimConditionsError::Reserved(name)));
        }
        assert!(matches!(read("[]"), Err(ClaimConditionsError::Json(_))));
        assert!(matches!(read(r#"{"a":1,"a":1}"#), Err(ClaimConditionsError::Json(_))));
        assert_eq!(read(&format!(r#"{{"a":"{}"}}"#, "x".repeat(4090))), Err(ClaimConditionsError::TooLong));
        for text in [r#"{"a":18446744073709551616}"#, r#"{"a":[{"b":1e300}]}"#] {
            assert_eq!(read(text), Err(ClaimConditionsError::Number("a".into())), "{text}");
        }
        assert!(read(r#"{"a":18446744073709551615,"b":0.5}"#).is_ok());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..3)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn claims_fit_themselves_and_whatever_has_more(value in any_json(), extra in any_json()) {
            let members: Object = [("a".to_owned(), value)].into_iter().collect();
            let conditions = ClaimConditions::try_from(members.clone()).unwrap();
            prop_assert_eq!(conditions.first_mismatch(&members), None);
            prop_assert_eq!(&conditions.to_ascii().parse::<ClaimConditions>().unwrap(), &conditions);
            let mut more = members;
            more.insert("b".to_owned(), extra);
            prop_assert_eq!(conditions.first_mismatch(&more), None);
        }

        #[test]
        fn a_mismatch_names_values_that_differ(wanted in any_json(), found in any_json()) {
            let object = |value| [("a".to_owned(), value)].into_iter().collect::<Object>();
            let conditions = ClaimConditions::try_from(object(wanted)).unwrap();
            if let Some(mismatch) = conditions.first_mismatch(&object(found)) {
                prop_assert_ne!(Some(mismatch.wanted), mismatch.found);
            }
        }
    }
}

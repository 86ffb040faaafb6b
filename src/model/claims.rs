//! Further claims of a client's tokens, as an administrator registers them.

use std::str::FromStr;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::crypto::json::{self, JsonError};

/// Further claims of a client's tokens, within bounds, and none of those that the server sets itself. Most clients have none,
/// which takes eight bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegisteredClaims(Option<Box<Map<String, Value>>>);

/// Claims that cannot be registered.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegisteredClaimsError {
    /// The text is not a JSON object.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The server sets this claim.
    #[error("{0}: grantd sets this claim itself")]
    Reserved(&'static str),
    /// More claims than a client may have.
    #[error("{0} claims; a client has at most {MAX_COUNT}")]
    TooMany(usize),
    /// The claims do not fit into a token.
    #[error("more than {MAX_CHARACTERS} characters")]
    TooLong,
}

impl RegisteredClaims {
    /// The claims by name.
    #[must_use]
    pub fn members(&self) -> &Map<String, Value> {
        self.0.as_deref().unwrap_or(&NONE)
    }

    /// The claims as JSON in ASCII, for the database.
    #[must_use]
    pub fn to_ascii(&self) -> String {
        ascii_json(self.members())
    }

    /// Reads the claims of a row. A row may be older than the reservation of `status`.
    ///
    /// # Errors
    /// [`RegisteredClaimsError`].
    pub fn of_row(text: &str) -> Result<Self, RegisteredClaimsError> {
        Self::read(text, &[STATUS])
    }

    fn read(text: &str, permitted: &[&str]) -> Result<Self, RegisteredClaimsError> {
        if text == "{}" {
            return Ok(Self::default());
        }
        if text.len() > MAX_CHARACTERS {
            return Err(RegisteredClaimsError::TooLong);
        }
        Self::checked(json::object(text.as_bytes())?, permitted)
    }

    fn checked(members: Map<String, Value>, permitted: &[&str]) -> Result<Self, RegisteredClaimsError> {
        if members.len() > MAX_COUNT {
            return Err(RegisteredClaimsError::TooMany(members.len()));
        }
        match RESERVED.iter().find(|name| members.contains_key(**name) && !permitted.contains(name)) {
            Some(name) => Err(RegisteredClaimsError::Reserved(name)),
            None => Ok(Self(Some(members).filter(|members| !members.is_empty()).map(Box::new))),
        }
    }
}

impl TryFrom<Map<String, Value>> for RegisteredClaims {
    type Error = RegisteredClaimsError;

    fn try_from(members: Map<String, Value>) -> Result<Self, RegisteredClaimsError> {
        let claims = Self::checked(members, &[])?;
        if claims.to_ascii().len() > MAX_CHARACTERS { Err(RegisteredClaimsError::TooLong) } else { Ok(claims) }
    }
}

impl FromStr for RegisteredClaims {
    type Err = RegisteredClaimsError;

    /// Reads the claims within the same bounds as the reader of tokens, so that a token with these claims can be
    /// introspected.
    fn from_str(text: &str) -> Result<Self, RegisteredClaimsError> {
        Self::read(text, &[])
    }
}

/// Writes an object as JSON in ASCII: SQLite does not check that text is UTF-8.
pub(super) fn ascii_json(members: &Map<String, Value>) -> String {
    let json = Value::Object(members.clone()).to_string();
    let mut units = [0; 2];
    json.chars()
        .map(|character| match character {
            ascii if ascii.is_ascii() => ascii.to_string(),
            other => other.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        })
        .collect()
}

/// The claims of a client that has none.
static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
/// Claims that grantd sets itself, so that no registration can override them.
const RESERVED: [&str; 16] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "scope",
    "client_id",
    "cnf",
    "act",
    "may_act",
    "auth_time",
    "acr",
    "amr",
    STATUS,
];
/// The claim that refers to a status list. Clients that were registered before it was reserved may have it.
pub const STATUS: &str = "status";
/// Length of the longest text of claims: a token has no room for more.
const MAX_CHARACTERS: usize = 4096;
/// Largest number of further claims of a client.
const MAX_COUNT: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_few_and_small_and_none_of_the_servers_own() {
        let read = |value: Value| RegisteredClaims::try_from(value.as_object().unwrap().clone());
        let claims = read(json!({"team": "Zoë", "ids": [1, 2]})).unwrap();
        assert_eq!(claims.to_ascii(), r#"{"ids":[1,2],"team":"Zo\u00eb"}"#);
        assert_eq!(claims.to_ascii().parse(), Ok(claims));
        for name in RESERVED {
            assert_eq!(read(json!({ name: 1 })), Err(RegisteredClaimsError::Reserved(name)));
            assert_eq!(
                format!("{{\"{name}\":1}}").parse::<RegisteredClaims>(),
                Err(RegisteredClaimsError::Reserved(name))
            );
        }
        let many: Map<String, Value> = (0..65).map(|n| (n.to_string(), json!(1))).collect();
        assert_eq!(RegisteredClaims::try_from(many), Err(RegisteredClaimsError::TooMany(65)));
        let (fits, long) = (json!({"a": "x".repeat(4088)}), json!({"a": "é".repeat(682)}));
        assert!(read(fits.clone()).is_ok() && fits.to_string().parse::<RegisteredClaims>().is_ok());
        assert_eq!(read(long), Err(RegisteredClaimsError::TooLong));
        assert_eq!(format!(" {fits}").parse::<RegisteredClaims>(), Err(RegisteredClaimsError::TooLong));
        assert!("[]".parse::<RegisteredClaims>().is_err());
        assert!(
            RegisteredClaims::of_row(r#"{"status":1}"#).is_ok() && RegisteredClaims::of_row(r#"{"iss":1}"#).is_err()
        );
    }
}

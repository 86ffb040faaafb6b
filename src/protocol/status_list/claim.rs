//! The claim `status` of a token: its reference to a status list.

use std::io::Write as _;

use serde_json::Value;

use crate::crypto::json::{Object, push_string};
use crate::model::claims::STATUS;
use crate::model::status::StatusIndex;

/// Appends the claim to the JSON of others. Its bytes are written for each token: they take a tenth of a microsecond, and would
/// take a hundred bytes for each client to keep.
///
/// # Errors
/// None: writing into memory does not fail.
pub(in crate::protocol) fn push(json: &mut Vec<u8>, issuer: &str, index: StatusIndex) -> std::io::Result<()> {
    write!(json, ",\"{STATUS}\":{{\"status_list\":{{\"idx\":{},\"uri\":", index.idx())?;
    push_string(json, issuer.trim_end_matches('/'));
    // The string goes on.
    json.pop();
    write!(json, "{PATH}{}\"}}}}", index.list())
}

/// The status index that a token of `issuer` refers to; `None` when it refers to none of ours.
pub(crate) fn index_of(claims: &Object, issuer: &str) -> Option<StatusIndex> {
    let reference = claims.get(STATUS)?.get("status_list")?;
    let path = reference.get("uri")?.as_str()?.strip_prefix(issuer.trim_end_matches('/'))?;
    StatusIndex::of_claim(name(path.strip_prefix(PATH)?)?, reference.get("idx")?.as_i64()?)
}

/// Whether a claim that is registered for a client passes for a reference to a status list.
pub(in crate::protocol) fn imitates(status: &Value) -> bool {
    status.get("status_list").is_some()
}

/// The URI of a list: its `sub`, and `uri` in tokens.
#[must_use]
pub fn uri(issuer: &str, name: i64) -> String {
    format!("{}{PATH}{name}", issuer.trim_end_matches('/'))
}

/// Reads the name of a list, in the one spelling that a URI has.
#[must_use]
pub fn name(text: &str) -> Option<i64> {
    text.parse().ok().filter(|name: &i64| *name > 0 && name.to_string() == text)
}

/// Path of the lists below the issuer.
const PATH: &str = "/token-status/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_read_as_it_was_written_and_in_no_other_form() {
        let index = StatusIndex::new(6, 5);
        let mut json = b"{\"a\":1".to_vec();
        push(&mut json, "https://as.test/", index).unwrap();
        json.push(b'}');
        assert_eq!(
            String::from_utf8(json.clone()).unwrap(),
            r#"{"a":1,"status":{"status_list":{"idx":5,"uri":"https://as.test/token-status/7"}}}"#
        );
        let claims: Object = serde_json::from_slice(&json).unwrap();
        assert_eq!(index_of(&claims, "https://as.test"), Some(index));
        assert_eq!(index_of(&claims, "https://as"), None);
        for (idx, uri) in
            [("-1", "7"), ("1048576", "7"), ("5", "0"), ("5", "07"), ("5", "+7"), ("5", ""), ("\"5\"", "7")]
        {
            let text =
                format!(r#"{{"status":{{"status_list":{{"idx":{idx},"uri":"https://as.test/token-status/{uri}"}}}}}}"#);
            assert_eq!(index_of(&serde_json::from_str(&text).unwrap(), "https://as.test"), None, "{text}");
        }
    }
}

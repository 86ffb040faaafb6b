//! Further claims of a client's tokens, from the arguments `--claim NAME=TEXT` and `--claim-json NAME=JSON`.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use super::Shell;
use crate::crypto::json;
use crate::model::claims::RegisteredClaims;

/// Reads `NAME=JSON`.
pub(super) fn json_claim(text: &str) -> Result<(String, Value), String> {
    let (name, json) = text.split_once('=').ok_or("write NAME=JSON")?;
    // Parsed by the reader of the registry, so that it accepts what is accepted here.
    let members = json::object(format!("{{\"value\":{json}}}").as_bytes());
    let quoted = format!("quote it for the shell, as in '{name}=[\"a\",1]'");
    let mut members = members.map_err(|error| format!("`{json}` cannot be read as a JSON value: {error}; {quoted}"))?;
    // More than one member means that the text closed the object around it.
    let value = members.remove("value").filter(|_| members.is_empty());
    Ok((name.to_owned(), value.ok_or_else(|| format!("`{json}` is more than one JSON value; {quoted}"))?))
}

/// Merges further claims of a client's tokens.
pub(super) fn registered(
    shell: &Shell,
    texts: Vec<(String, String)>,
    values: Vec<(String, Value)>,
) -> anyhow::Result<RegisteredClaims> {
    merged(shell, texts, values)?.try_into().context("--claim")
}

/// Merges claims and refuses duplicates. Prints a note for a text that looks like another JSON value.
pub(super) fn merged(
    shell: &Shell,
    texts: Vec<(String, String)>,
    values: Vec<(String, Value)>,
) -> anyhow::Result<Map<String, Value>> {
    for (name, text) in texts.iter().filter(|(_, text)| looks_like_json(text)) {
        shell.info(&format!(
            "note: --claim {name}={text} sets a string; for the JSON value write --claim-json '{name}={text}'"
        ))?;
    }
    let texts = texts.into_iter().map(|(name, text)| (name, Value::String(text)));
    let mut members = Map::new();
    for (name, value) in texts.chain(values) {
        if members.insert(name.clone(), value).is_some() {
            bail!("--claim {name} is given twice");
        }
    }
    Ok(members)
}

/// Whether a text is, or begins like, a number, a boolean, null, a quoted string, a list or an object.
fn looks_like_json(text: &str) -> bool {
    text.starts_with(['{', '[', '"']) || serde_json::from_str::<Value>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_json_claim_is_one_json_value() {
        for (text, value) in [
            ("n=5", json!(5)),
            ("admin=true", json!(true)),
            ("x=null", json!(null)),
            ("roles=[\"a\", {\"b\": 1.5}]", json!(["a", {"b": 1.5}])),
            ("name=\"a=b\"", json!("a=b")),
        ] {
            assert_eq!(json_claim(text).unwrap(), (text.split_once('=').unwrap().0.to_owned(), value), "{text}");
        }
        for wrong in ["n", "n=", "n=abc", "n=1,\"iss\":\"x\"", "n=1}", "n={\"a\":1,\"a\":2}", "n=1e999"] {
            assert!(json_claim(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_text_that_may_be_meant_as_json_is_known() {
        for text in ["5", "-1.5", "true", "false", "null", "\"x\"", "[1", "{a: 1}"] {
            assert!(looks_like_json(text), "{text}");
        }
        for text in ["", "finance", "0042a", "TRUE", "it's", "1.2.3"] {
            assert!(!looks_like_json(text), "{text}");
        }
    }
}

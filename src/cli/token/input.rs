//! The token on stdin: bare, as the value of `Authorization`, or in the JSON answer of a token endpoint.

use std::io::{self, Read as _};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

pub(in crate::cli) fn token_from_stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    io::stdin().take(MAX_INPUT + 1).read_to_string(&mut text).context("reading the token from stdin")?;
    if text.len() as u64 > MAX_INPUT {
        bail!("a token has at most {MAX_INPUT} bytes; the input on stdin is longer");
    }
    token_in(&text)
}

fn token_in(text: &str) -> anyhow::Result<String> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.starts_with('{') {
        let answer: Map<String, Value> =
            serde_json::from_str(text).context("stdin has a JSON answer that is cut off")?;
        let member = |name: &str| answer.get(name).and_then(Value::as_str);
        return match (member("access_token"), member("error")) {
            (Some(token), _) => Ok(token.to_owned()),
            (None, Some(error)) => {
                let description = member("error_description").map(|it| format!(": {it}")).unwrap_or_default();
                bail!("stdin has no token, but the refusal of a token request: {error}{description}")
            }
            (None, None) => bail!("stdin has JSON without access_token, which is no answer of a token endpoint"),
        };
    }
    let text = strip_word(text, "authorization:").unwrap_or(text);
    let token = ["bearer ", "dpop "].iter().find_map(|scheme| strip_word(text, scheme)).unwrap_or(text);
    if token.is_empty() {
        bail!("stdin has no token");
    }
    Ok(token.to_owned())
}

/// Strips a prefix, whatever its case, and the white space behind it.
fn strip_word<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| rest.trim_start())
}

/// Maximum length of the input, in bytes; grantd's own tokens have at most some 6 KiB.
const MAX_INPUT: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_bare_in_a_field_or_in_an_answer() {
        for text in [
            "a.b.c",
            " a.b.c\n",
            "\u{feff}a.b.c",
            "Bearer a.b.c",
            "bearer  a.b.c\r\n",
            "DPoP a.b.c",
            "Authorization: Bearer a.b.c",
            "authorization:DPoP a.b.c",
            r#"{"access_token":"a.b.c","token_type":"Bearer","expires_in":1}"#,
        ] {
            assert_eq!(token_in(text).unwrap(), "a.b.c", "{text}");
        }
        for (text, part) in [
            ("", "no token"),
            ("\n", "no token"),
            (r#"{"access_token":"a.b"#, "cut off"),
            (r#"{"error":"invalid_client","error_description":"no"}"#, "invalid_client: no"),
            (r#"{"keys":[]}"#, "no answer of a token endpoint"),
        ] {
            let error = token_in(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}

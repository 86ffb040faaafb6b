//! Spans of time in arguments: each with its limits, so that a slip is wrong usage and names them.

use crate::model::time::{Span, SpanError};

/// `--token-ttl`.
pub(super) fn token_ttl(text: &str) -> Result<Span, String> {
    within(text, 1, 86400, "a token lives from 1s to 24h")
}

/// `--assertion-lifetime`.
pub(super) fn assertion_lifetime(text: &str) -> Result<Span, String> {
    within(text, 60, 3600, "an assertion lives from 1m to 1h")
}

/// `--expires-in`, and other moments in the future.
pub(super) fn from_now(text: &str) -> Result<Span, String> {
    within(text, 1, i64::MAX, "this is at least 1s")
}

/// `--if-unused`: uses are written down every half minute.
pub(super) fn unused(text: &str) -> Result<Span, String> {
    within(text, 60, i64::MAX, "this is at least 1m, since replicas record uses every half minute")
}

fn within(text: &str, least: i64, most: i64, limits: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|error: SpanError| error.to_string())?;
    if (least..=most).contains(&span.seconds()) { Ok(span) } else { Err(limits.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_span_says_its_limits() {
        for (parse, good, wrong, part) in [
            (token_ttl as fn(&str) -> Result<Span, String>, "24h", "25h", "1s to 24h"),
            (token_ttl, "1s", "0s", "1s to 24h"),
            (assertion_lifetime, "1h", "61m", "1m to 1h"),
            (from_now, "36600d", "36601d", "at most 36600d"),
            (from_now, "1s", "0s", "at least 1s"),
            (from_now, "90d", "90", "a number with a unit"),
            (from_now, "90d", "1500ms", "whole seconds"),
            (unused, "1m", "59s", "at least 1m"),
        ] {
            assert!(parse(good).is_ok(), "{good}");
            let told = parse(wrong).unwrap_err();
            assert!(told.contains(part), "{wrong}: {told}");
        }
    }
}

//! Columns to values: each refuses what the schema would not let in.

use crate::model::time::{Span, UnixTime};

/// The lifetime of tokens in a column.
pub(super) fn ttl_of(seconds: i64) -> Result<Span, String> {
    match u64::try_from(seconds) {
        Ok(seconds @ 1..=86400) => Ok(Span::from_secs(seconds)),
        _ => Err(format!("token_ttl: {seconds} is not from 1 to 86400 seconds")),
    }
}

/// A moment in a column. One in milliseconds would be a credential that never expires.
pub(super) fn moment(column: &str, seconds: i64) -> Result<UnixTime, String> {
    UnixTime::from_column(seconds).ok_or_else(|| format!("{column}: {seconds} is not in seconds since 1970"))
}

/// A flag in a column.
pub(super) fn flag(column: &'static str, value: i64) -> Result<bool, String> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("{column}: {other} is neither 0 nor 1")),
    }
}

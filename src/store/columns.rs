//! Conversion of columns: each function refuses values that the schema's constraints would refuse.

use crate::model::lifetime::LifetimeError;
use crate::model::time::{Expiry, Span, UnixTime};

/// Reads a lifetime in seconds.
pub(super) fn lifetime<T: TryFrom<Span, Error = LifetimeError>>(
    column: &'static str,
    seconds: i64,
) -> Result<T, String> {
    // A negative number is outside every range, as 0 is.
    let span = Span::from_secs(u64::try_from(seconds).unwrap_or(0));
    span.try_into().map_err(|range| format!("{column}: {seconds} s is not {range}"))
}

/// Reads a moment in seconds. A moment in milliseconds would make a credential that never expires.
pub(super) fn moment(column: &str, seconds: i64) -> Result<UnixTime, String> {
    UnixTime::from_column(seconds).ok_or_else(|| format!("{column}: {seconds} is not in seconds since 1970"))
}

/// Reads the end of a client in seconds.
pub(super) fn expiry(column: &str, seconds: i64) -> Result<Expiry, String> {
    Expiry::new(moment(column, seconds)?).ok_or_else(|| format!("{column}: 0 is no moment"))
}

/// Reads a flag, 0 or 1.
pub(super) fn flag(column: &'static str, value: i64) -> Result<bool, String> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("{column}: {other} is neither 0 nor 1")),
    }
}

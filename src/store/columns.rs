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

/// Reads the end of a secret in seconds. Second 0 is over as second 1 is.
pub(super) fn secret_end(column: &str, seconds: i64) -> Result<Expiry, String> {
    expiry(column, if seconds == 0 { 1 } else { seconds })
}

/// Reads a flag, 0 or 1.
pub(super) fn flag(column: &'static str, value: i64) -> Result<bool, String> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("{column}: {other} is neither 0 nor 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_of_a_secret_at_second_0_has_come() {
        assert!(secret_end("expires_at", 0).unwrap().is_over(UnixTime(1)));
        assert!(!secret_end("expires_at", 2).unwrap().is_over(UnixTime(1)));
        assert!(secret_end("expires_at", i64::MAX).is_err(), "milliseconds, or worse");
    }
}

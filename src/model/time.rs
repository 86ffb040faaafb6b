//! Moments and spans of time: `NumericDate` seconds (RFC 7519 section 2), and the clock that functions are handed.

use std::fmt;
use std::num::NonZeroI64;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// Moment, in seconds since 1970-01-01T00:00:00Z without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct UnixTime(pub i64);

impl UnixTime {
    /// Reads a column in seconds. `None` for a value that is negative or can only be milliseconds.
    #[must_use]
    pub fn from_column(seconds: i64) -> Option<Self> {
        (0..=99_999_999_999).contains(&seconds).then_some(Self(seconds))
    }

    /// Returns the moment `span` later.
    #[must_use]
    pub fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.seconds()))
    }
}

impl fmt::Display for UnixTime {
    /// Writes RFC 3339 in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u64::try_from(self.0).ok().and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds))) {
            Some(moment) if self.0 < 253_402_300_800 => humantime::format_rfc3339_seconds(moment).fmt(f),
            _ => write!(f, "{} s", self.0),
        }
    }
}

/// End of a client or a secret: the second from which on it may not authenticate. As small as a number, since a registry may
/// hold a million of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Expiry(NonZeroI64);

impl Expiry {
    /// Makes the end at `at`. `None` for second 0, which the database refuses for clients.
    #[must_use]
    pub fn new(at: UnixTime) -> Option<Self> {
        NonZeroI64::new(at.0).map(Self)
    }

    /// The second.
    #[must_use]
    pub fn at(self) -> UnixTime {
        UnixTime(self.0.get())
    }

    /// Whether the end has come.
    #[must_use]
    pub fn is_over(self, now: UnixTime) -> bool {
        self.at() <= now
    }
}

/// Span of whole seconds, written `90s`, `15m`, `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// Makes a span of `seconds`.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The span in seconds.
    #[must_use]
    pub fn seconds(self) -> i64 {
        i64::try_from(self.0.as_secs()).unwrap_or(i64::MAX)
    }

    /// The span as a [`Duration`].
    #[must_use]
    pub fn duration(self) -> Duration {
        self.0
    }
}

/// Errors of reading a span, each with the text.
#[derive(Debug, thiserror::Error)]
pub enum SpanError {
    /// The text has another form, or a negative number.
    #[error("`{0}` is not a span of time; write a number with a unit, as in 90s, 15m, 1h, 30d")]
    Form(String),
    /// The span has a fraction of a second.
    #[error("`{0}` is not in whole seconds; write 1s or more, or 0s")]
    Fraction(String),
    /// The span is longer than a hundred years.
    #[error("`{0}` is too long; a span is at most 36600d")]
    TooLong(String),
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        match humantime::parse_duration(text) {
            Ok(span) if span.as_secs() > MAX_SECONDS => Err(SpanError::TooLong(text.to_owned())),
            Ok(span) if span.subsec_nanos() > 0 => Err(SpanError::Fraction(text.to_owned())),
            Ok(span) => Ok(Self(span)),
            Err(humantime::DurationError::NumberOverflow) => Err(SpanError::TooLong(text.to_owned())),
            Err(_) => Err(SpanError::Form(text.to_owned())),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (number, unit) = [(86400, 'd'), (3600, 'h'), (60, 'm')]
            .into_iter()
            .find(|(size, _)| seconds >= *size && seconds.is_multiple_of(*size))
            .map_or((seconds, 's'), |(size, unit)| (seconds / size, unit));
        write!(f, "{number}{unit}")
    }
}

/// Source of the present time.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The system's clock.
    System,
    /// Clock of tests, which stands where it is set. The database's clock is taken to stand there too.
    Fixed(Arc<AtomicI64>),
    /// The system's clock, shifted by this many seconds.
    Shifted(i64),
}

impl Clock {
    /// Makes a clock that stands at `now`, with the handle that moves it.
    #[must_use]
    pub fn fixed(now: i64) -> (Self, Arc<AtomicI64>) {
        let hand = Arc::new(AtomicI64::new(now));
        (Self::Fixed(Arc::clone(&hand)), hand)
    }

    /// The present second.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        let seconds = |since: Duration| i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        match self {
            Self::System => UnixTime(seconds(since_epoch())),
            Self::Shifted(by) => UnixTime(seconds(since_epoch()).saturating_add(*by)),
            Self::Fixed(hand) => UnixTime(hand.load(Ordering::Relaxed)),
        }
    }

    /// Returns by how many milliseconds this clock is ahead of `other`, a reading of another clock in milliseconds
    /// since 1970 that came during the `exchange` that has just ended. `None` when the exchange took a second or
    /// longer, which is too long to tell.
    #[must_use]
    pub fn ahead_of(&self, other: i64, exchange: Duration) -> Option<i64> {
        let milliseconds = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let shift = match self {
            Self::Fixed(_) => return Some(0),
            Self::System => 0,
            Self::Shifted(by) => by.saturating_mul(1000),
        };
        let middle = milliseconds(since_epoch().saturating_sub(exchange / 2)).saturating_add(shift);
        (exchange < Duration::from_secs(1)).then(|| middle.saturating_sub(other))
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Maximum length of a span, in seconds: a hundred years.
pub(crate) const MAX_SECONDS: u64 = 100 * 366 * 86400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_print_as_people_write_them() {
        for text in ["90s", "15m", "1h", "30d"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("3600s".parse::<Span>().unwrap().to_string(), "1h");
        for (wrong, part) in [
            ("", "a number with a unit"),
            ("15", "a number with a unit"),
            ("m", "a number with a unit"),
            ("-1s", "a number with a unit"),
            ("500ms", "whole seconds"),
            ("36601d", "at most 36600d"),
            ("100000d", "at most 36600d"),
            ("9999999999d", "at most 36600d"),
            ("99999999999999999999d", "at most 36600d"),
        ] {
            let told = wrong.parse::<Span>().unwrap_err().to_string();
            assert!(told.contains(part), "{wrong}: {told}");
        }
        assert!("36600d".parse::<Span>().is_ok());
    }

    #[test]
    fn moments_print_as_rfc_3339_in_utc() {
        assert_eq!(UnixTime(1_700_000_000).to_string(), "2023-11-14T22:13:20Z");
        assert_eq!(UnixTime(i64::MAX).to_string(), "9223372036854775807 s");
    }
}

//! Spans of time that administrators choose, each with its range.

use std::num::NonZeroU32;
use std::str::FromStr;

use super::time::{Span, SpanError};

/// Errors of a span of time.
#[derive(Debug, thiserror::Error)]
pub enum LifetimeError {
    /// The text is not a span of time.
    #[error(transparent)]
    Span(#[from] SpanError),
    /// The span is outside this range.
    #[error("{0}")]
    Range(&'static str),
}

/// Declares a span of time with a range in seconds.
macro_rules! lifetime {
    ($(#[$doc:meta])* $name:ident, $seconds:expr, $range:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(NonZeroU32);

        impl TryFrom<Span> for $name {
            type Error = LifetimeError;

            fn try_from(span: Span) -> Result<Self, LifetimeError> {
                // Four bytes, since a registry may hold a million of them.
                let seconds = u32::try_from(span.seconds()).ok().and_then(NonZeroU32::new);
                let seconds = seconds.filter(|_| ($seconds).contains(&span.seconds()));
                seconds.map(Self).ok_or(LifetimeError::Range($range))
            }
        }

        impl FromStr for $name {
            type Err = LifetimeError;

            fn from_str(text: &str) -> Result<Self, LifetimeError> {
                text.parse::<Span>()?.try_into()
            }
        }

        impl From<$name> for Span {
            fn from(lifetime: $name) -> Self {
                Span::from_secs(lifetime.0.get().into())
            }
        }
    };
}

lifetime!(
    /// Lifetime of a token: at most a day, since a token of a resource server that does not introspect lives until it
    /// expires.
    TokenTtl, 1..=86400, "from 1s to 24h"
);
lifetime!(
    /// Longest lifetime of a client's assertions, from their `iat`.
    AssertionLifetime, 60..=3600, "from 1m to 1h"
);
lifetime!(
    /// Longest lifetime of the tokens of a trusted issuer: ids of tokens that work once are kept as long.
    FederatedLifetime, 60..=86400, "from 1m to 24h"
);
lifetime!(
    /// Time from now until a new credential expires.
    ExpiresIn, 1.., "at least 1s"
);
lifetime!(
    /// Time for which a credential was not used.
    UnusedFor, 60.., "at least 1m, since replicas record uses every half minute"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_within_its_range() {
        for right in ["1s", "24h"] {
            assert!(right.parse::<TokenTtl>().is_ok(), "{right}");
        }
        for right in ["1m", "1h"] {
            assert!(right.parse::<AssertionLifetime>().is_ok(), "{right}");
        }
        assert!("36600d".parse::<ExpiresIn>().is_ok() && "1m".parse::<UnusedFor>().is_ok());
        for (wrong, range) in [("0s", "at least 1s"), ("36601d", "at most 36600d"), ("90", "a number with a unit")] {
            assert!(wrong.parse::<ExpiresIn>().unwrap_err().to_string().contains(range), "{wrong}");
        }
        assert!("59s".parse::<UnusedFor>().unwrap_err().to_string().contains("at least 1m"));
        for (wrong, range) in [("0s", "from 1s to 24h"), ("25h", "from 1s to 24h"), ("1500ms", "whole seconds")] {
            assert!(wrong.parse::<TokenTtl>().unwrap_err().to_string().contains(range), "{wrong}");
        }
        for wrong in ["59s", "61m"] {
            assert_eq!(wrong.parse::<AssertionLifetime>().unwrap_err().to_string(), "from 1m to 1h");
        }
    }
}

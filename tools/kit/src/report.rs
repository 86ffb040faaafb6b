//! Goals, and the verdict on a value.

use std::fmt;

/// The goal of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// From, to, and the standard error of the value: too large an error decides nothing.
    Between(f64, f64, f64),
    /// Anything: the value is reported for information.
    None,
}

impl Goal {
    /// `met`, `MISSED`, `undecided`, or nothing without a goal.
    #[must_use]
    pub fn verdict(self, value: f64) -> &'static str {
        let is_met = match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
            Self::Between(least, most, error) => {
                let outside = (least - value).max(value - most);
                if outside <= 2.0 * error && (outside > 0.0 || error > MOST_ERROR) {
                    return "undecided";
                }
                outside <= 0.0
            }
            Self::None => return "",
        };
        if is_met { "met" } else { "MISSED" }
    }

    /// A number that is larger the worse the value is, to find the worst of several runs. A value that could not be
    /// measured is the worst.
    #[must_use]
    pub fn badness(self, value: f64) -> f64 {
        let badness = match self {
            Self::AtLeast(_) => -value,
            Self::AtMost(_) | Self::None => value,
            Self::Between(least, most, _) => (value - f64::midpoint(least, most)).abs(),
        };
        if badness.is_nan() { f64::INFINITY } else { badness }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, ">= {least}"),
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::Between(least, most, _) => write!(f, "{least}..{most}"),
            Self::None => f.write_str("-"),
        }
    }
}

/// Largest standard error of an AUC: more is half the band that figure M80 allows.
const MOST_ERROR: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_samples_decide_nothing() {
        let verdict = |value, error| Goal::Between(0.48, 0.52, error).verdict(value);
        assert_eq!(verdict(0.5, 0.009), "met");
        assert_eq!(verdict(0.5, 0.05), "undecided");
        assert_eq!(verdict(0.36, 0.17), "undecided");
        assert_eq!(verdict(0.53, 0.004), "MISSED");
        assert_eq!(verdict(f64::NAN, 0.004), "MISSED");
    }
}

//! Conditions of a rule that a token fails, each with both values.

use std::sync::Arc;

use serde_json::Value;

use super::claim_conditions::ClaimMismatch;
use super::kind::PinFault;
use crate::model::time::UnixTime;

/// The first condition of a rule that a token fails, in the order in which they are checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The rule is about another issuer.
    #[error("issuer: the rule wants {wanted}, the token has {found}")]
    Issuer {
        /// The issuer of the rule.
        wanted: Arc<str>,
        /// The issuer of the token.
        found: Arc<str>,
    },
    /// The rule has another subject.
    #[error("subject: the rule wants {wanted}, the token has {found}")]
    Subject {
        /// The subject of the rule.
        wanted: Box<str>,
        /// The `sub` of the token.
        found: Box<str>,
    },
    /// The rule does not pin what it has to, for instance since the kind of its issuer was changed.
    #[error("pin: {0}")]
    Pin(#[from] PinFault),
    /// A claim is missing or has another value.
    #[error("claim {name}: the rule wants {wanted}, the token has {}", value(.found.as_ref()))]
    Claim {
        /// The claim.
        name: Box<str>,
        /// The value that the rule names.
        wanted: Value,
        /// The value in the token.
        found: Option<Value>,
    },
    /// A claim has a value with which no token is accepted.
    #[error("claim {claim}: {value} is refused whatever a rule says")]
    RefusedClaim {
        /// The claim.
        claim: &'static str,
        /// The value.
        value: &'static str,
    },
    /// The rule has expired.
    #[error("the rule expired at {at}, and it is {now}")]
    RuleExpired {
        /// The expiry.
        at: UnixTime,
        /// The time of the check.
        now: UnixTime,
    },
}

impl Mismatch {
    /// The number of conditions that held before this one. The rule that came furthest is the one that was meant.
    #[must_use]
    pub fn progress(&self) -> u8 {
        match self {
            Self::Issuer { .. } => 0,
            Self::Subject { .. } => 1,
            Self::Pin(_) => 2,
            Self::RefusedClaim { .. } => 3,
            Self::Claim { .. } => 4,
            Self::RuleExpired { .. } => 5,
        }
    }
}

impl From<ClaimMismatch> for Mismatch {
    fn from(ClaimMismatch { name, wanted, found }: ClaimMismatch) -> Self {
        Self::Claim { name: name.into(), wanted, found }
    }
}

/// The beginning of a value as JSON, or that there is none.
fn value(found: Option<&Value>) -> String {
    found.map_or_else(|| "none".to_owned(), |found| found.to_string().chars().take(LOGGED).collect())
}

/// Longest part of a value in a message: it may come from a token.
const LOGGED: usize = 256;

//! Refusals of tokens of trusted issuers.

use super::reason::Reason;
use crate::model::federation::mismatch::Mismatch;
use crate::model::time::UnixTime;

/// The token of a trusted issuer is not accepted. All of these look the same from outside.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum FederationError {
    /// No enabled trusted issuer has this name, or its tokens are not taken here.
    #[error("federated token: {0:?} is no trusted issuer whose tokens are accepted here, or it is disabled")]
    Issuer(Box<str>),
    /// The `sub` of an SVID is no SPIFFE ID.
    #[error("JWT-SVID: sub {0:?} is no SPIFFE ID")]
    SpiffeId(Box<str>),
    /// The keys of the issuer were never fetched, or not within the last hour.
    #[error("federated token: the keys of the issuer cannot be had; the event issuer.keys_trouble says why")]
    Keys,
    /// `aud` is another, or not the only one.
    #[error("federated token: aud is {found}, and has to be {wanted:?} alone")]
    Audience {
        /// The expected audience.
        wanted: Box<str>,
        /// `aud` of the token, as JSON.
        found: Box<str>,
    },
    /// The token lives longer than tokens of the issuer may.
    #[error(
        "federated token: exp {exp} is more than {longest} s after {since}; `grantd trusted-issuer set ISSUER --max-lifetime` accepts more"
    )]
    Lifetime {
        /// `exp`.
        exp: UnixTime,
        /// `iat`, or the present time.
        since: UnixTime,
        /// The longest lifetime in seconds.
        longest: i64,
    },
    /// No rule is about the subject.
    #[error("federated token: no rule has the subject {0:?}")]
    NoRule(Box<str>),
    /// The rule that came furthest fails by this.
    #[error("federated token: rule {rule_id}: {mismatch}")]
    Rule {
        /// The rule.
        rule_id: Box<str>,
        /// The condition.
        mismatch: Mismatch,
    },
    /// Rules of several clients match.
    #[error("federated token: rules of several clients match: {}; send client_id, or narrow the rules", .0.join(", "))]
    Ambiguous(Vec<String>),
    /// The token works once, and was used before.
    #[error("federated token: it works once, and its jti was used before")]
    Replayed,
}

impl FederationError {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Issuer(_) => Reason::FederationIssuer,
            Self::SpiffeId(_) | Self::NoRule(_) => Reason::FederationSubject,
            Self::Keys => Reason::FederationKeysUnavailable,
            Self::Audience { .. } => Reason::FederationAudience,
            Self::Lifetime { .. } => Reason::FederationLifetime,
            Self::Rule { mismatch, .. } => match mismatch {
                Mismatch::Issuer { .. } => Reason::FederationIssuer,
                Mismatch::Subject { .. } => Reason::FederationSubject,
                Mismatch::Pin(_) => Reason::FederationPin,
                Mismatch::Claim { .. } | Mismatch::RefusedClaim { .. } => Reason::FederationClaims,
                Mismatch::RuleExpired { .. } => Reason::FederationRuleExpired,
            },
            Self::Ambiguous(_) => Reason::FederationAmbiguous,
            Self::Replayed => Reason::FederationReplayed,
        }
    }
}

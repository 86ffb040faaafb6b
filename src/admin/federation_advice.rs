//! Advice about federation: rules that match nothing, that nobody uses, or that admit more than is usually meant.

use std::collections::HashMap;
use std::sync::Arc;

use super::federation_rules::{RuleWeakness, weakness};
use super::{Admin, AdminError};
use crate::model::federation::kind::PinFault;
use crate::model::federation::rule::FederationRule;
use crate::model::federation::trusted_issuer::TrustedIssuer;
use crate::model::time::{Span, UnixTime};
use crate::store::federation::StoredRule;

/// Advice about one rule.
#[derive(Debug, thiserror::Error)]
pub enum RuleAdvice {
    #[error("its issuer {0} is not registered")]
    NoIssuer(Arc<str>),
    #[error("its issuer {0} is disabled")]
    IssuerDisabled(Arc<str>),
    #[error("it matches nothing: {0}")]
    Unsafe(PinFault),
    #[error("{0}")]
    Weak(RuleWeakness),
    #[error("it was never used, and was made at {0}")]
    NeverUsed(UnixTime),
    #[error("it was last used at {0}")]
    Unused(UnixTime),
}

impl Admin {
    /// Returns advice about the rules of all clients, by client and rule.
    pub async fn rule_advice(&self) -> Result<Vec<(StoredRule, RuleAdvice)>, AdminError> {
        // A row that cannot be read is a fault, and is named as such.
        let issuers = self.store.trusted_issuers().await?.into_iter().filter_map(Result::ok);
        let issuers: HashMap<Arc<str>, TrustedIssuer> =
            issuers.map(|issuer| (Arc::clone(&issuer.issuer), issuer)).collect();
        let mut advice = Vec::new();
        for stored in self.store.federation_rules().await? {
            let about =
                of_issuer(&stored.rule, issuers.get(&stored.rule.issuer)).or_else(|| unused(&stored, self.now()));
            advice.extend(about.map(|about| (stored, about)));
        }
        Ok(advice)
    }
}

fn of_issuer(rule: &FederationRule, issuer: Option<&TrustedIssuer>) -> Option<RuleAdvice> {
    let Some(issuer) = issuer else { return Some(RuleAdvice::NoIssuer(Arc::clone(&rule.issuer))) };
    if !issuer.enabled {
        return Some(RuleAdvice::IssuerDisabled(Arc::clone(&rule.issuer)));
    }
    if let Err(fault) = issuer.kind.check_pins(&issuer.issuer, &rule.subject, &rule.claims) {
        return Some(RuleAdvice::Unsafe(fault));
    }
    weakness(issuer.kind, &rule.subject, rule.claims.members()).map(RuleAdvice::Weak)
}

fn unused(stored: &StoredRule, now: UnixTime) -> Option<RuleAdvice> {
    let is_long_ago = |at: UnixTime| at.plus(LONG) <= now;
    match stored.last_used_at {
        Some(at) => is_long_ago(at).then_some(RuleAdvice::Unused(at)),
        None => is_long_ago(stored.rule.created_at).then_some(RuleAdvice::NeverUsed(stored.rule.created_at)),
    }
}

/// Time after which an unused rule is named: 90 days.
const LONG: Span = Span::from_secs(90 * 86_400);

//! Rules: which tokens of an issuer are which client.

use std::sync::Arc;

use super::claim_conditions::ClaimConditions;
use super::mismatch::Mismatch;
use super::subject::SubjectPattern;
use super::trusted_issuer::TrustedIssuer;
use crate::crypto::json::Object;
use crate::model::credential::LastUsed;
use crate::model::time::UnixTime;

/// Rule of a client. A token that fulfils it authenticates the client.
#[derive(Debug, Clone)]
pub struct FederationRule {
    /// The rule's id, in commands and logs.
    pub rule_id: Arc<str>,
    /// The exact `iss` of the tokens, or the trust domain. The issuer may not be registered yet.
    pub issuer: Arc<str>,
    /// The `sub` of the tokens.
    pub subject: SubjectPattern,
    /// Claims that the tokens have to have.
    pub claims: ClaimConditions,
    /// Time of registration.
    pub created_at: UnixTime,
    /// Expiry: matches nothing from this second on.
    pub expires_at: Option<UnixTime>,
    /// Last use in this process.
    pub used: Arc<LastUsed>,
}

impl FederationRule {
    /// Holds a verified token of `issuer` against the rule. The server and `grantd federation test` decide by this alone.
    ///
    /// # Errors
    /// The first condition that fails.
    pub fn check(&self, issuer: &TrustedIssuer, sub: &str, claims: &Object, now: UnixTime) -> Result<(), Mismatch> {
        if self.issuer != issuer.issuer {
            let (wanted, found) = (Arc::clone(&self.issuer), Arc::clone(&issuer.issuer));
            return Err(Mismatch::Issuer { wanted, found });
        }
        if !self.subject.matches(issuer.kind.separators(), sub) {
            return Err(Mismatch::Subject { wanted: self.subject.as_str().into(), found: sub.into() });
        }
        issuer.kind.check_pins(&issuer.issuer, &self.subject, &self.claims)?;
        if let Some((claim, value)) = issuer.kind.refused_value(claims) {
            return Err(Mismatch::RefusedClaim { claim, value });
        }
        if let Some(mismatch) = self.claims.first_mismatch(claims) {
            return Err(mismatch.into());
        }
        match self.expires_at {
            Some(at) if at <= now => Err(Mismatch::RuleExpired { at, now }),
            _ => Ok(()),
        }
    }
}

/// Rules of a client. Most clients have none, so an empty list takes the space of a pointer.
#[derive(Debug, Clone, Default)]
pub struct Rules(Option<Box<Listed>>);

#[derive(Debug, Clone, Default)]
struct Listed {
    rules: Vec<FederationRule>,
}

impl Rules {
    /// The rules, in the order of their ids.
    #[must_use]
    pub fn as_slice(&self) -> &[FederationRule] {
        self.0.as_ref().map_or(&[], |listed| &listed.rules)
    }

    /// The rules, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [FederationRule] {
        self.0.as_mut().map_or(&mut [], |listed| &mut listed.rules)
    }

    /// Adds a rule. Rules are added in the order of their ids.
    pub fn push(&mut self, rule: FederationRule) {
        let rules = &mut self.0.get_or_insert_default().rules;
        rules.reserve_exact(1);
        rules.push(rule);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::federation::kind::{IssuerKind, PinFault};
    use crate::model::federation::trusted_issuer::IssuerColumns;

    fn issuer(kind: IssuerKind) -> TrustedIssuer {
        let columns = IssuerColumns {
            issuer: "https://i.test",
            kind,
            jwks_uri: None,
            jwks: None,
            bundle_uri: None,
            audience: None,
            ca_pem: None,
        };
        TrustedIssuer::new(columns, UnixTime(1)).unwrap()
    }

    fn rule(subject: &str, claims: &str) -> FederationRule {
        FederationRule {
            rule_id: "r".into(),
            issuer: "https://i.test".into(),
            subject: subject.parse().unwrap(),
            claims: claims.parse().unwrap(),
            created_at: UnixTime(1),
            expires_at: Some(UnixTime(100)),
            used: Arc::default(),
        }
    }

    #[test]
    fn the_first_condition_that_fails_is_named_with_both_values() {
        let pins = r#"{"repository_id":"1","repository_owner_id":"2"}"#;
        let (github, sub) = (issuer(IssuerKind::Github), "repo:acme/app:ref:refs/heads/main");
        let claims = json!({"repository_id": "1", "repository_owner_id": "3"});
        let claims = claims.as_object().unwrap();
        let check = |rule: &FederationRule, now| rule.check(&github, sub, claims, UnixTime(now));
        let mismatch = check(&rule("repo:acme/*", pins), 1).unwrap_err();
        assert_eq!(mismatch.to_string(), r#"claim repository_owner_id: the rule wants "2", the token has "3""#);
        let mismatch = check(&rule("repo:other/*", pins), 1).unwrap_err();
        let said = "subject: the rule wants repo:other/*, the token has repo:acme/app:ref:refs/heads/main";
        assert_eq!(mismatch.to_string(), said);
        let fault = PinFault::Claim { kind: IssuerKind::Github, claim: "repository_id" };
        assert_eq!(check(&rule("repo:acme/*", "{}"), 1), Err(Mismatch::Pin(fault)), "after a change of kind");
        let right = rule("repo:acme/*", &pins.replace('2', "3"));
        assert_eq!(check(&right, 99), Ok(()));
        assert_eq!(check(&right, 100), Err(Mismatch::RuleExpired { at: UnixTime(100), now: UnixTime(100) }));
        let elsewhere = FederationRule { issuer: "https://i.test/".into(), ..right };
        assert!(matches!(check(&elsewhere, 1), Err(Mismatch::Issuer { .. })));
    }

    #[test]
    fn no_rules_take_the_space_of_a_pointer() {
        assert_eq!(size_of::<Rules>(), size_of::<usize>());
        let mut rules = Rules::default();
        assert!(rules.as_slice().is_empty());
        rules.push(rule("a", "{}"));
        assert_eq!(rules.as_slice().len(), 1);
    }
}

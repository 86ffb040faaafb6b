//! Rules of clients: which tokens of a trusted issuer are which client.

use std::sync::Arc;

use serde_json::{Value, json};

use super::document::with_client;
use super::{Admin, AdminError, AdminResult, Outcome, Warning};
use crate::crypto::json::Object;
use crate::crypto::secret::new_secret_id;
use crate::model::client_id::ClientId;
use crate::model::federation::claim_conditions::ClaimConditionsError;
use crate::model::federation::kind::{IssuerKind, PinFault};
use crate::model::federation::rule::FederationRule;
use crate::model::federation::subject::{SubjectError, SubjectPattern};
use crate::model::federation::trusted_issuer::TrustedIssuer;
use crate::model::lifetime::ExpiresIn;
use crate::store::federation::StoredRule;

/// Rule to add.
#[derive(Debug)]
pub struct NewRule {
    /// The exact `iss` of the tokens, or the trust domain.
    pub issuer: String,
    /// The `sub` of the tokens.
    pub subject: SubjectPattern,
    /// Claims that the tokens have to have.
    pub claims: Object,
    /// The administrator's note.
    pub label: String,
    /// Time until the rule expires.
    pub expires_in: Option<ExpiresIn>,
}

/// Weakness of a rule that works.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleWeakness {
    /// Each pod of a namespace that names no service account has the default one.
    #[error("it is the service account `default`, which each pod of the namespace has that names none")]
    DefaultServiceAccount,
    /// Each branch of the repository, and each workflow, may authenticate.
    #[error(
        "it pins none of ref, environment, job_workflow_ref, so each branch and each workflow of the repository matches"
    )]
    AnyBranch,
}

/// Returns the weakness of a rule of an issuer of `kind`.
#[must_use]
pub fn weakness(kind: IssuerKind, subject: &SubjectPattern, claims: &Object) -> Option<RuleWeakness> {
    let text = subject.as_str();
    match kind {
        IssuerKind::Kubernetes => text.ends_with(":default").then_some(RuleWeakness::DefaultServiceAccount),
        IssuerKind::Github => {
            let in_claims = NARROWING.iter().any(|name| claims.contains_key(*name));
            let in_subject = subject.prefix(kind.separators()).is_none()
                && NARROWING.iter().any(|name| text.split(':').skip(1).any(|part| part == *name));
            (!in_claims && !in_subject).then_some(RuleWeakness::AnyBranch)
        }
        IssuerKind::Gitlab | IssuerKind::Spiffe | IssuerKind::Oidc => None,
    }
}

/// Claims of GitHub that say which branch, environment or workflow a run is of.
const NARROWING: [&str; 3] = ["ref", "environment", "job_workflow_ref"];

/// Subject and claims of a rule for a sample token: what the kind of its issuer has to pin.
#[derive(Debug, PartialEq)]
pub struct ProposedRule {
    pub subject: SubjectPattern,
    pub claims: Object,
}

/// Reasons for which no rule can be proposed for a sample token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposalError {
    #[error("it has no sub")]
    NoSubject,
    #[error("its sub: {0}")]
    Subject(#[from] SubjectError),
    #[error("it has no claim {0}, which rules of its kind have to pin")]
    Missing(&'static str),
    #[error(transparent)]
    Claims(#[from] ClaimConditionsError),
    #[error("no rule can be made for it: {0}")]
    Pin(#[from] PinFault),
}

/// Proposes the rule for tokens like one of these claims: its whole subject, and the claims that the kind has to pin.
///
/// # Errors
/// [`ProposalError`].
pub fn proposed_rule(issuer: &TrustedIssuer, token: &Object) -> Result<ProposedRule, ProposalError> {
    let sub = token.get("sub").and_then(Value::as_str).ok_or(ProposalError::NoSubject)?;
    let subject: SubjectPattern = sub.parse()?;
    let mut claims = Object::new();
    for name in issuer.kind.pinned_claims() {
        let value = token.get(*name).ok_or(ProposalError::Missing(name))?;
        claims.insert((*name).to_owned(), value.clone());
    }
    if let Some((claim, value)) = issuer.kind.refused_value(token) {
        return Err(PinFault::Refused { claim, value }.into());
    }
    let conditions = claims.clone().try_into()?;
    issuer.kind.check_pins(&issuer.issuer, &subject, &conditions)?;
    Ok(ProposedRule { subject, claims })
}

impl StoredRule {
    /// Returns the rule as JSON, with its client.
    #[must_use]
    pub fn document_of_client(&self, client_id: &ClientId) -> Value {
        with_client(self.document(), client_id)
    }

    /// Returns the rule as JSON.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({
            "rule_id": self.rule.rule_id,
            "issuer": self.rule.issuer,
            "subject": self.rule.subject.as_str(),
            "claims": self.rule.claims.members(),
            "label": self.label,
            "created_at": self.rule.created_at,
            "expires_at": self.rule.expires_at,
            "last_used_at": self.last_used_at,
        })
    }
}

impl Admin {
    /// Adds a rule beside those that a client has. The issuer may be registered later; the rule matches nothing until then.
    pub async fn add_federation_rule(&self, client_id: &ClientId, new: NewRule) -> AdminResult<StoredRule> {
        let now = self.now();
        let rule = FederationRule {
            rule_id: new_secret_id()?.into(),
            issuer: new.issuer.into(),
            subject: new.subject,
            claims: new.claims.try_into()?,
            created_at: now,
            expires_at: new.expires_in.map(|span| now.plus(span.into())),
            used: Arc::default(),
        };
        let mut warnings = Vec::new();
        match self.store.trusted_issuer(&rule.issuer).await? {
            None => warnings.push(Warning::NoIssuer(rule.issuer.clone())),
            Some(issuer) => {
                issuer.kind.check_pins(&issuer.issuer, &rule.subject, &rule.claims)?;
                if !issuer.enabled {
                    warnings.push(Warning::IssuerDisabled(rule.issuer.clone()));
                }
                warnings.extend(weakness(issuer.kind, &rule.subject, rule.claims.members()).map(Warning::WeakRule));
            }
        }
        let added = self.store.add_federation_rule(client_id.as_str(), &rule, &new.label).await;
        added.map_err(|error| AdminError::of_client(error, client_id))?;
        let value = StoredRule { client_id: client_id.to_string(), rule, label: new.label, last_used_at: None };
        Ok(Outcome { value, warnings })
    }

    /// Returns the rules of a client, with their last uses.
    pub async fn federation_rules(&self, client_id: &ClientId) -> Result<Vec<StoredRule>, AdminError> {
        let rules = self.store.federation_rules_of_client(client_id.as_str()).await?;
        if rules.is_empty() {
            self.client(client_id).await?;
        }
        Ok(rules)
    }

    /// Removes a rule of a client.
    pub async fn remove_federation_rule(&self, client_id: &ClientId, rule_id: &str) -> Result<(), AdminError> {
        if self.store.remove_federation_rule(client_id.as_str(), rule_id).await? {
            return Ok(());
        }
        self.client(client_id).await?;
        Err(AdminError::NoSuchRule { client_id: client_id.clone(), rule_id: rule_id.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn rules_that_admit_more_than_is_meant_are_named() {
        let weak = |kind, subject: &str, claims: Value| weakness(kind, &subject.parse().unwrap(), &object(claims));
        let github = |subject, claims| weak(IssuerKind::Github, subject, claims);
        for (subject, claims) in [
            ("repo:acme/app:*", json!({"repository_id": "1"})),
            ("repo:acme/*", json!({})),
            ("repo:acme/app:pull_request", json!({})),
            ("repo:acme/app:ref:*", json!({})),
        ] {
            assert_eq!(github(subject, claims), Some(RuleWeakness::AnyBranch), "{subject}");
        }
        for (subject, claims) in [
            ("repo:acme/app:ref:refs/heads/main", json!({})),
            ("repo:acme@65/app@74:environment:production", json!({})),
            ("repo:acme/app:*", json!({"ref": "refs/heads/main"})),
            ("repo:acme/app:*", json!({"environment": "production"})),
            ("repo:acme/app:*", json!({"job_workflow_ref": "acme/app/.github/workflows/x.yml@refs/heads/main"})),
        ] {
            assert_eq!(github(subject, claims), None, "{subject}");
        }
        let kubernetes = |subject| weak(IssuerKind::Kubernetes, subject, json!({}));
        assert_eq!(kubernetes("system:serviceaccount:pay:default"), Some(RuleWeakness::DefaultServiceAccount));
        assert_eq!(kubernetes("system:serviceaccount:default:pay"), None);
        assert_eq!(weak(IssuerKind::Oidc, "default", json!({})), None);
    }
}

//! Kinds of trusted issuers. Each is a file: how subjects are matched, whether a token works once, and what a rule pins.

mod github;
mod gitlab;
mod kubernetes;
mod oidc;
mod spiffe;

use std::fmt;
use std::str::FromStr;

use super::claim_conditions::ClaimConditions;
use super::subject::SubjectPattern;
use crate::crypto::json::Object;
use crate::crypto::jwk_set::KeyUse;

/// Kind of a trusted issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IssuerKind {
    /// GitHub Actions.
    Github,
    /// GitLab CI.
    Gitlab,
    /// A Kubernetes cluster: projected service account tokens.
    Kubernetes,
    /// A SPIFFE trust domain.
    Spiffe,
    /// Any other OpenID provider.
    Oidc,
}

/// Rules of a kind. The constants of the submodules are all that tells one kind from another.
#[derive(Debug)]
struct Rules {
    name: &'static str,
    /// Characters that may stand before a `*` at the end of a subject; empty where a subject is always whole.
    separators: &'static [char],
    /// Least number of parts, between separators, before the `*`.
    parts_before: usize,
    /// Whether each token is accepted once.
    single_use: bool,
    /// The `use` of keys.
    key_use: KeyUse,
    /// Claims that a rule has to name.
    pinned: &'static [&'static str],
    /// A claim, and the value of it with which neither a rule nor a token is accepted.
    refused: Option<(&'static str, &'static str)>,
    /// Whether a subject is well formed, given the issuer.
    is_subject: fn(&str, &str) -> bool,
    /// The form of a subject, for messages.
    subject_form: &'static str,
}

/// Reasons for which a rule is not safe for the kind of its issuer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinFault {
    /// A claim that the kind has to pin is missing.
    #[error("a rule of kind {kind} pins the claim {claim}: a name can be registered again by others, an id cannot")]
    Claim {
        /// The kind.
        kind: IssuerKind,
        /// The claim.
        claim: &'static str,
    },
    /// The rule names a value that is always refused.
    #[error("{claim} {value} is refused: strangers can start such runs")]
    Refused {
        /// The claim.
        claim: &'static str,
        /// The value.
        value: &'static str,
    },
    /// The subject has another form than subjects of the kind.
    #[error("a subject of kind {kind} is {form}")]
    Subject {
        /// The kind.
        kind: IssuerKind,
        /// The form.
        form: &'static str,
    },
    /// The part before the `*` is too short.
    #[error("at least {parts} parts stand before the * of a subject of kind {kind}, as in repo:acme/*")]
    Prefix {
        /// The kind.
        kind: IssuerKind,
        /// The least number of parts.
        parts: usize,
    },
}

/// Error for a text that is not a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("one of github, gitlab, kubernetes, spiffe, oidc")]
pub struct UnknownKind;

impl IssuerKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Github, Self::Gitlab, Self::Kubernetes, Self::Spiffe, Self::Oidc];

    fn rules(self) -> &'static Rules {
        match self {
            Self::Github => &github::RULES,
            Self::Gitlab => &gitlab::RULES,
            Self::Kubernetes => &kubernetes::RULES,
            Self::Spiffe => &spiffe::RULES,
            Self::Oidc => &oidc::RULES,
        }
    }

    /// The value in the database and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.rules().name
    }

    /// Characters that may stand before a `*` at the end of a subject.
    #[must_use]
    pub fn separators(self) -> &'static [char] {
        self.rules().separators
    }

    /// Whether each token is accepted once. Other tokens are used again by design until they expire.
    #[must_use]
    pub fn is_single_use(self) -> bool {
        self.rules().single_use
    }

    /// The use that keys of such issuers declare.
    #[must_use]
    pub fn key_use(self) -> KeyUse {
        self.rules().key_use
    }

    /// Claims that a rule has to name.
    #[must_use]
    pub fn pinned_claims(self) -> &'static [&'static str] {
        self.rules().pinned
    }

    /// Checks that a rule of an issuer of this kind pins what it has to.
    ///
    /// # Errors
    /// [`PinFault`], the first in the order of the rule's columns.
    pub fn check_pins(self, issuer: &str, subject: &SubjectPattern, claims: &ClaimConditions) -> Result<(), PinFault> {
        let rules = self.rules();
        if !(rules.is_subject)(subject.as_str(), issuer) {
            return Err(PinFault::Subject { kind: self, form: rules.subject_form });
        }
        let parts = |prefix: &str| prefix.split(rules.separators).filter(|part| !part.is_empty()).count();
        if subject.prefix(rules.separators).is_some_and(|prefix| parts(prefix) < rules.parts_before) {
            return Err(PinFault::Prefix { kind: self, parts: rules.parts_before });
        }
        if let Some(claim) = rules.pinned.iter().find(|claim| !claims.members().contains_key(**claim)) {
            return Err(PinFault::Claim { kind: self, claim });
        }
        match self.refused_value(claims.members()) {
            Some((claim, value)) => Err(PinFault::Refused { claim, value }),
            None => Ok(()),
        }
    }

    /// The claim with a value that is refused whatever a rule says, if the token has it.
    #[must_use]
    pub fn refused_value(self, claims: &Object) -> Option<(&'static str, &'static str)> {
        self.rules().refused.filter(|(claim, value)| claims.get(*claim).is_some_and(|found| found == value))
    }
}

impl fmt::Display for IssuerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for IssuerKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownKind)
    }
}

/// A subject of any form that is not a pattern in disguise.
fn is_whole(subject: &str, _issuer: &str) -> bool {
    !subject.ends_with("/*") && !subject.ends_with(":*")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: IssuerKind, subject: &str, claims: &str) -> Result<(), PinFault> {
        let issuer = if kind == IssuerKind::Spiffe { "spiffe://td.test" } else { "https://i.test" };
        kind.check_pins(issuer, &subject.parse().unwrap(), &claims.parse().unwrap())
    }

    #[test]
    fn each_kind_demands_its_pins() {
        let github = r#"{"repository_id":"1","repository_owner_id":"2"}"#;
        let gitlab = r#"{"project_id":"1","namespace_id":"2"}"#;
        for subject in ["repo:acme/*", "repo:acme/app:*", "repo:acme/app:ref:refs/heads/main", "repo:acme*"] {
            assert_eq!(check(IssuerKind::Github, subject, github), Ok(()), "{subject}");
        }
        for subject in ["repo:*", "repo/*", "repo:/*", "repo::*", "repo//:*"] {
            let fault = PinFault::Prefix { kind: IssuerKind::Github, parts: 2 };
            assert_eq!(check(IssuerKind::Github, subject, github), Err(fault), "{subject}");
        }
        for (claims, claim) in [("{}", "repository_id"), (r#"{"repository_id":1}"#, "repository_owner_id")] {
            let fault = PinFault::Claim { kind: IssuerKind::Github, claim };
            assert_eq!(check(IssuerKind::Github, "repo:acme/*", claims), Err(fault));
        }
        let target = github.replace('}', r#","event_name":"pull_request_target"}"#);
        let fault = PinFault::Refused { claim: "event_name", value: "pull_request_target" };
        assert_eq!(check(IssuerKind::Github, "repo:acme/app:*", &target), Err(fault));
        assert_eq!(check(IssuerKind::Gitlab, "project_path:acme/app:*", gitlab), Ok(()));
        let fault = PinFault::Claim { kind: IssuerKind::Gitlab, claim: "project_id" };
        assert_eq!(check(IssuerKind::Gitlab, "project_path:acme/app:*", github), Err(fault));
        assert_eq!(check(IssuerKind::Kubernetes, "system:serviceaccount:pay:billing.v2", "{}"), Ok(()));
        for subject in [
            "billing",
            "system:serviceaccount:pay",
            "system:serviceaccount:pay:",
            "system:serviceaccount::billing",
            "system:serviceaccount:pay:*",
            "system:serviceaccount:pay:a:b",
            "system:serviceaccount:Pay:billing",
            "system:serviceaccount:p.y:billing",
        ] {
            assert!(check(IssuerKind::Kubernetes, subject, "{}").is_err(), "{subject}");
        }
        for subject in ["spiffe://td.test/a", "spiffe://td.test/ns/pay/*", "spiffe://td.test/*"] {
            assert_eq!(check(IssuerKind::Spiffe, subject, "{}"), Ok(()), "{subject}");
        }
        for subject in [
            "spiffe://td.test",
            "spiffe://td.test/",
            "spiffe://td.test/a/",
            "spiffe://td.test//a",
            "spiffe://td.test/./a",
            "spiffe://td.test/a/../b",
            "spiffe://td.test/a*",
            "spiffe://td.test/*/a",
            "spiffe://td.test/a b",
            "spiffe://td.test.evil/a",
            "spiffe://other.test/a",
            "spiffe://TD.test/a",
        ] {
            assert!(check(IssuerKind::Spiffe, subject, "{}").is_err(), "{subject}");
        }
        assert_eq!(check(IssuerKind::Oidc, "any|thing*", "{}"), Ok(()));
        for subject in ["tenant/*", "tenant:*"] {
            assert!(check(IssuerKind::Oidc, subject, "{}").is_err(), "{subject}");
        }
    }

    #[test]
    fn a_kind_is_read_by_its_name() {
        for kind in IssuerKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert_eq!("GitHub".parse::<IssuerKind>(), Err(UnknownKind));
    }
}

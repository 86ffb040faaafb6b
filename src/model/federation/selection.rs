//! The client that a token belongs to: the only one of which a rule matches.

use std::sync::Arc;

use super::mismatch::Mismatch;
use super::rule::FederationRule;
use super::trusted_issuer::TrustedIssuer;
use crate::crypto::json::Object;
use crate::model::client::Client;
use crate::model::time::UnixTime;

/// Client of a token, and the first of its rules that match.
#[derive(Debug, Clone, Copy)]
pub struct Selected<'c> {
    /// The client.
    pub client: &'c Arc<Client>,
    /// The rule.
    pub rule: &'c FederationRule,
}

/// Reasons for which a token belongs to no client.
#[derive(Debug, Clone, PartialEq)]
pub enum NotSelected {
    /// No rule is about the issuer and the subject.
    NoRule,
    /// No rule matches; the condition of the one that came furthest.
    Mismatch {
        /// The rule.
        rule_id: Arc<str>,
        /// The first condition that fails.
        mismatch: Mismatch,
    },
    /// Only rules of disabled clients match; the first of them.
    Disabled(Arc<str>),
    /// Rules of several enabled clients match.
    Ambiguous(Vec<String>),
}

/// Selects among `clients` the one of which a rule matches a verified token of `issuer`. Rules of disabled clients do not
/// count. The order of the clients decides nothing.
///
/// # Errors
/// [`NotSelected`].
pub fn select<'c>(
    issuer: &TrustedIssuer,
    sub: &str,
    claims: &Object,
    clients: &[&'c Arc<Client>],
    now: UnixTime,
) -> Result<Selected<'c>, NotSelected> {
    let mut matching: Vec<Selected<'c>> = Vec::new();
    let mut disabled = None;
    let mut furthest: Option<(u8, &FederationRule, Mismatch)> = None;
    for client in clients {
        for rule in client.federation.as_slice().iter().filter(|rule| rule.issuer == issuer.issuer) {
            match rule.check(issuer, sub, claims, now) {
                Ok(()) if client.enabled && !client.has_expired(now) => {
                    matching.push(Selected { client, rule });
                    break;
                }
                Ok(()) => disabled = disabled.or_else(|| Some(Arc::clone(&rule.rule_id))),
                Err(mismatch) => {
                    let progress = mismatch.progress();
                    if furthest.as_ref().is_none_or(|(before, ..)| progress > *before) {
                        furthest = Some((progress, rule, mismatch));
                    }
                }
            }
        }
    }
    match (matching.as_slice(), disabled, furthest) {
        ([selected], ..) => Ok(*selected),
        ([], Some(rule_id), _) => Err(NotSelected::Disabled(rule_id)),
        ([], None, Some((_, rule, mismatch))) => {
            Err(NotSelected::Mismatch { rule_id: Arc::clone(&rule.rule_id), mismatch })
        }
        ([], None, None) => Err(NotSelected::NoRule),
        (several, ..) => {
            let mut ids: Vec<String> = several.iter().map(|one| one.client.client_id.to_string()).collect();
            ids.sort_unstable();
            Err(NotSelected::Ambiguous(ids))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::client::ClientScope;
    use crate::model::federation::kind::IssuerKind;
    use crate::model::federation::trusted_issuer::IssuerColumns;

    const ISSUER: &str = "https://i.test";

    fn client(id: &str, rules: &[(&str, &str, &str)]) -> Client {
        let mut client = Client::new(id.parse().unwrap(), ClientScope::default(), UnixTime(1));
        for (rule_id, subject, claims) in rules {
            client.federation.push(FederationRule {
                rule_id: (*rule_id).into(),
                issuer: ISSUER.into(),
                subject: subject.parse().unwrap(),
                claims: claims.parse().unwrap(),
                created_at: UnixTime(1),
                expires_at: None,
                used: Arc::default(),
            });
        }
        client
    }

    fn selected(clients: &[Client], claims: &str) -> Result<(String, String), NotSelected> {
        let columns = IssuerColumns {
            issuer: ISSUER,
            kind: IssuerKind::Oidc,
            jwks_uri: None,
            jwks: None,
            bundle_uri: None,
            audience: None,
            ca_pem: None,
        };
        let issuer = TrustedIssuer::new(columns, UnixTime(1)).unwrap();
        let clients: Vec<Arc<Client>> = clients.iter().cloned().map(Arc::new).collect();
        let claims = crate::crypto::json::object(claims.as_bytes()).unwrap();
        let clients: Vec<_> = clients.iter().collect();
        let selected = select(&issuer, "s", &claims, &clients, UnixTime(1))?;
        Ok((selected.client.client_id.to_string(), selected.rule.rule_id.to_string()))
    }

    #[test]
    fn the_only_client_with_a_matching_rule_is_selected() {
        let (a, b) = (client("a", &[("r1", "t", "{}"), ("r2", "s", "{}")]), client("b", &[("r3", "s", r#"{"x":1}"#)]));
        let both = [a.clone(), b.clone()];
        assert_eq!(selected(&both, "{}"), Ok(("a".into(), "r2".into())));
        let ambiguous = Err(NotSelected::Ambiguous(vec!["a".into(), "b".into()]));
        assert_eq!(selected(&both, r#"{"x":1}"#), ambiguous);
        assert_eq!(selected(&[b.clone(), a.clone()], r#"{"x":1}"#), ambiguous, "the order decides nothing");
        let off = Client { enabled: false, ..a.clone() };
        assert_eq!(selected(&[off.clone(), b.clone()], r#"{"x":1}"#), Ok(("b".into(), "r3".into())));
        assert_eq!(selected(&[off, b.clone()], "{}"), Err(NotSelected::Disabled("r2".into())));
        assert_eq!(selected(&[], "{}"), Err(NotSelected::NoRule));
        let Err(NotSelected::Mismatch { rule_id, mismatch: Mismatch::Claim { .. } }) = selected(&[b], "{}") else {
            panic!()
        };
        assert_eq!(&*rule_id, "r3");
        let two = client("c", &[("r8", "s", "{}"), ("r9", "s", "{}")]);
        assert_eq!(selected(&[two], "{}"), Ok(("c".into(), "r8".into())), "the first by its id");
    }
}

//! The test of a token against trusted issuers and rules, by the functions that decide in the server. Nothing is issued,
//! and nothing is spent.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Admin, AdminError};
use crate::crypto::jose::{Claims, JoseError, Kind, Unverified};
use crate::crypto::json::Object;
use crate::model::client::Client;
use crate::model::client_id::ClientId;
use crate::model::federation::mismatch::Mismatch;
use crate::model::federation::selection::{NotSelected, Selected, select};
use crate::model::federation::trusted_issuer::TrustedIssuer;
use crate::model::scope::Scope;
use crate::model::time::UnixTime;
use crate::protocol::client_assertion::{MAX_ASSERTION_BYTES, verify_signature};
use crate::protocol::error::federation::FederationError;
use crate::protocol::error::reason::Reason;
use crate::protocol::error::{ClientAuthError, Error, GrantError};
use crate::protocol::federation::{Door, Recipient, accept, check_header, trust_domain_of};
use crate::state::key_sets::Keys;
use crate::store::federation::StoredRule;

/// Token of a workload, read and not verified.
#[derive(Debug)]
pub struct WorkloadToken<'a> {
    jwt: Unverified<'a>,
    issuer: String,
    sub: String,
}

/// Result of a test.
#[derive(Debug)]
pub struct TokenTest {
    /// The trusted issuer of the token, as far as it is known.
    pub issuer: Option<Arc<str>>,
    /// `sub` of the token, as far as it can be read.
    pub subject: Option<String>,
    /// The client that the token authenticates, or why it authenticates none.
    pub outcome: Result<Authenticated, TestFault>,
    /// The rules of the issuer that do not match, those first that came furthest, each with the first condition that fails.
    pub mismatches: Vec<(StoredRule, Mismatch)>,
}

/// Client that a token authenticates.
#[derive(Debug)]
pub struct Authenticated {
    pub client_id: ClientId,
    pub rule_id: Arc<str>,
    pub label: String,
    /// The scope of a token when the client asks for none.
    pub scope: Scope,
    /// The scope that the client may ask for.
    pub allowed: Scope,
    /// Whether only the grant `jwt-bearer` accepts the token, because of its audience.
    pub only_grant: bool,
}

/// Reason for which a token authenticates no client, with the values that differ.
#[derive(Debug)]
pub struct TestFault {
    /// The reason that the log of the server has.
    pub reason: Reason,
    /// The condition that fails, with both values.
    pub condition: String,
}

impl TestFault {
    fn new(error: impl Into<Error>) -> Self {
        let error = error.into();
        Self { reason: error.reason(), condition: error.to_string() }
    }

    fn with(error: impl Into<Error>, values: &str) -> Self {
        let error = error.into();
        Self { reason: error.reason(), condition: format!("{error}: {values}") }
    }
}

impl<'a> WorkloadToken<'a> {
    /// Reads a token. Its issuer is the trust domain of its `sub` for an SVID, else its `iss`.
    ///
    /// # Errors
    /// [`ClientAuthError`].
    pub fn parse(text: &'a str) -> Result<Self, ClientAuthError> {
        let jwt = Unverified::parse(text, Kind::ClientAssertion, MAX_ASSERTION_BYTES)?;
        let claims = jwt.claims_nobody_vouches_for();
        let sub =
            claims.string("sub", MAX_ASSERTION_BYTES)?.ok_or(ClientAuthError::AssertionIncomplete("sub"))?.to_owned();
        let issuer = if sub.starts_with("spiffe://") {
            trust_domain_of(&sub)?.to_owned()
        } else {
            claims.string("iss", MAX_ASSERTION_BYTES)?.ok_or(ClientAuthError::AssertionIncomplete("iss"))?.to_owned()
        };
        Ok(Self { jwt, issuer, sub })
    }

    /// The issuer that the token names, as `trusted_issuer.issuer` has it.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// `exp` of the token; `None` where it is missing or no number.
    #[must_use]
    pub fn expiry(&self) -> Option<UnixTime> {
        // The test tells a wrong `exp` as a fault.
        self.jwt.claims_nobody_vouches_for().numeric_date("exp").ok().flatten().map(UnixTime)
    }

    /// The claims, once one of the keys has verified the signature. Time and audience are not looked at.
    ///
    /// # Errors
    /// [`TestFault`].
    pub fn verified(&self, issuer: &TrustedIssuer, keys: &Keys) -> Result<&Claims, TestFault> {
        let (claims, _) =
            verify_signature(&self.jwt, keys, 0, UnixTime(0)).map_err(|error| self.signature(error, keys))?;
        check_header(self.jwt.header(), issuer.kind).map_err(|error| TestFault::new(ClientAuthError::from(error)))?;
        Ok(claims)
    }

    fn signature(&self, error: JoseError, keys: &Keys) -> TestFault {
        let names: Vec<&str> = keys.iter().map(|stored| &*stored.kid).collect();
        let (kid, alg) = (self.jwt.header().kid().unwrap_or("none"), self.jwt.header().alg());
        let values = format!("kid is {kid} and alg {alg}; the keys of the issuer are {}", names.join(", "));
        TestFault::with(ClientAuthError::from(error), &values)
    }
}

impl TokenTest {
    /// Makes the result for a text that cannot be read as a token.
    #[must_use]
    pub fn unreadable(error: ClientAuthError) -> Self {
        Self::refused(None, None, TestFault::new(error))
    }

    fn refused(issuer: Option<Arc<str>>, subject: Option<String>, fault: TestFault) -> Self {
        Self { issuer, subject, outcome: Err(fault), mismatches: Vec::new() }
    }

    /// Makes the result for a token of an issuer that is not trusted.
    #[must_use]
    pub fn unknown_issuer(token: &WorkloadToken<'_>) -> Self {
        let fault = FederationError::Issuer(token.issuer.as_str().into());
        Self::refused(Some(token.issuer.as_str().into()), Some(token.sub.clone()), TestFault::new(fault))
    }

    /// Makes the result for a token of an issuer whose keys cannot be fetched.
    #[must_use]
    pub fn no_keys(token: &WorkloadToken<'_>, fault: &str) -> Self {
        let fault = TestFault::with(FederationError::Keys, fault);
        Self::refused(Some(token.issuer.as_str().into()), Some(token.sub.clone()), fault)
    }

    /// Returns the result as JSON.
    #[must_use]
    pub fn document(&self) -> Value {
        let rule = |(stored, mismatch): &(StoredRule, Mismatch)| json!({"client_id": stored.client_id, "rule_id": stored.rule.rule_id, "condition": mismatch.to_string()});
        let mut document = json!({
            "accepted": self.outcome.is_ok(),
            "issuer": self.issuer,
            "subject": self.subject,
            "mismatches": self.mismatches.iter().map(rule).collect::<Vec<_>>(),
        });
        let more = match &self.outcome {
            Ok(found) => json!({
                "client_id": found.client_id,
                "rule_id": found.rule_id,
                "scope": found.scope.as_str(),
                "allowed_scope": found.allowed.as_str(),
                "only_grant": found.only_grant,
            }),
            Err(fault) => json!({"reason": fault.reason.as_str(), "condition": fault.condition}),
        };
        if let (Value::Object(document), Value::Object(more)) = (&mut document, more) {
            document.extend(more);
        }
        document
    }
}

impl Admin {
    /// Tests a token of a trusted issuer with these keys at a time, against the rules of all clients, or of one.
    pub async fn test_token(
        &self,
        token: &WorkloadToken<'_>,
        issuer: &TrustedIssuer,
        keys: &Keys,
        client_id: Option<&ClientId>,
        at: UnixTime,
    ) -> Result<TokenTest, AdminError> {
        let name = Some(Arc::clone(&issuer.issuer));
        let refused = |fault| TokenTest::refused(name.clone(), Some(token.sub.clone()), fault);
        if !issuer.enabled {
            return Ok(refused(TestFault::with(
                FederationError::Issuer(issuer.issuer.as_ref().into()),
                "it is disabled",
            )));
        }
        let (claims, door) = match self.accepted(token, issuer, keys, at) {
            Ok(accepted) => accepted,
            Err(fault) => return Ok(refused(fault)),
        };
        let mut rules = self.store.federation_rules_of_issuer(&issuer.issuer).await?;
        if let Some(client_id) = client_id {
            self.client(client_id).await?;
            rules.retain(|stored| stored.client_id == client_id.as_str());
        }
        let (mut matching, mut mismatches) = (Vec::new(), Vec::new());
        for stored in rules {
            match stored.rule.check(issuer, &token.sub, claims, at) {
                Ok(()) => matching.push(stored),
                Err(mismatch) => mismatches.push((stored, mismatch)),
            }
        }
        mismatches.sort_by_key(|(_, mismatch)| std::cmp::Reverse(mismatch.progress()));
        let outcome = self.selected(token, issuer, claims, door, &matching, &mismatches, at).await?;
        Ok(TokenTest { issuer: name, subject: Some(token.sub.clone()), outcome, mismatches })
    }

    /// Checks signature and claims, as the server does before it looks for rules. A token that only the grant accepts, by
    /// its audience, is one for the grant.
    fn accepted<'t>(
        &self,
        token: &'t WorkloadToken<'_>,
        issuer: &TrustedIssuer,
        keys: &Keys,
        at: UnixTime,
    ) -> Result<(&'t Object, Door), TestFault> {
        let claims = token.verified(issuer, keys)?;
        let own = self.policy.issuer.as_str();
        let token_endpoints = [self.policy.issuer.endpoint("/token").into_boxed_str()];
        let recipient = Recipient { issuer: own, token_endpoints: &token_endpoints };
        let door = if Door::Svid.admits(issuer.kind) { Door::Svid } else { Door::ClientAuthentication };
        if !self.policy.profile.permits_method(door.method()) {
            return Err(TestFault::new(ClientAuthError::MethodNotInProfile));
        }
        match accept(claims, issuer, door, &recipient, at) {
            Ok(_) => Ok((claims.members(), door)),
            Err(ClientAuthError::Federation(_))
                if door == Door::ClientAuthentication
                    && accept(claims, issuer, Door::Grant, &recipient, at).is_ok() =>
            {
                Ok((claims.members(), Door::Grant))
            }
            Err(error) => Err(with_times(error, claims, at)),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is a part of one decision")]
    async fn selected(
        &self,
        token: &WorkloadToken<'_>,
        issuer: &TrustedIssuer,
        claims: &Object,
        door: Door,
        matching: &[StoredRule],
        mismatches: &[(StoredRule, Mismatch)],
        at: UnixTime,
    ) -> Result<Result<Authenticated, TestFault>, AdminError> {
        let mut clients: Vec<Arc<Client>> = Vec::new();
        for stored in matching {
            if clients.iter().all(|client| client.client_id.as_str() != stored.client_id) {
                clients.extend(self.store.client(&stored.client_id).await?.map(Arc::new));
            }
        }
        let listed: Vec<&Arc<Client>> = clients.iter().collect();
        let Selected { client, rule } = match select(issuer, &token.sub, claims, &listed, at) {
            Ok(selected) => selected,
            Err(fault) => return Ok(Err(not_selected(fault, token, matching, mismatches))),
        };
        if !client.may_use(door.method()) {
            let methods = client.auth_methods.as_deref().unwrap_or_default();
            let values = format!("client {} may use {methods}", client.client_id);
            return Ok(Err(TestFault::with(ClientAuthError::MethodNotAllowed, &values)));
        }
        let has_grant =
            if door == Door::Grant { client.jwt_bearer } else { client.client_credentials || client.jwt_bearer };
        if !has_grant {
            let values = format!("client {} has the grant_types `{}`", client.client_id, client.grant_types());
            return Ok(Err(TestFault::with(GrantError::GrantNotAllowed, &values)));
        }
        let label =
            matching.iter().find(|stored| stored.rule.rule_id == rule.rule_id).map(|stored| stored.label.clone());
        Ok(Ok(Authenticated {
            client_id: client.client_id.clone(),
            rule_id: Arc::clone(&rule.rule_id),
            label: label.unwrap_or_default(),
            scope: client.scopes.default_scope().clone(),
            allowed: client.scopes.allowed().clone(),
            only_grant: door == Door::Grant,
        }))
    }
}

fn not_selected(
    fault: NotSelected,
    token: &WorkloadToken<'_>,
    matching: &[StoredRule],
    mismatches: &[(StoredRule, Mismatch)],
) -> TestFault {
    match (fault, mismatches.first()) {
        (NotSelected::Ambiguous(clients), _) => TestFault::new(FederationError::Ambiguous(clients)),
        (NotSelected::Disabled(rule_id), _) => {
            let client = matching.iter().find(|stored| stored.rule.rule_id == rule_id);
            let values = format!("rule {rule_id} of client {}", client.map_or("", |stored| &stored.client_id));
            TestFault::with(ClientAuthError::Disabled, &values)
        }
        // The rule that came furthest is the one that was meant, and gives the reason in the log.
        (_, Some((stored, mismatch))) => {
            let (rule_id, mismatch) = ((*stored.rule.rule_id).into(), mismatch.clone());
            TestFault::new(FederationError::Rule { rule_id, mismatch })
        }
        (_, None) => TestFault::new(FederationError::NoRule(token.sub.as_str().into())),
    }
}

/// The fault of claims, with the times that differ.
fn with_times(error: ClientAuthError, claims: &Claims, at: UnixTime) -> TestFault {
    let time = |name: &'static str| match claims.numeric_date(name) {
        Ok(Some(seconds)) => format!("{name} is {}", UnixTime(seconds)),
        _ => format!("{name} is missing"),
    };
    match error {
        ClientAuthError::AssertionExpired => TestFault::with(error, &format!("{}, and it is {at}", time("exp"))),
        ClientAuthError::AssertionEarly => {
            TestFault::with(error, &format!("{}, {}, and it is {at}", time("iat"), time("nbf")))
        }
        other => TestFault::new(other),
    }
}

//! Authentication by a token of a trusted issuer, at every door.

use std::sync::Arc;

use super::super::attempt::{Attempt, FederatedClaims};
use super::super::client_assertion;
use super::super::error::federation::FederationError;
use super::super::error::{ClientAuthError, Error};
use super::super::federation::{Door, Recipient, VerifiedToken, accept, check_header, trust_domain_of};
use super::super::presented_jwt::{NewJwt, PresentedAssertion};
use super::{AuthenticatedClient, Authenticator, KeyOwner, may_authenticate, no_such};
use crate::crypto::jose::Claims;
use crate::crypto::json::Object;
use crate::model::client::{AuthMethod, Client};
use crate::model::federation::selection::{NotSelected, select};
use crate::model::federation::trusted_issuer::{KeySource, TrustedIssuer};
use crate::model::time::UnixTime;
use crate::state::key_sets::Keys;
use crate::state::key_sets::source::Source;
use crate::state::registry::moment::Moment;
use crate::state::registry::rule_index::RuleKeys;
use crate::state::registry::snapshot::Snapshot;

/// Identity that an issuer vouches for, verified.
#[derive(Clone, Copy)]
pub(super) struct Identity<'a> {
    pub(super) issuer: &'a TrustedIssuer,
    pub(super) sub: &'a str,
    pub(super) claims: &'a Object,
    pub(super) method: AuthMethod,
}

impl Authenticator {
    /// The trusted issuer whose token this says it is: the one that `iss` names or, for an SVID, the trust domain of `sub`
    /// among those that are configured. `Ok(None)` at a door where it can be the client's own, too.
    ///
    /// # Errors
    /// [`FederationError`] when it is of no issuer whose tokens are taken.
    pub(super) fn trusted_issuer(
        &self,
        snapshot: &Snapshot,
        door: Door,
        jwt: &NewJwt<'_>,
    ) -> Result<Option<Arc<TrustedIssuer>>, FederationError> {
        let name = match door {
            Door::Svid => trust_domain_of(&jwt.sub)?,
            Door::ClientAuthentication | Door::Grant => &jwt.iss,
        };
        let unknown = || FederationError::Issuer(name.into());
        let Some(issuer) = snapshot.trusted_issuer(name) else {
            // Only https URLs and trust domains are issuers.
            let is_own = door == Door::ClientAuthentication && (jwt.is_self_issued() || !jwt.iss.contains("://"));
            return if is_own { Ok(None) } else { Err(unknown()) };
        };
        // An access token of ours is no proof of identity, whoever made us a trusted issuer.
        let is_accepted = issuer.enabled
            && door.admits(issuer.kind)
            && *issuer.issuer != *self.audience
            && self.profile.permits_method(door.method());
        if is_accepted { Ok(Some(Arc::clone(issuer))) } else { Err(unknown()) }
    }

    /// Decides on a token of a trusted issuer.
    pub(super) async fn by_issuers_token(
        &self,
        presented: &PresentedAssertion<'_>,
        jwt: &NewJwt<'_>,
        issuer: Arc<TrustedIssuer>,
        moment: &mut Moment,
        attempt: &mut Attempt,
    ) -> Result<AuthenticatedClient, Error> {
        let signed = |keys: &Keys, moment: &Moment| {
            let at_least = self.key_counts(moment).with(jwt.unverified.header().alg());
            let verified = client_assertion::verify_signature(&jwt.unverified, keys, at_least, moment.now);
            Ok(verified.map(|(claims, _)| (claims, Arc::clone(keys)))?)
        };
        let (claims, keys) = match (Source::of_issuer(&issuer), &issuer.keys) {
            (Some(source), _) => {
                let missing = || FederationError::Keys.into();
                let owner = KeyOwner { sets: &self.issuer_keys, name: &issuer.issuer, source: &source };
                self.with_fetched(&owner, is_published, missing, moment, signed).await?
            }
            (None, KeySource::Pinned(pinned)) => signed(&pinned.keys, moment)?,
            (None, _) => return Err(FederationError::Keys.into()),
        };
        // Fetching may have taken seconds: what counts is what is known of the issuer now.
        let issuer = self.trusted_issuer(&moment.snapshot, presented.door, jwt).map_err(ClientAuthError::from)?;
        let issuer = issuer.ok_or_else(|| FederationError::Issuer(jwt.iss.as_str().into()))?;
        check_header(jwt.unverified.header(), issuer.kind).map_err(ClientAuthError::from)?;
        let token = self.accepted(claims, jwt, issuer, keys, presented.door, moment.now)?;
        let authenticated = self.by_verified_token(presented, &token, moment, attempt)?;
        if token.accepted.single_use.is_none() {
            self.known_tokens.keep(jwt.text, Arc::new(token), moment.now);
        }
        Ok(authenticated)
    }

    fn accepted(
        &self,
        claims: &Claims,
        jwt: &NewJwt<'_>,
        issuer: Arc<TrustedIssuer>,
        keys: Keys,
        door: Door,
        now: UnixTime,
    ) -> Result<VerifiedToken, ClientAuthError> {
        let accepted = accept(claims, &issuer, door, &self.recipient(), now)?;
        Ok(VerifiedToken { issuer, keys, sub: jwt.sub.as_str().into(), claims: claims.members().clone(), accepted })
    }

    /// Selects the client of a verified token.
    pub(super) fn by_verified_token(
        &self,
        presented: &PresentedAssertion<'_>,
        token: &VerifiedToken,
        moment: &Moment,
        attempt: &mut Attempt,
    ) -> Result<AuthenticatedClient, Error> {
        let identity =
            Identity { issuer: &token.issuer, sub: &token.sub, claims: &token.claims, method: presented.door.method() };
        let client = self.selected(&identity, presented.client_id, moment, attempt)?;
        let assertion = token.accepted.single_use.clone();
        Ok(AuthenticatedClient { client, method: identity.method, raw_reading: false, assertion })
    }

    /// Selects the client of a verified identity: the one that the request names, else the only one of which a rule matches.
    pub(super) fn selected(
        &self,
        identity: &Identity<'_>,
        client_id: Option<&str>,
        moment: &Moment,
        attempt: &mut Attempt,
    ) -> Result<Arc<Client>, Error> {
        let (snapshot, Identity { issuer, sub, claims, method }) = (&moment.snapshot, *identity);
        let clients = match client_id {
            Some(client_id) => vec![snapshot.client(client_id).ok_or_else(|| no_such(snapshot, client_id))?],
            None => snapshot.clients_with_rule(&RuleKeys::new(&issuer.issuer, issuer.kind, sub)),
        };
        let selected = select(issuer, sub, claims, &clients, moment.now).map_err(|fault| {
            if let NotSelected::Disabled(rule_id) | NotSelected::Mismatch { rule_id, .. } = &fault {
                attempt.credential_id = Some(Arc::clone(rule_id));
            }
            not_selected(fault, sub)
        })?;
        attempt.client_id = Some(selected.client.client_id.to_string());
        attempt.credential_id = Some(Arc::clone(&selected.rule.rule_id));
        may_authenticate(selected.client, method, moment)?;
        self.registry.uses.note_rule(selected.rule, moment.now);
        Ok(Arc::clone(selected.client))
    }

    /// Returns the token with these bytes, if it was verified before, by an issuer and keys that are still the same, and is
    /// for us by this door.
    #[must_use]
    pub fn known_token(&self, jwt: &str, door: Door, now: UnixTime) -> Option<Arc<VerifiedToken>> {
        let token = self.known_tokens.find(jwt, now)?;
        let snapshot = self.registry.snapshot();
        let issuer = &token.issuer;
        let is_same_issuer = snapshot.trusted_issuer(&issuer.issuer).is_some_and(|known| Arc::ptr_eq(known, issuer));
        let has_same_keys = || match (Source::of_issuer(issuer), &issuer.keys) {
            (Some(source), _) => {
                let keys = self.issuer_keys.known(&issuer.issuer, &source, now);
                keys.is_some_and(|keys| Arc::ptr_eq(&keys, &token.keys))
            }
            (None, KeySource::Pinned(_)) => true,
            (None, _) => false,
        };
        if !(is_same_issuer && has_same_keys()) {
            self.known_tokens.forget(jwt);
            return None;
        }
        let is_for_us = door.admits(issuer.kind) && self.recipient().is_named(issuer, door, &token.accepted.aud);
        Some(token).filter(|_| is_for_us)
    }

    /// Returns the enabled issuers whose keys could not be fetched for so long that none is used, with the time of the last
    /// good fetch.
    #[must_use]
    pub fn stale_issuers(&self, now: UnixTime) -> Vec<(Arc<str>, Option<UnixTime>)> {
        let snapshot = self.registry.snapshot();
        let enabled = snapshot.trusted_issuers().filter(|issuer| issuer.enabled);
        let stale = enabled.filter_map(|issuer| {
            let fetched_at = self.issuer_keys.unusable_since(&issuer.issuer, &Source::of_issuer(issuer)?, now)?;
            Some((Arc::clone(&issuer.issuer), fetched_at))
        });
        stale.collect()
    }

    /// This server, as tokens name it.
    pub(super) fn recipient(&self) -> Recipient<'_> {
        Recipient { issuer: &self.audience, token_endpoints: &self.token_endpoints }
    }
}

/// Whether an enabled issuer still publishes its keys there.
pub(super) fn is_published(snapshot: &Snapshot, name: &str, source: &Source) -> bool {
    let issuer = snapshot.trusted_issuer(name).filter(|issuer| issuer.enabled);
    issuer.and_then(|issuer| Source::of_issuer(issuer)).is_some_and(|current| current == *source)
}

/// The claims of a token, for the log. `issuer` is the one whose token it is, or says it is.
pub(super) fn claims_for_log(jwt: &NewJwt<'_>, issuer: &str) -> FederatedClaims {
    let jti = jwt.unverified.claims_nobody_vouches_for().string("jti", client_assertion::JTI);
    FederatedClaims { issuer: issuer.to_owned(), subject: jwt.sub.clone(), jti: jti.ok().flatten().map(str::to_owned) }
}

/// The claims of a verified token, for the log.
pub(super) fn verified_claims_for_log(token: &VerifiedToken) -> FederatedClaims {
    let jti = token.claims.get("jti").and_then(serde_json::Value::as_str).map(str::to_owned);
    FederatedClaims { issuer: token.issuer.issuer.to_string(), subject: token.sub.to_string(), jti }
}

fn not_selected(fault: NotSelected, sub: &str) -> ClientAuthError {
    match fault {
        NotSelected::NoRule => FederationError::NoRule(sub.into()).into(),
        NotSelected::Mismatch { rule_id, mismatch } => {
            FederationError::Rule { rule_id: (*rule_id).into(), mismatch }.into()
        }
        NotSelected::Disabled(_) => ClientAuthError::Disabled,
        NotSelected::Ambiguous(clients) => FederationError::Ambiguous(clients).into(),
    }
}

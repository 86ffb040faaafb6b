//! Authentication by a key: a JWT that the client signed (RFC 7523), or the certificate of its connection (RFC 8705).

use std::sync::Arc;

use super::super::attempt::Attempt;
use super::super::client_assertion::{self, Terms};
use super::super::client_certificate;
use super::super::error::{ClientAuthError, Error, Unavailable};
use super::{AuthenticatedClient, Authenticator, Claimant, may_authenticate, no_such};
use crate::crypto::jose::{JoseError, Unverified};
use crate::model::certificate::{CertificateMismatch, PeerCertificate};
use crate::model::client::{AssertionAudience, AuthMethod, Client};
use crate::model::credential::{StoredCertificate, StoredKey};
use crate::model::jwks_uri::JwksUri;
use crate::model::profile::Profile;
use crate::model::time::{Span, UnixTime};
use crate::state::client_jwks::{JwksError, TooManyFetches};
use crate::state::registry::moment::Moment;

/// Credential that has proved who a client is.
enum Used {
    Key(StoredKey),
    Certificate(StoredCertificate),
}

impl Authenticator {
    /// Decides on a JWT that the client signed. Signatures cannot be guessed, so nobody is slowed down.
    pub(super) async fn by_assertion(
        &self,
        claimant: Claimant<'_>,
        assertion: &Unverified<'_>,
        moment: &mut Moment,
        attempt: &mut Attempt,
    ) -> Result<AuthenticatedClient, Error> {
        let (client_id, method) = (claimant.client_id, AuthMethod::PrivateKeyJwt);
        let verify = |keys: &[StoredKey], moment: &Moment| {
            let most = moment.snapshot.key_counts().max(self.client_jwks.key_counts());
            let at_least = most.with(assertion.header().alg());
            let terms = self.terms(moment.snapshot.client(client_id));
            client_assertion::verify(assertion, keys, client_id, &terms, moment.now, at_least)
        };
        let verified = self.with_keys(claimant, method, moment, verify).await;
        let snapshot = &moment.snapshot;
        let client = snapshot.client(client_id).ok_or_else(|| no_such(snapshot, client_id))?;
        if client.jwks_uri.is_some() {
            may_authenticate(client, method, moment)?;
        }
        let verified = verified?;
        attempt.credential_id = Some(Arc::clone(&verified.key.kid));
        may_authenticate(client, method, moment)?;
        if verified.key_expired {
            return Err(ClientAuthError::KeyExpired.into());
        }
        self.note_key(client, &verified.key, moment.now);
        let client = Arc::clone(client);
        Ok(AuthenticatedClient { client, method, raw_reading: false, assertion: Some(verified.assertion) })
    }

    /// Records the use of a key, unless the client publishes it, and it has no row.
    fn note_key(&self, client: &Client, key: &StoredKey, now: UnixTime) {
        if client.jwks_uri.is_none() {
            self.registry.uses.note_key(&client.client_id, key, now);
        }
    }

    /// The requirements on the assertions of a client. The profile permits no exception.
    fn terms(&self, client: Option<&Arc<Client>>) -> Terms<'_> {
        let client = client.filter(|_| self.profile == Profile::Default);
        let by_endpoint = client.is_some_and(|client| client.assertion_audience == AssertionAudience::TokenEndpoint);
        Terms {
            issuer: &self.audience,
            token_endpoints: if by_endpoint { &self.token_endpoints } else { &[] },
            lifetime: client
                .and_then(|client| client.assertion_lifetime)
                .map_or(client_assertion::LIFETIME, Span::from),
            one_in_an_array: self.profile == Profile::Default,
        }
    }

    /// Decides on the certificate of the connection: by what is registered of the client's certificates, or by those that
    /// stand beside its keys.
    pub(super) async fn by_certificate(
        &self,
        claimant: Claimant<'_>,
        certificate: &PeerCertificate,
        moment: &mut Moment,
        attempt: &mut Attempt,
    ) -> Result<AuthenticatedClient, Error> {
        let Claimant { client_id, source } = claimant;
        let client = moment.snapshot.client(client_id).ok_or_else(|| no_such(&moment.snapshot, client_id))?;
        let registered = client_certificate::verify(certificate, &client.certificates, moment.now)
            .map(|(stored, method)| (Used::Certificate(stored.clone()), method));
        let (used, method) = match registered {
            Ok(registered) => registered,
            Err(fault) => {
                let method = AuthMethod::SelfSignedTlsClientAuth;
                let verify =
                    |keys: &[StoredKey], moment: &Moment| client_certificate::verify_key(certificate, keys, moment.now);
                match self.with_keys(claimant, method, moment, verify).await {
                    Ok(stored) => (Used::Key(stored), method),
                    // That it is in none of the keys matters least.
                    Err(Error::ClientAuth(ClientAuthError::Certificate(CertificateMismatch::Other))) => {
                        return Err(fault.into());
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        attempt.method = Some(method);
        attempt.credential_id = Some(match &used {
            Used::Key(key) => Arc::clone(&key.kid),
            Used::Certificate(certificate) => Arc::clone(&certificate.cert_id),
        });
        let client = moment.snapshot.client(client_id).ok_or_else(|| no_such(&moment.snapshot, client_id))?;
        may_authenticate(client, method, moment)?;
        match &used {
            Used::Key(key) => self.note_key(client, key, moment.now),
            Used::Certificate(certificate) => self.registry.uses.note_certificate(certificate, moment.now),
        }
        self.known_sources.add(source);
        Ok(AuthenticatedClient { client: Arc::clone(client), method, raw_reading: false, assertion: None })
    }

    /// The verdict of `verify` on the keys of the client, be they registered or published. It is given none for a client
    /// that does not exist. When none of those that are known fits, another may have taken its place: the client's host is
    /// asked, if it may be, and what it has now is tried too.
    async fn with_keys<T>(
        &self,
        claimant: Claimant<'_>,
        method: AuthMethod,
        moment: &mut Moment,
        verify: impl Fn(&[StoredKey], &Moment) -> Result<T, ClientAuthError>,
    ) -> Result<T, Error> {
        let (client_id, now) = (claimant.client_id, moment.now);
        // Nothing is fetched from the host of a client that may not authenticate anyway.
        let client = moment.snapshot.client(client_id);
        let uri = client.filter(|client| may_authenticate(client, method, moment).is_ok());
        let Some(uri) = uri.and_then(|client| client.jwks_uri.clone()) else {
            return Ok(verify(client.map_or(&[], |client| &client.keys), moment)?);
        };
        let publishes = |client_id: &str, uri: &JwksUri| {
            self.registry.snapshot().client(client_id).is_some_and(|client| client.jwks_uri.as_ref() == Some(uri))
        };
        let known = self.client_jwks.keys(client_id, &uri, now, publishes).await;
        // Fetching may have taken seconds: what counts is what is known now.
        moment.renew(&self.registry);
        let verified = verify(known.as_deref().unwrap_or_default(), moment);
        let known = known.map_err(|error| match error {
            JwksError::Unavailable => Error::from(ClientAuthError::KeySet),
            JwksError::Busy => Unavailable::KeySets.into(),
        })?;
        let verified = match verified {
            Err(error) if fits_none(&error) => {
                let others = self.client_jwks.other_keys(client_id, &uri, &known, now).await;
                moment.renew(&self.registry);
                // The key may be a new one, so it is not called a wrong one.
                let others = others.map_err(|TooManyFetches| Unavailable::KeySets)?;
                others.map_or(Err(error), |others| verify(&others, moment))
            }
            verified => verified,
        };
        if publishes(client_id, &uri) { Ok(verified?) } else { Err(ClientAuthError::KeySet.into()) }
    }
}

/// Whether it is the keys that do not fit, and not what else was sent.
fn fits_none(error: &ClientAuthError) -> bool {
    matches!(
        error,
        ClientAuthError::Assertion(JoseError::NoKey | JoseError::OtherAlg | JoseError::Signature)
            | ClientAuthError::Certificate(CertificateMismatch::Other)
    )
}

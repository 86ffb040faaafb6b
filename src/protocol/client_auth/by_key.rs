//! Authentication by a key: a JWT that the client signed (RFC 7523), or the certificate of its connection (RFC 8705).

use std::net::IpAddr;
use std::sync::Arc;

use super::super::attempt::Attempt;
use super::super::client_assertion::{self, Terms, check_decoys};
use super::super::client_certificate;
use super::super::error::{ClientAuthError, Error, Unavailable};
use super::super::presented_jwt::{PresentedAssertion, PresentedJwt};
use super::by_federation::{claims_for_log, verified_claims_for_log};
use super::{AuthenticatedClient, Authenticator, Claimant, KeyOwner, may_authenticate, no_such};
use crate::crypto::jose::{JoseError, Unverified};
use crate::model::certificate::{CertificateMismatch, PeerCertificate};
use crate::model::client::{AssertionAudience, AuthMethod, Client};
use crate::model::credential::{KeyCounts, StoredCertificate, StoredKey};
use crate::model::profile::Profile;
use crate::model::time::{Span, UnixTime};
use crate::state::key_sets::source::Source;
use crate::state::key_sets::{JwksError, Keys, TooManyFetches};
use crate::state::registry::moment::Moment;
use crate::state::registry::snapshot::Snapshot;

/// Credential that has proved who a client is.
enum Used {
    Key(StoredKey),
    Certificate(StoredCertificate),
}

impl Authenticator {
    /// Decides on a JWT: by whom it is, is told by its `iss` alone, before any key is chosen. Signatures cannot be guessed,
    /// so nobody is slowed down.
    pub(super) async fn by_jwt(
        &self,
        presented: &PresentedAssertion<'_>,
        source: IpAddr,
        moment: &mut Moment,
        attempt: &mut Attempt,
    ) -> Result<AuthenticatedClient, Error> {
        let jwt = match &presented.jwt {
            PresentedJwt::New(jwt) => jwt,
            PresentedJwt::Known(token) => {
                attempt.federated = Some(Box::new(verified_claims_for_log(token)));
                return self.by_verified_token(presented, token, moment, attempt);
            }
        };
        match self.trusted_issuer(&moment.snapshot, presented.door, jwt) {
            Ok(Some(issuer)) => {
                attempt.method = Some(presented.door.method());
                attempt.federated = Some(Box::new(claims_for_log(jwt, &issuer.issuer)));
                self.by_issuers_token(presented, jwt, issuer, moment, attempt).await
            }
            // RFC 7523 section 3: "For client authentication, the subject MUST be the "client_id" of the OAuth client." RFC 7521
            // section 4.2: "If present, the value of the "client_id" parameter MUST identify the same client".
            Ok(None) if jwt.is_self_issued() && presented.client_id.is_none_or(|client_id| client_id == jwt.sub) => {
                let claimant = Claimant { client_id: &jwt.sub, source };
                self.by_assertion(claimant, &jwt.unverified, moment, attempt).await
            }
            neither => {
                let fault = match neither {
                    Ok(_) => ClientAuthError::AssertionSubject,
                    Err(fault) => {
                        attempt.method = Some(presented.door.method());
                        attempt.federated = Some(Box::new(claims_for_log(jwt, &jwt.iss)));
                        fault.into()
                    }
                };
                check_decoys(&jwt.unverified, self.key_counts(moment).with(jwt.unverified.header().alg()));
                Err(fault.into())
            }
        }
    }

    /// The most keys that any client or issuer has, for each algorithm: a JWT that is refused is checked by as many.
    pub(super) fn key_counts(&self, moment: &Moment) -> KeyCounts {
        let of_clients = moment.snapshot.key_counts().max(self.client_jwks.key_counts());
        of_clients.max(self.issuer_keys.key_counts())
    }

    /// Decides on a JWT that the client signed.
    async fn by_assertion(
        &self,
        claimant: Claimant<'_>,
        assertion: &Unverified<'_>,
        moment: &mut Moment,
        attempt: &mut Attempt,
    ) -> Result<AuthenticatedClient, Error> {
        let (client_id, method) = (claimant.client_id, AuthMethod::PrivateKeyJwt);
        let verify = |keys: &[StoredKey], moment: &Moment| {
            let at_least = self.key_counts(moment).with(assertion.header().alg());
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
    /// that does not exist.
    async fn with_keys<T>(
        &self,
        claimant: Claimant<'_>,
        method: AuthMethod,
        moment: &mut Moment,
        verify: impl Fn(&[StoredKey], &Moment) -> Result<T, ClientAuthError>,
    ) -> Result<T, Error> {
        let client_id = claimant.client_id;
        // Nothing is fetched from the host of a client that may not authenticate anyway.
        let client = moment.snapshot.client(client_id);
        let uri = client.filter(|client| may_authenticate(client, method, moment).is_ok());
        let Some(uri) = uri.and_then(|client| client.jwks_uri.clone()) else {
            return Ok(verify(client.map_or(&[], |client| &client.keys), moment)?);
        };
        let source = Source::Client(uri);
        let is_current = |snapshot: &Snapshot, client_id: &str, source: &Source| {
            let uri = snapshot.client(client_id).and_then(|client| client.jwks_uri.as_ref());
            matches!(source, Source::Client(published) if uri == Some(published))
        };
        let owner = KeyOwner { sets: &self.client_jwks, name: client_id, source: &source };
        let missing = || ClientAuthError::KeySet;
        self.with_fetched(&owner, is_current, missing, moment, |keys: &Keys, moment: &Moment| verify(keys, moment))
            .await
    }

    /// The verdict of `verify` on the keys that `owner` publishes. When none of those that are known fits, another may have
    /// taken its place: the host is asked, if it may be, and what it has now is tried too.
    pub(super) async fn with_fetched<T>(
        &self,
        owner: &KeyOwner<'_>,
        is_current: impl Fn(&Snapshot, &str, &Source) -> bool,
        missing: impl Fn() -> ClientAuthError,
        moment: &mut Moment,
        verify: impl Fn(&Keys, &Moment) -> Result<T, ClientAuthError>,
    ) -> Result<T, Error> {
        let (KeyOwner { sets, name, source }, now) = (*owner, moment.now);
        let is_kept = |owner: &str, source: &Source| is_current(&self.registry.snapshot(), owner, source);
        let known = sets.keys(name, source, now, is_kept).await;
        // Fetching may have taken seconds: what counts is what is known now.
        moment.renew(&self.registry);
        let verified = verify(known.as_ref().unwrap_or(&Keys::default()), moment);
        let known = known.map_err(|error| match error {
            JwksError::Unavailable => Error::from(missing()),
            JwksError::Busy => Unavailable::KeySets.into(),
        })?;
        let verified = match verified {
            Err(error) if fits_none(&error) => {
                let others = sets.other_keys(name, source, &known, now).await;
                moment.renew(&self.registry);
                // The key may be a new one, so it is not called a wrong one.
                let others = others.map_err(|TooManyFetches| Unavailable::KeySets)?;
                others.map_or(Err(error), |others| verify(&others, moment))
            }
            verified => verified,
        };
        if is_current(&moment.snapshot, name, source) { Ok(verified?) } else { Err(missing().into()) }
    }
}

/// Whether it is the keys that do not fit, and not what else was sent.
fn fits_none(error: &ClientAuthError) -> bool {
    matches!(
        error,
        ClientAuthError::Assertion(JoseError::NoKey | JoseError::OtherAlg | JoseError::Signature)
            | ClientAuthError::Certificate(CertificateMismatch::Other | CertificateMismatch::Untrusted(_))
    )
}

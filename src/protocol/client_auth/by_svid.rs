//! Authentication by the certificate of the connection as an X.509-SVID (draft-ietf-oauth-spiffe-client-auth): its chain is
//! validated to the bundle of its own trust domain, and to nothing else.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::attempt::{Attempt, FederatedClaims};
use super::super::error::federation::FederationError;
use super::super::error::{ClientAuthError, Error};
use super::by_federation::{Identity, is_published};
use super::{AuthenticatedClient, Authenticator, Claimant, KeyOwner};
use crate::crypto::certificate::path::TrustAnchors;
use crate::crypto::json::Object;
use crate::model::certificate::{CertificateMismatch, PeerCertificate};
use crate::model::client::AuthMethod;
use crate::model::federation::kind::IssuerKind;
use crate::model::federation::trusted_issuer::{KeySource, TrustedIssuer};
use crate::model::spiffe_id::SpiffeId;
use crate::model::time::UnixTime;
use crate::state::key_sets::Keys;
use crate::state::key_sets::source::Source;
use crate::state::registry::moment::Moment;
use crate::state::registry::snapshot::Snapshot;

impl Authenticator {
    /// Decides on the certificate of the connection: by what is registered for the client that the request names, or as an
    /// SVID.
    pub(super) async fn by_connection(
        &self,
        client_id: Option<&str>,
        source: IpAddr,
        certificate: &PeerCertificate,
        moment: &mut Moment,
        attempt: &mut Attempt,
    ) -> Result<AuthenticatedClient, Error> {
        let claimant = |client_id| Claimant { client_id, source };
        let Some(id) = spiffe_id(certificate) else {
            return match client_id {
                Some(client_id) => self.by_certificate(claimant(client_id), certificate, moment, attempt).await,
                None => Err(ClientAuthError::Absent.into()),
            };
        };
        // A client of RFC 8705 keeps its way.
        let is_trusted = moment.snapshot.trusted_issuer(id.trust_domain()).is_some();
        if let Some(client_id) = client_id
            && (!is_trusted || has_other_way(&moment.snapshot, client_id))
        {
            let decided = self.by_certificate(claimant(client_id), certificate, moment, attempt).await;
            if !is_trusted || !matches!(decided, Err(Error::ClientAuth(_))) {
                return decided;
            }
        }
        self.by_svid(id, client_id, certificate, moment, attempt).await
    }

    async fn by_svid(
        &self,
        id: SpiffeId<'_>,
        client_id: Option<&str>,
        certificate: &PeerCertificate,
        moment: &mut Moment,
        attempt: &mut Attempt,
    ) -> Result<AuthenticatedClient, Error> {
        let method = AuthMethod::SpiffeX509;
        attempt.method = Some(method);
        let (issuer, subject) = (id.trust_domain().to_owned(), id.as_str().to_owned());
        attempt.federated = Some(Box::new(FederatedClaims { issuer, subject, jti: None }));
        let issuer = trust_domain(&moment.snapshot, id)?;
        match (Source::of_issuer(&issuer), &issuer.keys) {
            (Some(source), _) => {
                let missing = || FederationError::Keys.into();
                let owner = KeyOwner { sets: &self.issuer_keys, name: &issuer.issuer, source: &source };
                let verify = |keys: &Keys, moment: &Moment| {
                    let authorities = self.issuer_keys.authorities(&issuer.issuer, keys);
                    validate(certificate, &authorities, moment.now)
                };
                self.with_fetched(&owner, is_published, missing, moment, verify).await?;
            }
            (None, KeySource::Pinned(pinned)) => validate(certificate, &pinned.authorities, moment.now)?,
            (None, _) => return Err(FederationError::Keys.into()),
        }
        // Fetching may have taken seconds: what counts is what is known of the trust domain now.
        let issuer = trust_domain(&moment.snapshot, id)?;
        let claims = Object::new();
        let identity = Identity { issuer: &issuer, sub: id.as_str(), claims: &claims, method };
        // draft-ietf-oauth-spiffe-client-auth: the client_id may be the SPIFFE ID. It is then a name of whichever client the
        // rule is of, and is never looked up.
        let client_id = client_id.filter(|client_id| *client_id != id.as_str());
        let client = self.selected(&identity, client_id, moment, attempt)?;
        Ok(AuthenticatedClient { client, method, raw_reading: false, assertion: None })
    }
}

/// The SPIFFE ID of a certificate. X.509-SVID section 2: "exactly one URI SAN".
#[must_use]
pub fn spiffe_id(certificate: &PeerCertificate) -> Option<SpiffeId<'_>> {
    // Another URI makes it a certificate that is no SVID.
    SpiffeId::parse(certificate.certificate.sole_uri()?).ok()
}

/// Whether a client has registered a certificate, or has or publishes keys with certificates.
fn has_other_way(snapshot: &Snapshot, client_id: &str) -> bool {
    snapshot
        .client(client_id)
        .is_some_and(|client| !client.certificates.is_empty() || !client.keys.is_empty() || client.jwks_uri.is_some())
}

/// The trust domain of an SVID among those that are configured.
fn trust_domain(snapshot: &Snapshot, id: SpiffeId<'_>) -> Result<Arc<TrustedIssuer>, FederationError> {
    let issuer = snapshot.trusted_issuer(id.trust_domain());
    let issuer = issuer.filter(|issuer| issuer.enabled && issuer.kind == IssuerKind::Spiffe);
    issuer.cloned().ok_or_else(|| FederationError::Issuer(id.trust_domain().into()))
}

/// X.509-SVID sections 4 and 5: a leaf is no CA, has `digitalSignature`, and neither `keyCertSign` nor `cRLSign`; its path
/// is validated to the bundle of its trust domain.
fn validate(presented: &PeerCertificate, authorities: &TrustAnchors, now: UnixTime) -> Result<(), ClientAuthError> {
    let certificate = &presented.certificate;
    if certificate.is_ca() || !certificate.signs_data_alone() {
        return Err(CertificateMismatch::Purpose.into());
    }
    if !certificate.is_valid_at(now.0) {
        return Err(CertificateMismatch::Expired.into());
    }
    let validated = authorities.validate(certificate.der(), &presented.intermediates, now.0);
    validated.map_err(|reason| CertificateMismatch::Untrusted(reason.into()).into())
}

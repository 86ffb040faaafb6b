//! Faults of registrations under the configuration of this server.

use std::sync::Arc;

use super::Admin;
use super::lifecycle::Advice;
use crate::crypto::certificate::Certificate;
use crate::crypto::jwk::Alg;
use crate::model::claims::STATUS;
use crate::model::client::Client;
use crate::model::credential::{SecretOrigin, StoredKey, StoredSecret};
use crate::model::profile::Profile;
use crate::model::resource::{Resource, TokenTyp};
use crate::protocol::access_token::size::TOO_LARGE;
use crate::store::secrets::MAX_IMPORTED;

/// Fault of a client or a resource.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationFault {
    #[error("it authenticates by a name in its certificate, which no CA verifies without server.mtls.client_ca_file")]
    NoClientCa,
    #[error(
        "it authenticates by a certificate, and this server receives none: set server.mtls.listen, or server.client_cert_header behind a proxy"
    )]
    NoWayForCertificates,
    #[error("all of its keys have expired")]
    KeysExpired,
    #[error("its certificate {0} has expired")]
    CertificateExpired(Arc<str>),
    #[error("no TLS handshake accepts the certificate in x5c of its key {kid}: {fault}")]
    UnusableCertificate { kid: Arc<str>, fault: String },
    #[error("its further claim status is reserved; tokens that refer to the status list carry grantd's instead")]
    StatusClaim,
    #[error("{0} imported secrets, of which the newest {MAX_IMPORTED} work; revoke the others")]
    ImportedSecrets(usize),
    #[error("the fapi2 profile refuses {0}")]
    CredentialsRefused(String),
    #[error("the fapi2 profile does not sign with {0}")]
    IntrospectionAlg(Alg),
    #[error("the fapi2 profile does not sign with {0}")]
    ResourceAlg(Alg),
    #[error("its token_typ JWT has no effect under the fapi2 profile; tokens have typ at+jwt")]
    TokenTyp,
}

/// Kind of a fault, by which faults of many clients are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    NoClientCa,
    NoWayForCertificates,
    KeysExpired,
    CertificateExpired,
    UnusableCertificate,
    StatusClaim,
    ImportedSecrets,
    CredentialsRefused,
    IntrospectionAlg,
    ResourceAlg,
    TokenTyp,
    /// The tokens of a client can be too large for a header field.
    LargeTokens,
    /// The JWK Set that a client publishes cannot be used.
    PublishedKeys,
    /// The owner of a client is not noted. Advice, no fault.
    Ownerless,
    /// No credential of a client was used for long. Advice, no fault.
    Unused,
    /// A secret of a client lasts longer than `secrets.max_age`. Advice, no fault.
    LongLivedSecret,
    /// A rule of a client matches nothing. Advice, no fault.
    DeadRule,
    /// A rule of a client admits more than is usually meant. Advice, no fault.
    WeakRule,
    /// A rule of a client was not used for long. Advice, no fault.
    UnusedRule,
    /// A row of a client cannot be read.
    MalformedClient,
    /// A row of a resource cannot be read.
    MalformedResource,
}

impl FaultKind {
    /// Returns the fault as a sentence without names and values.
    #[must_use]
    pub fn sentence(self) -> String {
        match self {
            Self::NoClientCa => RegistrationFault::NoClientCa.to_string(),
            Self::NoWayForCertificates => RegistrationFault::NoWayForCertificates.to_string(),
            Self::KeysExpired => RegistrationFault::KeysExpired.to_string(),
            Self::CertificateExpired => "a certificate has expired".to_owned(),
            Self::UnusableCertificate => "no TLS handshake accepts the certificate in x5c of a key".to_owned(),
            Self::StatusClaim => RegistrationFault::StatusClaim.to_string(),
            Self::ImportedSecrets => format!("more than {MAX_IMPORTED} imported secrets; revoke the others"),
            Self::CredentialsRefused => "the fapi2 profile refuses its credentials".to_owned(),
            Self::IntrospectionAlg => {
                "the fapi2 profile does not sign with its introspection_signed_response_alg".to_owned()
            }
            Self::ResourceAlg => "the fapi2 profile does not sign with its alg".to_owned(),
            Self::TokenTyp => RegistrationFault::TokenTyp.to_string(),
            Self::LargeTokens => format!("its tokens can have more than {TOO_LARGE} bytes"),
            Self::Ownerless => Advice::Ownerless.to_string(),
            Self::Unused => "none of its credentials was used for 90 days".to_owned(),
            Self::LongLivedSecret => "a secret lasts longer than secrets.max_age".to_owned(),
            Self::PublishedKeys => "its key set cannot be used".to_owned(),
            Self::DeadRule => "a federation rule matches nothing".to_owned(),
            Self::WeakRule => "a federation rule admits more than is usually meant".to_owned(),
            Self::UnusedRule => "a federation rule was not used for 90 days".to_owned(),
            Self::MalformedClient | Self::MalformedResource => "a row cannot be read".to_owned(),
        }
    }

    /// Whether it is advice about a client that works.
    #[must_use]
    pub fn is_advice(self) -> bool {
        matches!(
            self,
            Self::Ownerless | Self::Unused | Self::LongLivedSecret | Self::DeadRule | Self::WeakRule | Self::UnusedRule
        )
    }

    /// Whether the fault is one of a resource, and not of a client.
    #[must_use]
    pub fn is_of_resource(self) -> bool {
        matches!(self, Self::ResourceAlg | Self::TokenTyp | Self::MalformedResource)
    }
}

impl RegistrationFault {
    /// Returns the kind of the fault.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::NoClientCa => FaultKind::NoClientCa,
            Self::NoWayForCertificates => FaultKind::NoWayForCertificates,
            Self::KeysExpired => FaultKind::KeysExpired,
            Self::CertificateExpired(_) => FaultKind::CertificateExpired,
            Self::UnusableCertificate { .. } => FaultKind::UnusableCertificate,
            Self::StatusClaim => FaultKind::StatusClaim,
            Self::ImportedSecrets(_) => FaultKind::ImportedSecrets,
            Self::CredentialsRefused(_) => FaultKind::CredentialsRefused,
            Self::IntrospectionAlg(_) => FaultKind::IntrospectionAlg,
            Self::ResourceAlg(_) => FaultKind::ResourceAlg,
            Self::TokenTyp => FaultKind::TokenTyp,
        }
    }
}

impl Admin {
    /// Returns the faults of a client.
    #[must_use]
    pub fn client_faults(&self, client: &Client) -> Vec<RegistrationFault> {
        let (mut faults, policy, now) = (Vec::new(), &self.policy, self.now());
        if client.certificates.iter().any(|one| one.registered.needs_ca()) && !policy.has_client_ca {
            faults.push(RegistrationFault::NoClientCa);
        }
        if !client.certificates.is_empty() && !policy.has_certificate_listener && !policy.certificates_by_proxy {
            faults.push(RegistrationFault::NoWayForCertificates);
        }
        if !client.keys.is_empty() && client.keys.iter().all(|key| key.expires_at.is_some_and(|at| at <= now)) {
            faults.push(RegistrationFault::KeysExpired);
        }
        let expired = client.certificates.iter().filter(|one| one.expires_at.is_some_and(|at| at <= now));
        faults.extend(expired.map(|one| RegistrationFault::CertificateExpired(Arc::clone(&one.cert_id))));
        for key in client.keys.iter().filter(|_| !policy.certificates_by_proxy) {
            if let Some(fault) = key.key.x5c().and_then(Certificate::handshake_fault) {
                faults.push(RegistrationFault::UnusableCertificate { kid: Arc::clone(&key.kid), fault });
            }
        }
        if client.claims.members().contains_key(STATUS) {
            faults.push(RegistrationFault::StatusClaim);
        }
        let works = |secret: &&StoredSecret| secret.origin == SecretOrigin::Imported && secret.revoked_at.is_none();
        let imported = client.secrets.iter().filter(works).count();
        if imported > usize::try_from(MAX_IMPORTED).unwrap_or(2) {
            faults.push(RegistrationFault::ImportedSecrets(imported));
        }
        faults.extend(self.outside_profile(client));
        faults
    }

    /// Returns the fault of a client that the profile refuses.
    fn outside_profile(&self, client: &Client) -> Option<RegistrationFault> {
        let profile = self.policy.profile;
        if let Some(alg) = client.introspection_signed_response_alg.filter(|alg| !profile.permits_alg(*alg)) {
            return Some(RegistrationFault::IntrospectionAlg(alg));
        }
        let usable = |key: &StoredKey| key.key.algs().any(|alg| profile.permits_signature(alg));
        let proves = client.keys.iter().any(usable) || client.jwks_uri.is_some() || !client.certificates.is_empty();
        let refused = match (proves, client.keys.first(), client.secrets.first()) {
            (false, Some(key), _) => format!("keys for {}", key.key.alg_text()),
            (false, None, Some(_)) => "secrets".to_owned(),
            _ => return None,
        };
        (profile == Profile::Fapi2).then_some(RegistrationFault::CredentialsRefused(refused))
    }

    /// Returns the faults of a resource.
    #[must_use]
    pub fn resource_faults(&self, resource: &Resource) -> Vec<RegistrationFault> {
        let profile = self.policy.profile;
        let alg = resource.alg.filter(|alg| !profile.permits_alg(*alg)).map(RegistrationFault::ResourceAlg);
        let ignored = profile == Profile::Fapi2 && resource.token_typ == TokenTyp::Jwt;
        alg.into_iter().chain(ignored.then_some(RegistrationFault::TokenTyp)).collect()
    }
}

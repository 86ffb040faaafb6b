//! Certificates of clients, for mutual TLS (RFC 8705 section 2): a name in them, or the certificate itself.

use std::sync::Arc;

use serde_json::{Value, json};

use super::client_stream::{ClientRange, readable};
use super::document::with_client;
use super::{Admin, AdminError, AdminResult, Outcome, Warning};
use crate::crypto::certificate::Certificate;
use crate::crypto::secret::new_secret_id;
use crate::model::certificate::RegisteredCertificate;
use crate::model::client::Client;
use crate::model::client_id::ClientId;
use crate::model::credential::StoredCertificate;
use crate::model::time::UnixTime;

/// Certificate to register.
#[derive(Debug)]
pub enum NewCertificate {
    /// A name in the client's certificates, which a CA verifies.
    Name(RegisteredCertificate),
    /// The certificate itself, which no CA has to verify.
    SelfSigned(Certificate),
}

/// Registration of a client's certificate, with its last use.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The client.
    pub client_id: ClientId,
    /// The registration.
    pub stored: StoredCertificate,
    /// The last successful authentication, to within half a minute.
    pub last_used_at: Option<UnixTime>,
}

impl ClientCertificate {
    /// Returns the registration as JSON.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({
            "cert_id": self.stored.cert_id,
            "kind": self.stored.registered.kind(),
            "value": self.stored.registered.to_string(),
            "created_at": self.stored.created_at,
            "expires_at": self.stored.expires_at,
            "last_used_at": self.last_used_at,
        })
    }

    /// Returns the registration as JSON, with its client.
    #[must_use]
    pub fn document_of_client(&self) -> Value {
        with_client(self.document(), &self.client_id)
    }
}

impl Admin {
    /// Registers a name in the certificates of a client, or a certificate beside those it has.
    pub async fn add_client_certificate(
        &self,
        client_id: &ClientId,
        certificate: NewCertificate,
    ) -> AdminResult<ClientCertificate> {
        let (registered, expires_at, warnings) = match certificate {
            NewCertificate::Name(name) => {
                let warning = (!self.policy.has_client_ca).then_some(Warning::NoClientCa);
                (name.clone(), None, warning.into_iter().chain(reversed_subject(&name)).collect())
            }
            NewCertificate::SelfSigned(certificate) => {
                // RFC 5280 section 4.1.2.5: the certificate is valid through the second of `notAfter`.
                let end = UnixTime(certificate.not_after().saturating_add(1));
                let warnings = self.check_certificate(&certificate, None)?;
                (RegisteredCertificate::self_signed(&certificate), Some(end), warnings)
            }
        };
        let stored = StoredCertificate {
            cert_id: new_secret_id()?.into(),
            registered,
            created_at: self.now(),
            expires_at,
            used: Arc::default(),
        };
        let added = self.store.add_client_certificate(client_id.as_str(), &stored).await;
        added.map_err(|error| AdminError::of_client(error, client_id))?;
        let value = ClientCertificate { client_id: client_id.clone(), stored, last_used_at: None };
        Ok(Outcome { value, warnings })
    }

    /// Returns the certificate registrations of the clients of a range, with their last uses.
    pub async fn client_certificates(&self, range: ClientRange) -> AdminResult<Vec<ClientCertificate>> {
        let Outcome { value: clients, warnings } = readable(range);
        let clients: Vec<&Client> = clients.iter().map(AsRef::as_ref).collect();
        Ok(Outcome { value: self.certificates_of(&clients).await?, warnings })
    }

    /// Returns the certificate registrations of clients, with their last uses.
    pub(super) async fn certificates_of(&self, clients: &[&Client]) -> Result<Vec<ClientCertificate>, AdminError> {
        let registered = || clients.iter().filter(|client| !client.certificates.is_empty());
        let ids: Vec<&str> = registered().map(|client| client.client_id.as_str()).collect();
        let uses = self.store.certificates_last_used(&ids).await?;
        let of_one = |client: &&Client| {
            let certificates = client.certificates.iter().map(|stored| ClientCertificate {
                client_id: client.client_id.clone(),
                stored: stored.clone(),
                last_used_at: uses.get(&*stored.cert_id).copied(),
            });
            certificates.collect::<Vec<_>>()
        };
        Ok(registered().flat_map(of_one).collect())
    }

    /// Removes a registration of a client's certificate.
    pub async fn remove_client_certificate(&self, client_id: &ClientId, cert_id: &str) -> Result<(), AdminError> {
        if self.store.remove_client_certificate(client_id.as_str(), cert_id).await? {
            return Ok(());
        }
        self.client(client_id).await?;
        Err(AdminError::NoSuchCertificate { client_id: client_id.clone(), cert_id: cert_id.to_owned() })
    }
}

/// The warning about a subject that was likely written in the wrong order.
fn reversed_subject(name: &RegisteredCertificate) -> Option<Warning> {
    match name {
        RegisteredCertificate::SubjectDn(subject) if subject.looks_reversed() => {
            Some(Warning::ReversedSubject { likely: subject.reversed().to_string() })
        }
        _ => None,
    }
}

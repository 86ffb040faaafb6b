//! Stored registrations of client certificates, for mutual TLS.

use std::sync::Arc;

use super::columns::moment;
use super::rows::borrowed_row;
use super::statement::{Value, args};
use super::{Refusal, Store, StoreError, transaction};
use crate::model::certificate::RegisteredCertificate;
use crate::model::credential::StoredCertificate;

borrowed_row!(
    /// Row of a certificate registration.
    CertificateRow of "client_certificate" by "order by c.client_id, c.created_at desc, c.cert_id" {
        client_id: &'r str,
        cert_id: &'r str,
        kind: &'r str,
        value: &'r str,
        created_at: i64,
        expires_at: Option<i64>,
    }
);

impl Store {
    /// Adds a certificate registration to a client.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the client does not exist, or has a name already and this is another one.
    pub async fn add_client_certificate(&self, client_id: &str, stored: &StoredCertificate) -> Result<(), StoreError> {
        transaction!(self, |tx| {
            // Serialises concurrent registrations, so that a client never gets two names.
            tx.take_turn().await?;
            let sql = "select count(*) from client_certificate where client_id = $1 and kind <> 'self_signed'";
            if stored.registered.needs_ca() && tx.count(sql, &args![client_id]).await? > 0 {
                return Err(StoreError::Refused(Refusal::SecondCertificateName));
            }
            tx.execute(INSERT_CERTIFICATE, &values(client_id, stored)).await.map(drop)
        })
    }

    /// Removes a registration. `Ok(false)` when the client has no registration of that id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_client_certificate(&self, client_id: &str, cert_id: &str) -> Result<bool, StoreError> {
        let sql = "delete from client_certificate where client_id = $1 and cert_id = $2";
        Ok(self.execute(sql, &args![client_id, cert_id]).await? > 0)
    }
}

/// The values of [`INSERT_CERTIFICATE`].
pub(super) fn values(client_id: &str, stored: &StoredCertificate) -> [Value; 6] {
    let (kind, value) = (stored.registered.kind(), stored.registered.to_string());
    args![&*stored.cert_id, client_id, kind, value, stored.created_at, stored.expires_at]
}

/// Inserts a registration, with [`values`].
pub(super) const INSERT_CERTIFICATE: &str = "insert into client_certificate
    (cert_id, client_id, kind, value, created_at, expires_at) values ($1, $2, $3, $4, $5, $6)";

/// Reads a row.
pub(super) fn certificate_of(row: &CertificateRow<'_>) -> Result<StoredCertificate, String> {
    let CertificateRow { cert_id, kind, value, created_at, expires_at, .. } = *row;
    let registered = RegisteredCertificate::parse(kind, value)
        .map_err(|error| format!("client_certificate {cert_id}: value: {error}"))?;
    Ok(StoredCertificate {
        cert_id: cert_id.into(),
        registered,
        created_at: moment("client_certificate.created_at", created_at)?,
        expires_at: expires_at.map(|at| moment("client_certificate.expires_at", at)).transpose()?,
        used: Arc::default(),
    })
}

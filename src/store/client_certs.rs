//! Certificates of clients, for mutual TLS: what is known of each.

use std::sync::Arc;

use super::{Pool, Session, Store, StoreError, begin, on, within};
use crate::model::certificate::RegisteredCertificate;
use crate::model::credential::StoredCertificate;
use crate::model::time::UnixTime;

pub(super) type CertificateRow = (String, String, String, String, i64, Option<i64>);

impl Store {
    /// Registers what is known of a client's certificate.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when there is no such client, or it has a name already and this is one.
    pub async fn add_client_certificate(&self, client_id: &str, stored: &StoredCertificate) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        self.queries.inc_by(2);
        let second = within(async {
            on!(Session, &mut session, connection => {
                let mut tx = begin!(connection).await?;
                sqlx::query("update registry_revision set revision = revision").execute(&mut *tx).await?;
                let (names,): (i64,) =
                    sqlx::query_as("select count(*) from client_certificate where client_id = $1 and kind <> 'self_signed'")
                        .bind(client_id).fetch_one(&mut *tx).await?;
                let second = names > 0 && stored.registered.needs_ca();
                if !second {
                    sqlx::query("insert into client_certificate (cert_id, client_id, kind, value, created_at, expires_at) values ($1, $2, $3, $4, $5, $6)")
                        .bind(&*stored.cert_id).bind(client_id).bind(stored.registered.kind())
                        .bind(stored.registered.to_string()).bind(stored.created_at.0).bind(stored.expires_at.map(|at| at.0))
                        .execute(&mut *tx).await?;
                }
                tx.commit().await?;
                Ok(second)
            })
        })
        .await?;
        session.close().await;
        if second { Err(StoreError::Refused(ONE_NAME.to_owned())) } else { Ok(()) }
    }

    /// Removes a registration. `Ok(false)` when the client has none of that id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_client_certificate(&self, client_id: &str, cert_id: &str) -> Result<bool, StoreError> {
        let sql = "delete from client_certificate where client_id = $1 and cert_id = $2";
        self.queries.inc();
        on!(Pool, &self.pool, pool => {
            within(async { Ok(sqlx::query(sql).bind(client_id).bind(cert_id).execute(pool).await?.rows_affected()) }).await
        })
        .map(|rows| rows > 0)
    }
}

/// A row to what is known of a certificate.
pub(super) fn certificate_of(
    (_, cert_id, kind, value, created_at, expires_at): CertificateRow,
) -> Result<StoredCertificate, String> {
    let registered = RegisteredCertificate::parse(&kind, &value)
        .map_err(|error| format!("client_certificate {cert_id}: value: {error}"))?;
    Ok(StoredCertificate {
        cert_id: cert_id.into(),
        registered,
        created_at: UnixTime(created_at),
        expires_at: expires_at.map(UnixTime),
        used: Arc::default(),
    })
}

/// RFC 8705 section 2.1.2: a client "MUST use exactly one of the below metadata parameters".
const ONE_NAME: &str = "a client is known by exactly one name in its certificate; remove the one it has first";

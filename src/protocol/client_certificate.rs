//! Mutual TLS (RFC 8705 section 2): the certificate of the connection held against those that a client has registered.

use super::error::ClientAuthError;
use crate::model::certificate::{CertificateMismatch, PeerCertificate, RegisteredCertificate};
use crate::model::client::AuthMethod;
use crate::model::credential::StoredCertificate;
use crate::model::time::UnixTime;

/// Finds the registration that the certificate of the connection proves.
///
/// # Errors
/// [`ClientAuthError::Certificate`]. RFC 8705 section 2: the server "MUST verify that the certificate matches the
/// expected or registered" one of the client that `client_id` names; nobody is looked up by a certificate.
pub fn verify<'a>(
    presented: &PeerCertificate,
    registered: &'a [StoredCertificate],
    now: UnixTime,
) -> Result<(&'a StoredCertificate, AuthMethod), ClientAuthError> {
    let mut fault = CertificateMismatch::Other;
    for stored in registered {
        let proved = presented.proves(&stored.registered, now);
        let ended = stored.expires_at.is_some_and(|at| at <= now);
        match proved.and(if ended { Err(CertificateMismatch::Expired) } else { Ok(()) }) {
            Ok(()) => return Ok((stored, method(&stored.registered))),
            // That one of them says something else matters least.
            Err(CertificateMismatch::Other) => {}
            Err(error) => fault = error,
        }
    }
    Err(fault.into())
}

fn method(registered: &RegisteredCertificate) -> AuthMethod {
    if registered.needs_ca() { AuthMethod::TlsClientAuth } else { AuthMethod::SelfSignedTlsClientAuth }
}

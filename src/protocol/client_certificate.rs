//! Mutual TLS (RFC 8705 section 2): the certificate of the connection held against those that a client has registered.

use super::error::ClientAuthError;
use crate::model::certificate::{CertificateMismatch, PeerCertificate, RegisteredCertificate};
use crate::model::client::AuthMethod;
use crate::model::credential::{StoredCertificate, StoredKey};
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

/// Finds the key whose certificate it is. RFC 8705 section 2.2.2: "A certificate is represented with the "x5c" parameter
/// of an individual JWK within the set", which is registered or served at the client's `jwks_uri`.
///
/// # Errors
/// [`ClientAuthError::Certificate`], [`ClientAuthError::KeyExpired`].
pub fn verify_key(
    presented: &PeerCertificate,
    keys: &[StoredKey],
    now: UnixTime,
) -> Result<StoredKey, ClientAuthError> {
    let mut fault = ClientAuthError::from(CertificateMismatch::Other);
    for stored in keys {
        let Some(certificate) = stored.key.x5c() else { continue };
        match presented.is(certificate.der(), now) {
            Ok(()) if stored.expires_at.is_some_and(|at| at <= now) => fault = ClientAuthError::KeyExpired,
            Ok(()) => return Ok(stored.clone()),
            Err(CertificateMismatch::Other) => {}
            Err(error) => fault = error.into(),
        }
    }
    Err(fault)
}

fn method(registered: &RegisteredCertificate) -> AuthMethod {
    if registered.needs_ca() { AuthMethod::TlsClientAuth } else { AuthMethod::SelfSignedTlsClientAuth }
}

//! The `Client-Cert` header field (RFC 9440), by which a proxy that terminates TLS passes on the client's certificate.
//!
//! Anybody can write it. Who calls this knows that the request came from a proxy that replaces what clients write.

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::crypto::certificate::{Certificate, CertificateError};

/// Why the field was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClientCertError {
    /// More than one line: the proxy's, and one that it let through.
    #[error("Client-Cert stands more than once")]
    Repeated,
    /// Not `:base64:`.
    #[error("Client-Cert is not one byte sequence of RFC 8941, :base64:")]
    Malformed,
    /// Not a certificate that we take.
    #[error("Client-Cert: {0}")]
    Certificate(#[from] CertificateError),
}

/// The certificate that the field holds; `None` when there is no field.
///
/// # Errors
/// [`ClientCertError`].
pub fn client_cert(headers: &HeaderMap) -> Result<Option<Certificate>, ClientCertError> {
    let mut lines = headers.get_all(CLIENT_CERT).iter();
    let (line, further) = (lines.next(), lines.next());
    let Some(line) = line else { return Ok(None) };
    // RFC 9440 section 2.2: "which MUST NOT have a list of values or occur multiple times in a request."
    if further.is_some() {
        return Err(ClientCertError::Repeated);
    }
    // RFC 9440 section 2.1: the certificate is a Byte Sequence of RFC 8941, and parameters are not provided for.
    let encoded = line
        .as_bytes()
        .trim_ascii()
        .strip_prefix(b":")
        .and_then(|rest| rest.strip_suffix(b":"))
        .ok_or(ClientCertError::Malformed)?;
    if encoded.len() > MAX_ENCODED {
        return Err(CertificateError::TooLarge.into());
    }
    let der = BASE64_STANDARD.decode(encoded).map_err(|_| ClientCertError::Malformed)?;
    Ok(Some(Certificate::parse(&der)?))
}

const CLIENT_CERT: &str = "client-cert";

/// Base64 makes four characters of three bytes.
const MAX_ENCODED: usize = Certificate::MAX_DER.div_ceil(3) * 4;

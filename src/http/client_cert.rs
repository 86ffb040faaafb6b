//! The `Client-Cert` header field (RFC 9440), by which a proxy that terminates TLS passes on the client's certificate.
//!
//! Anybody can write it. Who calls this knows that the request came from a proxy that replaces what clients write.

use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};

use crate::crypto::certificate::{Certificate, CertificateError};
use crate::model::certificate::PeerCertificate;

/// Says whether a CA of ours vouches for a chain in DER, the client's own certificate first, or why none does.
#[derive(Clone)]
pub struct Vouch(pub Arc<Vouches>);

/// The function in [`Vouch`]: trust in CAs is the process's business, which stands above this floor.
pub type Vouches = dyn Fn(&[Vec<u8>]) -> Result<(), Arc<str>> + Send + Sync;

impl fmt::Debug for Vouch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vouch")
    }
}

/// The fault of a field that is not taken.
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

/// The certificate of its client that a trusted proxy passes on, with the verdict of our CAs on it. The proxy has
/// seen that the client holds the key; whose word on names counts is still our CAs'.
///
/// # Errors
/// [`ClientCertError`].
pub fn peer_certificate(headers: &HeaderMap, vouch: &Vouch) -> Result<Option<PeerCertificate>, ClientCertError> {
    let Some(der) = client_cert_der(headers)? else { return Ok(None) };
    let certificate = Arc::new(Certificate::parse(&der)?);
    let mut chain = vec![der];
    chain.extend(intermediates(headers)?);
    let ca_verified = (vouch.0)(&chain);
    Ok(Some(PeerCertificate { certificate, intermediates: chain.drain(1..).collect(), ca_verified }))
}

/// The certificate that the field holds; `None` when there is no field.
///
/// # Errors
/// [`ClientCertError`].
pub fn client_cert(headers: &HeaderMap) -> Result<Option<Certificate>, ClientCertError> {
    Ok(client_cert_der(headers)?.map(|der| Certificate::parse(&der)).transpose()?)
}

fn client_cert_der(headers: &HeaderMap) -> Result<Option<Vec<u8>>, ClientCertError> {
    let mut lines = headers.get_all(CLIENT_CERT).iter();
    let (line, further) = (lines.next(), lines.next());
    let Some(line) = line else { return Ok(None) };
    // RFC 9440 section 2.2: "which MUST NOT have a list of values or occur multiple times in a request."
    if further.is_some() {
        return Err(ClientCertError::Repeated);
    }
    byte_sequence(line.as_bytes()).map(Some)
}

/// RFC 9440 section 2.3: `Client-Cert-Chain` is a list of byte sequences, in the order of the handshake.
fn intermediates(headers: &HeaderMap) -> Result<Vec<Vec<u8>>, ClientCertError> {
    let lines = headers.get_all(CLIENT_CERT_CHAIN).iter();
    // RFC 8941 section 4.2.1: an empty field is an empty list.
    let filled = lines.map(HeaderValue::as_bytes).filter(|line| !line.trim_ascii().is_empty());
    let members: Vec<&[u8]> =
        filled.flat_map(|line| line.split(|&byte| byte == b',')).take(MAX_INTERMEDIATES + 1).collect();
    if members.len() > MAX_INTERMEDIATES {
        return Err(CertificateError::TooLarge.into());
    }
    members.into_iter().map(byte_sequence).collect()
}

/// RFC 9440 section 2.1: a certificate is a Byte Sequence of RFC 8941, and parameters are not provided for.
fn byte_sequence(member: &[u8]) -> Result<Vec<u8>, ClientCertError> {
    let encoded = member
        .trim_ascii()
        .strip_prefix(b":")
        .and_then(|rest| rest.strip_suffix(b":"))
        .ok_or(ClientCertError::Malformed)?;
    if encoded.len() > MAX_ENCODED {
        return Err(CertificateError::TooLarge.into());
    }
    TOLERANT.decode(encoded).map_err(|_| ClientCertError::Malformed)
}

/// RFC 8941 section 4.2.7: "parsers SHOULD NOT fail when "=" padding is not present", nor "on non-zero pad bits". What counts
/// is the certificate, and DER has one spelling.
const TOLERANT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

const CLIENT_CERT: &str = "client-cert";
const CLIENT_CERT_CHAIN: &str = "client-cert-chain";

/// As in a handshake.
const MAX_INTERMEDIATES: usize = 8;

/// Base64 makes four characters of three bytes.
const MAX_ENCODED: usize = Certificate::MAX_DER.div_ceil(3) * 4;

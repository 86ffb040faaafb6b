//! The certificate of a connection (RFC 8705 section 3), proved here or by a proxy in front (RFC 9440).

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::Refusal;

/// A client certificate in DER whose key the TLS handshake has proved. With axum, put it into the extensions of the request
/// before [`AccessToken`](crate::AccessToken) is extracted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate(pub Arc<[u8]>);

impl ClientCertificate {
    /// Reads every `Client-Cert` field of a request (RFC 9440 section 2.1). Call it only for connections of a proxy that sets
    /// this field itself and removes what its clients send under that name.
    ///
    /// # Errors
    /// [`Refusal`] (400) when there is more than one, or it is malformed.
    pub fn from_client_cert(fields: &[&str]) -> Result<Option<Self>, Refusal> {
        match fields {
            [] => Ok(None),
            [field] => byte_sequence(field).map(Some).ok_or(Refusal::request("Client-Cert is malformed")),
            _ => Err(Refusal::request("more than one Client-Cert field")),
        }
    }
}

/// RFC 8941 section 3.3.5: base64 between colons.
fn byte_sequence(field: &str) -> Option<ClientCertificate> {
    let inside = field.trim_matches(' ').strip_prefix(':')?.strip_suffix(':')?;
    let der = BASE64_STANDARD.decode(inside).ok().filter(|der| !der.is_empty())?;
    Some(ClientCertificate(der.into()))
}

//! JSON documents that are serialised once and served as they are: the JWK Set, the metadata.

use bytes::Bytes;

use crate::crypto::sha256;

/// JSON document with its entity tag (RFC 9110 section 8.8.3).
#[derive(Debug)]
pub struct Document {
    /// The JSON text.
    pub body: Bytes,
    /// The entity tag, with its quotes.
    pub etag: Bytes,
}

impl Document {
    /// Serialises a value.
    #[must_use]
    pub fn new(value: &serde_json::Value) -> Self {
        let body = Bytes::from(value.to_string());
        let etag = sha256::<16>(&body).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self { body, etag: Bytes::from(format!("\"{etag}\"")) }
    }
}

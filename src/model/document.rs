//! Documents that are serialised once and served as they are: the JWK Set, the metadata, status lists.

use bytes::Bytes;

use crate::crypto::sha256;

/// Document with its entity tag (RFC 9110 section 8.8.3).
#[derive(Debug)]
pub struct Document {
    /// The text.
    pub body: Bytes,
    /// The entity tag, with its quotes.
    pub etag: Bytes,
}

impl Document {
    /// Serialises a value.
    #[must_use]
    pub fn new(value: &serde_json::Value) -> Self {
        Self::of(value.to_string())
    }

    /// Makes a document of a text.
    #[must_use]
    pub fn of(text: String) -> Self {
        let body = Bytes::from(text);
        let etag = sha256::<16>(&body).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self { body, etag: Bytes::from(format!("\"{etag}\"")) }
    }
}

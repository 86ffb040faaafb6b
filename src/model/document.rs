//! A JSON document that is served as it is: the key set, the metadata.

use bytes::Bytes;

use crate::crypto::sha256;

/// A document served as it is, with its entity tag (RFC 9110 section 8.8.3).
#[derive(Debug)]
pub struct Document {
    /// JSON.
    pub body: Bytes,
    /// Quoted.
    pub etag: String,
}

impl Document {
    /// Serialises a value once, for every request to come.
    #[must_use]
    pub fn new(value: &serde_json::Value) -> Self {
        let body = Bytes::from(value.to_string());
        let etag = sha256::<16>(&body).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self { body, etag: format!("\"{etag}\"") }
    }
}

//! JSON documents of credentials.

use serde_json::{Value, json};

use crate::model::client_id::ClientId;

/// Adds `client_id` to the document of a credential.
pub(super) fn with_client(mut document: Value, client_id: &ClientId) -> Value {
    if let Value::Object(members) = &mut document {
        members.insert("client_id".into(), json!(client_id));
    }
    document
}

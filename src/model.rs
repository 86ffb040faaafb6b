//! Floor 1: the nouns, such as client, credential and resource. A value that is checked is checked when its type is
//! made.

pub mod certificate;
pub mod claims;
pub mod client;
pub mod client_id;
pub mod credential;
pub mod credential_end;
pub mod document;
pub mod event;
pub mod federation;
pub mod issuer;
pub mod jwks_uri;
pub mod lifetime;
pub mod pkcs11_uri;
pub mod profile;
pub mod resource;
pub mod scope;
pub mod spiffe_id;
pub mod status;
pub mod time;
pub mod token_id;

//! Floor 1: the nouns. Each can only be made in a form that is right, so nobody above checks again.

pub mod certificate;
pub mod claims;
pub mod client;
pub mod client_id;
pub mod credential;
pub mod document;
pub mod event;
pub mod issuer;
pub mod jwks_uri;
pub mod lifetime;
pub mod profile;
pub mod resource;
pub mod scope;
pub mod time;
pub mod token_id;

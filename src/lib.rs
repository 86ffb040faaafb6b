//! grantd, an OAuth 2.0 authorization server for machines. Six floors, and stairs only go down:
//!
//! - floor 0, [`crypto`]: bytes in, bytes out
//! - floor 1, [`model`]: the nouns
#![forbid(unsafe_code)]

pub mod crypto;
pub mod model;
pub mod store;
pub mod hashing;
pub mod keyring;
pub mod throttle;
pub mod registry;

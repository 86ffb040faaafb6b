//! grantd, an OAuth 2.0 authorization server for machines. Seven floors, and stairs only go down:
//!
//! - floor 0, [`crypto`]: bytes in, bytes out
//! - floor 1, [`model`]: the nouns
#![forbid(unsafe_code)]

mod admin;
pub mod cli;
pub mod client_jwks;
pub mod config;
pub mod crypto;
pub mod fetch;
pub mod hashing;
pub mod http;
pub mod keyring;
pub mod listener;
pub mod model;
pub mod pressure;
pub mod protocol;
pub mod registry;
pub mod serve;
pub mod store;
pub mod telemetry;
pub mod throttle;
pub mod tls;

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
pub mod protocol;
pub mod http;
pub mod config;
pub mod listener;
pub mod telemetry;
pub mod tls;
pub mod serve;
pub mod cli;

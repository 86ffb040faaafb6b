//! Parts that `tools/bench` and `tools/chaos` share.
#![forbid(unsafe_code)]

pub mod client_key;
pub mod clients;
pub mod connection;
pub mod grantd;
pub mod http;
pub mod issuer;
pub mod postgres;
pub mod program;
pub mod report;
pub mod stats;

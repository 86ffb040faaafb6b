//! grantd, an OAuth 2.0 authorization server for machines.
//!
//! Each folder is a part of one floor. A module uses the floors below its own, and its own floor as long as no file
//! depends on itself. From the lowest:
//!
//! - floor 0: [`crypto`] contains client secrets, sealing and random bytes, and re-exports the crate `jose`: JSON, JWT,
//!   JWK and X.509
//! - floor 1: [`model`] contains the nouns, such as client, credential, resource, scope, time
//! - floor 2: [`store`] contains all SQL
//! - floor 3: [`state`] holds the state in memory: registry, signing keys, JWK Sets of clients, the argon2 lane,
//!   throttling
//! - floor 4: [`protocol`] implements the RFCs, `admin` the use cases of administration
//! - floor 5: [`http`] contains the routes and writes the responses, [`transport`] the sockets, TLS and outbound
//!   requests
//! - floor 6: [`config`], [`telemetry`], [`serve`] and [`cli`] are the process: settings, log and metrics, start and
//!   stop, commands
//!
//! Start with [`protocol::AuthorizationServer::token`]: one token request, from its first check to the signature.
#![forbid(unsafe_code)]

mod admin;
pub mod cli;
pub mod config;
pub mod crypto;
pub mod http;
pub mod model;
pub mod protocol;
pub mod serve;
pub mod state;
pub mod store;
pub mod telemetry;
pub mod transport;

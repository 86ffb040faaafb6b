//! grantd, an OAuth 2.0 authorization server for machines.
//!
//! Each folder is a part of one floor. A module uses what stands below its floor, and its own floor where no file needs
//! itself. From the lowest:
//!
//! - floor 0: [`crypto`] has client secrets, sealing and random bytes, and the crate `jose` with JSON, JWT, JWK and X.509
//! - floor 1: [`model`] has the nouns: client, credential, resource, scope, time
//! - floor 2: [`store`] is the only place with SQL
//! - floor 3: [`state`] knows what is true now: registry, signing keys, key sets of clients, the argon2 lane, throttling
//! - floor 4: [`protocol`] answers by the RFCs, `admin` has the use cases of administration
//! - floor 5: [`http`] has the routes and writes the answers, [`transport`] has the sockets, TLS and outbound requests
//! - floor 6: [`config`], [`telemetry`], [`serve`] and [`cli`] know the process
//!
//! Start with [`protocol::AuthorizationServer::token`], which is one token request from its first check to the signature.
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

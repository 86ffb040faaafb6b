//! One binary for all tests that look at grantd from outside a module.
//!
//! Each test that touches a database is one function, stamped for SQLite and for PostgreSQL. `GRANTD_TEST_POSTGRES`
//! names a server whose user may create databases; `script/test` starts one. Without it those tests fail, they are not
//! skipped.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::struct_field_names,
    reason = "a test that cannot go on has failed"
)]

#[macro_use]
mod harness;

mod administration;
mod afterlife;
mod answers;
mod arguments;
mod assertion;
mod attached_keys;
mod cancelled;
mod certificates;
mod client_certificates;
mod client_secrets;
mod cluster;
mod configuration;
mod credential_use;
mod database;
mod dependencies;
mod descriptions;
mod dev;
mod dialects;
mod disclosure;
mod discovery;
mod dpop;
mod draining;
mod endings;
mod examples;
mod exits;
mod explain;
mod failover;
mod fapi2;
mod federated_service;
mod federation;
mod federation_test;
mod foreign_clients;
mod guessing;
mod history;
mod introspection;
mod issuer_host;
mod issuer_keys;
mod jose;
mod jwks_certificates;
mod jwks_crowds;
mod jwks_host;
mod jwks_uri;
mod key_exchange;
mod key_rotation;
mod leeway;
mod lifecycle;
mod looking;
mod moving;
mod mutual_tls;
mod platforms;
mod private_key_jwt;
mod process;
mod promises;
mod pseudoterminal;
mod real_clients;
mod reference;
mod refused;
mod refused_assertions;
mod revocation;
mod rotation;
mod scale;
mod sealing;
mod secret_costs;
mod secret_lifetimes;
mod session_count;
mod sessions;
mod shells;
mod signals;
mod single_use;
mod snippets;
mod spiffe;
mod status;
mod status_list;
mod strict_settings;
mod tables;
mod terminal;
mod tidy;
mod token_endpoint;
mod token_get;
mod transport;
mod trusted_issuers;
mod verifiers;
mod verify;
mod wrong_kinds;
mod wycheproof;

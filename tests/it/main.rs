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

/// Who signs assertions.
mod assertion;

/// JWTs and keys of others.
mod jose;

/// Vectors that others have collected.
mod verify;
mod wycheproof;

/// PostgreSQL servers of a test's own.
mod cluster;

/// What libraries, partners and directories send.
mod foreign_clients;

/// Failovers, poolers, several hosts, files that are replaced.
mod failover;

/// The architecture as a test.
mod tidy;

/// The token endpoint, its form, grant and scope.
/// Licences, sources and use of the dependencies.
mod dependencies;

/// A1 and A3: the token endpoint, its form, grant and scope.
mod token_endpoint;

/// Client secrets.
mod client_secrets;

/// What a secret costs: remembered, refused by its tag, or hashed.
mod secret_costs;

/// Guesses at secrets, and the clients that they are made at.
mod guessing;

/// What ends by itself, and what operators are told of it.
mod endings;

/// Calls that are killed halfway, connections that are cut.
mod cancelled;

/// Answers, errors, access tokens.
mod answers;

/// Metadata, key sets, resource indicators.
mod discovery;

/// Whether the metadata keeps its promises.
mod promises;

/// Signing keys that replace each other.
mod rotation;

/// Tokens that are bound to a key or a certificate.
mod dpop;

/// Introspection.
mod introspection;

/// What may be used once, under load.
mod single_use;

/// Revocation.
mod revocation;

/// Introspection and revocation of tokens that are not known yet, or no more.
mod afterlife;

/// Administration: one client, and refusals by type.
mod administration;

/// The database: schema, seeds, rows that should not be there.
mod database;

/// Databases with another past.
mod history;

/// The database as its administrators set it up.
mod sessions;

/// Sockets: deadlines, limits, framing, TLS, stopping.
mod transport;

/// Stopping without losing a request, and answers before a body is read.
mod draining;

/// What is refused before a handler sees it: framing, other protocols, handshakes.
mod refused;

/// Signals, the service manager, and file descriptors of the process.
mod signals;

/// The program as a process: commands, start, stop, outages.
mod process;

/// ROT: when keys and certificates were last used, and secrets that are retired.
mod credential_use;

/// Clients that sign assertions.
mod private_key_jwt;

/// Assertions that are refused, and the uniform answer to them.
mod refused_assertions;

/// Hosts of clients that publish their keys.
mod jwks_host;

/// Clients that publish their keys.
mod jwks_uri;

/// Many concurrent requests for such keys.
mod jwks_crowds;

/// Certificates that stand beside the keys of clients.
mod jwks_certificates;

/// Clients that authenticate by their certificate.
mod client_certificates;

/// Certificates, their names, and their registration.
mod certificates;

/// Mutual TLS on sockets: the listener that asks for certificates.
mod mutual_tls;

/// The FAPI 2.0 profile.
mod fapi2;

/// Real clients and a run with canary secrets.
mod real_clients;

/// Configuration.
mod configuration;

/// Settings that are empty, nearly named, out of reach, or not of their type.
mod strict_settings;

/// The examples: hostile tokens, proofs and certificates at an API, and a client that keeps its tokens.
mod examples;

/// Commands that only look, and what they leave alone.
mod looking;

/// What strangers wrote, on a terminal and in a log.
mod terminal;

/// Secrets that are shown once.
mod disclosure;

/// Arguments: what can be set, what nothing changes, what cannot work.
mod arguments;

/// Every time limit, and its room for clocks.
mod leeway;

/// Descriptions that say what to mend.
mod descriptions;

/// Programs in the book that check tokens.
mod snippets;

/// The reference: generated pages, and events as they are logged.
mod reference;

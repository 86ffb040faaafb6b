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

/// A6: JWTs and keys of others.
mod jose;

/// A6: vectors that others have collected.
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

/// A1 and A3: the token endpoint, its form, grant and scope.
mod token_endpoint;

/// A2: client secrets.
mod client_secrets;

/// What a secret costs: remembered, refused by its tag, or hashed.
mod secret_costs;

/// Guesses at secrets, and the clients that they are made at.
mod guessing;

/// What ends by itself, and what operators are told of it.
mod endings;

/// Calls that are killed halfway, connections that are cut.
mod cancelled;

/// A4, A5 and A10: answers, errors, access tokens.
mod answers;

/// A8, A9 and A11: metadata, key sets, resource indicators.
mod discovery;

/// A8: whether the metadata keeps what it promises.
mod promises;

/// A9: signing keys that replace each other.
mod rotation;

/// A16 and A17: tokens that are bound to a key or a certificate.
mod dpop;

/// A12 and A13: introspection.
mod introspection;

/// What may be used once, under load.
mod single_use;

/// A14: revocation.
mod revocation;

/// A14 and A12: what is not there yet, or no more, when somebody asks about a token.
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

/// A7: clients that sign assertions.
mod private_key_jwt;

/// A6 and A7: assertions that are refused, and how that looks.
mod refused_assertions;

/// Hosts of clients that publish their keys.
mod jwks_host;

/// A7: clients that publish their keys.
mod jwks_uri;

/// A7: many who ask for such keys at once.
mod jwks_crowds;

/// A16: certificates that stand beside the keys of clients.
mod jwks_certificates;

/// A16: clients that authenticate by their certificate.
mod client_certificates;

/// A16: certificates, their names, what is registered of them.
mod certificates;

/// A16 and A18 on sockets: who is asked for a certificate, and what becomes of it.
mod mutual_tls;

/// A18: the FAPI 2.0 profile.
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

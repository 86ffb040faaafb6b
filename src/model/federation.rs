//! Workload identity federation: issuers of others that are trusted, and the rules that say which of their tokens is
//! which client.

pub mod claim_conditions;
pub mod kind;
pub mod mismatch;
pub mod rule;
pub mod selection;
pub mod subject;
pub mod trusted_issuer;

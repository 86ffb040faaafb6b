//! Writes that the database refuses, by the names of its constraints, and those that the store refuses before it.

use super::secrets::MAX_IMPORTED;

/// Reasons for which the database refuses a write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The client that a row is for does not exist.
    #[error("{NO_SUCH_CLIENT}")]
    NoSuchClient,
    /// The resource that a row is for does not exist.
    #[error("{NO_SUCH_RESOURCE}")]
    NoSuchResource,
    /// Clients still use the resource.
    #[error("resource {identifier} is used by {}", .clients.join(", "))]
    ResourceInUse {
        /// The resource.
        identifier: String,
        /// Some of the clients that use it.
        clients: Vec<String>,
    },
    /// The client has as many imported secrets that work as it may have.
    #[error("client {0} has {MAX_IMPORTED} imported secrets that work already; revoke one first")]
    TooManyImported(String),
    /// RFC 7591 section 2: "The `jwks_uri` and `jwks` parameters MUST NOT both be present in the same request or
    /// response."
    #[error("a client has keys registered here or a jwks_uri, not both; remove one before you set the other")]
    KeysOrJwksUri,
    /// RFC 8705 section 2.1.2: a client "MUST use exactly one of the below metadata parameters".
    #[error("a client is known by exactly one name in its certificate; remove the one it has first")]
    SecondCertificateName,
    /// New settings lead to another database than the one in use.
    #[error("it names another host or database, which takes a restart")]
    OtherDatabase,
    /// The write was a trial, and is taken back.
    #[error("a trial, taken back")]
    Trial,
    /// Another constraint, by its name, which says what to write instead.
    #[error("{0}")]
    Constraint(String),
}

impl From<String> for Refusal {
    /// The refusal behind the name of a constraint. Both dialects have the same names.
    fn from(constraint: String) -> Self {
        match constraint.as_str() {
            NO_SUCH_CLIENT => Self::NoSuchClient,
            NO_SUCH_RESOURCE => Self::NoSuchResource,
            _ => Self::Constraint(constraint),
        }
    }
}

const NO_SUCH_CLIENT: &str = "client_id: no such client; insert into client first";
const NO_SUCH_RESOURCE: &str = "identifier: no such resource; insert into resource first";

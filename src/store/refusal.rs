//! Refused writes: by the database, named by its constraints, or by the store before the write.

use super::secrets::MAX_IMPORTED;

/// Reasons for which a write is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The client does not exist.
    #[error("{NO_SUCH_CLIENT}")]
    NoSuchClient,
    /// The resource does not exist.
    #[error("{NO_SUCH_RESOURCE}")]
    NoSuchResource,
    /// Clients use the resource.
    #[error("resource {identifier} is used by {}", .clients.join(", "))]
    ResourceInUse {
        /// The resource's identifier.
        identifier: String,
        /// Up to ten of the clients that use it.
        clients: Vec<String>,
    },
    /// Rules of clients name the trusted issuer.
    #[error("trusted issuer {issuer} is named by rules of {}", .clients.join(", "))]
    IssuerInUse {
        /// The issuer.
        issuer: String,
        /// Up to ten of the clients.
        clients: Vec<String>,
    },
    /// The client has the maximum number of live imported secrets.
    #[error("client {0} already has {MAX_IMPORTED} imported secrets that work; revoke one first")]
    TooManyImported(String),
    /// RFC 7591 section 2: "The `jwks_uri` and `jwks` parameters MUST NOT both be present in the same request or
    /// response."
    #[error("a client has keys registered here or a jwks_uri, not both; remove one before you set the other")]
    KeysOrJwksUri,
    /// RFC 8705 section 2.1.2: a client "MUST use exactly one of the below metadata parameters".
    #[error("a client has exactly one name registered for its certificate; remove the present one first")]
    SecondCertificateName,
    /// New credentials name another database than the one in use.
    #[error("it names another host or database; restart grantd to change those")]
    OtherDatabase,
    /// The write was a trial of `grantd doctor`, and is rolled back.
    #[error("a trial, taken back")]
    Trial,
    /// Another constraint, by its name, which says what to write instead.
    #[error("{0}")]
    Constraint(String),
}

impl From<String> for Refusal {
    /// Maps the name of a constraint to a refusal. Both dialects use the same names.
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
/// The message of the triggers of a frozen database.
pub(super) const FROZEN: &str = "frozen: this database was copied; use the copy";

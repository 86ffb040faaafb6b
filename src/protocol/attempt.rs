//! The record of one request, whether or not it succeeds.

use std::sync::Arc;

use super::compared::{Compared, Repeatable};
use crate::model::client::AuthMethod;

/// The record of one request, filled in while it is answered: for its line in the log, for the refusals that the process
/// keeps, and for its answer.
#[derive(Debug, Default)]
pub struct Attempt {
    /// The client that the request names, known or not.
    pub client_id: Option<String>,
    /// The authentication method, as far as it is known.
    pub method: Option<AuthMethod>,
    /// The credential that was right, even when it may no longer be used.
    pub credential_id: Option<Arc<str>>,
    /// The claims of a token of a trusted issuer, verified or not.
    pub federated: Option<Box<FederatedClaims>>,
    /// A nonce for the client's next DPoP proof (RFC 9449 section 8).
    pub dpop_nonce: Option<String>,
    /// The values that a refusal was decided by.
    pub compared: Compared,
    /// The id in a secret that matched nothing: of a row of another client, perhaps. Shown only where there is such a row.
    pub presented_secret_id: Option<Box<str>>,
    /// The scopes or the resource that an authenticated client was refused, for its answer.
    pub refused: Option<Repeatable>,
}

/// Claims of a token of a trusted issuer that the log names.
#[derive(Debug, Clone)]
pub struct FederatedClaims {
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// `jti`.
    pub jti: Option<String>,
}

//! Warnings of administration: the change is made, and the administrator should know.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::model::client_id::ClientId;
use crate::protocol::access_token::size::TOO_LARGE;
use crate::store::StoreError;

/// A warning beside the result of a use case.
#[derive(Debug)]
pub enum Warning {
    /// The profile in force refuses secrets, so the new one authenticates nobody.
    SecretsRefused,
    /// There is no usable tag key, so the new secret carries no tag.
    Untagged,
    /// Tokens of the client can be too large for what carries them.
    LargeTokens { client_id: ClientId, size: usize },
    /// No TLS handshake takes the certificate, only a proxy may.
    OnlyByProxy { kid: Option<Arc<str>>, fault: String },
    /// The certificate is not valid at present.
    NotValidNow { kid: Option<Arc<str>> },
    /// No CA is configured that could vouch for names in certificates.
    NoClientCa,
    /// A row that cannot be understood is not in the list.
    LeftOut(StoreError),
    /// A signing key does not open, so its public key is not in the list.
    KeyNotOpened(StoreError),
    /// Without the sealing key, public keys are not in the list.
    NoPublicKeys(Box<dyn Error + Send + Sync>),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = |kid: &Option<Arc<str>>| {
            kid.as_ref().map_or_else(|| "this certificate".to_owned(), |kid| format!("the certificate of key {kid}"))
        };
        match self {
            Self::SecretsRefused => f.write_str("profile = \"fapi2\" refuses secrets"),
            Self::Untagged => {
                f.write_str("no tag key opens under the configured sealing key, so this secret carries no tag")
            }
            Self::LargeTokens { client_id, size } => write!(
                f,
                "client {client_id}: its tokens can have {size} bytes, and above {TOO_LARGE} many servers and proxies refuse the header field that carries them; narrow its scope or its claims, or give it resources, each with its own scopes"
            ),
            Self::OnlyByProxy { kid, fault } => {
                write!(f, "the listener of server.mtls does not take {} ({fault}), only a proxy may", certificate(kid))
            }
            Self::NotValidNow { kid } => {
                write!(f, "{} is not valid now, and does not authenticate anybody outside its dates", certificate(kid))
            }
            Self::NoClientCa => {
                f.write_str("this configuration has no server.mtls.client_ca_file, so no CA vouches for names")
            }
            Self::LeftOut(fault) => write!(f, "left out: {fault}"),
            Self::KeyNotOpened(fault) => write!(f, "its public key is left out: {fault}"),
            Self::NoPublicKeys(error) => write!(f, "public keys are left out: {error}"),
        }
    }
}

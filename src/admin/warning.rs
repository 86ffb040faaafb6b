//! Warnings of administration: the change is made, and the administrator should know of them.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::federation_rules::RuleWeakness;
use crate::model::client_id::ClientId;
use crate::model::federation::kind::PinFault;
use crate::model::pkcs11_uri::Pkcs11Uri;
use crate::protocol::access_token::size::TOO_LARGE;
use crate::store::StoreError;

/// Warning beside the result of a use case.
#[derive(Debug)]
pub enum Warning {
    /// The profile refuses secrets, so the new one does not authenticate the client.
    SecretsRefused,
    /// There is no usable tag key, so the new secret carries no tag.
    Untagged,
    /// Tokens of the client can be too large for a header field.
    LargeTokens { client_id: ClientId, size: usize },
    /// grantd's TLS handshake refuses the certificate; only a proxy may accept it.
    OnlyByProxy { kid: Option<Arc<str>>, fault: String },
    /// The certificate is not valid at present.
    NotValidNow { kid: Option<Arc<str>> },
    /// No CA for names in certificates is configured.
    NoClientCa,
    /// The subject was likely written in the order of OpenSSL, and matches no certificate then.
    ReversedSubject { likely: String },
    /// The issuer of a new rule is not registered.
    NoIssuer(Arc<str>),
    /// The issuer of a new rule is disabled.
    IssuerDisabled(Arc<str>),
    /// The rule works, and admits more than is usually meant.
    WeakRule(RuleWeakness),
    /// A rule that stood before its issuer does not pin what the kind of the issuer demands.
    UnsafeRule { client_id: String, rule_id: Arc<str>, fault: PinFault },
    /// A row that cannot be read is left out.
    LeftOut(StoreError),
    /// The module lets the private half of an attached key out.
    Extractable(Pkcs11Uri),
    /// A signing key does not open, so its public key is left out.
    KeyNotOpened(StoreError),
    /// The sealing key is missing, so public keys are left out.
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
                write!(
                    f,
                    "the listener of server.mtls refuses {} ({fault}); only a proxy may accept it",
                    certificate(kid)
                )
            }
            Self::NotValidNow { kid } => {
                write!(f, "{} is not valid now, and authenticates its client only between its dates", certificate(kid))
            }
            Self::NoClientCa => f.write_str(
                "this configuration has no server.mtls.client_ca_file, so no CA verifies names in certificates",
            ),
            Self::ReversedSubject { likely } => write!(
                f,
                "RFC 4514 writes the common name first, and this subject ends with it, as `openssl x509 -subject` prints it; if no certificate matches it, register {likely:?} instead (`openssl x509 -subject -nameopt RFC2253` prints this order)"
            ),
            Self::NoIssuer(issuer) => {
                write!(f, "{issuer} is no trusted issuer yet, and the rule matches nothing until then")
            }
            Self::IssuerDisabled(issuer) => {
                write!(f, "issuer {issuer} is disabled, and the rule matches nothing meanwhile")
            }
            Self::WeakRule(weakness) => write!(f, "the rule works, but {weakness}"),
            Self::UnsafeRule { client_id, rule_id, fault } => {
                write!(f, "rule {rule_id} of client {client_id} matches nothing: {fault}")
            }
            Self::LeftOut(fault) => write!(f, "left out: {fault}"),
            Self::Extractable(uri) => write!(
                f,
                "the module lets the private key of {uri} out (CKA_EXTRACTABLE), so it is not bound to the hardware; generate one that is not extractable"
            ),
            Self::KeyNotOpened(fault) => write!(f, "its public key is left out: {fault}"),
            Self::NoPublicKeys(error) => write!(f, "public keys are left out: {error}"),
        }
    }
}

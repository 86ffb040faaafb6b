//! Ends of the credentials of a client.

use std::sync::Arc;

use super::client::Client;
use super::time::{Expiry, UnixTime};

/// Credential that expires, in the words of `grantd_credential_expires_seconds` and of the log.
#[derive(Debug, Clone, Copy)]
pub struct CredentialEnd<'a> {
    /// The kind of credential.
    pub kind: &'static str,
    /// The credential's id.
    pub credential_id: &'a Arc<str>,
    /// Expiry: refused from this second on.
    pub expires_at: UnixTime,
}

impl Client {
    /// Returns the ends of the client's credentials, those that have come included. Revoked secrets are left out.
    pub fn credential_ends(&self) -> impl Iterator<Item = CredentialEnd<'_>> {
        let secrets = self.secrets.iter().filter(|secret| secret.revoked_at.is_none());
        let secrets =
            secrets.filter_map(|secret| end("client_secret", &secret.secret_id, secret.expires_at.map(Expiry::at)));
        let keys = self.keys.iter().filter_map(|key| end("client_key", &key.kid, key.expires_at));
        let certificates = self.certificates.iter();
        let certificates = certificates.filter_map(|one| end("client_certificate", &one.cert_id, one.expires_at));
        let in_keys = self.keys.iter().filter_map(|key| {
            let not_after = key.key.x5c()?.not_after();
            end("client_certificate", &key.kid, Some(UnixTime(not_after.saturating_add(1))))
        });
        let rules = self.federation.as_slice().iter();
        let rules = rules.filter_map(|rule| end("federation_rule", &rule.rule_id, rule.expires_at));
        secrets.chain(keys).chain(certificates).chain(in_keys).chain(rules)
    }
}

fn end<'a>(kind: &'static str, credential_id: &'a Arc<str>, expires_at: Option<UnixTime>) -> Option<CredentialEnd<'a>> {
    Some(CredentialEnd { kind, credential_id, expires_at: expires_at? })
}

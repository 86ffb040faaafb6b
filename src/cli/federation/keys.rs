//! Fetches the keys of a trusted issuer once, as the server does, for commands that have to know them.

use std::fmt;
use std::sync::Arc;

use anyhow::bail;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::crypto::certificate::path::TrustAnchors;
use crate::crypto::signature_alg::SignatureAlg;
use crate::model::credential::StoredKey;
use crate::model::federation::kind::IssuerKind;
use crate::model::federation::trusted_issuer::{KeySource, TrustedIssuer};
use crate::model::time::Clock;
use crate::serve::clients::fetcher;
use crate::state::key_sets::Keys;
use crate::state::key_sets::source::Source;

/// Keys of an issuer, as they were found.
#[derive(Debug)]
pub(in crate::cli) struct FoundKeys {
    /// The keys that verify its tokens.
    pub(in crate::cli) keys: Keys,
    /// The CAs of X.509-SVIDs, for a trust domain.
    authorities: Option<TrustAnchors>,
    /// The keys that cannot be used, with reasons.
    skipped: Option<String>,
}

impl fmt::Display for FoundKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |key: &StoredKey| format!("{} ({})", key.kid, key.key.alg_text());
        let count = self.keys.len();
        write!(f, "{count} key{}", if count == 1 { "" } else { "s" })?;
        if count > 0 {
            write!(f, ": {}", self.keys.iter().map(names).collect::<Vec<_>>().join(", "))?;
        }
        if let Some(authorities) = &self.authorities {
            write!(f, "; CAs of X.509-SVIDs: {}", authorities.len())?;
        }
        match &self.skipped {
            Some(skipped) => write!(f, "; skipped: {skipped}"),
            None => Ok(()),
        }
    }
}

impl FoundKeys {
    /// Returns what was found as JSON.
    pub(in crate::cli) fn document(&self) -> Value {
        let key = |key: &StoredKey| json!({"kid": key.kid, "algs": key.key.algs().map(SignatureAlg::as_str).collect::<Vec<_>>()});
        json!({
            "keys": self.keys.iter().map(key).collect::<Vec<_>>(),
            "x509_authorities": self.authorities.as_ref().map(TrustAnchors::len),
            "skipped": self.skipped,
        })
    }
}

/// Fetches the keys of an issuer, its discovery document first if it has one. Pinned keys are there already.
///
/// # Errors
/// When a document cannot be fetched or read, names another issuer, or has no usable key.
pub(in crate::cli) async fn fetch(config: &Config, issuer: &TrustedIssuer) -> anyhow::Result<FoundKeys> {
    let is_spiffe = issuer.kind == IssuerKind::Spiffe;
    let (fetches, queue) = mpsc::channel(1);
    tokio::spawn(fetcher(config)?.run(queue));
    match (Source::of_issuer(issuer), &issuer.keys) {
        (Some(source), keys) => {
            let set = source.fetch(&fetches, Clock::System.now()).await;
            let set = set.map_err(|fault| match keys {
                KeySource::Discovery(uri) | KeySource::JwksUri(uri) | KeySource::Bundle(uri) => {
                    anyhow::anyhow!("{uri}: {fault}")
                }
                KeySource::Pinned(_) => anyhow::anyhow!(fault),
            })?;
            let skipped = set.skipped_keys();
            let authorities = is_spiffe.then_some(set.authorities);
            Ok(FoundKeys { keys: set.keys.into(), authorities, skipped })
        }
        (None, KeySource::Pinned(pinned)) => {
            let authorities = is_spiffe.then(|| pinned.authorities.clone());
            Ok(FoundKeys { keys: Arc::clone(&pinned.keys), authorities, skipped: None })
        }
        (None, _) => bail!("trusted issuer {} has no keys", issuer.issuer),
    }
}

/// Checks CAs in PEM.
///
/// # Errors
/// When there is none, or one that cannot be used.
pub(in crate::cli) fn check_cas(pem: &str) -> anyhow::Result<()> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() {
        bail!("it has no certificate in PEM");
    }
    let mut roots = rustls::RootCertStore::empty();
    found.into_iter().try_for_each(|der| roots.add(der))?;
    Ok(())
}

//! The parts of the process for clients without a secret: a listener that asks for certificates, and a way to their key sets.

use std::sync::Arc;

use anyhow::Context as _;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::prepare::config_error;
use crate::config::{Config, ConfigError};
use crate::crypto::certificate::validity::{Validity, item};
use crate::http::client_cert::Vouch;
use crate::model::issuer::Issuer;
use crate::model::profile::Profile;
use crate::protocol::metadata::MutualTls;
use crate::transport::fetch::Fetcher;
use crate::transport::tls::clients::HeaderCertificateVerifier;
use crate::transport::tls::{Tls, TlsOptions, pem_items};

/// The files that were read for clients with certificates.
#[derive(Debug, Clone, Default)]
pub struct MutualTlsFiles {
    /// For the listener that asks for certificates.
    pub listener: Option<Arc<Tls>>,
    /// For certificates in a header field of a proxy.
    pub header: Option<Arc<HeaderCertificateVerifier>>,
}

impl MutualTlsFiles {
    /// Says whom to believe of those that proxies pass on.
    #[must_use]
    pub fn vouch(&self) -> Option<Vouch> {
        let vouching = Arc::clone(self.header.as_ref()?);
        Some(Vouch(Arc::new(move |chain| vouching.verify_chain(chain))))
    }
}

/// Reads what the configuration names for clients with certificates.
///
/// # Errors
/// [`ConfigError`].
pub fn mutual_tls(config: &Config) -> Result<MutualTlsFiles, ConfigError> {
    let clients = &config.client_certificates;
    let wrong = |error| config_error("server.mtls", &error);
    let terms = TlsOptions { fapi: config.profile == Profile::Fapi2, clients: Some(clients.files.clone()) };
    let listener =
        clients.mtls.as_ref().map(|mtls| Tls::load_with(mtls.files.clone(), terms)).transpose().map_err(wrong)?;
    let header =
        clients.header.then(|| HeaderCertificateVerifier::load(clients.files.clone())).transpose().map_err(wrong)?;
    Ok(MutualTlsFiles { listener: listener.map(Arc::new), header: header.map(Arc::new) })
}

/// The offer of mutual TLS in the metadata.
#[must_use]
pub fn offered(config: &Config, issuer: &Issuer) -> MutualTls {
    let clients = &config.client_certificates;
    let alias =
        |mtls: &crate::config::Mtls| mtls.public_url.clone().unwrap_or_else(|| issuer.on_port(mtls.listen.port()));
    MutualTls {
        offered: clients.header || clients.mtls.is_some(),
        with_ca: clients.files.ca.is_some(),
        alias: clients.mtls.as_ref().map(alias),
    }
}

/// Fetches key sets as the configuration allows.
///
/// # Errors
/// When the file of CAs cannot be used.
pub fn fetcher(config: &Config) -> anyhow::Result<Fetcher> {
    let further = jwks_uri_ca_file(config)?;
    for (at, certificate) in further.iter().enumerate() {
        RootCertStore::empty().add(certificate.clone()).map_err(|error| {
            let which = item("certificate", at, Validity::of_certificate(certificate).as_ref());
            config_error("clients.jwks_uri_ca_file", &format!("{which}: {error}"))
        })?;
    }
    Fetcher::new(further, config.jwks_uri_allow.clone())
        .map_err(|error| config_error("clients.jwks_uri_ca_file", &error))
        .context("preparing to fetch key sets")
}

/// Reads `clients.jwks_uri_ca_file` again, and returns the dates of its CAs.
///
/// # Errors
/// When it cannot be used; the CAs before stay trusted.
pub fn reload_jwks_uri_cas(config: &Config, fetcher: &Fetcher) -> Result<Vec<Validity>, ConfigError> {
    let cas = jwks_uri_ca_file(config)?;
    let dates = cas.iter().filter_map(|der| Validity::of_certificate(der)).collect();
    fetcher.trust(cas).map_err(|error| config_error("clients.jwks_uri_ca_file", &error))?;
    Ok(dates)
}

/// The dates of the CAs that vouch for hosts of `jwks_uri`.
///
/// # Errors
/// When their file cannot be read.
pub fn jwks_uri_cas(config: &Config) -> Result<Vec<Validity>, ConfigError> {
    Ok(jwks_uri_ca_file(config)?.iter().filter_map(|der| Validity::of_certificate(der)).collect())
}

fn jwks_uri_ca_file(config: &Config) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    match &config.jwks_uri_ca_file {
        None => Ok(Vec::new()),
        Some(path) => pem_items(path).map_err(|error| config_error("clients.jwks_uri_ca_file", &error)),
    }
}

//! TLS in process (rustls, aws-lc-rs): TLS 1.2 and 1.3, no early data, certificates reloaded while connections go on.

pub mod clients;
pub mod files;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::NoServerSessionStorage;
use rustls::{CipherSuite, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use crate::crypto::certificate::validity::Validity;
use clients::{AnyCertificate, ClientCaVerifier, ClientDates, ClientFiles, HandshakeCertificate};
use files::Version;

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The chain, leaf first, in PEM.
    pub cert: PathBuf,
    /// The key, in PEM.
    pub key: PathBuf,
}

/// What a listener does beyond having a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Whether it keeps to the cipher suites of FAPI 2.0.
    pub fapi: bool,
    /// Whether it asks for certificates, and whose word on them it takes.
    pub clients: Option<ClientFiles>,
}

/// A certificate in use.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    options: TlsOptions,
    current: ArcSwap<LoadedTls>,
    version: Mutex<Version>,
}

/// What was read together and is used together.
#[derive(Debug)]
struct LoadedTls {
    config: Arc<ServerConfig>,
    client_verifier: Option<ClientCaVerifier>,
    chain: Vec<Validity>,
}

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read as PEM.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// They do not go together.
    #[error("certificate and key do not go together: {0}")]
    Pair(rustls::Error),
}

impl Tls {
    /// Reads certificate and key, for a listener that never asks for a certificate.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: Files) -> Result<Self, TlsError> {
        Self::load_with(files, TlsOptions::default())
    }

    /// Reads certificate and key, and what else the options name.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load_with(files: Files, options: TlsOptions) -> Result<Self, TlsError> {
        let version = Version::of(&paths(&files, &options));
        let current = read(&files, &options)?;
        Ok(Self { files, options, current: ArcSwap::from_pointee(current), version: Mutex::new(version) })
    }

    /// Reads everything again. When any of it cannot be used, all that is in use stays.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn reload(&self) -> Result<(), TlsError> {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Version::of(&paths(&self.files, &self.options));
        self.current.store(Arc::new(read(&self.files, &self.options)?));
        Ok(())
    }

    /// The version of the files that is there now, if it is not the one that was read last.
    #[must_use]
    pub fn newer(&self) -> Option<Version> {
        let now = Version::of(&paths(&self.files, &self.options));
        let read = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        (*read != now).then_some(now)
    }

    /// The dates of the certificates in use, this listener's own first.
    #[must_use]
    pub fn chain(&self) -> Vec<Validity> {
        self.current.load().chain.clone()
    }

    /// The dates of the CAs and lists in use, when this listener asks for certificates.
    #[must_use]
    pub fn client_dates(&self) -> Option<ClientDates> {
        Some(self.current.load().client_verifier.as_ref()?.dates().clone())
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// What the far end did wrong, or that it left.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current.load().config);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// The certificate that the far end has shown and proved to have the key of.
    #[must_use]
    pub fn client_certificate(self: &Arc<Self>, stream: &TlsStream<TcpStream>) -> Option<HandshakeCertificate> {
        HandshakeCertificate::new(Arc::clone(self), stream.get_ref().1.peer_certificates()?)
    }
}

fn paths(files: &Files, options: &TlsOptions) -> Vec<PathBuf> {
    let of_clients = options.clients.as_ref().map(ClientFiles::paths);
    [files.cert.clone(), files.key.clone()].into_iter().chain(of_clients.into_iter().flatten()).collect()
}

fn read(files: &Files, options: &TlsOptions) -> Result<LoadedTls, TlsError> {
    let chain = pem_items::<CertificateDer<'static>>(&files.cert)?;
    let dates = chain.iter().filter_map(|certificate| Validity::of_certificate(certificate)).collect();
    let key = pem_items::<PrivateKeyDer<'static>>(&files.key)?;
    let key = key.into_iter().next().ok_or_else(|| fault(&files.key, NOTHING))?;
    let provider = Arc::new(provider(options.fapi));
    let client_verifier =
        options.clients.as_ref().map(|clients| ClientCaVerifier::read(clients, &provider)).transpose()?;
    // RFC 8446 section 8: early data can be replayed; rustls takes none unless told to (max_early_data_size is 0).
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Pair)?;
    let builder = match client_verifier {
        Some(_) => builder.with_client_cert_verifier(Arc::new(AnyCertificate::new(&provider))),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if client_verifier.is_some() {
        // C23: a resumed session would bring along a certificate that nobody has looked at since. There are none.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(LoadedTls { config: Arc::new(config), client_verifier, chain: dates })
}

/// FAPI 2.0 section 5.2.2 permits four suites with TLS 1.2, and rustls has two more. For TLS 1.3 all are permitted.
fn provider(fapi: bool) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if fapi {
        provider.cipher_suites.retain(|suite| {
            suite.tls13().is_some()
                || matches!(
                    suite.suite(),
                    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
                        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
                )
        });
    }
    provider
}

/// What a file in PEM holds of one kind: one at least. The file's text is never quoted, since it may be a private key.
///
/// # Errors
/// [`TlsError::File`], naming the file and what to write instead.
pub fn pem_items<T: PemObject>(path: &Path) -> Result<Vec<T>, TlsError> {
    let text = Zeroizing::new(fs::read(path).map_err(|error| fault(path, &error.to_string()))?);
    let has = |label: &str| text.windows(label.len()).any(|part| part == label.as_bytes());
    if text.trim_ascii().is_empty() {
        return Err(fault(path, "the file is empty"));
    }
    if has("-----BEGIN TRUSTED CERTIFICATE") {
        return Err(fault(
            path,
            "holds a TRUSTED CERTIFICATE, a form that only OpenSSL reads; `openssl x509 -in FILE -out FILE.pem` writes it as a CERTIFICATE",
        ));
    }
    if has("-----BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") {
        return Err(fault(
            path,
            "holds a private key under a passphrase; `openssl pkey -in FILE -out FILE.pem` writes it without",
        ));
    }
    let items: Result<Vec<T>, pem::Error> = T::pem_slice_iter(&text).collect();
    let items = items.map_err(|error| {
        let on_one_line = text.trim_ascii().split(|&byte| byte == b'\n').count() < 3;
        let lost = if on_one_line { "; its line ends are lost, write it with real ones" } else { "" };
        fault(path, &format!("{}{lost}", said(&error)))
    })?;
    if items.is_empty() { Err(fault(path, NOTHING)) } else { Ok(items) }
}

/// The library's own words quote the line that it stumbled over.
fn said(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "not PEM: a section has no END line",
        pem::Error::IllegalSectionStart { .. } => "not PEM: a BEGIN line is not by itself",
        pem::Error::Base64Decode(_) => "not PEM: what stands between BEGIN and END is not base64",
        pem::Error::NoItemsFound => NOTHING,
        _ => "not PEM",
    }
}

const NOTHING: &str = "nothing of that kind in it";

fn fault(path: &Path, reason: &str) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: reason.to_owned() }
}

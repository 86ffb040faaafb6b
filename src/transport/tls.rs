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

/// Files of a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The chain, leaf first, in PEM.
    pub cert: PathBuf,
    /// The key, in PEM.
    pub key: PathBuf,
}

/// Options of a TLS listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Whether only the cipher suites of FAPI 2.0 are offered.
    pub fapi: bool,
    /// CAs and revocation lists for client certificates; `None` when the listener asks for none.
    pub clients: Option<ClientFiles>,
}

/// TLS of one listener, with certificates that can be reloaded.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    options: TlsOptions,
    current: ArcSwap<LoadedTls>,
    version: Mutex<Version>,
}

/// Certificates, key and CAs that were read together and are used together.
#[derive(Debug)]
struct LoadedTls {
    config: Arc<ServerConfig>,
    client_verifier: Option<ClientCaVerifier>,
    chain: Vec<Validity>,
}

/// Errors of reading the files of TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read as PEM.
    #[error("{path}: {reason}")]
    File {
        /// The path.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// Certificate and key do not belong together.
    #[error("certificate and key do not go together: {0}")]
    Pair(rustls::Error),
}

impl Tls {
    /// Reads certificate and key, for a listener that does not ask for client certificates.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: Files) -> Result<Self, TlsError> {
        Self::load_with(files, TlsOptions::default())
    }

    /// Reads certificate and key, and the files that the options name.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load_with(files: Files, options: TlsOptions) -> Result<Self, TlsError> {
        let version = Version::of(&paths(&files, &options));
        let current = read(&files, &options)?;
        Ok(Self { files, options, current: ArcSwap::from_pointee(current), version: Mutex::new(version) })
    }

    /// Reads all files again. When one of them cannot be used, everything in use stays.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn reload(&self) -> Result<(), TlsError> {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Version::of(&paths(&self.files, &self.options));
        self.current.store(Arc::new(read(&self.files, &self.options)?));
        Ok(())
    }

    /// The present version of the files, when it is not the one that was read last.
    #[must_use]
    pub fn newer(&self) -> Option<Version> {
        let now = Version::of(&paths(&self.files, &self.options));
        let read = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        (*read != now).then_some(now)
    }

    /// The validity of the certificates in use, the listener's own first.
    #[must_use]
    pub fn chain(&self) -> Vec<Validity> {
        self.current.load().chain.clone()
    }

    /// The validity of the client CAs and revocation lists in use, when the listener asks for certificates.
    #[must_use]
    pub fn client_dates(&self) -> Option<ClientDates> {
        Some(self.current.load().client_verifier.as_ref()?.dates().clone())
    }

    /// Performs the TLS handshake.
    ///
    /// # Errors
    /// The error of the handshake, or of the connection.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current.load().config);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// The client certificate of a connection, whose key the handshake proved.
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
    // RFC 8446 section 8: early data can be replayed. rustls accepts none, since max_early_data_size is 0 by default.
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
        // A resumed session would carry a certificate that was verified on an earlier connection, so resumption is off.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(LoadedTls { config: Arc::new(config), client_verifier, chain: dates })
}

/// Returns the crypto provider. FAPI 2.0 section 5.2.2 permits four suites with TLS 1.2, of which rustls offers six;
/// with TLS 1.3 it permits all.
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

/// Reads all items of one kind from a PEM file, at least one. Errors never quote the file, since it may contain a
/// private key.
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
            "contains a TRUSTED CERTIFICATE, a form that only OpenSSL reads; convert it with `openssl x509 -in FILE -out FILE.pem`",
        ));
    }
    if has("-----BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") {
        return Err(fault(
            path,
            "contains a private key with a passphrase; remove the passphrase with `openssl pkey -in FILE -out FILE.pem`",
        ));
    }
    // A byte order mark would hide the line behind it.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let items: Result<Vec<T>, pem::Error> = T::pem_slice_iter(text).collect();
    let items = items.map_err(|error| {
        let on_one_line = text.trim_ascii().split(|&byte| byte == b'\n').count() < 3;
        let lost = if on_one_line { "; its line ends are missing, write the file with line ends" } else { "" };
        fault(path, &format!("{}{lost}", said(&error)))
    })?;
    if !items.is_empty() {
        return Ok(items);
    }
    let others =
        [("CERTIFICATE-----", "a certificate"), ("PRIVATE KEY-----", "a private key"), (" KEY-----", "a public key")];
    let found = others.into_iter().find(|(label, _)| has(label));
    Err(fault(path, &found.map_or_else(|| NOTHING.to_owned(), |(_, name)| format!("{NOTHING}; it has {name}"))))
}

/// Describes an error of the PEM parser, whose own message would quote the file.
fn said(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "not PEM: a section has no END line",
        pem::Error::IllegalSectionStart { .. } => "not PEM: a BEGIN line is not by itself",
        pem::Error::Base64Decode(_) => "not PEM: the text between BEGIN and END is not base64",
        pem::Error::NoItemsFound => NOTHING,
        _ => "not PEM",
    }
}

const NOTHING: &str = "the file contains no such PEM section";

fn fault(path: &Path, reason: &str) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: reason.to_owned() }
}

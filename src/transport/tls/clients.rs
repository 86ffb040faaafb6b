//! Certificates of TLS clients (RFC 8705): the handshake proves possession of the key, and the chain is verified
//! afterwards.
//!
//! A certificate of no configured CA is valid for `self_signed_tls_client_auth` and for binding tokens (RFC 8705
//! sections 2.2 and 4), so the handshake does not require a CA. The handler is told whether a CA verifies the
//! certificate.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::files::Version;
use super::{LoadedTls, Tls, TlsError, fault, pem_items, provider};
use crate::crypto::certificate::validity::{Validity, item};
use crate::crypto::certificate::{Certificate, is_ca, verifier_reason};
use crate::model::certificate::PeerCertificate;
use crate::model::event::Event;

/// Files of the CAs of client certificates, and of their revocation lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// The CAs, in PEM. Without them no CA verifies a certificate, and clients use self-signed ones.
    pub ca: Option<PathBuf>,
    /// The revocation lists of those CAs, in PEM. A chain is verified only with a current list of each of its CAs.
    pub crl: Option<PathBuf>,
}

impl ClientFiles {
    /// Returns the paths that are set.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.ca.iter().chain(&self.crl).cloned().collect()
    }
}

/// Verifier of the handshake: accepts any certificate within bounds, or none, and requires proof of possession of its
/// key.
#[derive(Debug)]
pub(super) struct AnyCertificate(WebPkiSupportedAlgorithms);

impl AnyCertificate {
    pub(super) fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// Returns none: with a list of CAs, clients would not send a self-signed certificate (RFC 8705 section 2.2).
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if intermediates.len() > MAX_INTERMEDIATES
            || intermediates.iter().any(|certificate| certificate.len() > Certificate::MAX_DER)
        {
            return Err(Error::General("the chain of certificates is too long".to_owned()));
        }
        // Parsed and checked against the bounds before any signature is verified, its own or that of the handshake.
        match Certificate::parse(end_entity) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(_) => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Verifies chains of client certificates with webpki, against the configured CAs and revocation lists.
#[derive(Debug)]
pub(super) struct ClientCaVerifier {
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    dates: ClientDates,
}

/// Validity of the client CAs and of their revocation lists.
#[derive(Debug, Clone, Default)]
pub struct ClientDates {
    /// Of the CAs.
    pub cas: Vec<Validity>,
    /// Of the revocation lists.
    pub lists: Vec<Validity>,
}

impl ClientCaVerifier {
    pub(super) fn read(files: &ClientFiles, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let Some(path) = &files.ca else { return Ok(Self { verifier: None, dates: ClientDates::default() }) };
        let (mut roots, mut dates) = (RootCertStore::empty(), ClientDates::default());
        for (at, certificate) in pem_items::<CertificateDer<'static>>(path)?.into_iter().enumerate() {
            let validity = Validity::of_certificate(&certificate);
            let wrong =
                |reason: &str| fault(path, &format!("{}: {reason}", item("certificate", at, validity.as_ref())));
            // webpki accepts any certificate as a trust anchor; the holder of a leaf certificate would be a CA.
            if !is_ca(&certificate) {
                return Err(wrong("not a CA certificate (basicConstraints)"));
            }
            roots.add(certificate).map_err(|error| wrong(&error.to_string()))?;
            dates.cas.extend(validity);
        }
        let (roots, mut lists) = (Arc::new(roots), Vec::new());
        if let Some(path) = &files.crl {
            lists = pem_items::<CertificateRevocationListDer<'static>>(path)?;
            dates.lists = lists.iter().filter_map(|list| Validity::of_revocation_list(list)).collect();
        }
        let build = |lists: Vec<CertificateRevocationListDer<'static>>| {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
            // A certificate of unknown revocation status is refused.
            let has_lists = !lists.is_empty();
            let verifier = verifier.with_crls(lists);
            if has_lists { verifier.enforce_revocation_expiration().build() } else { verifier.build() }
        };
        let verifier = build(lists.clone()).map_err(|error| {
            // The error does not name the list, so each list is tried alone.
            let unusable =
                lists.iter().enumerate().find_map(|(at, list)| Some((at, list, build(vec![list.clone()]).err()?)));
            match (&files.crl, unusable) {
                (Some(path), Some((at, list, error))) => {
                    fault(path, &format!("{}: {error}", item("list", at, Validity::of_revocation_list(list).as_ref())))
                }
                (crl, _) => fault(crl.as_ref().unwrap_or(path), &error.to_string()),
            }
        })?;
        Ok(Self { verifier: Some(verifier), dates })
    }

    /// Verifies a chain, or returns the reason for which it is not verified.
    pub(super) fn verify_chain(&self, chain: &[CertificateDer<'_>]) -> Result<(), Arc<str>> {
        let Some(verifier) = &self.verifier else { return Err("server.mtls.client_ca_file is not set".into()) };
        let Some((end_entity, intermediates)) = chain.split_first() else { return Err("no certificate".into()) };
        match verifier.verify_client_cert(end_entity, intermediates, UnixTime::now()) {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::debug!(event = Event::ConnectionNotVouchedFor.as_str(), reason = %error);
                Err(verifier_reason(&error).into())
            }
        }
    }

    pub(super) fn dates(&self) -> &ClientDates {
        &self.dates
    }
}

/// Verifies certificates that a proxy passes on in a header field, after its own handshake.
#[derive(Debug)]
pub struct HeaderCertificateVerifier {
    files: ClientFiles,
    verifier: ArcSwap<ClientCaVerifier>,
    version: Mutex<Version>,
}

impl HeaderCertificateVerifier {
    /// Reads CAs and revocation lists.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: ClientFiles) -> Result<Self, TlsError> {
        let version = Version::of(&files.paths());
        let verifier = ClientCaVerifier::read(&files, &Arc::new(provider(false)))?;
        Ok(Self { files, verifier: ArcSwap::from_pointee(verifier), version: Mutex::new(version) })
    }

    /// Reads the files again. When one of them cannot be used, everything in use stays.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn reload(&self) -> Result<(), TlsError> {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Version::of(&self.files.paths());
        self.verifier.store(Arc::new(ClientCaVerifier::read(&self.files, &Arc::new(provider(false)))?));
        Ok(())
    }

    /// The present version of the files, when it is not the one that was read last.
    #[must_use]
    pub fn newer(&self) -> Option<Version> {
        let now = Version::of(&self.files.paths());
        let read = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        (*read != now).then_some(now)
    }

    /// The validity of the CAs and lists in use.
    #[must_use]
    pub fn dates(&self) -> ClientDates {
        self.verifier.load().dates().clone()
    }

    /// Verifies a chain in DER, the client's own certificate first.
    ///
    /// # Errors
    /// The verifier's reason.
    pub fn verify_chain(&self, chain: &[Vec<u8>]) -> Result<(), Arc<str>> {
        let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        self.verifier.load().verify_chain(&chain)
    }
}

/// Client certificate of a connection. It is verified again when CAs or lists are reloaded, and every minute.
#[derive(Debug)]
pub struct HandshakeCertificate {
    tls: Arc<Tls>,
    chain: Vec<CertificateDer<'static>>,
    certificate: Arc<Certificate>,
    intermediates: Arc<[Vec<u8>]>,
    verification: Mutex<CachedVerification>,
}

#[derive(Debug)]
struct CachedVerification {
    by: Weak<LoadedTls>,
    at: Instant,
    ca_verified: Result<(), Arc<str>>,
}

impl HandshakeCertificate {
    pub(super) fn new(tls: Arc<Tls>, chain: &[CertificateDer<'_>]) -> Option<Self> {
        // The handshake has parsed it, and refuses one that cannot be parsed.
        let certificate = Arc::new(Certificate::parse(chain.first()?).ok()?);
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let intermediates = chain.iter().skip(1).map(|certificate| certificate.to_vec()).collect();
        let verification = Mutex::new(verification(&tls.current.load_full(), &chain));
        Some(Self { tls, chain, certificate, intermediates, verification })
    }

    /// Returns the certificate with its present verification, for the next request.
    #[must_use]
    pub fn peer_certificate(&self) -> PeerCertificate {
        let current = self.tls.current.load_full();
        let mut last = self.verification.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::ptr::eq(last.by.as_ptr(), Arc::as_ptr(&current)) || last.at.elapsed() > CACHE_TTL {
            *last = verification(&current, &self.chain);
        }
        PeerCertificate {
            certificate: Arc::clone(&self.certificate),
            intermediates: Arc::clone(&self.intermediates),
            ca_verified: last.ca_verified.clone(),
        }
    }
}

fn verification(current: &Arc<LoadedTls>, chain: &[CertificateDer<'_>]) -> CachedVerification {
    let unasked = || Err("this listener does not ask for certificates".into());
    let ca_verified = current.client_verifier.as_ref().map_or_else(unasked, |verifier| verifier.verify_chain(chain));
    CachedVerification { by: Arc::downgrade(current), at: Instant::now(), ca_verified }
}

/// Maximum number of certificates between the client's own and its CA.
const MAX_INTERMEDIATES: usize = 8;

/// Age from which on a cached verification is repeated: a connection may outlive its certificate or a revocation list.
const CACHE_TTL: Duration = Duration::from_mins(1);

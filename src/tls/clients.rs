//! Certificates of TLS clients (RFC 8705): every handshake with one proves its key, and who vouches for it is asked after.
//!
//! A certificate that no CA of ours issued is as good for `self_signed_tls_client_auth` and for binding tokens (RFC 8705
//! sections 2.2 and 4) as any, so a handshake does not fail for want of a CA. The handler is told which it was.

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

use super::{Current, Tls, TlsError, fault, pem_items, provider};
use crate::crypto::certificate::{Certificate, is_ca};
use crate::model::certificate::PeerCertificate;

/// Whose word on certificates is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// The CAs, in PEM. Without them no certificate is vouched for, and clients have self-signed ones.
    pub ca: Option<PathBuf>,
    /// What those CAs have revoked, in PEM: a list of each CA in a chain, and none out of date, or nothing is vouched for.
    pub crl: Option<PathBuf>,
}

/// Takes part in the handshake: any certificate within bounds, or none, but no key that is not there.
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

    /// RFC 8705 section 2.2: a list of CAs would keep clients from sending a certificate that is self-signed.
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
        // M99, MTL-16: before any signature is looked at, its own or that of the handshake.
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

/// Says who is vouched for: by the rules of webpki, with our CAs and their lists.
#[derive(Debug)]
pub(super) struct Judge(Option<Arc<dyn ClientCertVerifier>>);

impl Judge {
    pub(super) fn read(files: &ClientFiles, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let Some(path) = &files.ca else { return Ok(Self(None)) };
        let mut roots = RootCertStore::empty();
        for certificate in pem_items::<CertificateDer<'static>>(path)? {
            // C20: webpki takes any certificate for an anchor, and the holder of a leaf would be a CA.
            if !is_ca(&certificate) {
                return Err(fault(path, "a certificate in it is not a CA's (basicConstraints)"));
            }
            roots.add(certificate).map_err(|error| fault(path, &error.to_string()))?;
        }
        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        if let Some(crl) = &files.crl {
            let lists = pem_items::<CertificateRevocationListDer<'static>>(crl)?;
            // MTL-15: what cannot be known is a refusal.
            verifier = verifier.with_crls(lists).enforce_revocation_expiration();
        }
        let blamed = files.crl.as_ref().unwrap_or(path);
        Ok(Self(Some(verifier.build().map_err(|error| fault(blamed, &error.to_string()))?)))
    }

    pub(super) fn vouches_for(&self, chain: &[CertificateDer<'_>]) -> bool {
        let (Some(verifier), Some((end_entity, intermediates))) = (&self.0, chain.split_first()) else { return false };
        match verifier.verify_client_cert(end_entity, intermediates, UnixTime::now()) {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(event = "connection.not_vouched_for", reason = %error);
                false
            }
        }
    }
}

/// Says whom our CAs vouch for, where somebody else has shaken hands.
#[derive(Debug)]
pub struct Vouching {
    files: ClientFiles,
    judge: ArcSwap<Judge>,
}

impl Vouching {
    /// Reads CAs and lists.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: ClientFiles) -> Result<Self, TlsError> {
        let judge = Judge::read(&files, &Arc::new(provider(false)))?;
        Ok(Self { files, judge: ArcSwap::from_pointee(judge) })
    }

    /// Reads them again. When they cannot be used, those in use stay.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn reload(&self) -> Result<(), TlsError> {
        self.judge.store(Arc::new(Judge::read(&self.files, &Arc::new(provider(false)))?));
        Ok(())
    }

    /// Whether a CA of ours vouches for a chain in DER, the client's own certificate first.
    #[must_use]
    pub fn vouches_for(&self, chain: &[Vec<u8>]) -> bool {
        let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        self.judge.load().vouches_for(&chain)
    }
}

/// What the far end of a connection has shown. It is judged anew when the judge is another, and every minute.
#[derive(Debug)]
pub struct Shown {
    tls: Arc<Tls>,
    chain: Vec<CertificateDer<'static>>,
    certificate: Arc<Certificate>,
    verdict: Mutex<Verdict>,
}

#[derive(Debug)]
struct Verdict {
    by: Weak<Current>,
    at: Instant,
    ca_verified: bool,
}

impl Shown {
    pub(super) fn new(tls: Arc<Tls>, chain: &[CertificateDer<'_>]) -> Option<Self> {
        let certificate = Arc::new(Certificate::parse(chain.first()?).ok()?);
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let verdict = Mutex::new(verdict(&tls.current.load_full(), &chain));
        Some(Self { tls, chain, certificate, verdict })
    }

    /// The certificate as it stands now, for the next request.
    #[must_use]
    pub fn peer_certificate(&self) -> PeerCertificate {
        let current = self.tls.current.load_full();
        let mut last = self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::ptr::eq(last.by.as_ptr(), Arc::as_ptr(&current)) || last.at.elapsed() > VERDICT_LASTS {
            *last = verdict(&current, &self.chain);
        }
        PeerCertificate { certificate: Arc::clone(&self.certificate), ca_verified: last.ca_verified }
    }
}

fn verdict(current: &Arc<Current>, chain: &[CertificateDer<'_>]) -> Verdict {
    let ca_verified = current.judge.as_ref().is_some_and(|judge| judge.vouches_for(chain));
    Verdict { by: Arc::downgrade(current), at: Instant::now(), ca_verified }
}

/// Most certificates between the client's own and its CA.
const MAX_INTERMEDIATES: usize = 8;

/// A connection may outlive a certificate of its chain, or a list of revoked ones.
const VERDICT_LASTS: Duration = Duration::from_mins(1);

//! Validation of a chain of certificates (RFC 5280 section 6) against trust anchors that are handed in, by webpki.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::{is_ca, verifier_reason};

/// Certificates of CAs to which chains of TLS clients may lead. The system's CAs are never among them.
#[derive(Clone, Default)]
pub struct TrustAnchors {
    /// `None` without anchors.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    anchors: Arc<[Box<[u8]>]>,
}

impl PartialEq for TrustAnchors {
    fn eq(&self, other: &Self) -> bool {
        self.anchors == other.anchors
    }
}

/// Certificate that is no trust anchor: not a CA's, or unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the certificate of a CA in DER")]
pub struct NotAnAnchor;

impl TrustAnchors {
    /// Makes trust anchors of certificates in DER.
    ///
    /// # Errors
    /// [`NotAnAnchor`]. webpki accepts any certificate as a trust anchor, so the holder of a leaf would be a CA.
    pub fn new<'a>(cas: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, NotAnAnchor> {
        let mut roots = RootCertStore::empty();
        let anchors: Arc<[Box<[u8]>]> = cas.into_iter().map(Into::into).collect();
        for ca in &*anchors {
            if !is_ca(ca) {
                return Err(NotAnAnchor);
            }
            roots.add(CertificateDer::from(&**ca)).map_err(|_| NotAnAnchor)?;
        }
        if anchors.is_empty() {
            return Ok(Self::default());
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        Ok(Self { verifier: Some(verifier.build().map_err(|_| NotAnAnchor)?), anchors })
    }

    /// The number of anchors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    /// Whether there are none, so that no chain is valid.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Validates the chain of a TLS client at `now`, in seconds since 1970: signatures, dates, `cA` and path length of the
    /// CAs, name constraints, and the purpose of the client's certificate.
    ///
    /// # Errors
    /// The reason, in words.
    pub fn validate(&self, client: &[u8], intermediates: &[Vec<u8>], now: i64) -> Result<(), String> {
        let Some(verifier) = &self.verifier else { return Err("there is no trust anchor".to_owned()) };
        // A time before 1970 is no time of a certificate.
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
        let intermediates: Vec<CertificateDer<'_>> =
            intermediates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        match verifier.verify_client_cert(&CertificateDer::from(client), &intermediates, now) {
            Ok(_) => Ok(()),
            Err(error) => Err(verifier_reason(&error)),
        }
    }
}

impl fmt::Debug for TrustAnchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustAnchors({})", self.anchors.len())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    struct Ca {
        issuer: Issuer<'static, KeyPair>,
        der: Vec<u8>,
    }

    fn ca_params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("ca {}", params.not_after));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    fn root() -> Ca {
        let (params, key) = (ca_params(), KeyPair::generate().unwrap());
        Ca { der: params.self_signed(&key).unwrap().der().to_vec(), issuer: Issuer::new(params, key) }
    }

    impl Ca {
        fn intermediate(&self) -> Self {
            let (params, key) = (ca_params(), KeyPair::generate().unwrap());
            Self { der: params.signed_by(&key, &self.issuer).unwrap().der().to_vec(), issuer: Issuer::new(params, key) }
        }

        fn issue(&self, params: &CertificateParams) -> Vec<u8> {
            params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().to_vec()
        }
    }

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_chain_leads_to_an_anchor_that_was_handed_in() {
        let (root, other) = (root(), root());
        let middle = root.intermediate();
        let anchors = TrustAnchors::new([&root.der[..]]).unwrap();
        let direct = root.issue(&CertificateParams::default());
        anchors.validate(&direct, &[], NOW).unwrap();
        let below = middle.issue(&CertificateParams::default());
        anchors.validate(&below, std::slice::from_ref(&middle.der), NOW).unwrap();
        assert!(anchors.validate(&below, &[], NOW).is_err(), "without the intermediate");
        assert!(TrustAnchors::new([&other.der[..]]).unwrap().validate(&direct, &[], NOW).is_err());
        // An intermediate can be an anchor by itself.
        TrustAnchors::new([&middle.der[..]]).unwrap().validate(&below, &[], NOW).unwrap();
        assert!(TrustAnchors::new([]).unwrap().validate(&direct, &[], NOW).is_err(), "no anchor vouches for nothing");
    }

    #[test]
    fn a_leaf_is_no_anchor_and_issues_nothing() {
        let root = root();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::default();
        let leaf = params.signed_by(&key, &root.issuer).unwrap().der().to_vec();
        assert_eq!(TrustAnchors::new([&leaf[..]]).unwrap_err(), NotAnAnchor);
        assert_eq!(TrustAnchors::new([&b"x"[..]]).unwrap_err(), NotAnAnchor);
        let below = Ca { der: leaf.clone(), issuer: Issuer::new(params, key) }.issue(&CertificateParams::default());
        assert!(TrustAnchors::new([&root.der[..]]).unwrap().validate(&below, &[leaf], NOW).is_err());
    }

    #[test]
    fn a_chain_is_valid_between_its_dates_and_for_clients() {
        let root = root();
        let anchors = TrustAnchors::new([&root.der[..]]).unwrap();
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2027, 1, 1), rcgen::date_time_ymd(2027, 1, 2));
        let leaf = root.issue(&params);
        for (now, valid) in
            [(1_798_761_599, false), (1_798_761_600, true), (1_798_848_000, true), (1_798_848_001, false)]
        {
            assert_eq!(anchors.validate(&leaf, &[], now).is_ok(), valid, "{now}");
        }
        params = CertificateParams::default();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        assert!(anchors.validate(&root.issue(&params), &[], NOW).is_err(), "a server's certificate");
        assert!(anchors.validate(&root.intermediate().der, &[], NOW).is_err(), "a CA is no client");
    }
}

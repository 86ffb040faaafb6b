//! Certificates of clients (RFC 8705 section 2): the registered one, the presented one, and their comparison.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fluent_uri::Uri;

use super::time::UnixTime;
use crate::crypto::certificate::distinguished_name::{DistinguishedName, DistinguishedNameError};
use crate::crypto::certificate::{AlternativeName, Certificate};

/// Registration of a client's certificate: one name in it, or the certificate itself.
///
/// RFC 8705 section 2.1.2: "A client using the `tls_client_auth` authentication method MUST use exactly one of the below
/// metadata parameters to indicate the certificate subject value that the authorization server is to expect".
#[derive(Debug, Clone)]
pub enum RegisteredCertificate {
    /// `tls_client_auth_subject_dn`.
    SubjectDn(DistinguishedName),
    /// `tls_client_auth_san_dns`, in lower case.
    SanDns(Box<str>),
    /// `tls_client_auth_san_uri`.
    SanUri(Box<str>),
    /// `tls_client_auth_san_ip`.
    SanIp(IpAddr),
    /// `tls_client_auth_san_email`, its domain in lower case.
    SanEmail(Box<str>),
    /// `self_signed_tls_client_auth`: SHA-256 of the whole certificate.
    SelfSigned([u8; 32]),
}

/// Errors of a registration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegisteredCertificateError {
    /// The kind is unknown.
    #[error("a certificate's kind is one of subject_dn, san_dns, san_uri, san_ip, san_email, self_signed")]
    Kind,
    /// The value is not a name in the form of RFC 4514.
    #[error("subject_dn: {0}")]
    SubjectDn(#[from] DistinguishedNameError),
    /// The value is not one host name.
    #[error("san_dns is a host name without wildcard or dot at the end; write an internationalised one as xn--…")]
    SanDns,
    /// The value is not a URI.
    #[error("san_uri is a URI (RFC 3986)")]
    SanUri,
    /// The value is not an IP address.
    #[error("san_ip is an IPv4 or IPv6 address")]
    SanIp,
    /// The value is not a mailbox.
    #[error("san_email is an address such as billing@example.com, in ASCII")]
    SanEmail,
    /// The value is not a SHA-256 hash in base64url.
    #[error("self_signed is the x5t#S256 of a certificate: base64url of its SHA-256, 43 characters")]
    SelfSigned,
}

impl RegisteredCertificate {
    /// Returns the registration of a self-signed certificate.
    #[must_use]
    pub fn self_signed(certificate: &Certificate) -> Self {
        Self::SelfSigned(certificate.sha256())
    }

    /// Reads a registration from its kind and value, as database rows and command-line options write them.
    ///
    /// # Errors
    /// [`RegisteredCertificateError`].
    pub fn parse(kind: &str, value: &str) -> Result<Self, RegisteredCertificateError> {
        use RegisteredCertificateError as Error;
        match kind {
            "subject_dn" => Ok(Self::SubjectDn(value.parse()?)),
            "san_dns" if is_host_name(value) => Ok(Self::SanDns(value.to_ascii_lowercase().into())),
            "san_dns" => Err(Error::SanDns),
            "san_uri" if is_graphic(value) && Uri::parse(value).is_ok() => Ok(Self::SanUri(value.into())),
            "san_uri" => Err(Error::SanUri),
            "san_ip" => value.parse().map(Self::SanIp).map_err(|_| Error::SanIp),
            "san_email" => folded_mailbox(value).map(Self::SanEmail).ok_or(Error::SanEmail),
            "self_signed" => BASE64_URL_SAFE_NO_PAD
                .decode(value)
                .ok()
                .and_then(|hash| hash.try_into().ok())
                .map(Self::SelfSigned)
                .ok_or(Error::SelfSigned),
            _ => Err(Error::Kind),
        }
    }

    /// The kind, as database rows and command-line options write it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SubjectDn(_) => "subject_dn",
            Self::SanDns(_) => "san_dns",
            Self::SanUri(_) => "san_uri",
            Self::SanIp(_) => "san_ip",
            Self::SanEmail(_) => "san_email",
            Self::SelfSigned(_) => "self_signed",
        }
    }

    /// Whether the registration is a name, which counts only in a certificate of a trusted CA.
    #[must_use]
    pub fn needs_ca(&self) -> bool {
        !matches!(self, Self::SelfSigned(_))
    }

    /// Whether `certificate` matches the registration. A name is compared only with the certificate's names of the same
    /// kind.
    #[must_use]
    pub fn matches(&self, certificate: &Certificate) -> bool {
        let mut names = certificate.alternative_names().iter();
        match self {
            Self::SubjectDn(name) => certificate.subject().matches(name),
            // RFC 5280 section 7.2: labels are compared without regard to case. A wildcard in a certificate is a character.
            Self::SanDns(host) => {
                names.any(|name| matches!(name, AlternativeName::Dns(dns) if dns.eq_ignore_ascii_case(host)))
            }
            Self::SanUri(uri) => names.any(|name| matches!(name, AlternativeName::Uri(other) if other == uri)),
            // Compared by octets: an IPv4 address does not equal its IPv4-mapped IPv6 address.
            Self::SanIp(address) => names.any(|name| matches!(name, AlternativeName::Ip(other) if other == address)),
            Self::SanEmail(mailbox) => names.any(|name| match name {
                AlternativeName::Email(other) => folded_mailbox(other).as_ref() == Some(mailbox),
                _ => false,
            }),
            // The whole certificate is compared. Another certificate with the same subject, serial number or key does
            // not match.
            Self::SelfSigned(hash) => certificate.sha256() == *hash,
        }
    }
}

impl fmt::Display for RegisteredCertificate {
    /// Writes the value, as database rows have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SubjectDn(name) => write!(f, "{name}"),
            Self::SanDns(text) | Self::SanUri(text) | Self::SanEmail(text) => f.write_str(text),
            Self::SanIp(address) => write!(f, "{address}"),
            Self::SelfSigned(hash) => f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(hash)),
        }
    }
}

/// Certificate of a connection. The handshake proved that the peer holds its private key.
#[derive(Debug, Clone)]
pub struct PeerCertificate {
    /// The parsed certificate.
    pub certificate: Arc<Certificate>,
    /// The certificates that were presented behind it, in DER.
    pub intermediates: Arc<[Vec<u8>]>,
    /// Whether a configured CA verifies the certificate, or the verifier's reason for the log.
    pub ca_verified: Result<(), Arc<str>>,
}

/// Reasons for which a presented certificate does not match the registration.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum CertificateMismatch {
    /// The certificate is another one, or has another name.
    #[error("the certificate does not match the registration")]
    Other,
    /// The name matches, and no trusted CA verifies the certificate.
    #[error("no trusted CA verifies the certificate: {0}")]
    Untrusted(Arc<str>),
    /// The name matches, and the certificate is a CA's or is not for client authentication.
    #[error("the certificate is not for client authentication")]
    Purpose,
    /// The certificate is not valid at this time.
    #[error("the certificate is not valid at this time")]
    Expired,
}

impl PeerCertificate {
    /// Checks that the certificate matches `registered` and is valid at `now`.
    ///
    /// # Errors
    /// [`CertificateMismatch`].
    pub fn proves(&self, registered: &RegisteredCertificate, now: UnixTime) -> Result<(), CertificateMismatch> {
        if !registered.matches(&self.certificate) {
            return Err(CertificateMismatch::Other);
        }
        if registered.needs_ca() {
            // RFC 8705 section 2.1: the names in the certificate count once its chain has been validated.
            self.ca_verified.clone().map_err(CertificateMismatch::Untrusted)?;
            if self.certificate.is_ca() || !self.certificate.is_for_client_auth() {
                return Err(CertificateMismatch::Purpose);
            }
        }
        self.is_valid_at(now)
    }

    /// Checks that the certificate is byte for byte `der` and is valid at `now`, as with
    /// [`RegisteredCertificate::SelfSigned`].
    ///
    /// # Errors
    /// [`CertificateMismatch`].
    pub fn is(&self, der: &[u8], now: UnixTime) -> Result<(), CertificateMismatch> {
        if self.certificate.der() == der { self.is_valid_at(now) } else { Err(CertificateMismatch::Other) }
    }

    /// Checks the dates. RFC 8705 section 2.2 requires no chain and does not mention dates; an expired certificate is
    /// refused here too.
    fn is_valid_at(&self, now: UnixTime) -> Result<(), CertificateMismatch> {
        if self.certificate.is_valid_at(now.0) { Ok(()) } else { Err(CertificateMismatch::Expired) }
    }
}

/// RFC 5280 section 4.2.1.6: "in the preferred name syntax", so in letters, digits and hyphens.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_label) && text.parse::<IpAddr>().is_err()
}

fn is_graphic(text: &str) -> bool {
    (1..=2048).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// RFC 5280 section 7.5: "the local-part of each name is an exact match, AND … the host-part of each name matches using a
/// case-insensitive ASCII comparison."
fn folded_mailbox(text: &str) -> Option<Box<str>> {
    let (local, host) = text.rsplit_once('@')?;
    let fits = is_graphic(text) && !local.is_empty() && !local.contains('@') && is_host_name(host);
    fits.then(|| format!("{local}@{}", host.to_ascii_lowercase()).into())
}

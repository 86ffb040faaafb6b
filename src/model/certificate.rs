//! Certificates that clients are known by (RFC 8705 section 2): what is registered, what is presented, and whether they fit.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fluent_uri::Uri;

use super::time::UnixTime;
use crate::crypto::certificate::distinguished_name::{DistinguishedName, DistinguishedNameError};
use crate::crypto::certificate::{AlternativeName, Certificate};

/// What is registered of a client's certificate: one name in it, or the very certificate.
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
    /// `self_signed_tls_client_auth`: SHA-256 over the whole certificate.
    SelfSigned([u8; 32]),
}

/// Not what can be registered.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegisteredCertificateError {
    /// No such kind.
    #[error("a certificate's kind is one of subject_dn, san_dns, san_uri, san_ip, san_email, self_signed")]
    Kind,
    /// Not a name as RFC 4514 writes it.
    #[error("subject_dn: {0}")]
    SubjectDn(#[from] DistinguishedNameError),
    /// Not one host name.
    #[error("san_dns is a host name without wildcard or dot at the end; write an internationalised one as xn--…")]
    SanDns,
    /// Not a URI.
    #[error("san_uri is a URI (RFC 3986)")]
    SanUri,
    /// Not an address.
    #[error("san_ip is an IPv4 or IPv6 address")]
    SanIp,
    /// Not a mailbox.
    #[error("san_email is an address such as billing@example.com, in ASCII")]
    SanEmail,
    /// Not a hash.
    #[error("self_signed is the x5t#S256 of a certificate: base64url of its SHA-256, 43 characters")]
    SelfSigned,
}

impl RegisteredCertificate {
    /// The certificate that a client signs itself.
    #[must_use]
    pub fn self_signed(certificate: &Certificate) -> Self {
        Self::SelfSigned(certificate.sha256())
    }

    /// Reads a registration as rows and options have it.
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

    /// The kind, as rows and options have it.
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

    /// Whether the certificate's issuer vouches for the name, so that the issuer must be one we trust.
    #[must_use]
    pub fn needs_ca(&self) -> bool {
        !matches!(self, Self::SelfSigned(_))
    }

    /// Whether `certificate` has this name. A name is compared only with names of its own kind.
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
            // By octets: an IPv4 address is not its image in IPv6.
            Self::SanIp(address) => names.any(|name| matches!(name, AlternativeName::Ip(other) if other == address)),
            Self::SanEmail(mailbox) => names.any(|name| match name {
                AlternativeName::Email(other) => folded_mailbox(other).as_ref() == Some(mailbox),
                _ => false,
            }),
            // The whole certificate: another one with the same subject, serial number or key does not match.
            Self::SelfSigned(hash) => certificate.sha256() == *hash,
        }
    }
}

impl fmt::Display for RegisteredCertificate {
    /// The value, as rows have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SubjectDn(name) => write!(f, "{name}"),
            Self::SanDns(text) | Self::SanUri(text) | Self::SanEmail(text) => f.write_str(text),
            Self::SanIp(address) => write!(f, "{address}"),
            Self::SelfSigned(hash) => f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(hash)),
        }
    }
}

/// The certificate of a connection whose far end has proved that it holds the key.
#[derive(Debug, Clone)]
pub struct PeerCertificate {
    /// What it says.
    pub certificate: Arc<Certificate>,
    /// Whether a CA of ours vouches for it, or why none does: what the verifier said, for the log.
    pub ca_verified: Result<(), Arc<str>>,
}

/// Why a certificate that was presented is not the one that is registered.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum CertificateMismatch {
    /// It says something else.
    #[error("the certificate is not the one that is registered")]
    Other,
    /// It says the right thing, and nobody whom we trust says so.
    #[error("no trusted CA vouches for the certificate: {0}")]
    Untrusted(Arc<str>),
    /// It says the right thing, and is a CA's, or is meant for something else.
    #[error("the certificate is not one for authenticating a client")]
    Purpose,
    /// Not yet, or no longer.
    #[error("the certificate is not valid at this time")]
    Expired,
}

impl PeerCertificate {
    /// Whether it is the one that is registered, at `now`.
    ///
    /// # Errors
    /// [`CertificateMismatch`].
    pub fn proves(&self, registered: &RegisteredCertificate, now: UnixTime) -> Result<(), CertificateMismatch> {
        if !registered.matches(&self.certificate) {
            return Err(CertificateMismatch::Other);
        }
        if registered.needs_ca() {
            // RFC 8705 section 2.1: what the certificate says counts once its chain has been validated.
            self.ca_verified.clone().map_err(CertificateMismatch::Untrusted)?;
            if self.certificate.is_ca() || !self.certificate.is_for_client_auth() {
                return Err(CertificateMismatch::Purpose);
            }
        }
        self.is_valid_at(now)
    }

    /// Verifies that the whole certificate is this one, as [`RegisteredCertificate::SelfSigned`] does, at `now`.
    ///
    /// # Errors
    /// [`CertificateMismatch`].
    pub fn is(&self, der: &[u8], now: UnixTime) -> Result<(), CertificateMismatch> {
        if self.certificate.der() == der { self.is_valid_at(now) } else { Err(CertificateMismatch::Other) }
    }

    /// RFC 8705 section 2.2 asks for no chain. It says nothing of dates, and a date that has passed means something.
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

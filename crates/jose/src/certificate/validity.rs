//! The dates of any certificate (RFC 5280 section 4.1.2.5) or revocation list (section 5.1.2), whatever else it says.

use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;

use super::distinguished_name::DistinguishedName;
use super::seconds;

/// When a certificate or a revocation list begins and ends. Nothing is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    /// The subject of a certificate, the issuer of a list, as RFC 4514 writes names.
    pub name: String,
    /// Begin, in seconds since 1970.
    pub not_before: i64,
    /// The last second in which it counts.
    pub not_after: i64,
}

impl Validity {
    /// The dates of a certificate in DER; `None` when it is none.
    #[must_use]
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let parsed = x509_cert::Certificate::from_der(der).ok()?;
        let (tbs, dates) = (parsed.tbs_certificate(), parsed.tbs_certificate().validity());
        Some(Self {
            name: DistinguishedName::of(tbs.subject()).to_string(),
            not_before: seconds(dates.not_before),
            not_after: seconds(dates.not_after),
        })
    }

    /// The dates of a revocation list in DER; `None` when it is none, or never ends.
    #[must_use]
    pub fn of_revocation_list(der: &[u8]) -> Option<Self> {
        let list = CertificateList::<Rfc5280>::from_der(der).ok()?.tbs_cert_list;
        Some(Self {
            name: DistinguishedName::of(&list.issuer).to_string(),
            not_before: seconds(list.this_update),
            not_after: seconds(list.next_update?),
        })
    }
}

/// The item of a bundle that an error is about: its number, from 1, and its name.
#[must_use]
pub fn item(kind: &str, at: usize, validity: Option<&Validity>) -> String {
    let name = validity.map_or("unreadable", |validity| validity.name.as_str());
    format!("{kind} {} ({name})", at + 1)
}

//! Certificates that clients present (RFC 5280), read strictly and within bounds. Nothing here says whom to trust.

pub mod attribute;
pub mod distinguished_name;
pub mod path;
pub mod validity;

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::ParsedCertificate;
use x509_cert::TbsCertificate;
use x509_cert::der::asn1::{Any, ObjectIdentifier, Uint};
use x509_cert::der::{self, Decode as _, Encode as _, Tag, Tagged as _};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::sha256;
use distinguished_name::DistinguishedName;

/// A certificate, parsed and not verified: neither its issuer nor possession of its key has been checked.
#[derive(Clone)]
pub struct Certificate {
    der: Box<[u8]>,
    subject: DistinguishedName,
    alternative_names: Vec<AlternativeName>,
    uris: usize,
    spki: Box<[u8]>,
    not_before: i64,
    not_after: i64,
    usage: Usage,
}

/// Usage of a key, as its certificate states it.
#[derive(Debug, Clone, Copy)]
struct Usage {
    /// RFC 5280 section 4.2.1.9, `cA`.
    is_ca: bool,
    /// Whether it may sign as a TLS client, as far as it says what it is for.
    for_client_auth: bool,
    /// Whether it says that its key signs data, and nothing of certificates or revocation lists.
    signs_data_alone: bool,
}

/// A name of the subject alternative name extension (RFC 5280 section 4.2.1.6), of a kind that clients are known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlternativeName {
    /// `dNSName`.
    Dns(Box<str>),
    /// `uniformResourceIdentifier`.
    Uri(Box<str>),
    /// `iPAddress`: four octets or sixteen, and never one for the other.
    Ip(IpAddr),
    /// `rfc822Name`.
    Email(Box<str>),
}

/// Reasons for refusing a certificate.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CertificateError {
    /// Longer than any client needs.
    #[error("a client certificate has at most {} bytes of DER", Certificate::MAX_DER)]
    TooLarge,
    /// Not DER, not X.509, or against RFC 5280 in a way that could be read in two ways.
    #[error("not a well-formed X.509 certificate in DER")]
    Malformed,
    /// A file with none, or with a chain.
    #[error("expected one certificate, in PEM or DER")]
    NotOne,
    /// A key, where a certificate is wanted.
    #[error("this is a key, and a certificate is wanted; `openssl req -x509` makes one for a key")]
    IsKey,
    /// OpenSSL's own form, a certificate with a trailer of trust settings.
    #[error(
        "a TRUSTED CERTIFICATE, which only OpenSSL reads; `openssl x509 -in FILE -out FILE.pem` writes it as a CERTIFICATE"
    )]
    Trusted,
    /// A key that is weak, slow to verify with, or unknown.
    #[error("a client certificate has a key of RSA (2048 to 4096 bits, exponent 65537), P-256, P-384 or Ed25519")]
    Key,
}

impl Certificate {
    /// Most bytes that a certificate may have.
    pub const MAX_DER: usize = 16 << 10;

    /// Reads a certificate: all of `der`, in strict DER.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > Self::MAX_DER {
            return Err(CertificateError::TooLarge);
        }
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
        let tbs = parsed.tbs_certificate();
        // RFC 5280 section 4.2: "A certificate MUST NOT include more than one instance of a particular extension."
        let mut seen = HashSet::new();
        let fits = |extension: &Extension| is_minimal(&extension.extn_id) && seen.insert(extension.extn_id);
        let types_fit = tbs.subject().iter().all(|attribute| is_minimal(&attribute.oid));
        if !types_fit || !tbs.extensions().into_iter().flatten().all(fits) {
            return Err(CertificateError::Malformed);
        }
        let key_info = tbs.subject_public_key_info();
        let usage = usage(tbs).map_err(|_| CertificateError::Malformed)?;
        let (alternative_names, uris) = alternative_names(tbs).map_err(|_| CertificateError::Malformed)?;
        let spki = key_info.to_der().map_err(|_| CertificateError::Malformed)?.into();
        if !is_accepted_key(key_info) {
            return Err(CertificateError::Key);
        }
        Ok(Self {
            der: der.into(),
            subject: DistinguishedName::of(tbs.subject()),
            alternative_names,
            uris,
            spki,
            not_before: seconds(tbs.validity().not_before),
            not_after: seconds(tbs.validity().not_after),
            usage,
        })
    }

    /// Reads the one certificate of a file, in PEM or DER.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn read(file: &[u8]) -> Result<Self, CertificateError> {
        if file.first() == Some(&0x30) {
            return Self::parse(file);
        }
        let has = |label: &[u8]| file.windows(label.len()).any(|part| part == label);
        if has(b"-----BEGIN TRUSTED CERTIFICATE") {
            return Err(CertificateError::Trusted);
        }
        if has(b" KEY-----") && !has(b"-----BEGIN CERTIFICATE") {
            return Err(CertificateError::IsKey);
        }
        // A byte order mark would hide the line behind it.
        let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
        let mut found = CertificateDer::pem_slice_iter(file);
        match (found.next(), found.next()) {
            (Some(Ok(der)), None) => Self::parse(&der),
            _ => Err(CertificateError::NotOne),
        }
    }

    /// Why no handshake takes this certificate, such as X.509 version 1 or an unknown critical extension: what rustls
    /// finds when it verifies the signature of a handshake by it. `None` when handshakes take it.
    #[must_use]
    pub fn handshake_fault(&self) -> Option<String> {
        ParsedCertificate::try_from(&CertificateDer::from(self.der())).err().map(|error| verifier_reason(&error))
    }

    /// The certificate itself.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The subject of the certificate.
    #[must_use]
    pub fn subject(&self) -> &DistinguishedName {
        &self.subject
    }

    /// The further names of whom it is about, in their order. Names of other kinds, and names that are none, are left out.
    #[must_use]
    pub fn alternative_names(&self) -> &[AlternativeName] {
        &self.alternative_names
    }

    /// The URI of the alternative names when there is exactly one. A URI that is no text counts as one too.
    #[must_use]
    pub fn sole_uri(&self) -> Option<&str> {
        let uri = |name: &AlternativeName| matches!(name, AlternativeName::Uri(_));
        match self.alternative_names.iter().find(|name| uri(name)) {
            Some(AlternativeName::Uri(uri)) if self.uris == 1 => Some(uri),
            _ => None,
        }
    }

    /// The `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Until when it is valid, in seconds.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// RFC 5280 section 4.1.2.5: "the period of time from notBefore through notAfter, inclusive."
    #[must_use]
    pub fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether it may issue certificates, so that it belongs to nobody's client.
    #[must_use]
    pub fn is_ca(&self) -> bool {
        self.usage.is_ca
    }

    /// Whether its key may sign, and sign as a TLS client, as far as it says what its key is for.
    #[must_use]
    pub fn is_for_client_auth(&self) -> bool {
        self.usage.for_client_auth
    }

    /// Whether it says that its key signs data (`digitalSignature`), and neither certificates nor revocation lists.
    #[must_use]
    pub fn signs_data_alone(&self) -> bool {
        self.usage.signs_data_alone
    }

    /// SHA-256 over the DER.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        sha256(&self.der)
    }

    /// RFC 8705 section 3.1, `x5t#S256`: "the base64url-encoded SHA-256 hash … of the DER encoding of the X.509
    /// certificate", without padding.
    #[must_use]
    pub fn x5t_s256(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.sha256())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.x5t_s256())
    }
}

/// Whether `der` is a certificate that may issue others (RFC 5280 section 4.2.1.9), whatever its key.
#[must_use]
pub fn is_ca(der: &[u8]) -> bool {
    let Ok(parsed) = x509_cert::Certificate::from_der(der) else { return false };
    usage(parsed.tbs_certificate()).is_ok_and(|usage| usage.is_ca)
}

/// Returns the reason of a certificate verifier in words: `UnknownIssuer` is "unknown issuer".
#[must_use]
pub fn verifier_reason(error: &rustls::Error) -> String {
    let reason = match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => format!("{:?}", other.0),
        rustls::Error::InvalidCertificate(error) => error.to_string(),
        error => error.to_string(),
    };
    if !reason.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return reason;
    }
    let mut words = String::new();
    for character in reason.chars() {
        if character.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(character.to_ascii_lowercase());
    }
    words
}

/// Names of the kinds that clients are known by, and the number of URIs among all names.
fn alternative_names(tbs: &TbsCertificate) -> der::Result<(Vec<AlternativeName>, usize)> {
    let extension = tbs.extensions().into_iter().flatten().find(|extension| extension.extn_id == SUBJECT_ALT_NAME);
    let Some(extension) = extension else { return Ok((Vec::new(), 0)) };
    let names = Vec::<Any>::from_der(extension.extn_value.as_bytes())?;
    let is_uri = |name: &&Any| matches!(name.tag(), Tag::ContextSpecific { number, .. } if number.value() == 6);
    Ok((names.iter().filter_map(alternative_name).collect(), names.iter().filter(is_uri).count()))
}

fn alternative_name(name: &Any) -> Option<AlternativeName> {
    let Tag::ContextSpecific { constructed: false, number } = name.tag() else { return None };
    // An IA5String that holds something else matches nothing: a NUL, say, that hides what stands behind it.
    let text = || {
        let text = std::str::from_utf8(name.value()).ok()?;
        text.bytes().all(|byte| matches!(byte, 0x21..=0x7e)).then(|| text.into())
    };
    match number.value() {
        1 => text().map(AlternativeName::Email),
        2 => text().map(AlternativeName::Dns),
        6 => text().map(AlternativeName::Uri),
        // RFC 5280 section 4.2.1.6: for IPv4 "the octet string MUST contain exactly four octets", for IPv6 sixteen.
        7 => match (<[u8; 4]>::try_from(name.value()), <[u8; 16]>::try_from(name.value())) {
            (Ok(four), _) => Some(AlternativeName::Ip(four.into())),
            (_, Ok(sixteen)) => Some(AlternativeName::Ip(sixteen.into())),
            _ => None,
        },
        _ => None,
    }
}

fn usage(tbs: &TbsCertificate) -> der::Result<Usage> {
    let is_ca = tbs.get_extension::<BasicConstraints>()?.is_some_and(|(_, constraints)| constraints.ca);
    // RFC 5280 section 4.2.1.3: digitalSignature "is asserted when the subject public key is used for verifying
    // digital signatures", as it is in a handshake.
    let key_usage = tbs.get_extension::<KeyUsage>()?.map(|(_, usage)| usage);
    let may_sign = key_usage.is_none_or(|usage| usage.digital_signature());
    let signs_data_alone =
        key_usage.is_some_and(|usage| usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    // RFC 5280 section 4.2.1.12: "If the extension is present, then the certificate MUST only be used for one of the
    // purposes indicated." As webpki does, we ask for this one, not for any.
    let purposes = tbs.get_extension::<ExtendedKeyUsage>()?;
    let purpose_fits = purposes.is_none_or(|(_, purposes)| purposes.0.contains(&CLIENT_AUTH));
    Ok(Usage { is_ca, for_client_auth: may_sign && purpose_fits, signs_data_alone })
}

/// Whether the key is RSA of 2048 to 4096 bits with exponent 65537, P-256, P-384 or Ed25519. A key whose signatures are slow
/// to verify is refused before one is verified.
fn is_accepted_key(info: &SubjectPublicKeyInfoOwned) -> bool {
    let Some(key) = info.subject_public_key.as_bytes() else { return false };
    let parameters = info.algorithm.parameters.as_ref();
    match info.algorithm.oid {
        RSA_ENCRYPTION if parameters.is_some_and(Any::is_null) => {
            let Ok(numbers) = Vec::<Uint>::from_der(key) else { return false };
            let [modulus, exponent] = numbers.as_slice() else { return false };
            let modulus = modulus.as_bytes();
            let zeros = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
            (2048..=4096).contains(&(modulus.len() * 8 - zeros)) && exponent.as_bytes() == [1, 0, 1]
        }
        EC_PUBLIC_KEY => match (parameters.and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok()), key) {
            // RFC 5480 section 2.2: "The first octet of the OCTET STRING indicates whether the key is compressed or
            // uncompressed", and compressed ones are optional.
            (Some(PRIME256V1), [4, point @ ..]) => point.len() == 64,
            (Some(SECP384R1), [4, point @ ..]) => point.len() == 96,
            _ => false,
        },
        // RFC 8410 section 3: "For all of the OIDs, the parameters MUST be absent."
        ED25519 => parameters.is_none() && key.len() == 32,
        _ => false,
    }
}

/// X.690 section 8.19.2: "the leading octet of the subidentifier shall not have the value 80". The library lets it pass,
/// and one type could be written in several ways.
fn is_minimal(identifier: &ObjectIdentifier) -> bool {
    let mut leads = true;
    identifier.as_bytes().iter().all(|&byte| {
        let fits = !(leads && byte == 0x80);
        leads = byte < 0x80;
        fits
    })
}

fn seconds(time: x509_cert::time::Time) -> i64 {
    i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}

const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

//! Certificates without sockets: their names, their registration, and the header field that carries them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use grantd::crypto::certificate::distinguished_name::{DistinguishedName, DistinguishedNameError};
use grantd::crypto::certificate::validity::Validity;
use grantd::crypto::certificate::{Certificate, CertificateError, is_ca};
use grantd::http::client_cert::{ClientCertError, client_cert};
use grantd::model::certificate::{
    CertificateMismatch, PeerCertificate, RegisteredCertificate, RegisteredCertificateError,
};
use grantd::model::time::UnixTime;

use crate::harness::verdict;

/// Tag, length, value.
pub(crate) fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = match content.len() {
        short @ 0..=127 => vec![u8::try_from(short).unwrap()],
        long @ 128..=255 => vec![0x81, u8::try_from(long).unwrap()],
        long => [&[0x82][..], &u16::try_from(long).unwrap().to_be_bytes()].concat(),
    };
    [&[tag][..], &length, &content].concat()
}

const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const T61: u8 = 0x14;
const IA5: u8 = 0x16;
const BMP: u8 = 0x1e;
const BITS: u8 = 0x03;

const CN: &[u8] = &[0x55, 4, 3];
const O: &[u8] = &[0x55, 4, 10];
const OU: &[u8] = &[0x55, 4, 11];
const DC: &[u8] = &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25];

/// One attribute: its type, the tag of its value, the value.
type Pair<'a> = (&'a [u8], u8, &'a [u8]);

fn name(rdns: &[&[Pair<'_>]]) -> Vec<u8> {
    let pair = |(kind, tag, value): &Pair<'_>| der(0x30, &[&der(6, &[kind]), &der(*tag, &[value])]);
    let set = |rdn: &&[Pair<'_>]| der(0x31, &[&rdn.iter().map(pair).collect::<Vec<_>>().concat()]);
    der(0x30, &[&rdns.iter().map(set).collect::<Vec<_>>().concat()])
}

/// An extension: the last arc of its identifier under 2.5.29, and its value.
fn extension(arc: u8, value: &[u8]) -> Vec<u8> {
    der(0x30, &[&der(6, &[&[0x55, 0x1d, arc]]), &der(4, &[value])])
}

fn san(names: &[(u8, &[u8])]) -> Vec<u8> {
    let names: Vec<u8> = names.iter().flat_map(|(number, value)| der(0x80 | number, &[value])).collect();
    extension(17, &der(0x30, &[&names]))
}

fn p256() -> Vec<u8> {
    let algorithm = der(
        0x30,
        &[&der(6, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]]), &der(6, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]])],
    );
    der(0x30, &[&algorithm, &der(BITS, &[&[0, 4], &[7; 64]])])
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let algorithm = der(0x30, &[&der(6, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1]]), &der(5, &[])]);
    let numbers = der(0x30, &[&der(2, &[&[0], modulus]), &der(2, &[exponent])]);
    der(0x30, &[&algorithm, &der(BITS, &[&[0], &numbers])])
}

/// A certificate that nobody signed, valid from 2020 to 2049.
fn certificate(subject: &[u8], spki: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
    let algorithm = der(0x30, &[&der(6, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]])]);
    let validity = der(0x30, &[&der(0x17, &[b"200101000000Z"]), &der(0x17, &[b"491231235959Z"])]);
    let extensions = match extensions {
        [] => Vec::new(),
        some => der(0xa3, &[&der(0x30, &[&some.concat()])]),
    };
    let tbs = der(0x30, &[&[0xa0, 3, 2, 1, 2, 2, 1, 9], &algorithm, &name(&[]), &validity, subject, spki, &extensions]);
    der(0x30, &[&tbs, &algorithm, &der(BITS, &[&[0, 0x30, 0]])])
}

fn with_subject(rdns: &[&[Pair<'_>]]) -> Certificate {
    Certificate::parse(&certificate(&name(rdns), &p256(), &[])).unwrap()
}

fn with_names(names: &[(u8, &[u8])]) -> Certificate {
    Certificate::parse(&certificate(&name(&[&[(CN, UTF8, b"svc.example")]]), &p256(), &[san(names)])).unwrap()
}

fn registered(kind: &str, value: &str) -> RegisteredCertificate {
    let registered = RegisteredCertificate::parse(kind, value).unwrap();
    assert_eq!(registered.kind(), kind);
    let again = RegisteredCertificate::parse(kind, &registered.to_string()).unwrap();
    assert_eq!(again.to_string(), registered.to_string());
    registered
}

/// RFC 8705 appendix A.
const RFC_8705_CERTIFICATE: &str = "MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAxODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwIDSQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOVbUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=";

/// `openssl req -x509 -multivalue-rdn -utf8 -subj '/C=DE/O=Müller, Söhne \& Co./OU=Pay "now"+CN=billing #1/emailAddress=ops@example.com'`
/// with names of every kind.
const OPENSSL: &str = "MIICvTCCAmKgAwIBAgIUN6MzyF34PEgRD2WjQ5VzK+kKOIkwCgYIKoZIzj0EAwIwdDELMAkGA1UEBhMCREUxHjAcBgNVBAoMFU3DvGxsZXIsIFPDtmhuZSAmIENvLjElMBAGA1UECwwJUGF5ICJub3ciMBEGA1UEAwwKYmlsbGluZyAjMTEeMBwGCSqGSIb3DQEJARYPb3BzQGV4YW1wbGUuY29tMCAXDTI2MTEyNDIxMzE0NloYDzIxMjYxMDMxMjEzMTQ2WjB0MQswCQYDVQQGEwJERTEeMBwGA1UECgwVTcO8bGxlciwgU8O2aG5lICYgQ28uMSUwEAYDVQQLDAlQYXkgIm5vdyIwEQYDVQQDDApiaWxsaW5nICMxMR4wHAYJKoZIhvcNAQkBFg9vcHNAZXhhbXBsZS5jb20wWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARrEf1wsByUzytgJzaKQS89RR6B71NsaTXlOikqtQKbtf00f548dczSdf1O9LkxyGSbs3ucIGrJ4UsRGCxMFyjEo4HPMIHMMB0GA1UdDgQWBBQCGFPP3bHXSIPConfGhA9aKWzDjjAfBgNVHSMEGDAWgBQCGFPP3bHXSIPConfGhA9aKWzDjjBdBgNVHREEVjBUggtzdmMuZXhhbXBsZYYcc3BpZmZlOi8vZXhhbXBsZS5vcmcvYmlsbGluZ4cEwAACB4cQIAENuAAAAAAAAAAAAAAAB4EPT3BzQEV4YW1wbGUuQ09NMBMGA1UdJQQMMAoGCCsGAQUFBwMCMAsGA1UdDwQEAwIHgDAJBgNVHRMEAjAAMAoGCCqGSM49BAMCA0kAMEYCIQDZJxQU2lB3b9bi0BpTqoJE42PWFEl0pj5nw5zZk0W/9QIhAMnbxQkEs6ya7xM9L3ZwcqDGjDv5rTPE8FCplHGVvkhT";

fn not_before(certificate: &Certificate) -> i64 {
    Validity::of_certificate(certificate.der()).unwrap().not_before
}

fn openssl() -> Certificate {
    Certificate::parse(&BASE64_STANDARD.decode(OPENSSL).unwrap()).unwrap()
}

#[test]
fn the_thumbprint_is_that_of_rfc_8705_and_of_openssl() {
    let example = Certificate::parse(&BASE64_STANDARD.decode(RFC_8705_CERTIFICATE).unwrap()).unwrap();
    assert_eq!(example.x5t_s256(), "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0");
    assert_eq!((not_before(&example), example.not_after()), (1_539_866_229, 1_651_495_029));
    assert!(
        example.is_valid_at(1_651_495_029)
            && !example.is_valid_at(1_651_495_030)
            && !example.is_valid_at(1_539_866_228)
    );
    assert_eq!(openssl().x5t_s256(), "st6jBbBytintMiLD0skBsm5astxCNSzy3zg7h720OLU");
    assert_eq!(format!("{example:?}"), "Certificate(A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0)");
}

#[test]
fn a_name_parses_as_openssl_prints_it_and_round_trips() {
    let certificate = openssl();
    let printed = "emailAddress=ops@example.com,CN=billing #1+OU=Pay \\\"now\\\",O=Müller\\, Söhne & Co.,C=DE";
    assert_eq!(certificate.subject().to_string(), printed);
    for same in [
        printed,
        "emailaddress=OPS@example.com , ou=Pay \\22NOW\\22 + cn=Billing  #1, o=M\\C3\\BCller\\2C Söhne & Co. ,c=de",
        "1.2.840.113549.1.9.1=#160F6F7073406578616D706C652E636F6D,OID.2.5.4.11=#0c0950617920226e6f7722+CN=billing #1,O=Müller\\, Söhne & Co.,C=#13024445",
    ] {
        assert!(registered("subject_dn", same).matches(&certificate), "{same}");
    }
    for other in [
        "C=DE,O=Müller\\, Söhne & Co.,CN=billing #1+OU=Pay \\\"now\\\",emailAddress=ops@example.com",
        "emailAddress=ops@example.com,CN=billing #1,OU=Pay \\\"now\\\",O=Müller\\, Söhne & Co.,C=DE",
        "emailAddress=ops@example.com,CN=billing #1,O=Müller\\, Söhne & Co.,C=DE",
        "emailAddress=ops@example.com,CN=billing #1+OU=Pay \\\"now\\\",O=Muller\\, Söhne & Co.,C=DE",
        "CN=billing #1+OU=Pay \\\"now\\\",O=Müller\\, Söhne & Co.,C=DE",
    ] {
        assert!(!registered("subject_dn", other).matches(&certificate), "{other}");
    }
}

#[test]
fn names_are_compared_by_structure_and_never_as_text() {
    let example = registered("subject_dn", "CN=John Doe,O=Example");
    let matches = |rdns: &[&[Pair<'_>]]| example.matches(&with_subject(rdns));
    let o: &[Pair<'_>] = &[(O, PRINTABLE, b"Example")];

    // The type of a string, its case and the white space in it make no difference: RFC 5280 section 7.1, RFC 4518.
    assert!(matches(&[o, &[(CN, UTF8, b"John Doe")]]));
    assert!(matches(&[&[(O, UTF8, b"Example")], &[(CN, PRINTABLE, b"John Doe")]]));
    assert!(matches(&[o, &[(CN, BMP, b"\0J\0o\0h\0n\0 \0D\0o\0e")]]));
    assert!(matches(&[o, &[(CN, T61, b"John Doe")]]));
    assert!(matches(&[o, &[(CN, UTF8, b" JOHN   doe ")]]));

    for (why, rdns) in [
        ("a NUL", &[o, &[(CN, UTF8, b"John Doe\0")]] as &[&[Pair<'_>]]),
        ("a NUL and more", &[o, &[(CN, UTF8, b"John Doe\0.evil.example")]]),
        ("a tab", &[o, &[(CN, UTF8, b"John\tDoe")]]),
        ("a comma in the value", &[&[(CN, UTF8, b"John Doe,O=Example")]]),
        ("a plus in the value", &[o, &[(CN, UTF8, b"John Doe+OU=x")]]),
        ("reversed", &[&[(CN, UTF8, b"John Doe")], o]),
        ("one set", &[&[(CN, UTF8, b"John Doe"), (O, PRINTABLE, b"Example")]]),
        ("one more before", &[o, o, &[(CN, UTF8, b"John Doe")]]),
        ("one more after", &[o, &[(CN, UTF8, b"John Doe")], &[(OU, UTF8, b"x")]]),
        ("one more within", &[o, &[(CN, UTF8, b"John Doe"), (OU, UTF8, b"x")]]),
        ("one less", &[&[(CN, UTF8, b"John Doe")]]),
        ("none", &[]),
        ("another type", &[o, &[(OU, UTF8, b"John Doe")]]),
        ("no text", &[o, &[(CN, 0x04, b"John Doe")]]),
        ("bytes that are no UTF-8", &[o, &[(CN, UTF8, b"John Doe\xff")]]),
        ("a homograph", &[o, &[(CN, UTF8, "Jоhn Doe".as_bytes())]]),
    ] {
        assert!(!matches(rdns), "{why}");
    }

    // In a set there is no order.
    let both = registered("subject_dn", "CN=a+OU=b,O=c");
    assert!(both.matches(&with_subject(&[&[(O, UTF8, b"c")], &[(OU, UTF8, b"B"), (CN, UTF8, b"A")]])));
    assert!(both.matches(&with_subject(&[&[(O, UTF8, b"c")], &[(CN, UTF8, b"a"), (OU, UTF8, b"b")]])));
    assert!(!both.matches(&with_subject(&[&[(O, UTF8, b"c")], &[(CN, UTF8, b"b"), (OU, UTF8, b"a")]])));
    assert!(!both.matches(&with_subject(&[&[(O, UTF8, b"c")], &[(CN, UTF8, b"a"), (CN, UTF8, b"a")]])));

    // What is no text is compared by its bytes, and domain components as text.
    let bits = registered("subject_dn", "2.5.4.45=#03020780,DC=Example");
    let unique: &[u8] = &[0x55, 4, 45];
    assert!(bits.matches(&with_subject(&[&[(DC, IA5, b"example")], &[(unique, BITS, &[7, 0x80])]])));
    assert!(!bits.matches(&with_subject(&[&[(DC, IA5, b"example")], &[(unique, BITS, &[7, 0])]])));

    // Composed and decomposed, sharp s and its capitals: RFC 3454 appendix B.2, NFKC.
    let accents = registered("subject_dn", "CN=Café Straße");
    assert!(accents.matches(&with_subject(&[&[(CN, UTF8, "CAFE\u{301} STRASSE".as_bytes())]])));
    assert!(!accents.matches(&with_subject(&[&[(CN, UTF8, b"Cafe Strasse")]])));
}

#[test]
fn an_unfit_name_never_matches_even_itself() {
    let odd = with_subject(&[&[(CN, UTF8, b"john\0.evil.example")]]);
    assert_eq!(odd.subject().to_string(), "CN=john\\00.evil.example");
    assert!(!odd.subject().matches(odd.subject()));
    let nobody = with_subject(&[]);
    assert!(!nobody.subject().matches(nobody.subject()), "a certificate without a subject is nobody's");
}

#[test]
fn a_malformed_name_is_refused_with_a_reason() {
    use DistinguishedNameError as Error;
    let parse = |text: &str| text.parse::<DistinguishedName>().unwrap_err();
    let none = |text: &str| Error::NoPair(text.to_owned());
    for (text, error) in [
        ("", Error::Length),
        ("  ", Error::Length),
        ("CN=a,", none("")),
        ("CN=a,,O=b", none("")),
        ("CN", none("CN")),
        ("/C=DE/CN=a", Error::Type("/C".to_owned())),
        ("CN=a;O=b", Error::Unescaped(';')),
        ("CN=\"a\"", Error::Unescaped('"')),
        ("CN=a<b", Error::Unescaped('<')),
        ("XX=a", Error::Type("XX".to_owned())),
        ("2.5.4.=a", Error::Type("2.5.4.".to_owned())),
        ("=a", Error::Type(String::new())),
        ("CN=", Error::Value("CN".to_owned())),
        ("CN= ", Error::Value("CN".to_owned())),
        ("CN=a\\", Error::Escape),
        ("CN=a\\g", Error::Escape),
        ("CN=a\\0", Error::Escape),
        ("CN=\\ff", Error::Escape),
        ("CN=a\\00b", Error::Value("CN".to_owned())),
        ("CN=a\nb", Error::Value("CN".to_owned())),
        ("CN=#", Error::Escape),
        ("CN=#0c", Error::Value("CN".to_owned())),
        ("CN=#0c0161ff", Error::Value("CN".to_owned())),
        ("CN=#0c01ff", Error::Value("CN".to_owned())),
        ("CN=#0c036a0064", Error::Value("CN".to_owned())),
        ("CN=#é", Error::Escape),
    ] {
        assert_eq!(parse(text), error, "{text:?}");
    }
    assert_eq!(parse(&format!("CN={}", "x".repeat(5000))), Error::Length);
    for (text, printed) in [
        ("CN=\\ a\\ ", "CN=\\ a\\ "),
        ("CN=\\#a\\,b\\+c", "CN=\\#a\\,b\\+c"),
        ("CN=a=b", "CN=a=b"),
        ("commonName=a\\=b", "CN=a=b"),
        ("dc=\\65xample", "DC=example"),
        ("1.2.3.4=x", "1.2.3.4=x"),
        ("CN=a\\\\,O=b", "CN=a\\\\,O=b"),
        ("CN=\\E2\\82\\AC", "CN=€"),
    ] {
        let name: DistinguishedName = text.parse().unwrap();
        assert_eq!(name.to_string(), printed);
        assert!(name.matches(&printed.parse().unwrap()), "{text}");
    }
    assert!(!"CN=a\\,O=b".parse::<DistinguishedName>().unwrap().matches(&"CN=a,O=b".parse().unwrap()));
}

#[test]
fn a_name_is_compared_only_with_names_of_its_kind() {
    let (email, dns, uri, ip) = (1, 2, 6, 7);
    let host = registered("san_dns", "Svc.Example");
    assert!(host.matches(&with_names(&[(dns, b"other.example"), (dns, b"SVC.example")])));
    for (why, names) in [
        ("a wildcard", &[(dns, &b"*.example"[..])]),
        ("as a URI", &[(uri, b"svc.example")]),
        ("as an address", &[(email, b"svc.example")]),
        ("in the subject only", &[(dns, b"other.example")]),
        ("a dot at its end", &[(dns, b"svc.example.")]),
        ("a NUL", &[(dns, b"svc.example\0")]),
        ("a homograph", &[(dns, "svс.example".as_bytes())]),
        ("spaces", &[(dns, b" svc.example")]),
        ("a part of it", &[(dns, b"a.svc.example")]),
    ] {
        assert!(!host.matches(&with_names(names)), "{why}");
    }
    assert!(!host.matches(&with_subject(&[&[(CN, UTF8, b"svc.example")]])), "no names, and no look at the subject");

    let spiffe = registered("san_uri", "spiffe://example.org/billing");
    assert!(spiffe.matches(&with_names(&[(uri, b"spiffe://example.org/billing")])));
    for other in
        [&b"spiffe://Example.org/billing"[..], b"spiffe://example.org/billing/", b"spiffe://example.org/%62illing"]
    {
        assert!(!spiffe.matches(&with_names(&[(uri, other)])), "{other:?}");
    }

    let four = registered("san_ip", "192.0.2.7");
    assert!(four.matches(&with_names(&[(ip, &[192, 0, 2, 7])])));
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7];
    assert!(!four.matches(&with_names(&[(ip, &mapped)])));
    assert!(!four.matches(&with_names(&[(ip, &[192, 0, 2, 7, 255, 255, 255, 255])])), "a network");
    assert!(!four.matches(&with_names(&[(dns, b"192.0.2.7"), (uri, b"192.0.2.7")])));
    assert!(registered("san_ip", "::ffff:192.0.2.7").matches(&with_names(&[(ip, &mapped)])));
    assert!(registered("san_ip", "2001:DB8:0::7").matches(&openssl()));

    let mailbox = registered("san_email", "Ops@Example.com");
    assert!(mailbox.matches(&openssl()) && mailbox.matches(&with_names(&[(email, b"Ops@EXAMPLE.COM")])));
    for other in [&b"ops@example.com"[..], b"Ops@example.com.", b"a@b@Ops@example.com", b"example.com", b"Ops@*.com"] {
        assert!(!mailbox.matches(&with_names(&[(email, other)])), "{other:?}");
    }
    assert!(!mailbox.matches(&with_names(&[(uri, b"Ops@example.com"), (dns, b"Ops@example.com")])));
}

#[test]
fn a_text_that_cannot_be_a_name_is_not_registered() {
    use RegisteredCertificateError as Error;
    for (kind, value, error) in [
        ("san_dns", "*.example", Error::SanDns),
        ("san_dns", "svc.example.", Error::SanDns),
        ("san_dns", "", Error::SanDns),
        ("san_dns", "svc..example", Error::SanDns),
        ("san_dns", "bücher.example", Error::SanDns),
        ("san_dns", "192.0.2.7", Error::SanDns),
        ("san_dns", "-a.example", Error::SanDns),
        ("san_uri", "svc", Error::SanUri),
        ("san_uri", "spiffe://exa mple/a", Error::SanUri),
        ("san_ip", "192.0.2", Error::SanIp),
        ("san_ip", "192.0.2.0/24", Error::SanIp),
        ("san_email", "example.com", Error::SanEmail),
        ("san_email", "@example.com", Error::SanEmail),
        ("san_email", "a b@example.com", Error::SanEmail),
        ("self_signed", "AAAA", Error::SelfSigned),
        ("subject_alt", "x", Error::Kind),
        ("subject_dn", "", Error::SubjectDn(DistinguishedNameError::Length)),
    ] {
        assert_eq!(RegisteredCertificate::parse(kind, value).unwrap_err(), error, "{kind} {value}");
    }
}

#[test]
fn self_signed_means_exactly_the_registered_certificate() {
    let certificate = openssl();
    let pinned = RegisteredCertificate::self_signed(&certificate);
    assert_eq!(pinned.to_string(), certificate.x5t_s256());
    let peer = |certificate: &Certificate, ca_verified| PeerCertificate {
        intermediates: Arc::default(),
        certificate: Arc::new(certificate.clone()),
        ca_verified: verdict(ca_verified),
    };
    let now = UnixTime(not_before(&certificate));
    assert_eq!(peer(&certificate, false).proves(&registered("self_signed", &pinned.to_string()), now), Ok(()));
    assert_eq!(peer(&certificate, true).proves(&pinned, now), Ok(()));
    let (before, after) = (UnixTime(now.0 - 1), UnixTime(certificate.not_after() + 1));
    assert_eq!(peer(&certificate, false).proves(&pinned, before), Err(CertificateMismatch::Expired));
    assert_eq!(peer(&certificate, false).proves(&pinned, after), Err(CertificateMismatch::Expired));

    // A file holds it in PEM or DER, and no chain.
    let made = rcgen::generate_simple_self_signed(["svc.example".to_owned()]).unwrap();
    let (pem, der) = (made.cert.pem(), made.cert.der());
    let hash = Certificate::parse(der).unwrap().x5t_s256();
    assert_eq!(Certificate::read(der).unwrap().x5t_s256(), hash);
    assert_eq!(Certificate::read(pem.as_bytes()).unwrap().x5t_s256(), hash);
    let with_key = made.signing_key.serialize_pem() + &pem;
    assert_eq!(Certificate::read(with_key.as_bytes()).unwrap().x5t_s256(), hash);
    for none in [pem.repeat(2), String::new(), "-----BEGIN CERTIFICATE-----".to_owned()] {
        assert_eq!(Certificate::read(none.as_bytes()).unwrap_err(), CertificateError::NotOne);
    }
    let key = made.signing_key.serialize_pem();
    assert_eq!(Certificate::read(key.as_bytes()).unwrap_err(), CertificateError::IsKey);

    // The same subject, serial number and key.
    let again = |extensions: &[Vec<u8>]| Certificate::parse(&certificate_of(b"svc", extensions)).unwrap();
    let (one, other) = (again(&[]), again(&[san(&[(2, b"svc.example")])]));
    assert_eq!((one.subject().to_string(), one.spki()), (other.subject().to_string(), other.spki()));
    assert_eq!(
        peer(&other, true).proves(&RegisteredCertificate::self_signed(&one), now),
        Err(CertificateMismatch::Other)
    );
}

fn certificate_of(cn: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
    certificate(&name(&[&[(CN, UTF8, cn)]]), &p256(), extensions)
}

#[test]
fn a_name_needs_a_ca_and_a_certificate_for_clients() {
    let now = UnixTime(1_750_000_000);
    let subject = registered("subject_dn", "CN=svc");
    let proves = |extensions: &[Vec<u8>], ca_verified| {
        let certificate = Arc::new(Certificate::parse(&certificate_of(b"svc", extensions)).unwrap());
        PeerCertificate { intermediates: Arc::default(), certificate, ca_verified: verdict(ca_verified) }
            .proves(&subject, now)
    };
    let purposes = |last: u8| extension(37, &der(0x30, &[&der(6, &[&[0x2b, 6, 1, 5, 5, 7, 3, last]])]));
    assert_eq!(proves(&[], true), Ok(()));
    assert_eq!(proves(&[], false), Err(CertificateMismatch::Untrusted("no CA".into())));
    assert_eq!(proves(&[purposes(2)], true), Ok(()), "clientAuth");
    assert_eq!(proves(&[purposes(1)], true), Err(CertificateMismatch::Purpose), "serverAuth only");
    let any = extension(37, &der(0x30, &[&der(6, &[&[0x55, 0x1d, 37, 0]])]));
    assert_eq!(proves(&[any], true), Err(CertificateMismatch::Purpose), "anyExtendedKeyUsage");
    assert_eq!(proves(&[extension(15, &[3, 2, 7, 0x80])], true), Ok(()), "digitalSignature");
    assert_eq!(proves(&[extension(15, &[3, 2, 5, 0x20])], true), Err(CertificateMismatch::Purpose), "keyEncipherment");
    let ca = extension(19, &[0x30, 3, 1, 1, 0xff]);
    assert_eq!(proves(std::slice::from_ref(&ca), true), Err(CertificateMismatch::Purpose), "a CA's");
    assert!(is_ca(&certificate_of(b"svc", &[ca])) && !is_ca(&certificate_of(b"svc", &[])) && !is_ca(b""));
}

#[test]
fn certificate_keys_have_bounds() {
    let subject = name(&[&[(CN, UTF8, b"svc")]]);
    let key = |spki: &[u8]| Certificate::parse(&certificate(&subject, spki, &[])).map(drop);
    let f4 = [1, 0, 1];
    for taken in [p256(), rsa(&[0xc1; 256], &f4), rsa(&[0xc1; 512], &f4)] {
        assert_eq!(key(&taken), Ok(()));
    }
    let ed25519 = der(0x30, &[&der(0x30, &[&der(6, &[&[0x2b, 0x65, 0x70]])]), &der(BITS, &[&[0], &[9; 32]])]);
    assert_eq!(key(&ed25519), Ok(()));
    for (why, spki) in [
        ("1024 bits", rsa(&[0xc1; 128], &f4)),
        ("16384 bits", rsa(&[0xc1; 2048], &f4)),
        ("e = 1", rsa(&[0xc1; 256], &[1])),
        ("e = 3", rsa(&[0xc1; 256], &[3])),
        ("e = n - 2", rsa(&[0xc1; 256], &[&[0][..], &[0xc1; 256]].concat())),
        ("no numbers", der(0x30, &[&der(0x30, &[&der(6, &[&[0x2b, 0x65, 0x70]])]), &der(BITS, &[&[0], &[9; 31]])])),
    ] {
        assert_eq!(key(&spki), Err(CertificateError::Key), "{why}");
    }
}

#[test]
fn malformed_certificates_are_refused_quickly() {
    let good = BASE64_STANDARD.decode(OPENSSL).unwrap();
    let started = Instant::now();
    for end in 0..good.len() {
        assert_eq!(Certificate::parse(&good[..end]).unwrap_err(), CertificateError::Malformed, "{end}");
    }
    for at in 0..good.len() {
        for bit in [0x01, 0x80] {
            let mut bent = good.clone();
            bent[at] ^= bit;
            if let Ok(certificate) = Certificate::parse(&bent) {
                assert_ne!(certificate.x5t_s256(), openssl().x5t_s256());
            }
        }
    }
    assert_eq!(Certificate::parse(&[&good[..], &[0]].concat()).unwrap_err(), CertificateError::Malformed);
    assert_eq!(Certificate::parse(&vec![0x30; 16385]).unwrap_err(), CertificateError::TooLarge);
    let twice = certificate_of(b"svc", &[san(&[(2, b"a.example")]), san(&[(2, b"b.example")])]);
    assert_eq!(Certificate::parse(&twice).unwrap_err(), CertificateError::Malformed, "an extension twice");
    let broken = certificate_of(b"svc", &[extension(17, &[0x30, 5, 0x82])]);
    assert_eq!(Certificate::parse(&broken).unwrap_err(), CertificateError::Malformed, "names that do not end");
    for odd in [&[0x55, 0x80, 4, 3][..], &[0x55, 4, 0x80, 0x80, 3]] {
        let odd = certificate(&name(&[&[(odd, UTF8, b"svc")]]), &p256(), &[]);
        assert_eq!(Certificate::parse(&odd).unwrap_err(), CertificateError::Malformed, "a type in another spelling");
    }
    // Names of kinds that we do not use, x400Address among them, stand in nobody's way.
    let rich = certificate_of(b"svc", &[san(&[(2, b"svc.example"), (8, &[0x2a, 3])])]);
    assert!(registered("san_dns", "svc.example").matches(&Certificate::parse(&rich).unwrap()));
    let names = extension(17, &der(0x30, &[&der(0xa3, &[&[0x30, 0]]), &der(0x82, &[b"svc.example"])]));
    let x400 = Certificate::parse(&certificate_of(b"svc", &[names])).unwrap();
    assert!(registered("san_dns", "svc.example").matches(&x400));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn client_cert_is_one_strict_byte_sequence() {
    let read = |lines: &[&str]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("client-cert", line.parse().unwrap());
        }
        client_cert(&headers).map(|certificate| certificate.map(|certificate| certificate.x5t_s256()))
    };
    let right = format!(":{RFC_8705_CERTIFICATE}:");
    assert_eq!(read(&[]), Ok(None));
    assert_eq!(read(&[&right]).unwrap().unwrap(), "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0");
    assert_eq!(read(&[&format!(" {right} ")]).unwrap().unwrap(), "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0");
    // RFC 8941 section 4.2.7: padding may be absent.
    let unpadded = BASE64_STANDARD_NO_PAD.encode(BASE64_STANDARD.decode(RFC_8705_CERTIFICATE).unwrap());
    assert_eq!(read(&[&format!(":{unpadded}:")]).unwrap().unwrap(), "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0");
    assert_eq!(read(&[&right, &right]), Err(ClientCertError::Repeated));
    assert_eq!(read(&["", &right]), Err(ClientCertError::Repeated));
    for malformed in [
        String::new(),
        ":".to_owned(),
        RFC_8705_CERTIFICATE.to_owned(),
        format!(":{RFC_8705_CERTIFICATE}"),
        format!("\"{RFC_8705_CERTIFICATE}\""),
        format!("{right},{right}"),
        format!("{right};a=1"),
        format!(":{}:", RFC_8705_CERTIFICATE.replace('+', "-")),
        format!(":{RFC_8705_CERTIFICATE} :"),
        format!("-----BEGIN CERTIFICATE----- {RFC_8705_CERTIFICATE} -----END CERTIFICATE-----"),
    ] {
        assert_eq!(read(&[&malformed]), Err(ClientCertError::Malformed), "{malformed}");
    }
    let none = ClientCertError::Certificate(CertificateError::Malformed);
    assert_eq!(read(&["::"]), Err(none));
    let large = format!(":{}:", "A".repeat(40000));
    assert_eq!(read(&[&large]), Err(ClientCertError::Certificate(CertificateError::TooLarge)));
    // Other spellings are other fields, and nobody reads those.
    let mut headers = HeaderMap::new();
    for other in ["x-forwarded-client-cert", "ssl-client-cert", "x-ssl-client-cert", "client_cert", "client-cert-chain"]
    {
        headers.append(other, right.parse().unwrap());
    }
    assert!(client_cert(&headers).unwrap().is_none());
}

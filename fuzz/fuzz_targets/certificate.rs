//! Fuzz target of certificates: a parsed certificate is within bounds, and matches its own names and no others.

#![no_main]

use grantd::crypto::certificate::{AlternativeName, Certificate, is_ca};
use grantd::model::certificate::RegisteredCertificate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|der: &[u8]| {
    let Ok(certificate) = Certificate::parse(der) else { return };
    assert_eq!(certificate.der(), der);
    assert!(der.len() <= Certificate::MAX_DER);
    assert_eq!(certificate.x5t_s256().len(), 43);
    assert_eq!(certificate.is_ca(), is_ca(der));
    assert!(der.windows(certificate.spki().len()).any(|part| part == certificate.spki()), "the key stands in it");

    assert!(RegisteredCertificate::self_signed(&certificate).matches(&certificate));
    for name in certificate.alternative_names() {
        let (kind, value) = match name {
            AlternativeName::Dns(host) => ("san_dns", host.to_string()),
            AlternativeName::Uri(uri) => ("san_uri", uri.to_string()),
            AlternativeName::Ip(address) => ("san_ip", address.to_string()),
            AlternativeName::Email(mailbox) => ("san_email", mailbox.to_string()),
        };
        assert!(value.bytes().all(|byte| byte.is_ascii_graphic()), "{value:?}");
        // Not every name can be registered. A registered one matches.
        if let Ok(registered) = RegisteredCertificate::parse(kind, &value) {
            assert!(registered.matches(&certificate), "{kind} {value}");
        }
    }

    // A subject that can be compared prints in a form that can be registered.
    let (subject, printed) = (certificate.subject(), certificate.subject().to_string());
    assert!(!printed.contains(char::is_control), "{printed:?}");
    if let Ok(registered) = RegisteredCertificate::parse("subject_dn", &printed) {
        assert_eq!(registered.matches(&certificate), subject.matches(subject), "{printed}");
    }
});

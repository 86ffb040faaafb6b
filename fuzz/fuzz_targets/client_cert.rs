//! Fuzz target of the Client-Cert header field: one line, one byte sequence, one certificate.
//!
//! The input is the field's lines.

#![no_main]

use grantd::http::client_cert::client_cert;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in input.split(|&byte| byte == b'\n') {
        let Ok(value) = HeaderValue::from_bytes(line) else { return };
        headers.append("client-cert", value);
    }
    let Ok(certificate) = client_cert(&headers) else { return };
    let certificate = certificate.expect("there is a line");
    assert_eq!(headers.len(), 1);

    let line = headers["client-cert"].as_bytes().trim_ascii();
    assert!(line.starts_with(b":") && line.ends_with(b":") && line.len() % 4 == 2);
    assert_eq!((line.len() - 2) / 4, certificate.der().len().div_ceil(3), "nothing but the certificate is in it");

    headers.append("client-cert", HeaderValue::from_bytes(line).unwrap());
    assert!(client_cert(&headers).is_err(), "two are none");
});

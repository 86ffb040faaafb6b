//! Fuzz target of credentials: HTTP Basic with any form, in both readings.
//!
//! The input is the Authorization field on the first line and the form after it.

#![no_main]

use std::sync::Arc;

use grantd::http::credentials::{BasicReading, Known, credential};
use grantd::http::form::Form;
use grantd::model::client::AuthMethod;
use grantd::crypto::secret::ClientSecret;
use grantd::protocol::client_auth::Credential;
use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(2, |&byte| byte == b'\n');
    let authorization = lines.next().unwrap_or_default();
    let Ok(form) = Form::parse(lines.next().unwrap_or_default()) else { return };

    // A credential in the form has one reading: the form was decoded already.
    for reading in [BasicReading::Tolerant, BasicReading::Strict] {
        if let Some(presented) = read(&HeaderMap::new(), &form, reading) {
            assert_eq!(presented.method, AuthMethod::ClientSecretPost);
            assert_eq!(presented.readings.len(), 1);
        }
    }

    let Ok(value) = HeaderValue::from_bytes(authorization) else { return };
    let mut headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.clone())]);
    let tolerant = read(&headers, &form, BasicReading::Tolerant);
    let strict = read(&headers, &form, BasicReading::Strict);
    for presented in tolerant.iter().chain(&strict) {
        assert_eq!(presented.method, AuthMethod::ClientSecretBasic);
        assert!(form.one("client_id").is_ok_and(|id| id.is_none_or(|id| id == presented.client_id)));
        assert_eq!(form.one("client_secret"), Ok(None), "two secrets in one request");
    }
    // The first reading of the tolerant mode is that of the strict mode.
    if let Some(strict) = strict {
        let tolerant = tolerant.expect("tolerant is no stricter than strict");
        assert_eq!(strict.readings.len(), 1);
        assert_eq!(strict.client_id, tolerant.client_id);
        assert_eq!(strict.readings[0].expose(), tolerant.readings[0].expose());
    }

    headers.append(header::AUTHORIZATION, value);
    assert!(read(&headers, &form, BasicReading::Tolerant).is_none(), "two credentials in one request");
});

/// A credential that is a secret.
struct Secrets {
    client_id: String,
    method: AuthMethod,
    readings: Vec<Arc<ClientSecret>>,
}

/// Reads the credential, and checks the invariants of every credential.
fn read(headers: &HeaderMap, form: &Form, reading: BasicReading) -> Option<Secrets> {
    let known = Known { client: &|_| true, token: &|_, _| None };
    let credential = credential(headers, form, reading, None, &known).ok()?;
    // Assertions have a target of their own.
    let Credential::Secret { client_id, method, readings } = credential else { return None };
    let presented = Secrets { client_id, method, readings };
    assert!(!presented.client_id.is_empty() && !presented.client_id.contains('\0'));
    assert!((1..=2).contains(&presented.readings.len()));
    let secrets: Vec<&str> = presented.readings.iter().map(|secret| secret.expose()).collect();
    assert!(secrets.iter().all(|secret| !secret.is_empty() && !secret.contains('\0')));
    assert!(secrets.len() == 1 || secrets[0] != secrets[1], "the same work twice");
    Some(presented)
}

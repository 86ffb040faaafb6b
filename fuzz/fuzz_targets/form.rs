//! Fuzz target of request bodies: a form has one reading only, and survives being encoded again.

#![no_main]

use grantd::http::form::{Form, Repeated};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Ok(form) = Form::parse(body) else { return };
    // A lenient reader repairs forms that grantd refuses; forms that grantd accepts are read alike by both.
    let pairs: Vec<(String, String)> = form_urlencoded::parse(body).into_owned().collect();
    assert!(pairs.iter().all(|(name, value)| !name.contains('\0') && !value.contains('\0')));
    holds(&form, &pairs);

    let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let encoded: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    let encoded = encoded.join("&");
    let again = Form::parse(encoded.as_bytes()).expect("what we encode, we read");
    holds(&again, &pairs);
});

/// Checks that a form has these pairs and no others.
fn holds(form: &Form, pairs: &[(String, String)]) {
    for (name, _) in pairs {
        let values: Vec<&str> = pairs.iter().filter(|(other, _)| other == name).map(|(_, value)| &**value).collect();
        let one = match values.as_slice() {
            [value] => Ok(Some(*value).filter(|value| !value.is_empty())),
            _ => Err(Repeated),
        };
        assert!(form.has(name));
        assert_eq!(form.one(name), one);
        assert!(form.all(name).eq(values.into_iter().filter(|value| !value.is_empty())));
    }
    let longest = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let absent = "x".repeat(longest + 1);
    assert!(!form.has(&absent) && form.one(&absent) == Ok(None) && form.all(&absent).next().is_none());
}

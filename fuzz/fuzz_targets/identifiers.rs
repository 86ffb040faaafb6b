//! Fuzz target of issuers, resources and client ids: kept unchanged, and safe where they are used.

#![no_main]

use grantd::http::form;
use grantd::model::client_id::ClientId;
use grantd::model::resource::ResourceId;
use grantd::model::issuer::Issuer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(issuer) = text.parse::<Issuer>() {
        kept(text, issuer.as_str(), &issuer.to_string());
        assert!(text.is_ascii() && !text.contains(['?', '#', ' ']));
        assert!(text.split('/').nth(2).is_some_and(|authority| !authority.is_empty() && !authority.contains('@')));
        assert_eq!(issuer.is_https(), text.starts_with("https://"));
        // The issuer's path becomes routes.
        let path = issuer.path();
        assert!(path.is_empty() || (path.starts_with('/') && !path.ends_with('/')));
        assert!(!path.contains(['{', '}', '*', ':', '%']));
        assert_eq!(issuer.well_known("x"), format!("/.well-known/x{path}"));
        let endpoint: Issuer = issuer.endpoint("/token").parse().expect("an endpoint is a URL as the issuer is");
        assert_eq!(endpoint.path(), format!("{path}/token"));
        assert!(endpoint.as_str().starts_with(text.trim_end_matches('/')));
    }
    if let Ok(resource) = text.parse::<ResourceId>() {
        kept(text, resource.as_str(), &resource.to_string());
        assert!(text.is_ascii() && text.contains(':') && text.len() <= 2048);
        assert!(!text.contains(|c: char| matches!(c, '#' | '"' | '\\') || c.is_whitespace() || c.is_control()));
    }
    if let Ok(client_id) = text.parse::<ClientId>() {
        kept(text, client_id.as_str(), &client_id.to_string());
        assert!((1..=128).contains(&text.len()));
        assert_eq!(form::decode(text.as_bytes()).as_deref(), Some(text), "the same bytes raw and form-encoded");
    }
});

fn kept(text: &str, as_str: &str, printed: &str) {
    assert_eq!((as_str, printed), (text, text));
}

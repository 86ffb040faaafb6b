//! The limit where a token is checked for a gateway: a form is read and a signature is verified.

use std::sync::Arc;

use anyhow::Context as _;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd_kit::grantd::ISSUER;
use serde::Deserialize;

use crate::single_use::{Jws, read};
use crate::token::{NO_STORE, decoded, now};

/// `GET /verify` for tokens that the key with this point, in base64url, has signed.
pub fn router(point: &str) -> anyhow::Result<Router> {
    let point = BASE64_URL_SAFE_NO_PAD.decode(point).context("--verify")?;
    let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).context("--verify")?;
    let verify = async |State(key): State<Arc<ParsedPublicKey>>, uri: Uri, headers: HeaderMap| -> Response {
        verify(&key, &uri, &headers).unwrap_or_else(|| StatusCode::UNAUTHORIZED.into_response())
    };
    Ok(Router::new().route("/verify", get(verify)).with_state(Arc::new(key)))
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    client_id: String,
    aud: String,
    scope: String,
    exp: u64,
}

fn verify(key: &ParsedPublicKey, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
    let (mut resource, mut scope) = (None, None);
    for pair in uri.query()?.split('&') {
        let (name, value) = pair.split_once('=')?;
        match &*decoded(name)? {
            "resource" => resource = Some(decoded(value)?),
            "scope" => scope = Some(decoded(value)?),
            _ => {}
        }
    }
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let jws = Jws::parse(token)?;
    jws.verify(key)?;
    let claims: Claims = read(jws.claims)?;
    let granted = |wanted: &str| claims.scope.split(' ').any(|granted| granted == wanted);
    let passes =
        claims.iss == ISSUER && claims.aud == resource? && claims.exp > now()? && scope?.split(' ').all(granted);
    let mut response = (StatusCode::NO_CONTENT, NO_STORE).into_response();
    for (name, value) in [(CLIENT_ID, &claims.client_id), (SUBJECT, &claims.sub), (SCOPE, &claims.scope)] {
        response.headers_mut().insert(name, HeaderValue::from_str(value).ok()?);
    }
    passes.then_some(response)
}

const CLIENT_ID: HeaderName = HeaderName::from_static("x-auth-client-id");
const SUBJECT: HeaderName = HeaderName::from_static("x-auth-subject");
const SCOPE: HeaderName = HeaderName::from_static("x-auth-scope");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Signer, mint};

    #[test]
    fn the_verify_limit_server_checks_tokens() {
        let (ours, other) = (Signer::generate("ES256").unwrap(), Signer::generate("ES256").unwrap());
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, ours.public()).unwrap();
        let status = |signer: &Signer, query: &str| {
            let answer: serde_json::Value = serde_json::from_slice(&mint(signer, "app", None, None).unwrap()).unwrap();
            let mut headers = HeaderMap::new();
            let bearer = format!("Bearer {}", answer["access_token"].as_str().unwrap());
            headers.insert(header::AUTHORIZATION, bearer.parse().unwrap());
            let uri = format!("/verify?{query}").parse().unwrap();
            verify(&key, &uri, &headers).map(|response| response.headers()[&CLIENT_ID].clone())
        };
        let right = "resource=https%3A%2F%2Fauth.example.com&scope=api:read";
        assert_eq!(status(&ours, right).unwrap(), "app");
        assert!(status(&other, right).is_none());
        for wrong in ["resource=https://other.test&scope=api:read", "resource=https%3A%2F%2Fauth.example.com&scope=x"] {
            assert!(status(&ours, wrong).is_none(), "{wrong}");
        }
        assert!(router("x").is_err());
    }
}

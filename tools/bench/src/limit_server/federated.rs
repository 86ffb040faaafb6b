//! The limit for tokens of a trusted issuer: the RS256 signature is verified, and the token is signed.

use std::sync::Arc;

use anyhow::Context as _;
use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd_kit::grantd::ISSUER;
use serde::Deserialize;

use crate::single_use::{Jws, read};
use crate::token::{Form, Signer, answer, mint, now};

/// A token endpoint for tokens of one issuer.
struct Federated {
    signer: Signer,
    /// The key of the issuer, parsed once.
    key: ParsedPublicKey,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    aud: [String; 1],
    exp: u64,
}

/// `POST /token` for tokens of the issuer with this RSA key, a structure of PKCS #1 in base64url.
pub fn router(signer: Signer, key: &str) -> anyhow::Result<Router> {
    let key = BASE64_URL_SAFE_NO_PAD.decode(key).context("the key of the issuer")?;
    let key = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).ok().context("the key of the issuer")?;
    let token =
        async |State(endpoint): State<Arc<Federated>>, body: Bytes| -> Response { answer(endpoint.issue(&body)) };
    Ok(Router::new().route("/token", post(token)).with_state(Arc::new(Federated { signer, key })))
}

impl Federated {
    fn issue(&self, body: &[u8]) -> Option<Vec<u8>> {
        let form = Form::parse(body)?;
        let jws = Jws::parse(form.client_assertion.as_deref()?)?;
        jws.verify(&self.key)?;
        let claims: Claims = read(jws.claims)?;
        // The name of the service account is the client.
        let (_, client_id) = claims.sub.rsplit_once(':')?;
        if claims.aud != [ISSUER] || claims.exp <= now()? {
            return None;
        }
        mint(&self.signer, client_id, form.scope.as_deref(), None)
    }
}

#[cfg(test)]
mod tests {
    use grantd_kit::client_key::assertion_form;
    use grantd_kit::issuer::{RsaKey, service_account};

    use super::*;

    #[test]
    fn the_federated_limit_server_checks_signatures() {
        let (ours, other) = (RsaKey::generate().unwrap(), RsaKey::generate().unwrap());
        let key = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, ours.pkcs1()).unwrap();
        let endpoint = Federated { signer: Signer::generate("ES256").unwrap(), key };
        for (key, aud, right) in [(&ours, ISSUER, true), (&ours, "https://a.test", false), (&other, ISSUER, false)] {
            let token = key.sign(&service_account("https://k.test", "app", aud).unwrap()).unwrap();
            assert_eq!(endpoint.issue(assertion_form(&token).as_bytes()).is_some(), right);
        }
        assert!(router(Signer::generate("ES256").unwrap(), "x").is_err());
    }
}

//! The key of a client, and what the client signs with it: assertions (RFC 7523) and DPoP proofs (RFC 9449).

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::http::post_form;

/// A P-256 key pair.
pub struct ClientKey(EcdsaKeyPair);

impl ClientKey {
    /// Generates a key pair.
    pub fn generate() -> io::Result<Self> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Self).map_err(io::Error::other)
    }

    /// The public key as the uncompressed point.
    #[must_use]
    pub fn point(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// The public key as a JWK.
    #[must_use]
    pub fn jwk(&self) -> String {
        let half = |from: usize| BASE64_URL_SAFE_NO_PAD.encode(self.point().get(from..from + 32).unwrap_or_default());
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{}","y":"{}"}}"#, half(1), half(33))
    }

    /// Signs a client assertion with a fresh `jti`.
    pub fn assertion(&self, client_id: &str, issuer: &str) -> io::Result<String> {
        let (now, jti) = (now()?, jti()?);
        let claims = format!(
            r#"{{"iss":"{client_id}","sub":"{client_id}","aud":"{issuer}","iat":{now},"exp":{},"jti":"{jti}"}}"#,
            now + LIFETIME
        );
        self.sign(r#"{"typ":"client-authentication+jwt","alg":"ES256"}"#, &claims)
    }

    /// Signs a DPoP proof for a `POST` to `htu`, with a fresh `jti`.
    pub fn proof(&self, htu: &str) -> io::Result<String> {
        let (now, jti) = (now()?, jti()?);
        let header = format!(r#"{{"typ":"dpop+jwt","alg":"ES256","jwk":{}}}"#, self.jwk());
        self.sign(&header, &format!(r#"{{"htm":"POST","htu":"{htu}","iat":{now},"jti":"{jti}"}}"#))
    }

    /// Signs a JWT with this header and these claims.
    pub fn sign(&self, header: &str, claims: &str) -> io::Result<String> {
        jws(header, claims, |signed| {
            self.0.sign(&SystemRandom::new(), signed).map(|made| made.as_ref().to_vec()).map_err(io::Error::other)
        })
    }
}

/// A JWS in compact form, whose signature `sign` makes.
pub(crate) fn jws(header: &str, claims: &str, sign: impl FnOnce(&[u8]) -> io::Result<Vec<u8>>) -> io::Result<String> {
    let mut jws = BASE64_URL_SAFE_NO_PAD.encode(header);
    jws.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut jws);
    let signature = sign(jws.as_bytes())?;
    jws.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut jws);
    Ok(jws)
}

/// A token request that authenticates with an assertion.
#[must_use]
pub fn assertion_request(assertion: &str) -> Vec<u8> {
    post_form("/token", &[], &assertion_form(assertion))
}

/// The form of a token request that authenticates with an assertion (RFC 7521 §4.2).
#[must_use]
pub fn assertion_form(assertion: &str) -> String {
    format!(
        "grant_type=client_credentials&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3A\
         client-assertion-type%3Ajwt-bearer&client_assertion={assertion}"
    )
}

#[expect(clippy::disallowed_methods, reason = "the server compares iat and exp with the real clock")]
pub(crate) fn now() -> io::Result<u64> {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).map_err(io::Error::other)
}

pub(crate) fn jti() -> io::Result<String> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(io::Error::other)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(id))
}

/// Seconds until `exp`: less than the 300 that grantd accepts, for clocks that differ.
const LIFETIME: u64 = 240;

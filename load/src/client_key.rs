//! A key of a client, and what it signs: assertions (RFC 7523) and DPoP proofs (RFC 9449), each good for one use.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// A P-256 key pair.
pub struct ClientKey(EcdsaKeyPair);

impl ClientKey {
    /// A fresh one.
    ///
    /// # Errors
    /// When the library fails.
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

    /// A client assertion, with an id of its own.
    ///
    /// # Errors
    /// When the library fails.
    pub fn assertion(&self, client_id: &str, issuer: &str) -> io::Result<String> {
        let (now, jti) = (now()?, jti()?);
        let claims = format!(
            r#"{{"iss":"{client_id}","sub":"{client_id}","aud":"{issuer}","iat":{now},"exp":{},"jti":"{jti}"}}"#,
            now + LIFETIME
        );
        self.sign(r#"{"typ":"client-authentication+jwt","alg":"ES256"}"#, &claims)
    }

    /// A DPoP proof for a POST, with an id of its own.
    ///
    /// # Errors
    /// When the library fails.
    pub fn proof(&self, htu: &str) -> io::Result<String> {
        let (now, jti) = (now()?, jti()?);
        let header = format!(r#"{{"typ":"dpop+jwt","alg":"ES256","jwk":{}}}"#, self.jwk());
        self.sign(&header, &format!(r#"{{"htm":"POST","htu":"{htu}","iat":{now},"jti":"{jti}"}}"#))
    }

    fn sign(&self, header: &str, claims: &str) -> io::Result<String> {
        let mut jws = BASE64_URL_SAFE_NO_PAD.encode(header);
        jws.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut jws);
        let signature = self.0.sign(&SystemRandom::new(), jws.as_bytes()).map_err(io::Error::other)?;
        jws.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut jws);
        Ok(jws)
    }
}

/// A form that authenticates with an assertion.
#[must_use]
pub fn assertion_form(assertion: &str) -> String {
    format!(
        "grant_type=client_credentials&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3A\
         client-assertion-type%3Ajwt-bearer&client_assertion={assertion}"
    )
}

#[expect(clippy::disallowed_methods, reason = "what we send has to be fresh by the server's real clock")]
fn now() -> io::Result<u64> {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).map_err(io::Error::other)
}

fn jti() -> io::Result<String> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(io::Error::other)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(id))
}

/// Less than the 300 s that grantd takes, for clocks that differ.
const LIFETIME: u64 = 240;

//! Client authentication: a secret (RFC 6749 section 2.3.1), a private key (RFC 7523 section 2.2), a JWT of its
//! platform, or a certificate (RFC 8705 section 2).

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

/// The client's credential.
#[derive(Debug)]
pub enum ClientAuth {
    Secret(SecretString),
    Key(ClientKey),
    /// A file with a JWT of the platform, which the platform replaces: a CI job, a Kubernetes pod or a SPIFFE agent.
    AssertionFile(PathBuf),
    /// The certificate of the connection, and nothing in the request but the client id.
    Certificate,
}

impl ClientAuth {
    /// The value of `Authorization`. RFC 6749 section 2.3.1: both are form-encoded first, and then come base64 and the colon.
    pub fn basic(client_id: &str, secret: &SecretString) -> String {
        let pair = format!("{}:{}", form_encode(client_id), form_encode(secret.expose_secret()));
        format!("Basic {}", BASE64_STANDARD.encode(pair))
    }
}

/// Reads the JWT that the platform keeps in a file, and the `client_assertion_type` for it. Read anew for each token: most
/// such JWTs live for minutes, and many work once.
pub fn platform_assertion(file: &Path) -> Result<(String, &'static str), String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let jwt = text.trim().to_owned();
    let payload = jwt.split('.').nth(1).unwrap_or_default();
    // Both faults are one: the file holds something else.
    let claims = BASE64_URL_SAFE_NO_PAD.decode(payload).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let Some(Subject { sub }) = claims else { return Err(format!("{}: it holds no JWT", file.display())) };
    // A JWT-SVID is known by its subject, a SPIFFE ID.
    Ok((jwt, if sub.starts_with("spiffe://") { JWT_SPIFFE } else { JWT_BEARER }))
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    sub: String,
}

/// RFC 7523 section 2.2.
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// draft-ietf-oauth-spiffe-client-auth.
const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/// A private key whose public half is registered for the client.
pub struct ClientKey {
    key: EncodingKey,
    alg: Algorithm,
    kid: String,
}

#[derive(Serialize)]
struct Assertion<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: String,
    iat: i64,
    exp: i64,
}

impl ClientKey {
    /// Reads a P-256 or Ed25519 key in PEM (PKCS#8). It is called by its RFC 7638 thumbprint, unless it was registered with
    /// another `kid`.
    pub fn from_pem(pem: &[u8], kid: Option<String>) -> Result<Self, &'static str> {
        let ec = EncodingKey::from_ec_pem(pem).map(|key| (key, Algorithm::ES256));
        let ed = EncodingKey::from_ed_pem(pem).map(|key| (key, Algorithm::EdDSA));
        let none = "not a P-256 or Ed25519 private key in PEM (PKCS#8)";
        let (key, alg) = ec.or(ed).map_err(|_| none)?;
        let jwk = Jwk::from_encoding_key(&key, alg).map_err(|_| none)?;
        let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| "the key has no thumbprint")?;
        Ok(Self { key, alg, kid: kid.unwrap_or(thumbprint) })
    }

    /// RFC 7523 section 3. `aud` is the issuer alone: an assertion made for one server must not be good for another.
    pub fn assertion(&self, client_id: &str, issuer: &str, now: i64) -> Result<String, String> {
        let claims =
            Assertion { iss: client_id, sub: client_id, aud: issuer, jti: random_id()?, iat: now, exp: now + 60 };
        let typ = Some("client-authentication+jwt".to_owned());
        let header = Header { typ, kid: Some(self.kid.clone()), ..Header::new(self.alg) };
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKey({})", self.kid)
    }
}

/// 128 random bits.
pub fn random_id() -> Result<String, String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "no randomness")?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// `application/x-www-form-urlencoded` (RFC 6749 appendix B).
pub fn form_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => encoded.push(byte.into()),
            b' ' => encoded.push('+'),
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_encoding_matches_the_examples_of_rfc_6749() {
        let basic = ClientAuth::basic("s6BhdRkqt3", &"7Fjfp0ZBr1KtDRbnfVdmIw".into());
        assert_eq!(basic, "Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3");
        assert_eq!(form_encode(" %&+\u{a3}\u{20ac}"), "+%25%26%2B%C2%A3%E2%82%AC");
    }
}

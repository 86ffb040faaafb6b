//! The limit: the least that a server on axum can do to issue the tokens that grantd issues. The benches measure what
//! grantd does beyond that, such as knowing its clients.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use grantd_kit::clients::SCOPE;
use grantd_kit::grantd::ISSUER;
use serde::Serialize;

/// Signs tokens with a key that is generated once.
pub struct Signer {
    pair: Pair,
    header: String,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair, &'static dyn aws_lc_rs::signature::RsaEncoding),
}

impl Signer {
    /// Generates a key for `ES256`, `EdDSA`, `RS256` or `PS256`; `None` for another name, or when the library fails.
    pub fn generate(alg: &str) -> Option<Self> {
        let rsa = || RsaKeyPair::generate(KeySize::Rsa2048).ok();
        let pair = match alg {
            "ES256" => Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?),
            "EdDSA" => Pair::Ed(Ed25519KeyPair::generate().ok()?),
            "RS256" => Pair::Rsa(rsa()?, &RSA_PKCS1_SHA256),
            "PS256" => Pair::Rsa(rsa()?, &RSA_PSS_SHA256),
            _ => return None,
        };
        // As long as the thumbprint of RFC 7638, and as well tied to the key.
        let kid = BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, pair.public()));
        let header = format!(r#"{{"typ":"at+jwt","alg":"{alg}","kid":"{kid}"}}"#);
        Some(Self { pair, header: BASE64_URL_SAFE_NO_PAD.encode(header) + "." })
    }

    /// The public key: a point, or a structure of PKCS #1.
    #[cfg(test)]
    pub fn public(&self) -> &[u8] {
        self.pair.public()
    }

    /// A JWT in compact form.
    fn sign(&self, claims: &[u8]) -> Option<String> {
        let mut jws = String::with_capacity(self.header.len() + claims.len() * 4 / 3 + 400);
        jws.push_str(&self.header);
        BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut jws);
        let mut rsa = [0; 256];
        let made;
        let signature: &[u8] = match &self.pair {
            Pair::Ec(pair) => {
                made = pair.sign(&SystemRandom::new(), jws.as_bytes()).ok()?;
                made.as_ref()
            }
            Pair::Ed(pair) => {
                made = pair.sign(jws.as_bytes());
                made.as_ref()
            }
            Pair::Rsa(pair, padding) => {
                pair.sign(*padding, &SystemRandom::new(), jws.as_bytes(), &mut rsa).ok()?;
                &rsa
            }
        };
        jws.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut jws);
        Some(jws)
    }
}

impl Pair {
    fn public(&self) -> &[u8] {
        match self {
            Self::Ec(pair) => pair.public_key().as_ref(),
            Self::Ed(pair) => pair.public_key().as_ref(),
            Self::Rsa(pair, _) => pair.public_key().as_ref(),
        }
    }
}

/// `POST /token` for clients with a secret, whichever it is, and two static answers.
pub fn router(signer: Arc<Signer>) -> Router {
    Router::new()
        .route("/token", post(token))
        .route("/static-json", get(async || ([(header::CONTENT_TYPE, "application/json")], STATIC_JSON)))
        .route("/static-401", post(async || (StatusCode::UNAUTHORIZED, NO_STORE, CHALLENGE, STATIC_401)))
        .with_state(signer)
}

async fn token(State(signer): State<Arc<Signer>>, headers: HeaderMap, body: Bytes) -> Response {
    answer(issue(&signer, &headers, &body))
}

/// A token, or a refusal.
pub fn answer(issued: Option<Vec<u8>>) -> Response {
    match issued {
        Some(answer) => (NO_STORE, answer).into_response(),
        None => (StatusCode::BAD_REQUEST, NO_STORE, r#"{"error":"invalid_request"}"#).into_response(),
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    client_id: &'a str,
    aud: &'a str,
    scope: &'a str,
    iat: u64,
    exp: u64,
    jti: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Cnf<'a>>,
}

/// The confirmation of a bound token (RFC 7800).
#[derive(Serialize)]
pub enum Cnf<'a> {
    #[serde(rename = "jkt")]
    Jkt(&'a str),
    #[serde(rename = "x5t#S256")]
    X5tS256(&'a str),
}

#[derive(Serialize)]
struct Answer<'a> {
    access_token: &'a str,
    token_type: &'a str,
    expires_in: u64,
    scope: &'a str,
}

fn issue(signer: &Signer, headers: &HeaderMap, body: &[u8]) -> Option<Vec<u8>> {
    let form = Form::parse(body)?;
    let client_id = by_basic(headers)?;
    mint(signer, &client_id, form.scope.as_deref(), None)
}

/// The form of a token request.
#[derive(Default)]
pub struct Form<'a> {
    pub scope: Option<Cow<'a, str>>,
    pub client_id: Option<Cow<'a, str>>,
    pub client_assertion: Option<Cow<'a, str>>,
}

impl<'a> Form<'a> {
    /// Parses the form; the grant type has to be `client_credentials`.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let (mut grant_type, mut form) = (None, Self::default());
        for pair in body.split(|&byte| byte == b'&') {
            let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
            match &*decoded(name)? {
                "grant_type" => grant_type = Some(decoded(value)?),
                "scope" => form.scope = Some(decoded(value)?),
                "client_id" => form.client_id = Some(decoded(value)?),
                "client_assertion" => form.client_assertion = Some(decoded(value)?),
                _ => {}
            }
        }
        (grant_type? == "client_credentials").then_some(form)
    }
}

/// The client of HTTP Basic, whose secret may be any.
pub fn by_basic(headers: &HeaderMap) -> Option<String> {
    let basic = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let basic = String::from_utf8(BASE64_STANDARD.decode(basic).ok()?).ok()?;
    let (client_id, secret) = basic.split_once(':')?;
    let (client_id, secret) = (decoded(client_id)?, decoded(secret)?);
    (!secret.is_empty()).then(|| client_id.into_owned())
}

/// The token response for a client.
pub fn mint(signer: &Signer, client_id: &str, scope: Option<&str>, cnf: Option<Cnf<'_>>) -> Option<Vec<u8>> {
    let scope = scope.unwrap_or(SCOPE);
    let now = now()?;
    let mut jti = [0; 16];
    rand::fill(&mut jti).ok()?;
    let jti = BASE64_URL_SAFE_NO_PAD.encode(jti);
    let token_type = if matches!(cnf, Some(Cnf::Jkt(_))) { "DPoP" } else { "Bearer" };
    let claims =
        Claims { iss: ISSUER, sub: client_id, client_id, aud: ISSUER, scope, iat: now, exp: now + TTL, jti: &jti, cnf };
    let access_token = signer.sign(&serde_json::to_vec(&claims).ok()?)?;
    serde_json::to_vec(&Answer { access_token: &access_token, token_type, expires_in: TTL, scope }).ok()
}

#[expect(clippy::disallowed_methods, reason = "a stopwatch needs no clock that tests can set")]
pub fn now() -> Option<u64> {
    Some(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// Decodes a form value; borrows it when there is nothing to decode.
pub fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['+', '%']) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

const TTL: u64 = 3600;
pub const NO_STORE: [(HeaderName, &str); 3] =
    [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")];
const CHALLENGE: [(HeaderName, &str); 1] = [(header::WWW_AUTHENTICATE, "Basic realm=\"limit\", charset=\"UTF-8\"")];
const STATIC_401: &str =
    r#"{"error":"invalid_client","error_description":"client authentication failed, or none was sent"}"#;
/// As long as a JWK Set with one key, and about as long as the metadata.
const STATIC_JSON: &str = r#"{"keys":[{"kty":"EC","use":"sig","alg":"ES256","kid":"JbzqFBEgY-6kAgWS7epHjkd4bl3hBG4oZqwBANuFEH4","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
        VerificationAlgorithm,
    };
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_token_limit_server_issues_valid_tokens() {
        let algorithms: [(&str, &'static dyn VerificationAlgorithm); 4] = [
            ("ES256", &ECDSA_P256_SHA256_FIXED),
            ("EdDSA", &ED25519),
            ("RS256", &RSA_PKCS1_2048_8192_SHA256),
            ("PS256", &RSA_PSS_2048_8192_SHA256),
        ];
        for (alg, verification) in algorithms {
            let signer = Signer::generate(alg).unwrap();
            let mut headers = HeaderMap::new();
            let basic = format!("Basic {}", BASE64_STANDARD.encode("a%2Db:c:d"));
            headers.insert(header::AUTHORIZATION, basic.parse().unwrap());
            let body = b"grant_type=client_credentials&scope=api%3Aread+x";
            let answer: Value = serde_json::from_slice(&issue(&signer, &headers, body).unwrap()).unwrap();
            assert_eq!((answer["token_type"].as_str(), answer["scope"].as_str()), (Some("Bearer"), Some("api:read x")));

            let (message, signature) = answer["access_token"].as_str().unwrap().rsplit_once('.').unwrap();
            let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
            let key = UnparsedPublicKey::new(verification, signer.public());
            key.verify(message.as_bytes(), &signature).unwrap_or_else(|_| panic!("{alg}"));
            let read = |part: &str| -> Value {
                serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
            };
            let (header, claims) = message.split_once('.').unwrap();
            let (header, claims) = (read(header), read(claims));
            assert_eq!((header["alg"].as_str(), header["typ"].as_str()), (Some(alg), Some("at+jwt")));
            assert_eq!(header["kid"].as_str().unwrap().len(), 43);
            assert_eq!((claims["sub"].as_str(), claims["client_id"].as_str()), (Some("a-b"), Some("a-b")));
            assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3600);
            assert_eq!(claims["jti"].as_str().unwrap().len(), 22);

            for wrong in [&b"grant_type=password"[..], b"", b"scope=x"] {
                assert!(issue(&signer, &headers, wrong).is_none());
            }
            assert!(issue(&signer, &HeaderMap::new(), body).is_none());
        }
        assert!(Signer::generate("none").is_none());
    }
}

//! The credential of `grantd token get`: reads its files, and puts it into a token request.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use clap::Args;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::crypto::jwk::{Alg, KeyError};
use crate::crypto::jws::SigningKey;
use crate::crypto::random_id;
use crate::model::client_id::ClientId;
use crate::model::time::UnixTime;
use crate::transport::client::Identity;
use crate::transport::tls::pem_items;

#[derive(Debug, Args)]
#[group(id = "credential", required = true, multiple = true)]
pub(super) struct CredentialFiles {
    /// File with the client secret (`-` is stdin); one line end after it is removed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "assertion_file"])]
    secret_file: Option<PathBuf>,
    /// File with a private key, in PEM or as a JWK, for `private_key_jwt`
    #[arg(long, value_name = "FILE", conflicts_with = "assertion_file")]
    key: Option<PathBuf>,
    /// File with a token of another issuer that the client is authenticated by, or with an assertion (`-` is stdin)
    #[arg(long, value_name = "FILE")]
    assertion_file: Option<PathBuf>,
    /// File with a client certificate and its chain, in PEM; beside another credential it only binds the token of a client
    /// that is registered so
    #[arg(long, value_name = "FILE", requires = "cert_key")]
    cert: Option<PathBuf>,
}

/// Credential of a client, read from its files.
pub(super) enum Credential {
    Secret(Zeroizing<String>),
    Key {
        key: Box<SigningKey>,
        kid: String,
    },
    Assertion(Zeroizing<String>),
    /// The certificate of the connection, and nothing in the request but the client id.
    Certificate,
}

impl CredentialFiles {
    pub(super) fn credential(&self, alg: Option<Alg>) -> anyhow::Result<Credential> {
        if let Some(file) = &self.secret_file {
            let named = || format!("--secret-file {}", file.display());
            return Ok(Credential::Secret(secret(&text(file).with_context(named)?).with_context(named)?));
        }
        if let Some(file) = &self.key {
            let named = || format!("--key {}", file.display());
            let (key, kid) = private_key(&text(file).with_context(named)?, alg).with_context(named)?;
            return Ok(Credential::Key { key: Box::new(key), kid });
        }
        if let Some(file) = &self.assertion_file {
            let named = || format!("--assertion-file {}", file.display());
            let assertion = text(file).with_context(named)?;
            return Ok(Credential::Assertion(Zeroizing::new(assertion.trim().to_owned())));
        }
        Ok(Credential::Certificate)
    }

    /// Reads the client certificate, if there is one, with its key.
    pub(super) fn identity(&self, key: Option<&Path>) -> anyhow::Result<Option<Identity>> {
        let (Some(cert), Some(key)) = (&self.cert, key) else { return Ok(None) };
        let chain = pem_items(cert).context("--cert")?;
        let key = pem_items(key).context("--cert-key")?.into_iter().next().context("--cert-key: no private key")?;
        Ok(Some((chain, key)))
    }
}

impl Credential {
    /// Adds the credential to the parameters of a request. Returns the value of `Authorization`, if there is one.
    pub(super) fn put_into(
        &self,
        form: &mut Vec<(&'static str, String)>,
        client: Option<&ClientId>,
        issuer: &str,
        now: UnixTime,
    ) -> anyhow::Result<Option<Zeroizing<String>>> {
        let id = client.map(ClientId::as_str);
        match self {
            Self::Secret(secret) => {
                // RFC 6749 section 2.3.1: both are form-encoded first, and then come the colon and base64.
                let pair = Zeroizing::new(format!("{}:{}", encode(id.unwrap_or_default()), encode(secret)));
                return Ok(Some(Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())))));
            }
            Self::Key { key, kid } => {
                let jti = BASE64_URL_SAFE_NO_PAD.encode(random_id()?);
                // RFC 7523 section 3. `aud` is the issuer alone, so that no other server accepts the assertion.
                let claims =
                    json!({"iss": id, "sub": id, "aud": issuer, "jti": jti, "iat": now, "exp": now.0 + LIFETIME});
                let header = json!({"typ": "client-authentication+jwt", "kid": kid});
                let assertion = signed(key, header, &claims)?;
                form.extend([("client_assertion_type", JWT_BEARER.to_owned()), ("client_assertion", assertion)]);
            }
            Self::Assertion(assertion) => {
                form.push(("client_assertion_type", assertion_type(assertion).to_owned()));
                form.push(("client_assertion", assertion.as_str().to_owned()));
                form.extend(id.map(|id| ("client_id", id.to_owned())));
            }
            // RFC 8705 section 2: "the client MUST include the client_id parameter".
            Self::Certificate => form.extend(id.map(|id| ("client_id", id.to_owned()))),
        }
        Ok(None)
    }
}

/// Signs claims below a header.
pub(super) fn signed(key: &SigningKey, header: Value, claims: &Value) -> anyhow::Result<String> {
    let Value::Object(header) = header else { bail!("a JWT has an object as its header") };
    key.sign_with(header, claims.to_string().as_bytes()).context("the key does not sign")
}

/// Returns the value of `client_assertion_type`. A JWT-SVID has a SPIFFE ID as its `sub`, and a type of its own. A text that is no
/// JWT is sent as it is: the server says what is wrong with it.
fn assertion_type(assertion: &str) -> &'static str {
    let claims = assertion.split('.').nth(1).and_then(|claims| BASE64_URL_SAFE_NO_PAD.decode(claims).ok());
    let claims: Option<Value> = claims.and_then(|claims| serde_json::from_slice(&claims).ok());
    let is_svid = claims.is_some_and(|claims| {
        claims.get("sub").and_then(Value::as_str).is_some_and(|sub| sub.starts_with("spiffe://"))
    });
    if is_svid { JWT_SPIFFE } else { JWT_BEARER }
}

/// Reads a file, or stdin for `-`.
fn text(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    if file.as_os_str() == "-" {
        io::stdin().take(MAX_FILE).read_to_string(&mut text)?;
    } else {
        fs::File::open(file)?.take(MAX_FILE).read_to_string(&mut text)?;
    }
    Ok(text)
}

/// Takes one line end off a secret, and warns of what else may not belong to it.
fn secret(text: &str) -> anyhow::Result<Zeroizing<String>> {
    let secret = text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(text);
    if secret.trim().is_empty() {
        bail!("it holds no secret");
    }
    let doubt = if secret.starts_with('\u{feff}') {
        "begins with a byte order mark"
    } else if secret.trim() != secret {
        "begins or ends with white space"
    } else if secret.contains(['\n', '\r']) {
        "has more than one line"
    } else if ['"', '\''].iter().any(|quote| secret.starts_with(*quote) && secret.ends_with(*quote)) {
        "stands in quotes"
    } else {
        return Ok(Zeroizing::new(secret.to_owned()));
    };
    // A failed write is ignored: the answer of the server tells the rest.
    drop(writeln!(io::stderr(), "warning: the secret {doubt}, which is sent as a part of it"));
    Ok(Zeroizing::new(secret.to_owned()))
}

/// Reads a private key in PEM or as a JWK, with its `kid`: its own, or else its thumbprint (RFC 7638).
fn private_key(text: &str, alg: Option<Alg>) -> Result<(SigningKey, String), KeyError> {
    let text = text.trim_start_matches('\u{feff}').trim();
    let (key, kid) = if text.starts_with('{') {
        SigningKey::from_private_jwk(text.as_bytes(), alg)?
    } else {
        let algs = alg.map_or(Alg::ALL.to_vec(), |alg| vec![alg]);
        let mut read = algs.into_iter().map(|alg| SigningKey::from_pem(alg, text.as_bytes()));
        let first = read.next().ok_or(KeyError::Alg)?;
        let found = read.fold(first, |found, next| if found.is_ok() { found } else { next.or(found) });
        (found?.0, None)
    };
    let thumbprint = key.kid().to_owned();
    Ok((key, kid.unwrap_or(thumbprint)))
}

/// `application/x-www-form-urlencoded` (RFC 6749 appendix B).
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => encoded.push(byte.into()),
            b' ' => encoded.push('+'),
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";
/// Lifetime of an assertion, in seconds.
const LIFETIME: i64 = 60;
/// Maximum size of a file with a credential.
const MAX_FILE: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_encoding_matches_the_examples_of_rfc_6749() {
        assert_eq!(encode(" %&+\u{a3}\u{20ac}"), "+%25%26%2B%C2%A3%E2%82%AC");
        let client: ClientId = "s6BhdRkqt3".parse().unwrap();
        let secret = Credential::Secret(Zeroizing::new("7Fjfp0ZBr1KtDRbnfVdmIw".to_owned()));
        let field = secret.put_into(&mut Vec::new(), Some(&client), "", UnixTime(0)).unwrap().unwrap();
        assert_eq!(*field, "Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3");
    }

    #[test]
    fn one_line_end_is_taken_off_a_secret_and_nothing_else() {
        for (text, expected) in
            [("a\n", "a"), ("a\r\n", "a"), ("a", "a"), ("a\n\n", "a\n"), (" a \n", " a "), ("'a'", "'a'")]
        {
            assert_eq!(*secret(text).unwrap(), expected, "{text:?}");
        }
        for empty in ["", "\n", " \n\n"] {
            assert!(secret(empty).is_err(), "{empty:?}");
        }
    }

    #[test]
    fn a_jwt_svid_has_an_assertion_type_of_its_own() {
        let of = |claims: Value| format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
        assert_eq!(assertion_type(&of(json!({"sub": "spiffe://example.org/billing"}))), JWT_SPIFFE);
        for other in [of(json!({"sub": "repo:o/r"})), of(json!({})), "x".to_owned(), "a.%.c".to_owned()] {
            assert_eq!(assertion_type(&other), JWT_BEARER, "{other}");
        }
    }

    #[test]
    fn the_type_of_a_private_key_decides_its_algorithm() {
        for alg in [Alg::Es256, Alg::EdDsa, Alg::Ps256] {
            let (key, pkcs8) = SigningKey::generate(alg).unwrap();
            let pem = format!(
                "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
                BASE64_STANDARD.encode(&*pkcs8)
            );
            let (read, kid) = private_key(&format!("\u{feff}{pem}"), None).unwrap();
            assert_eq!((read.alg(), kid.as_str()), (alg, key.kid()));
            if alg == Alg::Ps256 {
                assert_eq!(private_key(&pem, Some(Alg::Rs256)).unwrap().0.alg(), Alg::Rs256);
            }
        }
        assert!(private_key("hello", None).unwrap_err().to_string().contains("openssl genpkey"));
    }
}

//! `grantd token get`: asks the token endpoint of an issuer for a token, as a client does (RFC 6749 section 4.4).

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use axum::body::{Body, Bytes};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use hyper::{Request, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use super::credential::{Credential, CredentialFiles, encode, signed};
use super::issuer::{self, Published};
use crate::cli::print;
use crate::config::{ConfigError, Sources};
use crate::crypto::jwk::Alg;
use crate::crypto::jws::SigningKey;
use crate::crypto::random_id;
use crate::model::client_id::ClientId;
use crate::model::issuer::Issuer;
use crate::model::time::Clock;

#[derive(Debug, Args)]
pub(in crate::cli) struct Get {
    /// The client id; a token of another issuer may name the client without it
    #[arg(long, value_name = "ID", required_unless_present = "assertion_file", allow_hyphen_values = true)]
    client: Option<ClientId>,
    #[command(flatten)]
    files: CredentialFiles,
    /// File with the private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    cert_key: Option<PathBuf>,
    /// Algorithm of the assertion [default: that of the key; PS256 for RSA]
    #[arg(long, requires = "key", conflicts_with_all = ["secret_file", "assertion_file"])]
    alg: Option<Alg>,
    /// Scopes to ask for, separated by spaces [default: the client's default scope]
    #[arg(long, value_name = "SCOPES")]
    scope: Option<String>,
    /// Resource that the token is for (repeatable)
    #[arg(long, value_name = "URI")]
    resource: Vec<String>,
    /// Ask for a token bound to a DPoP key, which is made for this request and thrown away
    #[arg(long)]
    dpop: bool,
    /// The issuer's URL, as in the `iss` of its tokens [default: that of the configuration]
    #[arg(long, value_name = "URL")]
    issuer: Option<Issuer>,
    /// File with further CAs that may vouch for the server, in PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl Get {
    /// Prints a token, or with `json` the whole answer.
    pub(super) async fn run(&self, json: bool, sources: Result<Sources, ConfigError>) -> anyhow::Result<()> {
        let issuer = issuer::issuer(self.issuer.as_ref(), sources)?;
        let credential = self.files.credential(self.alg)?;
        let identity = self.files.identity(self.cert_key.as_deref())?;
        let by_certificate = identity.is_some();
        let http = issuer::http_client(self.ca_file.as_deref(), identity)?;
        let published = Published::discover(issuer, http).await?;
        let endpoint = published.token_endpoint(by_certificate)?;
        let dpop = if self.dpop { Some(SigningKey::generate(Alg::Es256)?.0) } else { None };
        let mut answer = self.ask(&published, endpoint, &credential, dpop.as_ref(), None).await?;
        // RFC 9449 section 8: the one refusal after which the request is sent again, with the nonce that came along.
        if let Some(nonce) = demanded_nonce(&answer).filter(|_| self.dpop) {
            answer = self.ask(&published, endpoint, &credential, dpop.as_ref(), Some(nonce)).await?;
        }
        if answer.status() != StatusCode::OK {
            bail!("{endpoint} answered {}", refusal(&answer));
        }
        let body: Map<String, Value> = serde_json::from_slice(answer.body())
            .with_context(|| format!("{endpoint} answered with no JSON object"))?;
        let token = token_of(&body, self.dpop).with_context(|| format!("{endpoint} answered"))?.to_owned();
        print(json, &body, || token)?;
        if self.dpop {
            // A failed write is ignored: the token is printed.
            drop(writeln!(io::stderr(), "{BOUND}"));
        }
        Ok(())
    }

    async fn ask(
        &self,
        published: &Published,
        endpoint: &str,
        credential: &Credential,
        dpop: Option<&SigningKey>,
        nonce: Option<String>,
    ) -> anyhow::Result<Response<Bytes>> {
        let now = Clock::System.now();
        let mut form = vec![("grant_type", "client_credentials".to_owned())];
        form.extend(self.scope.iter().map(|scope| ("scope", scope.clone())));
        form.extend(self.resource.iter().map(|resource| ("resource", resource.clone())));
        let by_header = credential.put_into(&mut form, self.client.as_ref(), published.issuer.as_str(), now)?;
        let mut request = Request::post(endpoint)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "grantd");
        if let Some(value) = by_header {
            request = request.header(header::AUTHORIZATION, value.as_str());
        }
        if let Some(key) = dpop {
            // RFC 9449 section 4.2.
            let jti = BASE64_URL_SAFE_NO_PAD.encode(random_id()?);
            let claims = match nonce {
                Some(nonce) => json!({"jti": jti, "htm": "POST", "htu": endpoint, "iat": now, "nonce": nonce}),
                None => json!({"jti": jti, "htm": "POST", "htu": endpoint, "iat": now}),
            };
            let header = json!({"typ": "dpop+jwt", "jwk": key.verifying().jwk()});
            request = request.header("DPoP", signed(key, header, &claims)?);
        }
        let form: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        published.send(request.body(Body::from(form.join("&"))).with_context(|| endpoint.to_owned())?).await
    }
}

/// Returns the nonce that a refusal demands (RFC 9449 section 8). An answer that is no such refusal demands none.
fn demanded_nonce(answer: &Response<Bytes>) -> Option<String> {
    let error: Value = serde_json::from_slice(answer.body()).ok()?;
    let nonce = answer.headers().get("dpop-nonce")?.to_str().ok()?;
    (error.get("error")? == "use_dpop_nonce").then(|| nonce.to_owned())
}

/// Returns the token of an answer (RFC 6749 section 5.1).
fn token_of(body: &Map<String, Value>, is_bound: bool) -> anyhow::Result<&str> {
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let token =
        text("access_token").filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
    let token = token.context("with an access_token that is missing or malformed")?;
    let token_type = text("token_type").context("without a token_type")?;
    // A token that is not bound, where a bound one was asked for, is a downgrade.
    if is_bound && !token_type.eq_ignore_ascii_case("DPoP") {
        bail!("with a token of type {token_type}, where a DPoP token was asked for");
    }
    Ok(token)
}

/// Describes the refusal of a token request, and the next step.
fn refusal(answer: &Response<Bytes>) -> String {
    let status = answer.status().as_u16();
    let field = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    // A body that is no JSON object is told below.
    let body: Option<Map<String, Value>> = serde_json::from_slice(answer.body()).ok();
    let text = |name: &str| body.as_ref().and_then(|body| body.get(name)?.as_str());
    let mut said = match text("error") {
        Some(error) => format!("{status} {error}"),
        None => format!("{status}, which is no OAuth answer: a proxy may have sent it, or this is no token endpoint"),
    };
    if let Some(description) = text("error_description") {
        said += &format!(": {description}");
    }
    if let Some(seconds) = field("retry-after") {
        said += &format!("; try again in {seconds} s");
    }
    if let Some(id) = field("x-request-id") {
        said += &format!("; x-request-id: {id}");
        if id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            said += &format!("; `grantd explain {id}` on the server's machine has the cause");
        }
    }
    said
}

const BOUND: &str = "note: the token is bound to a DPoP key that ends with this command, so no API accepts it; the answer shows that the client may have bound tokens";

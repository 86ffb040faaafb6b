//! A service that calls an API every second, with one token for many calls. Run it beside `grantd dev` and `protected_api`.

mod client_auth;
mod dpop;
pub(crate) mod token_endpoint;
mod tokens;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use reqwest::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use reqwest::{Certificate, Identity, Method, Response, StatusCode};
use secrecy::ExposeSecret as _;
use tokio::sync::OnceCell;

use client_auth::{ClientAuth, ClientKey};
use dpop::Dpop;
use token_endpoint::TokenEndpoint;
use tokens::{Tokens, Wanted};

/// Calls an API with an access token that is kept and renewed.
///
/// The client secret is read from a file, or from the environment variable `CLIENT_SECRET`; never from an argument, which
/// every process on the machine could read.
#[derive(Debug, Parser)]
pub struct Options {
    /// The authorization server, letter by letter as in its metadata
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub issuer: String,
    /// The client
    #[arg(long, default_value = "demo")]
    pub client_id: String,
    /// A file that holds the client secret
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    pub secret_file: Option<PathBuf>,
    /// Show a private key instead of a secret (`private_key_jwt`): P-256 or Ed25519, in PEM
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Key id (`kid`) of that key [default: its thumbprint]
    #[arg(long, requires = "key")]
    pub kid: Option<String>,
    /// Show a JWT of the platform instead of a secret: a CI job's, a Kubernetes pod's or a JWT-SVID. The file is read anew
    /// for each token
    #[arg(long, value_name = "FILE", conflicts_with_all = ["secret_file", "key"])]
    pub assertion_file: Option<PathBuf>,
    /// Bind tokens to a key that is made at the start (DPoP)
    #[arg(long)]
    pub dpop: bool,
    /// A certificate of the client (its chain in PEM) for TLS: tokens may be bound to it, and with neither secret nor key it
    /// says who the client is
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// CAs in PEM that vouch for the issuer and the API, besides those of the system
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Scopes with spaces between [default: the client's]
    #[arg(long, default_value = "")]
    pub scope: String,
    /// The API that the token is for [default: the client's]
    #[arg(long, default_value = "")]
    pub resource: String,
    /// URL to call with the token
    #[arg(long, default_value = "http://127.0.0.1:8000/data")]
    pub url: String,
    /// How to call it
    #[arg(long, default_value = "GET")]
    pub method: Method,
    /// How many times, a second apart
    #[arg(long, default_value_t = 3)]
    pub calls: u32,
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let options = Options::parse();
    let service = Service::new(&options)?;
    for call in 0..options.calls {
        if call > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        match service.call(options.method.clone(), &options.url).await {
            Ok(answer) => {
                for challenge in answer.headers().get_all(WWW_AUTHENTICATE) {
                    println!("{}", challenge.to_str().unwrap_or_default());
                }
                println!("{} {}", answer.status(), answer.text().await?);
            }
            Err(error) => println!("{error}"),
        }
    }
    Ok(())
}

/// Whatever went wrong.
pub type Failed = Box<dyn Error + Send + Sync>;

/// A service that calls APIs.
#[derive(Debug)]
pub struct Service {
    tokens: Arc<Tokens>,
    wanted: Wanted,
    dpop: Option<Arc<Dpop>>,
    http: reqwest::Client,
}

impl Service {
    /// Reads the credential; the first call gets the first token.
    pub fn new(options: &Options) -> Result<Self, Failed> {
        let auth = match (&options.key, &options.assertion_file, &options.secret_file) {
            (Some(file), ..) => ClientAuth::Key(ClientKey::from_pem(&std::fs::read(file)?, options.kid.clone())?),
            (None, Some(file), _) => ClientAuth::AssertionFile(file.clone()),
            (None, None, Some(file)) => {
                ClientAuth::Secret(std::fs::read_to_string(file)?.trim_end_matches(['\r', '\n']).into())
            }
            (None, None, None) => {
                match (std::env::var("CLIENT_SECRET"), &options.tls_cert) {
                    (Ok(secret), _) => ClientAuth::Secret(secret.into()),
                    (Err(_), Some(_)) => ClientAuth::Certificate,
                    (Err(_), None) => {
                        return Err("no credential: set CLIENT_SECRET, or use --secret-file, --key, --assertion-file or --tls-cert".into());
                    }
                }
            }
        };
        let dpop = if options.dpop { Some(Arc::new(Dpop::generate()?)) } else { None };
        let http = http(options)?;
        let endpoint = TokenEndpoint {
            issuer: options.issuer.clone(),
            client_id: options.client_id.clone(),
            auth,
            dpop: dpop.clone(),
            certified: options.tls_cert.is_some(),
            http: http.clone(),
            clock: now,
            url: OnceCell::new(),
        };
        let wanted = Wanted { scope: options.scope.clone(), resource: options.resource.clone() };
        Ok(Self { tokens: Arc::new(Tokens::new(endpoint)), wanted, dpop, http })
    }

    /// Calls an API. A second attempt is made when the API wants a nonce in the proof.
    pub async fn call(&self, method: Method, url: &str) -> Result<Response, Failed> {
        let answer = self.call_once(method.clone(), url).await?;
        if says(&answer, "use_dpop_nonce") { self.call_once(method, url).await } else { Ok(answer) }
    }

    async fn call_once(&self, method: Method, url: &str) -> Result<Response, Failed> {
        let token = self.tokens.get(&self.wanted).await?;
        let mut request = self.http.request(method.clone(), url).header(AUTHORIZATION, token.authorization());
        if let Some(dpop) = &self.dpop {
            request =
                request.header("DPoP", dpop.proof(method.as_str(), url, Some(token.text.expose_secret()), now())?);
        }
        let answer = request.timeout(Duration::from_secs(10)).send().await?;
        if let Some(dpop) = &self.dpop {
            dpop.note_nonce(url, answer.headers());
        }
        if says(&answer, "invalid_token") {
            self.tokens.forget(&self.wanted, &token);
        }
        Ok(answer)
    }
}

/// For the issuer and for APIs: both get to see the certificate, if there is one.
fn http(options: &Options) -> Result<reqwest::Client, Failed> {
    // A redirect would carry the credential to somebody else.
    let mut http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    if let (Some(cert), Some(key)) = (&options.tls_cert, &options.tls_key) {
        http = http.identity(Identity::from_pem(&[std::fs::read(cert)?, std::fs::read(key)?].concat())?);
    }
    if let Some(ca) = &options.ca {
        http = http.tls_certs_merge(Certificate::from_pem_bundle(&std::fs::read(ca)?)?);
    }
    Ok(http.build()?)
}

/// Whether the API refuses the call for this reason.
fn says(answer: &Response, error: &str) -> bool {
    let challenges = answer.headers().get_all(WWW_AUTHENTICATE);
    let named = format!("error=\"{error}\"");
    answer.status() == StatusCode::UNAUTHORIZED
        && challenges.iter().any(|value| value.to_str().is_ok_and(|value| value.contains(&named)))
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "this is the clock that is handed in")]
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX))
}

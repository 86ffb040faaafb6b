//! The API of `protected_api` without a library that checks tokens: the whole check stands here. Run it beside `grantd dev`.

pub(crate) mod check;
mod guard;
mod issuer_keys;
#[path = "../protected_api/tls.rs"]
pub(crate) mod tls;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use clap::Parser;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use check::{Caller, Checker};
use guard::{Guard, Peer, require};
use issuer_keys::IssuerKeys;
use tls::TlsListener;

/// An API protected by access tokens.
#[derive(Debug, Parser)]
pub struct Options {
    /// The authorization server whose tokens are taken, letter by letter as in their `iss`
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub issuer: String,
    /// CAs in PEM that the issuer's certificate is verified with, besides those of the system
    #[arg(long, value_name = "FILE")]
    pub issuer_ca: Option<PathBuf>,
    /// The audience of accepted tokens (`aud`): this API's identifier. `grantd dev` has no resources, so its tokens are for the issuer itself
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub resource: String,
    /// The URL of this API as its clients call it, up to the path [default: http://, or https:// with --tls-cert, and --listen]
    #[arg(long)]
    pub public_url: Option<String>,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,
    /// A proxy that ends TLS and whose `Client-Cert` field (RFC 9440) is believed; repeatable
    #[arg(long, value_name = "ADDRESS")]
    pub trusted_proxy: Vec<IpAddr>,
    /// The certificate chain in PEM, to end TLS here
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let socket = TcpListener::bind(options.listen).await?;
    let address = socket.local_addr()?;
    let app = app(&options, address, now)?;
    println!("listening on {address}");
    match (&options.tls_cert, &options.tls_key) {
        (Some(cert), Some(key)) => {
            axum::serve(TlsListener::start(socket, tls::config(cert, key)?)?, app).await?;
        }
        _ => axum::serve(socket, app).await?,
    }
    Ok(())
}

/// The router of the API that listens on `address`.
pub fn app(
    options: &Options,
    address: SocketAddr,
    clock: fn() -> i64,
) -> Result<IntoMakeServiceWithConnectInfo<Router, Peer>, Box<dyn std::error::Error>> {
    let scheme = if options.tls_cert.is_some() { "https" } else { "http" };
    let public_url = options.public_url.clone().unwrap_or_else(|| format!("{scheme}://{address}"));
    let public_url = public_url.trim_end_matches('/').to_owned();
    let metadata_path = metadata_path(&options.resource);
    // Redirects are not followed: keys come from where the configuration says, or not at all.
    let mut http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    if let Some(path) = &options.issuer_ca {
        let pem = std::fs::read(path).map_err(|error| format!("--issuer-ca {}: {error}", path.display()))?;
        for certificate in reqwest::Certificate::from_pem_bundle(&pem)? {
            http = http.add_root_certificate(certificate);
        }
    }
    let http = http.build()?;
    let guard = Arc::new(Guard {
        checker: Checker::new(&options.issuer, &options.resource),
        keys: Arc::new(IssuerKeys::new(&options.issuer, http)),
        metadata_url: format!("{public_url}{metadata_path}"),
        public_url,
        trusted_proxies: options.trusted_proxy.clone(),
        clock,
    });
    let metadata = Json(metadata(options));
    let needs = |scope: &'static str| from_fn_with_state((Arc::clone(&guard), scope), require);
    let router = Router::new()
        .route(&metadata_path, get(async move || metadata))
        .route("/data", get(read).layer(needs("read:data")).merge(post(write).layer(needs("write:data"))));
    Ok(router.into_make_service_with_connect_info::<Peer>())
}

async fn read(Extension(caller): Extension<Caller>) -> Json<Value> {
    Json(json!({"read_by": caller.client_id}))
}

async fn write(Extension(caller): Extension<Caller>) -> Json<Value> {
    Json(json!({"written_by": caller.client_id}))
}

/// RFC 9728 section 2: what clients may want to know of this API.
fn metadata(options: &Options) -> Value {
    json!({
        "resource": options.resource,
        "authorization_servers": [options.issuer],
        "scopes_supported": ["read:data", "write:data"],
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": ["ES256", "EdDSA", "PS256"],
        "tls_client_certificate_bound_access_tokens": options.tls_cert.is_some() || !options.trusted_proxy.is_empty(),
    })
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "this is the clock that is handed in")]
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX))
}

/// RFC 9728 section 3.1: the well-known part goes between the host and the path of what the API is called.
fn metadata_path(resource: &str) -> String {
    let host = resource.find("://").map_or(0, |at| at + 3);
    let path = resource.get(host..).and_then(|rest| Some(rest.split(['?', '#']).next()?.split_once('/')?.1));
    let path = path.filter(|path| !path.is_empty()).map_or_else(String::new, |path| format!("/{path}"));
    format!("/.well-known/oauth-protected-resource{path}")
}

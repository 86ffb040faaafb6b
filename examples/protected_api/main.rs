//! An API that takes access tokens, on `grantd-verify`: reading needs one scope, writing another. Run it beside `grantd dev`.

pub(crate) mod status_list;
pub(crate) mod tls;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use axum::extract::{ConnectInfo, FromRef, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use clap::Parser;
use grantd_verify::{AccessToken, ClientCertificate, Refusal, Verifier, https};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use status_list::StatusLists;
use tls::TlsListener;

/// An API protected by access tokens.
#[derive(Debug, Parser)]
pub struct Options {
    /// The authorization server whose tokens are taken, letter by letter as in their `iss`
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub issuer: String,
    /// CAs in PEM that the issuer's certificate is verified with, besides those of the public web
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
    /// Accept tokens while the status list that they refer to is not to be had, instead of answering 503
    #[arg(long)]
    pub accept_without_status_list: bool,
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
    let metadata_path = metadata_path(&options.resource);
    let verifier = Verifier::new(&options.issuer, &options.resource, https(options.issuer_ca.as_deref())?)
        .with_public_url(&public_url)
        .with_metadata_url(&format!("{}{metadata_path}", public_url.trim_end_matches('/')))
        .with_clock(clock);
    let mut http = reqwest::Client::builder().timeout(Duration::from_secs(2));
    if let Some(file) = &options.issuer_ca {
        for certificate in reqwest::Certificate::from_pem_bundle(&std::fs::read(file)?)? {
            http = http.add_root_certificate(certificate);
        }
    }
    let statuses = StatusLists {
        issuer: options.issuer.clone(),
        http: http.build()?,
        fail_open: options.accept_without_status_list,
        kept: Mutex::default(),
    };
    let (metadata, proxies) = (Json(metadata(options)), Arc::from(options.trusted_proxy.as_slice()));
    let router = Router::new()
        .route("/data", get(read).post(write))
        .layer(from_fn_with_state(proxies, client_certificate))
        .route(&metadata_path, get(async move || metadata))
        .with_state(Api { verifier: Arc::new(verifier), statuses: Arc::new(statuses), clock });
    Ok(router.into_make_service_with_connect_info::<Peer>())
}

/// The state of the API.
#[derive(Clone)]
struct Api {
    verifier: Arc<Verifier>,
    statuses: Arc<StatusLists>,
    clock: fn() -> i64,
}

impl FromRef<Api> for Arc<Verifier> {
    fn from_ref(api: &Api) -> Self {
        Self::clone(&api.verifier)
    }
}

impl Api {
    /// Refuses a token without this scope, and one that is revoked.
    async fn admit(&self, token: &AccessToken, scope: &str) -> Result<(), Refusal> {
        token.require_scope(scope)?;
        match self.statuses.is_revoked(token.claim("status"), &token.jti, (self.clock)()).await {
            Some(false) => Ok(()),
            Some(true) => Err(token.revoked()),
            None => Err(Refusal::unavailable()),
        }
    }
}

async fn read(State(api): State<Api>, token: AccessToken) -> Result<Json<Value>, Refusal> {
    api.admit(&token, "read:data").await?;
    Ok(Json(json!({"read_by": token.client_id})))
}

async fn write(State(api): State<Api>, token: AccessToken) -> Result<Json<Value>, Refusal> {
    api.admit(&token, "write:data").await?;
    Ok(Json(json!({"written_by": token.client_id})))
}

/// The peer of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it calls from.
    pub address: SocketAddr,
    /// The certificate that the handshake proved, when this process ends TLS.
    pub certificate: Option<Arc<[u8]>>,
}

/// Puts the certificate of the connection beside the request, or the one that a trusted proxy names (RFC 9440). From all
/// others `Client-Cert` means nothing.
async fn client_certificate(
    State(proxies): State<Arc<[IpAddr]>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let certificate = if proxies.contains(&peer.address.ip().to_canonical()) {
        ClientCertificate::from_headers(request.headers())?
    } else {
        peer.certificate.map(ClientCertificate)
    };
    if let Some(certificate) = certificate {
        request.extensions_mut().insert(certificate);
    }
    Ok(next.run(request).await)
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

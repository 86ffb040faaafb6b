//! A server in this process, on its own SQLite file, with one client whose secret is cached and 10,000 others.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, ensure};
use axum::body::Body;
use axum::http::{Request, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use grantd::config::{Config, Settings, Sources};
use grantd::http::Caller;
use grantd::model::time::Clock;
use grantd::serve::assembled::{ServerParts, assemble};
use grantd::serve::prepare::make_room;
use grantd::serve::sealing_key;
use grantd::store::Store;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// In-process server, its runtime and its client.
pub struct InProcess {
    /// The assembled server with a loaded registry, which nothing updates.
    pub assembled: ServerParts,
    /// The runtime. Single-threaded, so that counts of this thread include all of the work.
    pub runtime: Runtime,
    /// The `Authorization` of the client.
    pub authorization: String,
    _directory: TempDir,
}

impl InProcess {
    /// Sets up the server and its clients.
    pub fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let settings = Settings { issuer: ISSUER.into(), data_dir: directory.path().to_owned(), ..Settings::default() };
        let config = Config::parse(&settings, &Sources::default())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let seeds = directory.path().join("seeds");
        fs::create_dir(&seeds)?;
        fs::write(seeds.join("1_filler.sql"), FILLER)?;
        let (store, key) = runtime.block_on(async {
            make_room(&config)?;
            let store = Store::open(&config.database, 2);
            store.migrate(&config.database, Some(&seeds)).await?;
            anyhow::Ok((store, sealing_key::read(&config.sealing)?))
        })?;
        let authorization = register(&directory)?;
        let assembled = runtime.block_on(async {
            let issuer = config.issuer.clone().unwrap_or_default();
            let mut assembled = assemble(&config, &store, key, None, issuer, Clock::System, None)?;
            // The second step publishes the key that the first one generated.
            assembled.feed.step().await?;
            assembled.feed.step().await?;
            anyhow::Ok(assembled)
        })?;
        Ok(Self { assembled, runtime, authorization, _directory: directory })
    }

    /// Returns a token request as the listener passes it on.
    pub fn request(&self) -> anyhow::Result<Request<Body>> {
        Self::request_with(&self.authorization)
    }

    /// Returns a token request with a made-up secret, which its tag refuses.
    pub fn refused_request() -> anyhow::Result<Request<Body>> {
        Self::request_with(&format!("Basic {}", BASE64_STANDARD.encode(format!("filler-7:{MADE_UP}"))))
    }

    fn request_with(authorization: &str) -> anyhow::Result<Request<Body>> {
        Ok(Request::post("/token")
            .header(header::HOST, "auth.example.com")
            .header(header::AUTHORIZATION, authorization)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from("grant_type=client_credentials"))?)
    }

    /// The peer of the request.
    pub fn caller() -> Caller {
        Caller { address: SocketAddr::from(([127, 0, 0, 1], 4711)), certificate: None }
    }
}

/// Registers the client with the grantd command, as an operator does.
fn register(directory: &TempDir) -> anyhow::Result<String> {
    let done = Command::new(env!("CARGO_BIN_EXE_grantd"))
        .args(["client", "create", CLIENT, "--scope", "api:read api:write", "--default-scope", "api:read", "--json"])
        .env_clear()
        .env("GRANTD__ISSUER", ISSUER)
        .env("GRANTD__DATA_DIR", directory.path())
        .output()?;
    ensure!(done.status.success(), "grantd client create: {}", String::from_utf8_lossy(&done.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&done.stdout)?;
    let secret = answer.get("client_secret").and_then(serde_json::Value::as_str).context("no client_secret")?;
    Ok(format!("Basic {}", BASE64_STANDARD.encode(format!("{CLIENT}:{secret}"))))
}

/// The client whose secret is cached.
pub const CLIENT: &str = "billing";
const MADE_UP: &str = "gds_aaaaaaaaaaaaaaaa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAbbbbbbbbbbbb";
/// The issuer.
pub const ISSUER: &str = "https://auth.example.com";
const FILLER: &str = "with recursive n (i) as (select 1 union all select i + 1 from n where i < 10000)
    insert into client (client_id, scope, default_scope) select 'filler-' || i, 'api:read', 'api:read' from n;";

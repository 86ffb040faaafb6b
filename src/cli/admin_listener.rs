//! The admin listener of the running server, as commands on the same machine ask it.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::body::Body;
use clap::Parser as _;
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use super::{Arguments, Command};
use crate::config::{ConfigError, Settings, Sources};

/// The admin listener of a server.
#[derive(Debug)]
pub(super) struct AdminListener {
    /// Its URL, without a slash at the end.
    url: String,
    /// The fault of a configuration that cannot be read, and may have named another.
    unread: Option<ConfigError>,
}

impl AdminListener {
    /// The admin listener at `url`, or else the one of this configuration.
    pub(super) fn find(
        url: Option<&str>,
        named: Option<&Path>,
        sources: Result<Sources, ConfigError>,
    ) -> anyhow::Result<Self> {
        if let Some(url) = url {
            return Ok(Self { url: url.trim_end_matches('/').to_owned(), unread: None });
        }
        // A configuration that cannot be read now does not fail the check: the server was started with another one.
        let (sources, unread) = match sources {
            Ok(sources) => {
                let unread = sources.read().err();
                (Some(sources), unread)
            }
            Err(error) => (None, Some(error)),
        };
        Ok(Self { url: format!("http://{}", listener(named, sources.as_ref())?), unread })
    }

    /// The admin listener of a server with the configuration of this command.
    pub(super) fn of(sources: &Sources) -> anyhow::Result<Self> {
        Ok(Self { url: format!("http://{}", listener(sources.file.as_deref(), Some(sources))?), unread: None })
    }

    /// Requests a path, and returns the status and the body of the answer.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<(StatusCode, String)> {
        let Self { url, unread } = self;
        fetch(&format!("{url}{path}")).await.with_context(|| {
            let unread = unread.as_ref().map(|fault| format!("; the configuration cannot be read: {fault}"));
            format!(
                "no answer from the admin listener at {url}; is the server running there? --admin-url names another{}",
                unread.unwrap_or_default()
            )
        })
    }

    /// Requests a JSON document.
    pub(super) async fn document<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let (status, body) = self.get(path).await?;
        if status == StatusCode::NOT_FOUND {
            bail!(
                "{}{path}: no such document; the server is an older grantd, or this is not its admin listener",
                self.url
            );
        }
        if status == StatusCode::FORBIDDEN {
            bail!(
                "{}{path} is refused: {body}; ask by a loopback address, on the machine or in the container of the server",
                self.url
            );
        }
        if !status.is_success() {
            bail!("{}{path}: {status}: {body}", self.url);
        }
        serde_json::from_str(&body).with_context(|| format!("{}{path}: not the document of this version", self.url))
    }
}

/// Returns the address on which `serve` listens: from this command's flags, else from those of a running server with
/// this configuration file, else from environment and file.
fn listener(named: Option<&Path>, sources: Option<&Sources>) -> anyhow::Result<SocketAddr> {
    let flag = sources.and_then(|sources| flag(&sources.flags)).or_else(|| given_to_server(named));
    let told = flag.or_else(|| sources?.one(KEY)).unwrap_or_else(|| Settings::default().admin.listen);
    let mut address: SocketAddr = told.parse().with_context(|| format!("{KEY}: `{told}`"))?;
    if address.port() == 0 {
        bail!(
            "{KEY} leaves the port to the system; the server's log line `listening` has it: grantd health --url http://127.0.0.1:PORT/readyz"
        );
    }
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    Ok(address)
}

fn flag(flags: &[(String, String)]) -> Option<String> {
    flags.iter().rev().find(|(key, _)| key == KEY).map(|(_, value)| value.clone())
}

/// Returns the address that `--set` gave to a `grantd serve` of this user with the same configuration file, from `/proc`.
/// `None` when several servers disagree, and where `/proc` is absent or not readable: then the configuration decides. A
/// process that ends while it is looked at is no server.
fn given_to_server(named: Option<&Path>) -> Option<String> {
    let own = named.map(Path::to_owned).or_else(|| std::env::var_os(CONFIG).map(PathBuf::from));
    // Without a directory of its own, or without `/proc`, no server is found, and the configuration decides.
    let own = in_force(own, &std::env::current_dir().ok()?);
    let mut found: Vec<String> = fs::read_dir("/proc")
        .ok()?
        .filter_map(|process| of_server(&process.ok()?.path()))
        .filter(|(file, _)| *file == own)
        .map(|(_, told)| told)
        .collect();
    found.dedup();
    found.pop().filter(|_| found.is_empty())
}

/// Returns the configuration file of a running server, and its `--set admin.listen`. `None` for a process that is no server,
/// is another user's, or has ended meanwhile: `/proc` tells nothing of these, and they decide nothing.
fn of_server(process: &Path) -> Option<(PathBuf, String)> {
    let texts = |file: &str| Some(String::from_utf8_lossy(&fs::read(process.join(file)).ok()?).into_owned());
    let line = texts("cmdline")?;
    let arguments: Vec<&str> = line.trim_end_matches('\0').split('\0').collect();
    if Path::new(arguments.first()?).file_name()? != "grantd" {
        return None;
    }
    let arguments = Arguments::try_parse_from(arguments).ok().filter(|all| matches!(all.command, Command::Serve))?;
    // Readable only for processes of the same user.
    let environment = texts("environ")?;
    let from_environment =
        || environment.split('\0').find_map(|pair| pair.strip_prefix(CONFIG)?.strip_prefix('=')).map(PathBuf::from);
    let file = in_force(arguments.config.or_else(from_environment), &fs::read_link(process.join("cwd")).ok()?);
    Some((file, flag(&arguments.set)?))
}

/// Returns the configuration file of a process, whether it exists or not.
fn in_force(named: Option<PathBuf>, directory: &Path) -> PathBuf {
    let usual = Path::new("/etc/grantd/grantd.toml");
    directory.join(named.unwrap_or_else(|| if usual.exists() { usual.into() } else { "grantd.toml".into() }))
}

/// Requests a URL, and returns the status and the body of the answer.
pub(super) async fn fetch(url: &str) -> anyhow::Result<(StatusCode, String)> {
    tokio::time::timeout(DEADLINE, answer(url)).await.context("no answer within 3 s")?
}

async fn answer(url: &str) -> anyhow::Result<(StatusCode, String)> {
    let uri: Uri = url.parse().context("the URL")?;
    let authority = uri
        .authority()
        .filter(|_| uri.scheme_str() == Some("http"))
        .context("the admin listener is reached by an http:// URL")?;
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(&address).await.with_context(|| format!("connecting to {address}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request =
        Request::get(uri.path_and_query().map_or("/", |path| path.as_str())).header("host", authority.as_str());
    let answer = sender.send_request(request.body(Body::empty())?).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// The longest time for an answer.
const DEADLINE: Duration = Duration::from_secs(3);
const KEY: &str = "admin.listen";
const CONFIG: &str = "GRANTD_CONFIG";

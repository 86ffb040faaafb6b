//! `grantd dev`: a server to try out, and for integration tests of other programs, with a demo client.

mod container;
mod tutorial;

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use super::open::administration;
use super::{Shell, secret_from};
use crate::admin::clients::ClientPatch;
use crate::admin::resources::ResourcePatch;
use crate::admin::secrets::SecretOptions;
use crate::admin::{Admin, AdminError, Change};
use crate::config::Config;
use crate::crypto::secret::ClientSecret;
use crate::model::client_id::ClientId;
use crate::model::issuer::Issuer;
use crate::model::resource::{Resource, ResourceId, TokenTyp};
use crate::model::scope::Scope;
use crate::serve::signals::Signals;
use crate::store::{Store, StoreError};
use crate::telemetry::Logging;
use crate::telemetry::tutor::Tutor;
use crate::{serve, telemetry};
use tutorial::{Demo, Place};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Address to listen on, with or without a port; other than loopback in a container only [default: server.listen]
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    listen: Option<Listen>,
    /// The demo client's id
    #[arg(long, value_name = "ID", default_value = "demo", allow_hyphen_values = true)]
    client_id: ClientId,
    /// File with the demo client's secret, at least 16 bytes [default: a new secret at each start]
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// Scopes of the demo client, separated by spaces [default: read:data write:data]
    #[arg(long, value_name = "SCOPES")]
    scope: Option<Scope>,
    /// Resource that the demo client may ask tokens for (repeatable)
    #[arg(long, value_name = "URI")]
    resource: Vec<ResourceId>,
}

/// Address of `--listen`; the port is that of `server.listen` where none is given.
#[derive(Debug, Clone, Copy)]
struct Listen {
    ip: IpAddr,
    port: Option<u16>,
}

fn address(text: &str) -> Result<Listen, String> {
    let whole = text.parse::<SocketAddr>().map(|address| Listen { ip: address.ip(), port: Some(address.port()) });
    let bare = text.trim_start_matches('[').trim_end_matches(']').parse().map(|ip| Listen { ip, port: None });
    whole
        .or(bare)
        .map_err(|_| "write an address, or an address and a port, such as 0.0.0.0 or 127.0.0.1:8081".to_owned())
}

pub(super) async fn run(shell: Shell, options: Options, mut signals: Signals) -> anyhow::Result<()> {
    let DevServer { config, store, logging, announce } = tokio::select! {
        prepared = prepare(shell, options) => prepared?,
        () = signals.stop() => return Ok(()),
    };
    serve::run(config, store, &logging, Some(announce), signals).await
}

struct DevServer {
    config: Config,
    store: Store,
    logging: Logging,
    announce: serve::Announce,
}

async fn prepare(mut shell: Shell, options: Options) -> anyhow::Result<DevServer> {
    let place = Place::of(&shell);
    // Always the embedded database: a configured one is no place for a demo client.
    let file = shell.settings.data_dir.join("grantd.db");
    shell.settings.database.url = Some(format!("sqlite:{}", file.display()).into());
    shell.settings.database.url_file = PathBuf::new();
    shell.settings.database.auto_migrate = Some(true);
    shell.settings.keys.sealing_key_file = PathBuf::new();
    shell.settings.keys.sealing_key_command = Vec::new();
    shell.settings.keys.sealing_key_previous_file = PathBuf::new();
    shell.settings.keys.pkcs11_module = PathBuf::new();
    shell.settings.keys.pkcs11_pin_file = PathBuf::new();
    // The demo client authenticates by a secret over cleartext on loopback, which fapi2 refuses.
    "default".clone_into(&mut shell.settings.profile);
    listen_where_it_may(&mut shell, options.listen)?;
    let mut config = shell.config()?;
    config.drain_delay = Duration::ZERO;
    // No proxy stands in front of a container that tests talk to.
    config.behind_proxy = false;

    let tutor = Tutor::default();
    let filter = telemetry::Filter::from_environment("info")?;
    let logging = telemetry::start_for_people(config.log_format, filter, tutor.clone())?;
    let store = Store::open(&config.database, config.database_max_connections);
    serve::prepare::prepare_database(&config, &store).await?;
    let admin = administration(&config, store.clone()).await?;
    let secret = register(&shell, &admin, &options).await?;

    // A request of a client with several resources has to name one.
    let is_choice = options.resource.len() > 1;
    let demo = Demo {
        client_id: options.client_id,
        secret,
        secret_file: options.client_secret_file,
        scope: options.scope.map_or_else(|| SCOPE.to_owned(), |scope| scope.as_str().to_owned()),
        resource: options.resource.into_iter().next().filter(|_| is_choice),
    };
    let json = shell.json;
    let announce = move |issuer: &Issuer| {
        let text = if json { demo.document(issuer).to_string() } else { demo.welcome(issuer) };
        if !json {
            // The steps have the secret in them, so they go where it was shown, and never into the log.
            let next_steps = demo.next_steps(issuer, &place);
            tutor.teach(move || say_after_the_log(next_steps));
        }
        // A failed write is ignored: the server serves all the same.
        drop(writeln!(io::stdout(), "{text}"));
    };
    Ok(DevServer { config, store, logging, announce: Box::new(announce) })
}

/// Prints a text on stdout once the log line before it is written. A thread of its own waits, and is the one that blocks
/// where nobody reads stdout.
fn say_after_the_log(text: String) {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        // A failed write is ignored: the server serves all the same.
        drop(writeln!(io::stdout(), "{text}"));
    });
}

/// Sets the address of `--listen`, and refuses one that others can reach, except in a container.
fn listen_where_it_may(shell: &mut Shell, listen: Option<Listen>) -> anyhow::Result<()> {
    let server = &mut shell.settings.server;
    // One that cannot be parsed is refused with the configuration.
    let configured: Option<SocketAddr> = server.listen.parse().ok();
    if let Some(Listen { ip, port }) = listen {
        let port = port.or(configured.map(|address| address.port())).unwrap_or(8080);
        server.listen = SocketAddr::new(ip, port).to_string();
    }
    // An address that cannot be parsed is refused with the configuration.
    let is_local = |text: &str| text.parse::<SocketAddr>().map_or(true, |address| address.ip().is_loopback());
    let are_local = is_local(&server.listen) && is_local(&shell.settings.admin.listen);
    let asked = listen.is_some_and(|listen| !listen.ip.is_loopback());
    if are_local {
        return Ok(());
    }
    if !(asked && container::is_here()) {
        bail!(
            "`grantd dev` listens on loopback only, since it serves a demo client without TLS; in a container, `grantd dev --listen 0.0.0.0` listens on all addresses{}. Use `grantd serve` for anything else",
            if asked { ", but this process is in none" } else { "" }
        );
    }
    "behind-proxy".clone_into(&mut server.cleartext);
    if shell.settings.issuer.is_empty() {
        let port = server.listen.rsplit_once(':').map_or("", |(_, port)| port);
        if port == "0" {
            bail!(
                "with --listen {} and port 0, set the issuer to the URL that clients use: GRANTD__ISSUER=http://127.0.0.1:PORT",
                server.listen
            );
        }
        shell.settings.issuer = format!("http://127.0.0.1:{port}");
    }
    Ok(())
}

/// Registers the demo client, with its resources and its secret, or changes it to what the options say.
async fn register(shell: &Shell, admin: &Admin, options: &Options) -> anyhow::Result<ClientSecret> {
    let scope: Scope = options.scope.clone().map_or_else(|| SCOPE.parse(), Ok)?;
    let default_scope: Scope = options.scope.clone().map_or_else(|| DEFAULT_SCOPE.parse(), Ok)?;
    for uri in &options.resource {
        let resource = Resource {
            identifier: uri.clone(),
            scope: scope.clone(),
            alg: None,
            token_ttl: None,
            token_typ: TokenTyp::default(),
            status_list: false,
            introspectors: Vec::new(),
        };
        if is_taken(admin.create_resource(resource).await)? {
            let patch = ResourcePatch { scope: Change::To(scope.clone()), ..ResourcePatch::default() };
            admin.change_resource(uri, patch).await?;
        }
    }
    let patch = ClientPatch {
        scope: Change::To(scope),
        default_scope: Change::To(default_scope),
        resources: Change::To(options.resource.clone()),
        ..ClientPatch::default()
    };
    let client = patch.clone().new_client(options.client_id.clone(), admin.now())?;
    if is_taken(admin.create_client(client, None).await)? {
        shell.after_warnings(admin.change_client(&options.client_id, patch).await?);
    }
    let secret_options = SecretOptions { label: LABEL.to_owned(), expires_in: None };
    let Some(file) = &options.client_secret_file else {
        // Only hashes are stored, so each start generates a new secret.
        let made = admin.replace_secret(&options.client_id, secret_options).await?;
        return Ok(shell.after_warnings(made).secret);
    };
    let named = || format!("--client-secret-file {}", file.display());
    let secret = fs::File::open(file).map_err(Into::into).and_then(secret_from).with_context(named)?;
    let stored = admin.replace_with_secret(&options.client_id, &secret, secret_options).await?;
    shell.after_warnings(stored);
    Ok(secret)
}

/// Whether something of that name exists already.
fn is_taken<T>(created: Result<T, AdminError>) -> Result<bool, AdminError> {
    match created {
        Ok(_) => Ok(false),
        Err(AdminError::Store(StoreError::Taken { .. })) => Ok(true),
        Err(error) => Err(error),
    }
}

const SCOPE: &str = "read:data write:data";
const DEFAULT_SCOPE: &str = "read:data";
const LABEL: &str = "grantd dev";

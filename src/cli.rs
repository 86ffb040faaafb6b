//! The command line: arguments to calls, results to stdout as text or JSON, messages to stderr, faults to exit codes.

mod client;
mod doctor;
mod key;
mod resource;
mod secret;
mod seed;
mod token;

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{CommandFactory as _, Parser, Subcommand};
use serde::Serialize;
use serde_json::json;

use crate::config::{Config, ConfigError, LogFormat, Settings, Sources};
use crate::crypto::secret::{ClientSecret, Memory, SecretHash, new_secret_id};
use crate::model::time::Clock;
use crate::store::clients::NewSecret;
use crate::store::migrations::Schema;
use crate::store::{Database, Store, StoreError};
use crate::{serve, telemetry};

/// An OAuth 2.0 authorization server for machines.
#[derive(Debug, Parser)]
#[command(name = "grantd", version, arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    /// Configuration file [default: $GRANTD_CONFIG, /etc/grantd/grantd.toml, ./grantd.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override one key, such as server.listen=127.0.0.1:0 (repeatable)
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Print data as one JSON document
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve on the embedded database with a demo client, on loopback, to try it out
    Dev,
    /// Serve
    Serve,
    /// Apply the schema, then the seeds of database.seeds
    Migrate {
        /// Only tell what has been applied
        #[arg(long)]
        status: bool,
    },
    /// Registered clients
    #[command(subcommand)]
    Client(client::Command),
    /// Protected resources
    #[command(subcommand)]
    Resource(resource::Command),
    /// Signing keys
    #[command(subcommand)]
    Key(key::Command),
    /// Access tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Read a secret from stdin and print its argon2id hash, for hand-written SQL
    HashSecret,
    /// Exit 0 when the server is ready
    Health {
        /// The readiness URL [default: /readyz of admin.listen]
        #[arg(long)]
        url: Option<String>,
    },
    /// Check configuration, database, schema, keys, clocks and every row
    Doctor,
    /// The configuration in force
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print completions for a shell
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check it
    Check,
    /// Print it, secrets left out
    Print,
}

/// Runs the program. 0 done, 1 failed, 2 wrong usage, 69 database unavailable, 78 bad configuration.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime").and_then(|runtime| {
        let done = runtime.block_on(run(arguments));
        // Nothing that is still in the background may hold up the exit.
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The reader of stderr may have gone; there is nobody else to tell.
            drop(writeln!(io::stderr(), "grantd: {error:#}"));
            exit_code(&error)
        }
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    let denied = error.chain().any(|cause| matches!(cause.downcast_ref::<StoreError>(), Some(StoreError::Denied(_))));
    ExitCode::from(if denied || error.chain().any(|cause| cause.is::<ConfigError>()) {
        78
    } else if serve::unreachable(error) {
        69
    } else {
        1
    })
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let environment: HashMap<String, String> = std::env::vars().collect();
    let sources = || Sources::find(arguments.config.as_deref(), arguments.set.clone(), environment.clone());
    // These need no configuration, so none can keep them from working.
    match &arguments.command {
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Arguments::command(), "grantd", &mut io::stdout());
            return Ok(());
        }
        Command::Man => return Ok(clap_mangen::Man::new(Arguments::command()).render(&mut io::stdout())?),
        Command::Health { url } => return health(url.as_deref(), &sources()?.read()?).await,
        _ => {}
    }
    let sources = sources()?;
    let settings = sources.read()?;
    let shell = Shell { settings, sources, json: arguments.json, clock: Clock::System };
    match arguments.command {
        Command::Dev => shell.dev().await,
        Command::Serve => {
            let config = shell.config()?;
            let logging = telemetry::start(config.log_format, true, "info");
            let store = Store::open(&config.database, config.database_max_connections);
            serve::run(config, store, &logging, None).await
        }
        command => {
            let _logging = telemetry::start(LogFormat::Text, false, "warn");
            shell.command(command).await
        }
    }
}

/// What commands share.
struct Shell {
    settings: Settings,
    sources: Sources,
    json: bool,
    clock: Clock,
}

impl Shell {
    async fn command(&self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Migrate { status } => self.migrate(status).await,
            Command::Client(command) => command.run(self).await,
            Command::Resource(command) => command.run(self).await,
            Command::Key(command) => command.run(self).await,
            Command::Token(command) => command.run(self).await,
            Command::HashSecret => self.hash_secret(),
            Command::Doctor => doctor::run(self).await,
            Command::Config(ConfigCommand::Check) => {
                self.config()?;
                self.say("the configuration can be used")
            }
            Command::Config(ConfigCommand::Print) => self.print_config(),
            Command::Dev | Command::Serve | Command::Health { .. } | Command::Completions { .. } | Command::Man => Ok(()),
        }
    }

    fn config(&self) -> Result<Config, ConfigError> {
        Config::parse(&self.settings, &self.sources)
    }

    /// The store, ready to work on: the embedded database is brought up to date, PostgreSQL has to be.
    async fn store(&self) -> anyhow::Result<(Config, Store)> {
        let config = self.config()?;
        let store = Store::open(&config.database, 2);
        match (&config.database, store.schema().await?) {
            (_, Schema::Usable) => {}
            (Database::Sqlite(_), Schema::Older { .. }) => serve::prepare_database(&config, &store).await?,
            (Database::Postgres(_), Schema::Older { pending }) => {
                bail!("the database lacks {pending} schema migrations: run `grantd migrate`")
            }
        }
        Ok((config, store))
    }

    /// Prints data: JSON when asked for, else text.
    fn print(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let text = if self.json { serde_json::to_string(value)? } else { text() };
        Ok(writeln!(io::stdout(), "{}", text.trim_end())?)
    }

    /// Tells a person that something is done.
    #[expect(clippy::unused_self, reason = "reads as what it is at every call")]
    fn say(&self, message: &str) -> anyhow::Result<()> {
        Ok(writeln!(io::stderr(), "{message}")?)
    }

    async fn dev(&self) -> anyhow::Result<()> {
        const CLIENT: &str = "demo";
        const SCOPE: &str = "read:data write:data";
        const LABEL: &str = "grantd dev";
        let mut config = self.config()?;
        if !config.listen.ip().is_loopback() || !config.admin_listen.ip().is_loopback() {
            bail!("`grantd dev` listens on loopback only; use `grantd serve` for anything else");
        }
        config.database = Database::Sqlite(config.data_dir.join("grantd.db"));
        config.sealing_key_file = config.data_dir.join("sealing.key");
        (config.database_by_default, config.make_sealing_key, config.auto_migrate) = (false, true, true);
        config.drain_delay = std::time::Duration::ZERO;

        let logging = telemetry::start(config.log_format, false, "info");
        let store = Store::open(&config.database, config.database_max_connections);
        serve::prepare_database(&config, &store).await?;
        let (secret, stored) = self.new_secret(&config, LABEL.to_owned(), None)?;
        let demo = client::new(CLIENT.parse()?, SCOPE.parse()?, "read:data".parse()?, self.clock.now());
        match store.create_client(&demo, None).await {
            Ok(()) | Err(StoreError::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
        // Only hashes are kept, so each start has a secret of its own.
        store.delete_secrets_labelled(CLIENT, LABEL).await?;
        store.add_secret(CLIENT, &stored).await?;

        let json = self.json;
        let announce = move |issuer: &crate::protocol::metadata::Issuer| {
            let (endpoint, secret) = (issuer.endpoint("/token"), secret.expose());
            let text = if json {
                json!({"issuer": issuer.as_str(), "token_endpoint": endpoint, "client_id": CLIENT, "client_secret": secret, "scope": SCOPE}).to_string()
            } else {
                format!(
                    "\n  issuer         {issuer}\n  client_id      {CLIENT}\n  client_secret  {secret}\n\nGet a token:\n\n  curl -s {endpoint} -d grant_type=client_credentials -d client_id={CLIENT} -d client_secret={secret} -d 'scope={SCOPE}'\n\nStop with Ctrl-C. This is for trying out: read the README before anything else depends on it.\n"
                )
            };
            // Without a reader the server still serves.
            drop(writeln!(io::stdout(), "{text}"));
        };
        serve::run(config, store, &logging, Some(Box::new(announce))).await
    }

    async fn migrate(&self, status: bool) -> anyhow::Result<()> {
        let config = self.config()?;
        let store = Store::open(&config.database, 2);
        if !status {
            let mut with_migrations = config;
            with_migrations.auto_migrate = true;
            if let Database::Sqlite(path) = &with_migrations.database {
                serve::make_directory(path.parent().unwrap_or(std::path::Path::new(".")))?;
            }
            store.migrate(&with_migrations.database, with_migrations.seeds.as_deref()).await?;
            return self.report_migrations(&store, &with_migrations).await;
        }
        self.report_migrations(&store, &config).await
    }

    async fn report_migrations(&self, store: &Store, config: &Config) -> anyhow::Result<()> {
        let status = store.migration_status(config.seeds.as_deref()).await?;
        self.print(&status, || {
            let line = |one: &crate::store::migrations::Applied| {
                format!("{:<8} {:<7} {} {}\n", if one.applied { "applied" } else { "pending" }, one.kind, one.version, one.name)
            };
            status.iter().map(line).collect()
        })
    }

    fn new_secret(&self, config: &Config, label: String, expires_in: Option<crate::model::time::Span>) -> anyhow::Result<(ClientSecret, NewSecret)> {
        let secret_id = new_secret_id()?;
        let secret = ClientSecret::generate(&secret_id)?;
        let hash = SecretHash::new(secret.expose(), config.argon2, &mut Memory::default())?;
        let now = self.clock.now();
        let stored = NewSecret { secret_id, hash, imported: false, label, created_at: now, expires_at: expires_in.map(|span| now.plus(span)) };
        Ok((secret, stored))
    }

    fn hash_secret(&self) -> anyhow::Result<()> {
        let secret = read_secret_from_stdin()?;
        let cost = Config::parse(&self.settings, &self.sources).map(|config| config.argon2).unwrap_or_default();
        let hash = SecretHash::new(secret.expose(), cost, &mut Memory::default())?.to_string();
        self.print(&json!({"hash": hash}), || hash.clone())
    }

    fn print_config(&self) -> anyhow::Result<()> {
        let config = self.config()?;
        let database = match &config.database {
            Database::Sqlite(path) => format!("sqlite:{}", path.display()),
            Database::Postgres(options) => format!(
                "postgres://{}:[redacted]@{}:{}/{}",
                options.get_username(),
                options.get_host(),
                options.get_port(),
                options.get_database().unwrap_or_default()
            ),
        };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let issuer = config.issuer.clone().unwrap_or_else(crate::config::loopback_issuer);
        let seconds = |duration: std::time::Duration| format!("{}s", duration.as_secs());
        let value = json!({
            "issuer": issuer.as_str(),
            "data_dir": config.data_dir,
            "openid_configuration": config.openid_configuration,
            "profile": "default",
            "server": {
                "listen": config.listen, "cleartext": self.settings.server.cleartext, "max_connections": config.max_connections,
                "trusted_proxies": config.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "tls": {"cert_file": config.tls.as_ref().map(|tls| &tls.cert), "key_file": config.tls.as_ref().map(|tls| &tls.key)},
                "deadlines": {
                    "first_byte": seconds(config.deadlines.first_byte), "head": seconds(config.deadlines.head),
                    "body": seconds(config.body_deadline), "idle": seconds(config.deadlines.idle), "write": seconds(config.deadlines.write),
                    "drain_delay": seconds(config.drain_delay), "drain": seconds(config.deadlines.drain),
                },
            },
            "admin": {"listen": config.admin_listen},
            "database": {
                "url": database, "seeds": path(&config.seeds), "auto_migrate": config.auto_migrate,
                "max_connections": config.database_max_connections,
            },
            "registry": {"max_stale": config.max_stale.to_string()},
            "token": {"ttl": config.token_ttl.to_string(), "alg": config.token_alg.as_str(), "audience": config.defaults(&issuer).audience},
            "keys": {"sealing_key_file": config.sealing_key_file},
            "secrets": {
                "argon2": config.argon2.to_string(), "threads": config.hashing_threads, "queue": config.hashing_queue,
                "basic_reading": config.basic_reading,
            },
            "log": {"format": config.log_format},
        });
        self.print(&value, || flat(&value, ""))
    }
}

/// `a.b = value` a line.
fn flat(value: &serde_json::Value, under: &str) -> String {
    let serde_json::Value::Object(members) = value else { return format!("{under} = {value}\n") };
    let key = |name: &str| if under.is_empty() { name.to_owned() } else { format!("{under}.{name}") };
    members.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| flat(value, &key(name))).collect()
}

/// Reads a secret from stdin, its line end aside. Secrets never travel in arguments.
fn read_secret_from_stdin() -> anyhow::Result<ClientSecret> {
    if io::stdin().is_terminal() {
        writeln!(io::stderr(), "type the secret, then Enter and Ctrl-D:")?;
    }
    let mut secret = String::new();
    io::stdin().take(4096).read_to_string(&mut secret).context("reading the secret from stdin")?;
    let end = secret.trim_end_matches(['\r', '\n']).len();
    secret.truncate(end);
    if secret.len() < 16 || secret.contains(char::is_control) {
        bail!("a secret has at least 16 characters and no control characters; `grantd client secret add` makes a good one");
    }
    Ok(ClientSecret::new(secret))
}

async fn health(url: Option<&str>, settings: &Settings) -> anyhow::Result<()> {
    let url = match url {
        Some(url) => url.to_owned(),
        None => {
            let mut address: SocketAddr = settings.admin.listen.parse().context("admin.listen")?;
            if address.ip().is_unspecified() {
                address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
            }
            format!("http://{address}/readyz")
        }
    };
    let (status, body) = tokio::time::timeout(std::time::Duration::from_secs(3), fetch(&url)).await.context("no answer within 3 s")??;
    if status.is_success() { Ok(()) } else { bail!("not ready ({status}): {body}") }
}

async fn fetch(url: &str) -> anyhow::Result<(hyper::StatusCode, String)> {
    use http_body_util::BodyExt as _;
    let uri: hyper::Uri = url.parse().context("the URL")?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).context("the admin listener is reached by an http:// URL")?;
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let stream = tokio::net::TcpStream::connect(&address).await.with_context(|| format!("connecting to {address}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get(uri.path_and_query().map_or("/", |path| path.as_str())).header("host", authority.as_str());
    let answer = sender.send_request(request.body(axum::body::Body::empty())?).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}

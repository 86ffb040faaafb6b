//! The command line: turns arguments into calls, prints results on stdout as text or JSON and messages on stderr, and
//! maps errors to exit codes.

mod claims;
mod client;
mod config;
mod dev;
mod disclosure;
mod doctor;
mod federation;
mod health;
mod key;
mod list;
mod migrate;
mod open;
mod phrases;
mod reference;
mod resource;
mod token;
mod trusted_issuer;

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::admin::Outcome;
use crate::admin::secrets::{MAX_SECRET, chosen_secret};
use crate::config::{Config, ConfigError, LogFormat, Settings, Sources};
use crate::crypto::secret::{ClientSecret, HashMemory, SecretHash};
use crate::serve::signals::{self, Signals};
use crate::store::migrations::MigrationError;
use crate::store::{Store, StoreError};
use crate::telemetry::{Filter, printable};
use crate::{serve, telemetry};

/// An OAuth 2.0 authorization server for machines.
#[derive(Debug, Parser)]
#[command(name = "grantd", version, arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    /// Configuration file [default: `$GRANTD_CONFIG`, /etc/grantd/grantd.toml, ./grantd.toml]
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
    /// Run the server
    Serve,
    /// Apply the schema, then the seeds of database.seeds
    Migrate(migrate::Arguments),
    /// Manage registered clients
    #[command(subcommand)]
    Client(client::Command),
    /// Manage protected resources
    #[command(subcommand)]
    Resource(resource::Command),
    /// Manage issuers whose tokens prove who a client is
    #[command(subcommand)]
    TrustedIssuer(trusted_issuer::Command),
    /// Test tokens of trusted issuers against the rules of clients
    #[command(subcommand)]
    Federation(federation::Command),
    /// Manage signing keys
    #[command(subcommand)]
    Key(key::Command),
    /// Inspect and revoke access tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Read a secret from stdin and print its argon2id hash, for SQL written by hand
    HashSecret,
    /// Check that the server is ready: exit 0 if it is, 1 if not
    Health {
        /// The readiness URL [default: /readyz of admin.listen]
        #[arg(long)]
        url: Option<String>,
    },
    /// Check configuration, database, schema, keys, clocks and every row
    Doctor,
    /// Check or print the configuration in force
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print completions for a shell
    Completions {
        /// Shell to generate completions for
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// Write docs/reference
    #[command(hide = true)]
    Reference {
        /// Directory to write the pages into
        #[arg(long, default_value = "docs/reference")]
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check that the configuration is valid
    Check,
    /// Print the configuration in force, without secrets
    Print,
}

/// Runs the program. Exit codes: 0 done, 1 failed, 2 wrong usage, 69 database unavailable, 78 bad configuration.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::try_parse().unwrap_or_else(|error| refuse(&error));
    let done =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime").and_then(
            |runtime| {
                let done = runtime.block_on(run(arguments));
                // Background tasks must not delay the exit.
                runtime.shutdown_background();
                done
            },
        );
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has all that it wants.
        Err(error) if error.is::<list::OutputClosed>() => ExitCode::from(1),
        Err(error) => {
            // A failed write to stderr is ignored: there is nowhere else to report it.
            let remedy = phrases::remedy(&error).map(|remedy| format!("; {remedy}")).unwrap_or_default();
            drop(writeln!(io::stderr(), "grantd: {}", printable::one_line(&(error_chain(&error) + &remedy))));
            exit_code(&error)
        }
    }
}

/// Prints the error of the arguments, or the requested help, and ends the process.
fn refuse(error: &clap::Error) -> ! {
    // The message repeats arguments, which may come from an untrusted source, so they are escaped before it is made.
    let escaped = std::env::args_os().map(|argument| printable::one_line(&argument.to_string_lossy()).into_owned());
    match Arguments::try_parse_from(escaped) {
        Err(escaped) => escaped.exit(),
        // The escaped arguments are valid, as when an escaped client id is one.
        Ok(_) => {
            drop(writeln!(io::stderr(), "{}", printable::one_line(&error.render().to_string())));
            std::process::exit(error.exit_code())
        }
    }
}

/// Returns the chain of causes as one line, without causes that an earlier message quotes.
fn error_chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    let of_store = |is: fn(&StoreError) -> bool| {
        error.chain().any(|cause| match cause.downcast_ref::<MigrationError>() {
            Some(MigrationError::Store(error)) => is(error),
            _ => cause.downcast_ref::<StoreError>().is_some_and(is),
        })
    };
    let shared = error.chain().any(|cause| {
        matches!(
            cause.downcast_ref::<MigrationError>(),
            Some(MigrationError::Shared { .. } | MigrationError::Development { .. })
        )
    });
    let configuration = error.chain().any(<dyn std::error::Error>::is::<ConfigError>);
    ExitCode::from(if configuration || shared || of_store(StoreError::is_configuration) {
        78
    } else if of_store(StoreError::is_outage) || of_store(|error| matches!(error, StoreError::Locked(_))) {
        69
    } else {
        1
    })
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    // Installed before anything that waits. A daemon drains; other commands end at once.
    let daemon = match &arguments.command {
        Command::Dev | Command::Serve => Some(Signals::new().context("listening for signals")?),
        _ => {
            signals::end_when_told().context("listening for signals")?;
            None
        }
    };
    let sources = || Sources::find(arguments.config.as_deref(), arguments.set.clone(), std::env::vars_os());
    // These commands need no configuration, so a faulty one does not stop them.
    match &arguments.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "grantd", &mut script);
            return Ok(io::stdout().write_all(&script)?);
        }
        Command::Man => return Ok(clap_mangen::Man::new(Arguments::command()).render(&mut io::stdout())?),
        Command::Reference { dir } => return reference::write(dir).await,
        Command::Health { url } => return health::run(url.as_deref(), arguments.config.as_deref(), sources()).await,
        _ => {}
    }
    let sources = sources()?;
    let settings = sources.read()?;
    let shell = Shell { settings, sources, json: arguments.json };
    match (arguments.command, daemon) {
        (Command::Dev, Some(signals)) => dev::run(shell, signals).await,
        (Command::Serve, Some(signals)) => {
            let config = shell.config()?;
            let logging = telemetry::start(config.log_format, true, Filter::from_environment("info")?)
                .context("starting the log")?;
            let store = Store::open(&config.database, config.database_max_connections);
            serve::run(config, store, &logging, None, signals).await
        }
        (command, _) => {
            let _logging = telemetry::start(LogFormat::Text, false, Filter::from_environment("warn")?)
                .context("starting the log")?;
            shell.command(command).await
        }
    }
}

/// Context of a command: settings, their sources, and the output format.
struct Shell {
    settings: Settings,
    sources: Sources,
    json: bool,
}

impl Shell {
    async fn command(&self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Migrate(arguments) => arguments.run(self).await,
            Command::Client(command) => command.run(self).await,
            Command::Resource(command) => command.run(self).await,
            Command::TrustedIssuer(command) => command.run(self).await,
            Command::Federation(command) => command.run(self).await,
            Command::Key(command) => command.run(self).await,
            Command::Token(command) => command.run(self).await,
            Command::HashSecret => self.hash_secret(),
            Command::Doctor => doctor::run(self).await,
            Command::Config(ConfigCommand::Check) => {
                config::check(&self.config()?)?;
                self.info("the configuration is valid")
            }
            Command::Config(ConfigCommand::Print) => config::print(self),
            Command::Dev
            | Command::Serve
            | Command::Health { .. }
            | Command::Completions { .. }
            | Command::Man
            | Command::Reference { .. } => Ok(()),
        }
    }

    fn config(&self) -> Result<Config, ConfigError> {
        Config::parse(&self.settings, &self.sources)
    }

    /// Prints data, as JSON with `--json` and else as text.
    fn print(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let text = if self.json { printable::json(value)? } else { text() };
        let mut stdout = io::stdout();
        writeln!(stdout, "{}", printable::lines(text.trim_end()))?;
        Ok(stdout.flush()?)
    }

    /// Prints a message for the operator on stderr.
    #[expect(clippy::unused_self, reason = "reads as what it is at every call")]
    fn info(&self, message: &str) -> anyhow::Result<()> {
        Ok(writeln!(io::stderr(), "{}", printable::one_line(message))?)
    }

    /// Prints the warnings of an outcome on stderr, and returns its value. A failed write is ignored: the change has
    /// been made.
    #[expect(clippy::unused_self, reason = "reads as what it is at every call")]
    fn after_warnings<T>(&self, outcome: Outcome<T>) -> T {
        for warning in &outcome.warnings {
            drop(writeln!(io::stderr(), "{}", printable::one_line(&phrases::line(warning))));
        }
        outcome.value
    }

    fn hash_secret(&self) -> anyhow::Result<()> {
        let secret = read_secret_from_stdin()?;
        let cost = Config::argon2(&self.settings, &self.sources)?;
        let hash = SecretHash::new(secret.expose(), cost, &mut HashMemory::default())?.to_string();
        self.print(&json!({"hash": hash}), || hash.clone())
    }
}

/// Reads a secret from stdin, without the line end. Secrets never travel in arguments.
fn read_secret_from_stdin() -> anyhow::Result<ClientSecret> {
    if io::stdin().is_terminal() {
        writeln!(io::stderr(), "type the secret, then Enter and Ctrl-D:")?;
    }
    secret_from(io::stdin())
}

fn secret_from(input: impl io::Read) -> anyhow::Result<ClientSecret> {
    let mut secret = Zeroizing::new(Vec::new());
    // One byte more than the longest secret with its line end, so that a longer input is noticed.
    input.take(MAX_SECRET as u64 + 3).read_to_end(&mut secret).context("reading the secret from stdin")?;
    let end = secret.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |last| last + 1);
    Ok(chosen_secret(secret.get(..end).unwrap_or_default())?)
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// End of messages about revocations: when and where they take effect.
const REVOCATION_REACH: &str =
    ", within a second on every replica; resource servers that do not introspect accept them until they expire";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_too_long_is_refused_and_not_cut() {
        let read =
            |text: &[u8]| secret_from(text).map(|secret| secret.expose().len()).map_err(|error| error.to_string());
        assert_eq!(read(&[b'x'; 4096]), Ok(4096));
        assert_eq!(read(&[&[b'x'; 4096][..], b"\r\n"].concat()), Ok(4096));
        for too_long in [4097, 4098, 9000, 10_000_000] {
            assert!(read(&vec![b'x'; too_long]).unwrap_err().contains("at most 4096 bytes"), "{too_long}");
            // No character of two bytes is cut in the middle.
            assert!(read("é".repeat(too_long).as_bytes()).unwrap_err().contains("at most 4096 bytes"), "{too_long}");
        }
        assert!(read(b"short\n").unwrap_err().contains("at least 16"));
        assert!(read(&[0xff; 20]).unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}

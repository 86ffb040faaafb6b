//! The command line: turns arguments into calls, prints results on stdout as text or JSON and messages on stderr, and
//! maps errors to exit codes.

mod admin_listener;
mod claims;
mod client;
mod completion;
mod config;
mod confirm;
mod database;
mod dev;
mod disclosure;
mod doctor;
mod examples;
mod exit;
mod explain;
mod export;
mod federation;
mod health;
mod import;
mod key;
mod list;
mod look;
mod migrate;
mod nearest;
mod next_step;
mod open;
mod parsing;
mod phrases;
mod progress;
mod reference;
mod resource;
mod states;
mod status;
mod table;
mod token;
mod trusted_issuer;

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::admin::Outcome;
use crate::admin::secrets::{MAX_SECRET, chosen_secret};
use crate::config::{Config, ConfigError, LogFormat, Settings, Sources};
use crate::crypto::secret::{ClientSecret, HashMemory, SecretHash};
use crate::serve::signals::{self, Signals};
use crate::store::Store;
use crate::telemetry::{Filter, printable};
use crate::{serve, telemetry};
use exit::Exit;
use list::{OutputClosed, written};
use parsing::{command, refuse};

/// An OAuth 2.0 authorization server for machines.
#[derive(Debug, Parser)]
#[command(name = "grantd", version, arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    /// Configuration file [default: `$GRANTD_CONFIG`, /etc/grantd/grantd.toml, ./grantd.toml]
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    config: Option<PathBuf>,
    /// Override one key, such as server.listen=127.0.0.1:0 (repeatable)
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value, help_heading = GLOBAL)]
    set: Vec<(String, String)>,
    /// Print data as one JSON document
    #[arg(long, global = true, help_heading = GLOBAL)]
    json: bool,
    /// Print times in UTC (RFC 3339) instead of "9 days ago"
    #[arg(long, global = true, help_heading = GLOBAL)]
    utc: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve on the embedded database with a demo client, on loopback, to try it out
    Dev(dev::Options),
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
    /// Get, inspect and revoke access tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Copy everything into another database
    #[command(subcommand)]
    Database(database::Command),
    /// Register the clients of another authorization server
    #[command(subcommand)]
    Import(import::Command),
    /// Print the registry as a seed: hashes included, private keys never
    Export,
    /// Read a secret from stdin and print its argon2id hash, for SQL written by hand
    HashSecret,
    /// Check that the server is ready: exit 0 if it is, 1 if not
    Health {
        /// The readiness URL [default: /readyz of admin.listen]
        #[arg(long)]
        url: Option<String>,
    },
    /// Explain why requests were refused, as the running server remembers them
    Explain(explain::Arguments),
    /// Show the state of the running server on one screen
    Status(status::Arguments),
    /// Check configuration, database, schema, keys, clocks and every row
    Doctor,
    /// Check or print the configuration in force
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print completions for a shell; in bash, zsh and fish they include the ids of clients, resources and keys
    Completions {
        /// Shell to generate completions for
        shell: clap_complete::Shell,
    },
    /// Print the ids that may stand in place of the last word
    #[command(hide = true)]
    Complete {
        /// Words of the command line, without the program
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
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

/// Runs the program, and returns its exit code (`docs/reference/cli.md`).
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parsed(std::env::args_os()).unwrap_or_else(|error| refuse(&error));
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
        Err(error) => tell(&error).code().into(),
    }
}

/// Prints an error on stderr, and returns the exit code. A failed write is ignored: there is nowhere else to report it.
fn tell(error: &anyhow::Error) -> Exit {
    // The reader of the output has all that it wants. An error that says more is told.
    if error.is::<OutputClosed>() && error.chain().len() == 1 {
        return Exit::Failed;
    }
    progress::clear();
    let remedy = phrases::remedy(error).map(|remedy| format!("; {remedy}")).unwrap_or_default();
    drop(writeln!(io::stderr(), "grantd: {}", printable::one_line(&(error_chain(error) + &remedy))));
    Exit::of(error)
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

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    // Installed before anything that waits. A daemon drains; other commands end at once.
    let daemon = match &arguments.command {
        Command::Dev(_) | Command::Serve => Some(Signals::new().context("listening for signals")?),
        _ => {
            signals::end_when_told().context("listening for signals")?;
            None
        }
    };
    let sources = || Sources::find(arguments.config.as_deref(), arguments.set.clone(), std::env::vars_os());
    // These commands need no configuration, so a faulty one does not stop them.
    match &arguments.command {
        Command::Completions { shell } => {
            return put_out(&completion::script(*shell, command()));
        }
        Command::Complete { words } => {
            completion::print_ids(words, command()).await;
            return Ok(());
        }
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command()).render(&mut page)?;
            return put_out(&page);
        }
        Command::Token(command) if command.needs_no_shell() => {
            return command.run_without_shell(arguments.json, sources()).await;
        }
        Command::Reference { dir } => return reference::write(dir).await,
        Command::Explain(explain) => return explain.run(arguments.json, arguments.config.as_deref(), sources).await,
        Command::Status(status) => return status.run(arguments.json, arguments.config.as_deref(), sources()).await,
        Command::Health { url } => return health::run(url.as_deref(), arguments.config.as_deref(), sources()).await,
        _ => {}
    }
    let sources = sources()?;
    let settings = sources.read()?;
    let shell = Shell { settings, sources, json: arguments.json, utc: arguments.utc };
    match (arguments.command, daemon) {
        (Command::Dev(options), Some(signals)) => Box::pin(dev::run(shell, options, signals)).await,
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
            match shell.command(command).await {
                Err(error) => Err(shell.with_nearest_id(error).await),
                Ok(()) => Ok(()),
            }
        }
    }
}

/// Context of a command: settings, their sources, and the output format.
struct Shell {
    settings: Settings,
    sources: Sources,
    json: bool,
    utc: bool,
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
            Command::Database(command) => command.run(self).await,
            Command::Import(command) => command.run(self).await,
            Command::Export => export::run(self).await,
            Command::HashSecret => self.hash_secret(),
            Command::Doctor => doctor::run(self).await,
            Command::Config(ConfigCommand::Check) => {
                config::check(&self.config()?)?;
                self.info("the configuration is valid")
            }
            Command::Config(ConfigCommand::Print) => config::print(self),
            Command::Dev(_)
            | Command::Serve
            | Command::Explain(_)
            | Command::Status(_)
            | Command::Health { .. }
            | Command::Completions { .. }
            | Command::Complete { .. }
            | Command::Man
            | Command::Reference { .. } => Ok(()),
        }
    }

    fn config(&self) -> Result<Config, ConfigError> {
        Config::parse(&self.settings, &self.sources)
    }

    /// Prints data, as JSON with `--json` and else as text.
    fn print(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        print(self.json, value, text)
    }

    /// Prints a message for the operator on stderr.
    #[expect(clippy::unused_self, reason = "reads as what it is at every call")]
    fn info(&self, message: &str) -> anyhow::Result<()> {
        progress::clear();
        Ok(writeln!(io::stderr(), "{}", printable::one_line(message))?)
    }

    /// Prints the warnings of an outcome on stderr, and returns its value. A failed write is ignored: the change has
    /// been made.
    #[expect(clippy::unused_self, reason = "reads as what it is at every call")]
    fn after_warnings<T>(&self, outcome: Outcome<T>) -> T {
        if !outcome.warnings.is_empty() {
            progress::clear();
        }
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

/// Prints data on stdout, as JSON or as text.
fn print(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let text = if json { printable::json(value)? } else { text() };
    progress::clear();
    put_out(format!("{}\n", printable::lines(text.trim_end())).as_bytes())
}

/// Writes bytes on stdout, all of them.
fn put_out(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    written(stdout.write_all(bytes).and_then(|()| stdout.flush()))
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
    let secret = secret.get(..end).unwrap_or_default();
    // A byte order mark, which some editors write before the text of a file.
    Ok(chosen_secret(secret.strip_prefix(b"\xef\xbb\xbf").unwrap_or(secret))?)
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Heading of the global options in the help.
const GLOBAL: &str = "Global options";
/// End of messages about revocations: when and where they take effect.
const REVOCATION_REACH: &str = ", within a second on every replica; resource servers that neither introspect nor check the status list accept them until they expire";

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
        assert_eq!(read(b"\xef\xbb\xbfwritten by an editor\r\n"), Ok(20), "without the byte order mark");
        assert!(read(&[0xff; 20]).unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}

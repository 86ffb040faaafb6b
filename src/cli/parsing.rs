//! Parsing of the command line, by a parser whose help has examples.

use std::ffi::OsString;
use std::io::{self, Write as _};

use clap::{CommandFactory as _, FromArgMatches as _};

use super::list::written;
use super::{Arguments, examples, tell};
use crate::telemetry::printable;

/// Returns the commands, with the examples of their help.
pub(super) fn command() -> clap::Command {
    examples::with_examples(Arguments::command())
}

impl Arguments {
    /// Parses the words of a command line.
    pub(super) fn parsed(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let mut command = command();
        let mut matches = command.try_get_matches_from_mut(words)?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }
}

/// Returns an argument without the PIN of a PKCS #11 URI, since messages are kept in logs.
fn without_pin(argument: &str) -> String {
    match argument.split_once("pin-value=") {
        Some((before, _)) => format!("{before}pin-value=…"),
        None => argument.to_owned(),
    }
}

/// Prints the error of the arguments, or the requested help, and ends the process.
pub(super) fn refuse(error: &clap::Error) -> ! {
    // The message repeats arguments, which may come from an untrusted source, so they are escaped before it is made.
    let escaped = std::env::args_os().map(|argument| without_pin(&printable::one_line(&argument.to_string_lossy())));
    match Arguments::parsed(escaped) {
        Err(escaped) => match written(escaped.print()) {
            Err(error) if !escaped.use_stderr() => std::process::exit(tell(&error).code().into()),
            _ => std::process::exit(escaped.exit_code()),
        },
        // The escaped arguments are valid, as when an escaped client id is one.
        Ok(_) => {
            drop(writeln!(io::stderr(), "{}", printable::one_line(&error.render().to_string())));
            std::process::exit(error.exit_code())
        }
    }
}

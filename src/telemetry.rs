//! Log and metrics: structured events as JSON or text, and the metrics.

mod filter;
mod json;
mod lines;
pub mod metrics;
pub mod printable;
mod process;
pub mod tutor;

use std::io::{self, IsTerminal as _, Write as _};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;
use crate::model::event::Event;
use json::Json;
use lines::{Lines, Writer};
use tutor::{Tutor, TutorLayer};

pub use filter::Filter;

/// The running log. Dropping it writes the last lines.
pub struct Logging {
    _writer: Writer,
    pub(in crate::telemetry) lines: Lines,
}

/// Starts logging: to stdout for a daemon, to stderr for a command whose stdout is data. No level shows a secret, since
/// types that contain one do not print it.
///
/// # Errors
/// When the writing thread cannot be started.
pub fn start(format: LogFormat, daemon: bool, filter: Filter) -> io::Result<Logging> {
    let terminal = if daemon { io::stdout().is_terminal() } else { io::stderr().is_terminal() };
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => daemon && !terminal,
    };
    let (lines, writer) = if daemon { Lines::to(io::stdout())? } else { Lines::to(io::stderr())? };
    let Filter { events: filter, silent } = filter;
    if daemon && silent {
        // The only message with the log off. A failed write to stderr is ignored.
        drop(writeln!(io::stderr(), "grantd: RUST_LOG switches the log off: no event is written"));
    }
    if json {
        tracing_subscriber::registry().with(filter).with(Json(lines.clone())).init();
    } else {
        let text = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines.clone());
        text.with_target(false).with_ansi(terminal).fmt_fields(printable::fields()).init();
    }
    log_panics();
    Ok(Logging { _writer: writer, lines })
}

/// Starts the log of `grantd dev` on stderr: lines for people with [`LogFormat::Auto`], and else the lines of a daemon.
///
/// # Errors
/// When the writing thread cannot be started.
pub fn start_for_people(format: LogFormat, filter: Filter, tutor: Tutor) -> io::Result<Logging> {
    if format != LogFormat::Auto {
        return start(format, false, filter);
    }
    let (lines, writer) = Lines::to(io::stderr())?;
    tracing_subscriber::registry().with(filter.events).with(TutorLayer { lines: lines.clone(), tutor }).init();
    log_panics();
    Ok(Logging { _writer: writer, lines })
}

/// Logs a panic as an event. Its message may quote input, so only its location is logged.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map_or_else(|| "somewhere".to_owned(), ToString::to_string);
        tracing::error!(event = Event::Internal.as_str(), reason = "panic", at);
    }));
}

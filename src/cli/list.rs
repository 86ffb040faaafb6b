//! Lists that are printed while they are read: with `--json` one JSON array, else a line for each item.

use std::io::{self, BufWriter, ErrorKind, Stdout, Write as _};

use serde::Serialize;

use super::Shell;
use crate::telemetry::printable;

/// List that is being printed on stdout. Nothing is printed before the first item, or the end.
#[derive(Debug)]
pub(super) struct List {
    out: BufWriter<Stdout>,
    json: bool,
    is_empty: bool,
}

/// Error for an output that its reader has closed, as `head` does.
#[derive(Debug, thiserror::Error)]
#[error("stdout is closed")]
pub(super) struct OutputClosed;

impl Shell {
    /// Begins a list.
    pub(super) fn list(&self) -> List {
        List { out: BufWriter::with_capacity(BUFFER, io::stdout()), json: self.json, is_empty: true }
    }
}

impl List {
    /// Prints an item, as JSON or as a line.
    pub(super) fn item<T: Serialize>(
        &mut self,
        value: impl FnOnce() -> T,
        line: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let is_first = std::mem::replace(&mut self.is_empty, false);
        if self.json {
            let value = printable::json(&value())?;
            written(write!(self.out, "{}{value}", if is_first { '[' } else { ',' }))
        } else {
            written(writeln!(self.out, "{}", printable::lines(line().trim_end())))
        }
    }

    /// Ends the list.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        let end = match (self.json, self.is_empty) {
            (true, true) => "[]\n",
            (true, false) => "]\n",
            (false, true) => "\n",
            (false, false) => "",
        };
        written(self.out.write_all(end.as_bytes()).and_then(|()| self.out.flush()))
    }
}

/// Turns an error of stdout into that of a command.
pub(super) fn written(written: io::Result<()>) -> anyhow::Result<()> {
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => OutputClosed.into(),
        _ => error.into(),
    })
}

/// Bytes that are written at once.
const BUFFER: usize = 64 * 1024;

//! Lists that are printed while they are read: with `--json` one JSON array, else a table.

use std::io::{self, BufWriter, ErrorKind, Stdout, Write as _};

use serde::Serialize;

use super::Shell;
use super::look::Look;
use super::progress::{self, Progress};
use super::table::{Cell, Column, Sheet, Table, Times};
use crate::admin::Admin;
use crate::telemetry::printable;

/// List that is being printed on stdout. Its memory does not grow with its length.
#[derive(Debug)]
pub(super) struct List {
    out: BufWriter<Stdout>,
    form: Form,
    is_empty: bool,
    /// Text of a table before it is written.
    text: String,
    progress: Progress,
}

#[derive(Debug)]
enum Form {
    Json,
    Table(Table),
}

/// Error for an output that its reader has closed, as `head` does.
#[derive(Debug, thiserror::Error)]
#[error("stdout is closed")]
pub(super) struct OutputClosed;

impl Shell {
    /// Begins a list with these columns.
    pub(super) fn list(&self, columns: &'static [Column]) -> List {
        List {
            out: BufWriter::with_capacity(BUFFER, io::stdout()),
            form: if self.json { Form::Json } else { Form::Table(Table::new(columns, Look::of_stdout())) },
            is_empty: true,
            text: String::new(),
            progress: Progress::begin_of_list(),
        }
    }

    /// Prints a list that is in memory.
    pub(super) fn print_list<T, V: Serialize>(
        &self,
        columns: &'static [Column],
        items: &[T],
        value: impl Fn(&T) -> V,
        row: impl Fn(&T) -> Vec<Cell<'_>>,
    ) -> anyhow::Result<()> {
        let mut list = self.list(columns);
        for item in items {
            list.item(|| value(item), || row(item))?;
        }
        list.end()
    }

    /// Prints data, as JSON with `--json` and else as a sheet.
    pub(super) fn print_sheet(&self, value: &impl Serialize, fill: impl FnOnce(&mut Sheet)) -> anyhow::Result<()> {
        if self.json {
            return self.print(value, String::new);
        }
        let mut sheet = Sheet::new(Look::of_stdout());
        fill(&mut sheet);
        progress::clear();
        let mut stdout = io::stdout();
        written(stdout.write_all(sheet.into_text().as_bytes()).and_then(|()| stdout.flush()))
    }

    /// Returns the writer of moments for this command.
    pub(super) fn times(&self, admin: &Admin) -> Times {
        Times { now: admin.now(), utc: self.utc }
    }
}

impl List {
    /// Prints an item, as JSON or as a row of the table.
    pub(super) fn item<'a, T: Serialize>(
        &mut self,
        value: impl FnOnce() -> T,
        row: impl FnOnce() -> Vec<Cell<'a>>,
    ) -> anyhow::Result<()> {
        let is_first = std::mem::replace(&mut self.is_empty, false);
        self.progress.add(1);
        match &mut self.form {
            Form::Json => {
                let value = printable::json(&value())?;
                written(write!(self.out, "{}{value}", if is_first { '[' } else { ',' }))
            }
            Form::Table(table) => {
                table.row(row(), &mut self.text);
                let done = written(self.out.write_all(self.text.as_bytes()));
                self.text.clear();
                done
            }
        }
    }

    /// Ends the list. A table without rows prints nothing on stdout, and says so on stderr.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        match self.form {
            Form::Json => self.text.push_str(if self.is_empty { "[]\n" } else { "]\n" }),
            Form::Table(table) => table.end(&mut self.text),
        }
        drop(self.progress);
        if self.text.is_empty() && self.is_empty {
            writeln!(io::stderr(), "the list is empty")?;
        }
        written(self.out.write_all(self.text.as_bytes()).and_then(|()| self.out.flush()))
    }
}

/// Tells an output that its reader has closed from one that cannot be written.
pub(super) fn written(written: io::Result<()>) -> anyhow::Result<()> {
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => OutputClosed.into(),
        _ => error.into(),
    })
}

/// Bytes that are written at once.
const BUFFER: usize = 64 * 1024;

//! Tables and sheets for people: headings, columns aligned by display width, colours, and times in words.
//!
//! The widths come from the first rows (`SAMPLE`), so a list of a million rows is printed while it is read. A later
//! cell that is wider moves the rest of its row. On a terminal, a table that is too wide is cut in the columns that
//! allow it. A pipe or a file gets the same layout without colours, and nothing is cut there.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::look::{Look, Tone};
use crate::model::time::UnixTime;
use crate::telemetry::printable;

/// Column of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    heading: &'static str,
    /// Whether a terminal that is too narrow may cut the column. Ids are never cut, so that they can be copied.
    can_shrink: bool,
}

impl Column {
    /// Makes a column whose cells are always printed whole.
    pub(super) const fn whole(heading: &'static str) -> Self {
        Self { heading, can_shrink: false }
    }

    /// Makes a column that a narrow terminal cuts.
    pub(super) const fn shrinking(heading: &'static str) -> Self {
        Self { heading, can_shrink: true }
    }
}

/// Returns the columns of a table of one client: those of a table of all clients, without the first, the client.
pub(super) const fn columns_of_client(of_all: &'static [Column]) -> &'static [Column] {
    match of_all {
        [_, others @ ..] => others,
        [] => of_all,
    }
}

/// Text of a cell, escaped for terminals, with its tone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell<'a> {
    text: Cow<'a, str>,
    tone: Tone,
}

impl<'a> Cell<'a> {
    /// Makes a cell. Characters that are not visible are escaped.
    pub(super) fn new(text: impl Into<Cow<'a, str>>) -> Self {
        Self::toned(text, Tone::Plain)
    }

    /// Makes a cell with a tone.
    pub(super) fn toned(text: impl Into<Cow<'a, str>>, tone: Tone) -> Self {
        let text = text.into();
        let escaped = match printable::one_line(&text) {
            Cow::Owned(escaped) => Some(escaped),
            Cow::Borrowed(_) => None,
        };
        Self { text: escaped.map_or(text, Cow::Owned), tone }
    }

    /// Appends words to the text.
    pub(super) fn and(mut self, words: &'static str) -> Self {
        self.text += words;
        self
    }

    fn into_owned(self) -> Cell<'static> {
        Cell { text: self.text.into_owned().into(), tone: self.tone }
    }
}

/// Table that is being written.
#[derive(Debug)]
pub(super) struct Table {
    columns: &'static [Column],
    look: Look,
    /// The rows before the widths are known.
    sample: Vec<Vec<Cell<'static>>>,
    widths: Option<Vec<usize>>,
}

impl Table {
    /// Begins a table.
    pub(super) fn new(columns: &'static [Column], look: Look) -> Self {
        Self { columns, look, sample: Vec::new(), widths: None }
    }

    /// Adds a row. Appends the rows whose layout is known to `out`.
    pub(super) fn row(&mut self, row: Vec<Cell<'_>>, out: &mut String) {
        match &self.widths {
            Some(widths) => self.write(&row, widths, out),
            None => {
                self.sample.push(row.into_iter().map(Cell::into_owned).collect());
                if self.sample.len() >= SAMPLE {
                    self.lay_out(out);
                }
            }
        }
    }

    /// Appends the rows that wait for their layout. A table without rows has no heading.
    pub(super) fn end(mut self, out: &mut String) {
        if self.widths.is_none() && !self.sample.is_empty() {
            self.lay_out(out);
        }
    }

    /// Decides the widths, and appends the heading and the rows so far.
    fn lay_out(&mut self, out: &mut String) {
        let rows = std::mem::take(&mut self.sample);
        let natural = self.columns.iter().enumerate().map(|(at, column)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| width(&cell.text));
            cells.chain([width(column.heading)]).max().unwrap_or_default()
        });
        let widths = fitted(natural.collect(), self.columns, self.look.width);
        let heading: Vec<Cell<'_>> =
            self.columns.iter().map(|column| Cell::toned(column.heading, Tone::Faint)).collect();
        self.write(&heading, &widths, out);
        for row in &rows {
            self.write(row, &widths, out);
        }
        self.widths = Some(widths);
    }

    fn write(&self, row: &[Cell<'_>], widths: &[usize], out: &mut String) {
        let mut pending = 0;
        for ((cell, column), most) in row.iter().zip(self.columns).zip(widths) {
            let is_cut = column.can_shrink && self.look.width.is_some() && width(&cell.text) > *most;
            let cut = is_cut.then(|| cut(&cell.text, *most));
            let text = cut.as_deref().unwrap_or(&cell.text);
            if !text.is_empty() {
                // Blanks are written only before a cell, so that no row ends with them.
                pad(std::mem::take(&mut pending), out);
                self.look.paint(text, cell.tone, out);
            }
            pending += most.saturating_sub(width(text)) + GAP;
        }
        out.push('\n');
    }
}

/// Facts about one thing, one a line, with tables below.
#[derive(Debug)]
pub(super) struct Sheet {
    look: Look,
    facts: Vec<(&'static str, Cell<'static>)>,
    text: String,
}

impl Sheet {
    /// Begins a sheet.
    pub(super) fn new(look: Look) -> Self {
        Self { look, facts: Vec::new(), text: String::new() }
    }

    /// Adds a fact.
    pub(super) fn fact(&mut self, name: &'static str, cell: Cell<'_>) {
        self.facts.push((name, cell.into_owned()));
    }

    /// Adds a table, below an empty line. A table without rows is left out.
    pub(super) fn table<'a>(&mut self, columns: &'static [Column], rows: impl IntoIterator<Item = Vec<Cell<'a>>>) {
        let (mut table, mut text) = (Table::new(columns, self.look), String::new());
        rows.into_iter().for_each(|row| table.row(row, &mut text));
        table.end(&mut text);
        if !text.is_empty() {
            self.text += "\n";
            self.text += &text;
        }
    }

    /// Returns the sheet as text.
    pub(super) fn into_text(self) -> String {
        let widest = self.facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        let mut text = String::new();
        for (name, cell) in &self.facts {
            if cell.text.is_empty() {
                text += name;
            } else {
                text += &format!("{name:<widest$}  ");
                self.look.paint(&cell.text, cell.tone, &mut text);
            }
            text.push('\n');
        }
        // Without facts, the first table has no empty line above it.
        text += if self.facts.is_empty() { self.text.trim_start_matches('\n') } else { &self.text };
        text
    }
}

/// Writer of moments, by the clock of the database: as a distance from now in words, or in RFC 3339 with `--utc`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// The present second.
    pub now: UnixTime,
    /// Whether moments are written in RFC 3339.
    pub utc: bool,
}

impl Times {
    /// Writes a moment: `9 days ago`, `in 9 days`.
    pub(super) fn words(self, at: UnixTime) -> String {
        let seconds = at.0.saturating_sub(self.now.0);
        match seconds {
            _ if self.utc => at.to_string(),
            1.. => span("in ", seconds, true, ""),
            0 => "now".to_owned(),
            _ => span("", seconds.saturating_neg(), false, " ago"),
        }
    }

    /// Writes a moment as a cell.
    pub(super) fn cell(self, at: UnixTime) -> Cell<'static> {
        Cell::new(self.words(at))
    }

    /// Writes a moment as a cell, or `never`.
    pub(super) fn or_never(self, at: Option<UnixTime>) -> Cell<'static> {
        at.map_or_else(|| Cell::toned("never", Tone::Faint), |at| self.cell(at))
    }

    /// Writes the time since a moment: `for 120 days`, or `since` the moment with `--utc`.
    pub(super) fn since(self, at: UnixTime) -> String {
        if self.utc { format!("since {at}") } else { span("for ", self.now.0.saturating_sub(at.0), false, "") }
    }
}

/// Writes a span in the largest unit that still tells two spans apart, between two words. Spans to come are rounded to the nearest unit, so
/// that a secret made a second ago for 30 days ends in 30 days.
fn span(before: &str, seconds: i64, nearest: bool, behind: &str) -> String {
    // A unit is used from this many of it on.
    let units = [(365 * 86400, 2, "year"), (86400, 2, "day"), (3600, 2, "hour"), (60, 2, "minute")];
    let rounded = |unit: i64| seconds.saturating_add(if nearest { unit / 2 } else { 0 }) / unit;
    let (count, unit) = units
        .into_iter()
        .map(|(unit, least, name)| (rounded(unit), least, name))
        .find(|(count, least, _)| count >= least)
        .map_or((seconds, "second"), |(count, _, name)| (count, name));
    let s = if count == 1 { "" } else { "s" };
    format!("{before}{count} {unit}{s}{behind}")
}

/// Returns the number of terminal cells that a text takes.
fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.width() }
}

/// Shortens a text to `most` terminal cells, with an ellipsis at its end.
fn cut(text: &str, most: usize) -> String {
    let (mut kept, mut used) = (String::new(), 1);
    for character in text.chars() {
        used += character.width().unwrap_or_default();
        if used > most {
            break;
        }
        kept.push(character);
    }
    kept.push('…');
    kept
}

/// Appends blanks.
fn pad(mut count: usize, out: &mut String) {
    const BLANKS: &str = "                                                                ";
    while count > 0 {
        let blanks = BLANKS.get(..count).unwrap_or(BLANKS);
        out.push_str(blanks);
        count -= blanks.len();
    }
}

/// Narrows columns that may shrink, the widest first, until the table fits.
fn fitted(mut widths: Vec<usize>, columns: &[Column], most: Option<usize>) -> Vec<usize> {
    let Some(most) = most else { return widths };
    let gaps = GAP * widths.len().saturating_sub(1);
    let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(most);
    while excess > 0 {
        let narrowable = widths.iter_mut().zip(columns).filter(|(width, column)| {
            let least = column.heading.len().max(NARROWEST);
            column.can_shrink && **width > least
        });
        let Some((widest, _)) = narrowable.max_by_key(|(width, _)| **width) else { break };
        *widest -= 1;
        excess -= 1;
    }
    widths
}

/// Rows from which the widths of the columns are taken.
const SAMPLE: usize = 512;
/// Blanks between two columns.
const GAP: usize = 2;
/// The least width to which a column is cut.
const NARROWEST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[Column::whole("ID"), Column::shrinking("LABEL"), Column::whole("STATE")];

    fn printed(rows: &[[&str; 3]], look: Look) -> String {
        let (mut table, mut out) = (Table::new(COLUMNS, look), String::new());
        for row in rows {
            table.row(row.iter().map(|text| Cell::new(*text)).collect(), &mut out);
        }
        table.end(&mut out);
        out
    }

    fn look(width: Option<usize>) -> Look {
        Look { colour: false, width }
    }

    #[test]
    fn columns_are_as_wide_as_what_a_terminal_shows() {
        let rows = [["a", "é", "live"], ["bcd", "日本", "x"], ["e", "", "y"], ["f", "\u{1b}[2J", ""]];
        let expected =
            "ID   LABEL      STATE\na    é          live\nbcd  日本       x\ne               y\nf    \\u{1b}[2J\n";
        assert_eq!(printed(&rows, look(None)), expected);
        assert_eq!(printed(&[], look(None)), "", "no heading above nothing");
    }

    #[test]
    fn a_narrow_terminal_cuts_the_columns_that_allow_it() {
        let rows = [["an-identifier-that-is-long", "a label that is long too", "live"]];
        let cut = printed(&rows, look(Some(45)));
        assert_eq!(cut.lines().nth(1), Some("an-identifier-that-is-long  a label t…  live"));
        assert!(cut.lines().all(|line| width(line) <= 45), "{cut}");
        let narrower = printed(&rows, look(Some(10)));
        assert_eq!(narrower.lines().nth(1), Some("an-identifier-that-is-long  a label…  live"));
        assert!(printed(&rows, look(None)).contains("a label that is long too"));
        let wide = printed(&[["a", "日本語日本語日本語", "live"]], look(Some(19)));
        assert_eq!(wide.lines().nth(1), Some("a   日本語…   live"));
    }

    #[test]
    fn the_first_rows_decide_the_layout_and_later_ones_are_printed_at_once() {
        let (mut table, mut out) = (Table::new(COLUMNS, look(None)), String::new());
        let row = |id: &str| vec![Cell::new(id.to_owned()), Cell::new("l"), Cell::new("s")];
        for n in 1..SAMPLE {
            table.row(row(&format!("{n:04}")), &mut out);
        }
        assert_eq!(out, "");
        table.row(row("last"), &mut out);
        assert_eq!(out.lines().count(), SAMPLE + 1);
        out.clear();
        table.row(row("wider-than-those"), &mut out);
        assert_eq!(out, "wider-than-those  l      s\n");
    }

    #[test]
    fn a_sheet_has_its_facts_above_its_tables() {
        let mut sheet = Sheet::new(look(None));
        sheet.fact("id", Cell::new("a"));
        sheet.fact("resources", Cell::new(""));
        sheet.table(COLUMNS, []);
        sheet.table(COLUMNS, [vec![Cell::new("x"), Cell::new("y"), Cell::new("z")]]);
        assert_eq!(sheet.into_text(), "id         a\nresources\n\nID  LABEL  STATE\nx   y      z\n");
    }

    #[test]
    fn moments_are_told_in_words() {
        const DAY: i64 = 86400;
        let times = Times { now: UnixTime(1_800_000_000), utc: false };
        for (seconds, words) in [
            (0, "now"),
            (-1, "1 second ago"),
            (-119, "119 seconds ago"),
            (-120, "2 minutes ago"),
            (-7199, "119 minutes ago"),
            (-2 * DAY + 1, "47 hours ago"),
            (-9 * DAY - 5, "9 days ago"),
            (-10 * DAY + 1, "9 days ago"),
            (-729 * DAY, "729 days ago"),
            (-3 * 365 * DAY, "3 years ago"),
            (30 * DAY - 2, "in 30 days"),
            (9 * DAY, "in 9 days"),
            (7200, "in 2 hours"),
            (59, "in 59 seconds"),
        ] {
            assert_eq!(times.words(UnixTime(times.now.0 + seconds)), words, "{seconds}");
        }
        assert_eq!(times.since(UnixTime(times.now.0 - 120 * DAY)), "for 120 days");
        let utc = Times { utc: true, ..times };
        assert_eq!(utc.words(times.now), "2027-01-15T08:00:00Z");
        assert_eq!(utc.since(times.now), "since 2027-01-15T08:00:00Z");
    }
}

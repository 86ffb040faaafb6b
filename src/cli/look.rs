//! The look of output: whether stdout gets colours (`NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE`, `TERM`), and its width.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};

/// The look of stdout.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Whether text is coloured.
    pub colour: bool,
    /// Columns of the terminal; `None` for a pipe or a file, where nothing is cut.
    pub width: Option<usize>,
}

/// Tone of a text. Words tell the same, since not every output has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    /// Works: green.
    Good,
    /// Needs attention soon: yellow.
    Warning,
    /// Does not work: red.
    Bad,
    /// Headings, and values that say nothing.
    Faint,
}

impl Look {
    /// Returns the look of stdout.
    pub(super) fn of_stdout() -> Self {
        let is_terminal = io::stdout().is_terminal();
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|_| is_terminal);
        // A terminal that does not tell its size has 0 columns.
        let width = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
        Self { colour: has_colour(|name| env::var_os(name), is_terminal), width }
    }

    /// Appends a text in its tone.
    pub(super) fn paint(self, text: &str, tone: Tone, out: &mut String) {
        let code = match tone {
            Tone::Plain => "",
            Tone::Good => "\u{1b}[32m",
            Tone::Warning => "\u{1b}[33m",
            Tone::Bad => "\u{1b}[31m",
            Tone::Faint => "\u{1b}[2m",
        };
        if !self.colour || code.is_empty() {
            out.push_str(text);
        } else {
            out.extend([code, text, "\u{1b}[0m"]);
        }
    }
}

/// Decides about colours. `NO_COLOR` (no-color.org) comes first, then `CLICOLOR_FORCE` and `CLICOLOR`
/// (bixense.com/clicolors), then whether stdout is a terminal that knows colours. clap decides likewise for `--help`.
fn has_colour(variable: impl Fn(&str) -> Option<OsString>, is_terminal: bool) -> bool {
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    let is_zero = |name: &str| variable(name).is_some_and(|value| value == "0");
    if is_set("NO_COLOR") {
        return false;
    }
    if is_set("CLICOLOR_FORCE") && !is_zero("CLICOLOR_FORCE") {
        return true;
    }
    is_terminal && !is_zero("CLICOLOR") && variable("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_decide_about_colours() {
        for (variables, terminal, pipe) in [
            (&[][..], false, false),
            (&[("TERM", "xterm")], true, false),
            (&[("TERM", "dumb")], false, false),
            (&[("TERM", "xterm"), ("NO_COLOR", "1")], false, false),
            (&[("TERM", "xterm"), ("NO_COLOR", "")], true, false),
            (&[("TERM", "xterm"), ("CLICOLOR", "0")], false, false),
            (&[("CLICOLOR_FORCE", "1")], true, true),
            (&[("TERM", "xterm"), ("CLICOLOR_FORCE", "0")], true, false),
            (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false, false),
        ] {
            let variable = |name: &str| Some(variables.iter().find(|(known, _)| *known == name)?.1.into());
            assert_eq!((has_colour(variable, true), has_colour(variable, false)), (terminal, pipe), "{variables:?}");
        }
    }

    #[test]
    fn a_tone_is_ended_behind_its_text() {
        let (mut plain, mut coloured) = (String::new(), String::new());
        Look { colour: false, width: None }.paint("x", Tone::Bad, &mut plain);
        Look { colour: true, width: None }.paint("x", Tone::Bad, &mut coloured);
        assert_eq!((plain.as_str(), coloured.as_str()), ("x", "\u{1b}[31mx\u{1b}[0m"));
    }
}

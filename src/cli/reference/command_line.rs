//! The page of the command line, from clap.

use clap::CommandFactory as _;

use super::row;
use crate::cli::Arguments;
use crate::cli::exit::Exit;

pub(super) fn page() -> String {
    let mut command = Arguments::command().term_width(100);
    // Gives each subcommand its full name and the global options.
    command.build();
    let mut page = String::from(HEAD);
    for exit in Exit::ALL {
        page += &row(&[&exit.code().to_string(), exit.meaning()]);
    }
    section(&mut command, &mut page);
    page
}

/// Appends the help of a command, then that of its subcommands.
fn section(command: &mut clap::Command, page: &mut String) {
    let name = command.get_bin_name().unwrap_or("grantd").to_owned();
    let nested = name != "grantd";
    // The global options appear once, on the page of `grantd`.
    let mut shown = command.clone().mut_args(|argument| {
        let hidden = nested && argument.is_global_set();
        argument.hide(hidden)
    });
    *page += &format!("\n## {name}\n\n```text\n{}\n```\n", shown.render_long_help().to_string().trim_end());
    let visible = |command: &&mut clap::Command| !command.is_hide_set() && command.get_name() != "help";
    for subcommand in command.get_subcommands_mut().filter(visible) {
        section(subcommand, page);
    }
}

const HEAD: &str = "\
Every command takes the global options of `grantd`. With `--json`, stdout has one JSON document and nothing else; messages for people are on stderr.

| exit code | meaning |
|---|---|
";

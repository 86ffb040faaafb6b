//! Shell completion: the static script of clap, and in bash, zsh and fish the ids from the database.
//!
//! The script calls the hidden command `grantd complete WORDS…`, whose last word is the one under the cursor. It prints
//! the ids that begin with this word, one a line, where a command or an option takes an id, and else nothing. It reads
//! a bounded number of ids, prints no secret, gives up after [`DEADLINE`], and is silent about every fault: a shell has
//! no place to show one.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Command};
use clap_complete::Shell as ShellKind;

use super::open::Purpose;
use super::{Shell, key_value};
use crate::admin::ids::IdKind;
use crate::config::Sources;
use crate::telemetry::printable;

/// Writes the completion script of a shell.
pub(super) fn script(shell: ShellKind, mut command: Command) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "grantd", &mut script);
    match shell {
        ShellKind::Bash => script.extend_from_slice(BASH.as_bytes()),
        ShellKind::Fish => script.extend_from_slice(FISH.as_bytes()),
        ShellKind::Zsh => {
            // The function that zsh loads asks for ids first, so clap's function gets another name.
            let text = String::from_utf8_lossy(&script).replace("_grantd", "_grantd_words");
            let without_end = text.split(ZSH_END).next().unwrap_or_default();
            script = [without_end, ZSH].concat().into_bytes();
        }
        _ => {}
    }
    script
}

/// Prints the ids that may stand in place of the last word.
pub(super) async fn print_ids(words: &[String], command: Command) {
    // Faults are not told, as the head of this file says.
    let Ok(Ok(ids)) = tokio::time::timeout(DEADLINE, ids(words, command)).await else { return };
    let mut text = String::new();
    // An id with a character that is not visible is left out: as an escape it would be another id.
    for id in ids.iter().filter(|id| id.chars().all(printable::is_printable)) {
        text += id;
        text.push('\n');
    }
    drop(io::stdout().write_all(text.as_bytes()));
}

async fn ids(words: &[String], mut command: Command) -> anyhow::Result<Vec<String>> {
    // Gives subcommands the global options.
    command.build();
    let Some(Cursor { kind, prefix, config, set }) = Cursor::find(words, &command) else { return Ok(Vec::new()) };
    let sources = Sources::find(config.as_deref(), set, std::env::vars_os())?;
    let shell = Shell { settings: sources.read()?, sources, json: false, utc: false };
    Ok(shell.admin(Purpose::Read).await?.ids_with_prefix(&kind, &prefix).await?)
}

/// The id under the cursor.
#[derive(Debug, PartialEq, Eq)]
struct Cursor {
    kind: IdKind,
    /// The part that is typed.
    prefix: String,
    /// The value of `--config` before the cursor.
    config: Option<PathBuf>,
    /// The values of `--set` before the cursor.
    set: Vec<(String, String)>,
}

impl Cursor {
    /// Walks along the words. `None` where no id is expected.
    fn find(words: &[String], root: &Command) -> Option<Self> {
        let (last, before) = words.split_last()?;
        let (mut path, mut command) = (Vec::new(), root);
        let (mut positionals, mut config, mut set) = (Vec::new(), None, Vec::new());
        let mut option: Option<&Arg> = None;
        for word in before {
            if let Some(arg) = option.take() {
                match arg.get_id().as_str() {
                    "config" => config = Some(PathBuf::from(word)),
                    "set" => set.extend(key_value(word)),
                    _ => {}
                }
            } else if let Some(name) = word.strip_prefix("--") {
                option = long_option(command, name).filter(|_| !name.contains('='));
            } else if let Some(below) = command.find_subcommand(word).filter(|_| positionals.is_empty()) {
                command = below;
                path.push(below.get_name());
            } else if !word.starts_with('-') {
                positionals.push(word.as_str());
            }
        }
        let (arg, prefix) = match (option, last.strip_prefix("--").and_then(|word| word.split_once('='))) {
            (Some(arg), _) => (arg, last.as_str()),
            (None, Some((name, value))) => (long_option(command, name)?, value),
            (None, None) if last.starts_with("--") => return None,
            (None, None) => (command.get_positionals().nth(positionals.len())?, last.as_str()),
        };
        let kind = kind(&path, arg, &positionals)?;
        Some(Self { kind, prefix: prefix.to_owned(), config, set })
    }
}

/// Returns the option of that name which takes a value.
fn long_option<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let name = name.split('=').next()?;
    command.get_arguments().find(|arg| arg.get_long() == Some(name) && arg.get_action().takes_values())
}

/// Returns the kind of id that an argument takes. A command that creates something takes a new id.
fn kind(path: &[&str], arg: &Arg, positionals: &[&str]) -> Option<IdKind> {
    let of_client = || positionals.first()?.parse().ok();
    match (path, arg.get_id().as_str()) {
        (_, "introspect_by") => Some(IdKind::Client),
        ([.., "create" | "set"], "resource") => Some(IdKind::Resource),
        ([.., "create"], _) => None,
        (["client", ..], "id") | (_, "client") => Some(IdKind::Client),
        (["client", "secret", _], "secret_id") => Some(IdKind::Secret(of_client()?)),
        (["client", "key", _], "kid") => Some(IdKind::ClientKey(of_client()?)),
        (["client", "cert", _], "cert_id") => Some(IdKind::Certificate(of_client()?)),
        (["resource", _], "uri") => Some(IdKind::Resource),
        (["key", "tag", _], "kid") => Some(IdKind::TagKey),
        (["key", _], "kid") => Some(IdKind::SigningKey),
        _ => None,
    }
}

/// Time after which completion gives up.
const DEADLINE: Duration = Duration::from_millis(300);

const BASH: &str = r#"
# Ids of clients, resources, keys and secrets come from the database, all other words from the function above.
_grantd_ids() {
    local line="${COMP_LINE:0:COMP_POINT}" id cut=""
    local -a words
    read -ra words <<<"$line"
    [[ "$line" != *[[:space:]] ]] || words+=("")
    local word="${words[${#words[@]}-1]}"
    # Bash completes only what follows the last : or = of a word.
    [[ "$word" != *[:=]* ]] || cut="${word%"${word##*[:=]}"}"
    COMPREPLY=()
    while IFS= read -r id; do
        printf -v id %q "$id"
        COMPREPLY+=("${id#"$cut"}")
    done < <("${words[0]}" complete -- "${words[@]:1}" 2>/dev/null)
    [[ ${#COMPREPLY[@]} -gt 0 ]] || _grantd "$@"
}
complete -F _grantd_ids -o bashdefault -o default grantd
"#;

const FISH: &str = "
# Ids of clients, resources, keys and secrets come from the database.
complete -c grantd -f -a '(grantd complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
";

/// Beginning of the lines at the end of clap's script, which register its function.
const ZSH_END: &str = "if [ \"$funcstack[1]\"";

const ZSH: &str = r#"# Ids of clients, resources, keys and secrets come from the database, all other words from the function above.
_grantd() {
    local -a ids
    ids=(${(f)"$(${(Q)words[1]} complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)"})
    if (( $#ids )); then
        compadd -a ids
    else
        _grantd_words "$@"
    fi
}

if [ "$funcstack[1]" = "_grantd" ]; then
    _grantd "$@"
else
    compdef _grantd grantd
fi
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn at_cursor(line: &str) -> Option<(IdKind, String)> {
        let mut command = crate::cli::command();
        command.build();
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Cursor::find(&words, &command).map(|cursor| (cursor.kind, cursor.prefix))
    }

    #[test]
    fn an_id_is_completed_where_a_command_takes_one() {
        let of = || "billing".parse().unwrap();
        for (line, kind, prefix) in [
            ("client show ", IdKind::Client, ""),
            ("client rm bil", IdKind::Client, "bil"),
            ("client set --scope a bil", IdKind::Client, "bil"),
            ("--json client secret rotate bil", IdKind::Client, "bil"),
            ("client secret revoke billing Zk", IdKind::Secret(of()), "Zk"),
            ("client key rm billing -", IdKind::ClientKey(of()), "-"),
            ("client cert remove billing ", IdKind::Certificate(of()), ""),
            ("client create new --resource https:", IdKind::Resource, "https:"),
            ("client set billing --resource=https:", IdKind::Resource, "https:"),
            ("resource show ", IdKind::Resource, ""),
            ("resource create u --introspect-by b", IdKind::Client, "b"),
            ("key show ab", IdKind::SigningKey, "ab"),
            ("key tag remove ", IdKind::TagKey, ""),
        ] {
            assert_eq!(at_cursor(line), Some((kind, prefix.to_owned())), "{line}");
        }
        for line in [
            "",
            "cli",
            "client ",
            "client show --js",
            "client create ",
            "client show a ",
            "resource create ",
            "--config ",
        ] {
            assert_eq!(at_cursor(line), None, "{line}");
        }
    }

    #[test]
    fn the_configuration_before_the_cursor_is_used() {
        let mut command = crate::cli::command();
        command.build();
        let words = ["--config", "f", "client", "--set", "a=b", "show", ""].map(str::to_owned);
        let cursor = Cursor::find(&words, &command).unwrap();
        assert_eq!((cursor.config, cursor.set), (Some("f".into()), vec![("a".to_owned(), "b".to_owned())]));
    }

    #[test]
    fn each_script_asks_for_ids() {
        for (shell, call) in [
            (ShellKind::Bash, "complete -F _grantd_ids -o bashdefault"),
            (ShellKind::Zsh, "compdef _grantd grantd"),
            (ShellKind::Fish, "(grantd complete -- "),
        ] {
            let script = String::from_utf8(script(shell, crate::cli::command())).unwrap();
            assert!(script.contains(call) && script.contains("complete -- "), "{script}");
            assert!(shell != ShellKind::Zsh || script.matches("compdef").count() == 2, "{script}");
        }
    }
}

//! docs/reference is what `grantd reference` writes, and the log has the fields that its events document.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use grantd::model::event::Event;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages(directory: &Path) -> BTreeMap<String, String> {
    let read =
        |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap());
    fs::read_dir(directory).unwrap().map(|entry| read(entry.unwrap().path())).collect()
}

#[test]
fn the_reference_is_what_the_program_writes() {
    let directory = tempfile::tempdir().unwrap();
    let written = Command::new(env!("CARGO_BIN_EXE_grantd"))
        .args(["reference", "--dir", directory.path().to_str().unwrap()])
        .current_dir(directory.path())
        .status();
    assert!(written.unwrap().success());
    let (written, kept) = (pages(directory.path()), pages(&root().join("docs/reference")));
    let differing: Vec<_> =
        written.keys().chain(kept.keys()).filter(|page| written.get(*page) != kept.get(*page)).collect();
    assert!(differing.is_empty(), "run `cargo run -- reference`: docs/reference differs in {differing:?}");
    assert!(written["reasons.md"].contains("| `wrong_secret` | 401 `invalid_client` |"));
    assert!(written["limits.md"].contains("| form parameters | 64 |"));
    assert!(written["tables.md"].contains("- `client_id: 1 to 255 printable ASCII, no space at either end`"));
    assert!(
        written["configuration.md"]
            .contains("| `server.tls.cert_file` | none; for example `\"/etc/grantd/tls.pem\"` |")
    );
    assert!(written["cli.md"].contains("## grantd client secret rotate"));
}

#[test]
fn every_event_is_logged_with_the_fields_that_it_documents() {
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for path in sources(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for (at, name) in text.match_indices("tracing::") {
            let call = &text[at + name.len()..];
            let Some(call) =
                ["info!(", "warn!(", "error!(", "debug!("].iter().find_map(|level| call.strip_prefix(level))
            else {
                continue;
            };
            let arguments = top_level(call);
            let Some(event) = arguments.iter().find_map(|argument| argument.strip_prefix("event = ")) else { continue };
            let events: Vec<Event> = match event.strip_prefix("Event::") {
                Some(name) => {
                    let name = name.strip_suffix(".as_str()").unwrap();
                    vec![*Event::ALL.iter().find(|event| format!("{event:?}") == name).unwrap()]
                }
                // One line for both.
                None => vec![Event::Introspection, Event::Revocation],
            };
            let fields = arguments.iter().filter_map(|argument| {
                let name = argument.split(" = ").next().unwrap().trim_start_matches(['%', '?']);
                (!argument.starts_with("event = ") && !argument.starts_with('"')).then(|| name.to_owned())
            });
            let fields: Vec<String> = fields
                .filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || b"_0".contains(&byte)))
                .collect();
            for event in events {
                found.entry(event.as_str()).or_default().extend(fields.iter().cloned());
            }
        }
    }
    let differing = Event::ALL.iter().filter_map(|event| {
        let documented: BTreeSet<String> = event.fields().iter().map(|field| (*field).to_owned()).collect();
        let logged = found.get(event.as_str());
        (logged != Some(&documented)).then(|| format!("{}: logged with {logged:?}", event.as_str()))
    });
    let differing: Vec<String> = differing.collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The arguments of a call whose parenthesis is open.
fn top_level(text: &str) -> Vec<String> {
    let (mut arguments, mut depth, mut quoted, mut last) = (vec![String::new()], 0, false, ' ');
    for character in text.chars() {
        if character == '"' && last != '\\' {
            quoted = !quoted;
        }
        last = character;
        match character {
            '(' | '[' | '{' if !quoted => depth += 1,
            ')' | ']' | '}' if !quoted && depth == 0 => break,
            ')' | ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        arguments.last_mut().unwrap().push(character);
    }
    arguments.iter().map(|argument| argument.trim().to_owned()).filter(|argument| !argument.is_empty()).collect()
}

//! The dependencies: licences, sources and banned crates as `deny.toml` names them, and none that no source uses.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use crate::tidy::files_below;

/// Runs Cargo offline, with the versions of the lock file.
fn cargo(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    let told = command.args(arguments).args(["--locked", "--offline"]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let told = told.unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8(told.stdout).unwrap()
}

/// Cargo's metadata of the crates that the lock file names for this platform.
fn metadata() -> Value {
    serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--filter-platform", "host-tuple"])).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether an SPDX expression can be met with the licences that are allowed.
fn is_met(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    // The operators at the top level; `/` is an older way to write OR.
    let split = |operator: &str| {
        let (mut parts, mut depth) = (vec![String::new()], 0);
        for word in expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ").split_whitespace() {
            depth += i32::from(word == "(") - i32::from(word == ")");
            if word == operator && depth == 0 {
                parts.push(String::new());
            } else {
                *parts.last_mut().unwrap() += &format!(" {word}");
            }
        }
        parts
    };
    let (either, both) = (split("OR"), split("AND"));
    let inner = expression.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    match (either.len(), both.len(), inner) {
        (2.., ..) => either.iter().any(|part| is_met(part, allowed)),
        (_, 2.., _) => both.iter().all(|part| is_met(part, allowed)),
        (.., Some(inner)) => is_met(inner, allowed),
        _ => allowed.contains(expression.trim()),
    }
}

#[test]
fn spdx_expressions_are_read() {
    let allowed = BTreeSet::from(["MIT", "ISC"]);
    for met in ["MIT", "MIT OR GPL-2.0", "GPL-2.0/MIT", "ISC AND (GPL-2.0 OR MIT)", "(MIT AND ISC) OR GPL-2.0"] {
        assert!(is_met(met, &allowed), "{met}");
    }
    for unmet in ["", "GPL-2.0", "MIT AND GPL-2.0", "(MIT OR ISC) AND GPL-2.0", "MIT WITH exception"] {
        assert!(!is_met(unmet, &allowed), "{unmet}");
    }
}

#[test]
fn each_dependency_has_an_allowed_licence_and_source_and_is_not_banned() {
    let policy = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml")).unwrap();
    let policy = DeValue::Table(DeTable::parse(&policy).unwrap().into_inner());
    let list = |section: &str, key: &str| {
        let list = policy.get(section).unwrap().get_ref().get(key).unwrap().get_ref().as_array().unwrap();
        list.iter().map(toml::Spanned::get_ref)
    };
    let allowed: BTreeSet<_> = list("licenses", "allow").map(|licence| licence.as_str().unwrap()).collect();
    let of_exceptions: Vec<(&str, &str)> = list("licenses", "exceptions")
        .flat_map(|exception| {
            let name = exception.get("crate").unwrap().get_ref().as_str().unwrap();
            let licences = exception.get("allow").unwrap().get_ref().as_array().unwrap();
            licences.iter().map(move |licence| (name, licence.get_ref().as_str().unwrap()))
        })
        .collect();
    let banned: Vec<_> =
        list("bans", "deny").map(|banned| banned.get("crate").unwrap().get_ref().as_str().unwrap()).collect();
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 200 && banned.len() > 3 && !allowed.is_empty());
    // Crates of this repository have no source.
    for package in packages.iter().filter(|package| !package["source"].is_null()) {
        let (name, licence) = (text(&package["name"]), text(&package["license"]));
        let of_this = of_exceptions.iter().filter(|(excepted, _)| *excepted == name).map(|(_, licence)| *licence);
        let allowed = allowed.iter().copied().chain(of_this).collect();
        assert!(is_met(licence, &allowed), "{name} has the licence {licence:?}, which deny.toml does not allow");
        assert_eq!(text(&package["source"]), CRATES_IO, "{name}");
    }
    // The metadata names crates of features that are off too; the tree has those that are compiled.
    for line in cargo(&["tree", "--workspace", "--prefix", "none", "--format", "{p}"]).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        assert!(
            !banned.contains(&name),
            "deny.toml bans {name}; `cargo tree --workspace -i {name}` shows what needs it"
        );
    }
}

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[test]
fn each_dependency_is_used_by_a_source() {
    let metadata = metadata();
    let members = metadata["workspace_members"].as_array().unwrap();
    for package in metadata["packages"].as_array().unwrap().iter().filter(|package| members.contains(&package["id"])) {
        let directory = Path::new(text(&package["manifest_path"])).parent().unwrap();
        let below = |folders: &[&str]| -> String {
            let folders = folders.iter().map(|folder| directory.join(folder)).filter(|folder| folder.is_dir());
            let files = folders.flat_map(|folder| files_below(&folder, "rs"));
            files.map(|file| fs::read_to_string(file).unwrap()).collect()
        };
        let (src, all) = (below(&["src"]), below(&["src", "tests", "benches", "examples"]));
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["rename"].as_str().unwrap_or(text(&dependency["name"])).replace('-', "_");
            let sources = if dependency["kind"].is_null() { &src } else { &all };
            let is_used = sources.match_indices(&format!("{name}::")).any(|(at, _)| {
                let before = sources[..at].strip_suffix("::").unwrap_or(&sources[..at]);
                !before.ends_with(|before: char| before.is_alphanumeric() || before == '_')
            });
            assert!(is_used, "nothing in {} uses {name}", text(&package["name"]));
        }
    }
}

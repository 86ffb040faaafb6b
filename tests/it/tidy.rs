//! The architecture as a test: floors, no cycles, sizes, a sentence at the head of every file, no stubs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, lowest first, as the map in `lib.rs` draws them: each folder of `src` is a part of one. A file may use those
/// below its own, and its own floor as long as nothing needs itself.
const FLOORS: [&[&str]; 7] = [
    &["crypto"],
    &["model"],
    &["store"],
    &["state"],
    &["protocol", "admin"],
    &["http", "transport"],
    &["config", "telemetry", "serve", "cli"],
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The source directories: grantd itself, on which the floors stand, the crates beside it, and the tools.
const SOURCES: [&str; 6] =
    ["src", "crates/jose/src", "crates/grantd-verify/src", "tools/kit/src", "tools/bench/src", "tools/chaos/src"];

/// Source files of one crate by module path, such as `store::clients`, without `main` and `lib`.
fn modules(source: &str) -> BTreeMap<String, String> {
    let src = root().join(source);
    files_below(&src, "rs")
        .into_iter()
        .map(|path| {
            let module = path.strip_prefix(&src).unwrap().with_extension("");
            (module.to_str().unwrap().replace('/', "::"), fs::read_to_string(&path).unwrap())
        })
        .filter(|(module, _)| module != "main" && module != "lib")
        .collect()
}

fn floor(module: &str) -> usize {
    let top = module.split("::").next().unwrap();
    FLOORS
        .iter()
        .position(|floor| floor.contains(&top))
        .unwrap_or_else(|| panic!("{module} stands on no floor of tidy.rs"))
}

/// The modules that a source text names in `use` and in paths, unit tests aside.
fn uses(module: &str, text: &str, all: &BTreeMap<String, String>) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]").next().unwrap();
    let mut found = BTreeSet::new();
    let mut note = |path: &str| {
        let mut path = path.to_owned();
        loop {
            if all.contains_key(&path) {
                found.insert(path);
                return;
            }
            match path.rsplit_once("::") {
                Some((parent, _)) => path.truncate(parent.len()),
                None => return,
            }
        }
    };
    for statement in text.split(';') {
        let Some(at) = statement.rfind("use ") else { continue };
        for path in expand(statement[at + 4..].trim()) {
            if let Some(absolute) = resolve(module, &path) {
                note(&absolute);
            }
        }
    }
    for (at, _) in text.match_indices("crate::") {
        let path: String =
            text[at + 7..].chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
        note(path.trim_end_matches(':'));
    }
    found.remove(module);
    found
}

fn resolve(module: &str, path: &str) -> Option<String> {
    let first = path.split("::").next().unwrap();
    match first {
        "crate" => Some(path.strip_prefix("crate::")?.to_owned()),
        "super" => {
            let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
            let rest = path.strip_prefix("super::").unwrap_or("");
            Some(if parent.is_empty() { rest.to_owned() } else { format!("{parent}::{rest}") })
        }
        "self" => Some(format!("{module}::{}", path.strip_prefix("self::")?)),
        // A child module, as in `use form::Form`.
        _ => Some(format!("{module}::{path}")),
    }
}

/// `a::{b, c::{d, e}}` to `a::b`, `a::c::d`, `a::c::e`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((head, rest)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap().trim().to_owned()];
    };
    let inner = &rest[..rest.rfind('}').unwrap_or(rest.len())];
    let (mut depth, mut part, mut parts) = (0, String::new(), Vec::new());
    for c in inner.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    parts
        .iter()
        .filter(|part| !part.trim().is_empty())
        .flat_map(|part| expand(&format!("{}{}", head.trim(), part.trim())))
        .map(|path| path.trim_end_matches("::self").to_owned())
        .collect()
}

#[test]
fn stairs_go_down() {
    let all = modules("src");
    for (module, text) in &all {
        for used in uses(module, text, &all) {
            assert!(floor(&used) <= floor(module), "{module} uses {used}, which is a floor above it");
        }
    }
}

#[test]
fn the_map_in_lib_rs_is_what_the_folders_are() {
    let map = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for (number, folders) in FLOORS.iter().enumerate() {
        let line = map.lines().find(|line| line.starts_with(&format!("//! - floor {number}:"))).unwrap();
        assert!(folders.iter().all(|folder| line.contains(&format!("`{folder}`"))), "{line}");
    }
    let src = root().join("src");
    for entry in fs::read_dir(&src).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.trim_end_matches(".rs");
        assert!(["main", "lib"].contains(&name) || FLOORS.iter().any(|floor| floor.contains(&name)), "src/{name}");
    }
}

#[test]
fn no_file_needs_itself() {
    for source in SOURCES {
        no_file_below_needs_itself(&modules(source));
    }
}

fn no_file_below_needs_itself(all: &BTreeMap<String, String>) {
    let graph: BTreeMap<&String, BTreeSet<String>> =
        all.iter().map(|(module, text)| (module, uses(module, text, all))).collect();
    for start in graph.keys() {
        let (mut seen, mut open) = (BTreeSet::new(), graph[*start].iter().cloned().collect::<Vec<_>>());
        while let Some(next) = open.pop() {
            // A parent that lists its children, and a child that uses what its parent defines, are one piece of code.
            let related = next.starts_with(&format!("{start}::")) || start.starts_with(&format!("{next}::"));
            assert!(next != **start, "{start} needs itself through {seen:?}");
            if !related && seen.insert(next.clone()) {
                open.extend(
                    graph[&next]
                        .iter()
                        .filter(|used| {
                            !next.starts_with(&format!("{used}::")) && !used.starts_with(&format!("{next}::"))
                        })
                        .cloned(),
                );
            }
        }
    }
}

#[test]
fn lower_floors_do_not_know_what_stands_above_them() {
    for (module, text) in modules("src") {
        let forbidden: &[&str] = match floor(&module) {
            0 | 1 => &["axum", "sqlx", "hyper", "tokio::", "clap"],
            2 => &["axum", "hyper", "clap"],
            3 | 4 => &["axum", "sqlx", "hyper", "clap"],
            5 => &["sqlx", "clap"],
            _ => &[],
        };
        for name in forbidden {
            let used = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .any(|line| line.contains(&format!("use {name}")));
            assert!(!used, "{module} must not know {name}");
        }
    }
    for (module, text) in modules("src") {
        if floor(&module) < 6 {
            assert!(!text.contains("anyhow::"), "{module}: anyhow is for main, cli and serve");
        }
    }
}

#[test]
fn every_file_is_short_and_says_what_it_is() {
    let tests = files_below(&root().join("tests"), "rs").into_iter().map(|path| (path, 700));
    let sources = SOURCES.into_iter().chain(["examples"]);
    let sources = sources.flat_map(|directory| files_below(&root().join(directory), "rs"));
    let sources = sources.map(|path| (path, 400));
    for (path, most) in sources.chain(tests) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//! "), "{} does not say what it is", path.display());
        // Unit tests stand at the end of their file and do not count.
        let code = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        assert!(code <= most, "{} has {code} lines without its tests: it does more than one thing", path.display());
        assert!(path.file_name().unwrap() != "mod.rs", "{}: write foo.rs beside foo/", path.display());
    }
}

#[test]
fn names_mean_something_and_nothing_is_left_undone() {
    for module in SOURCES.into_iter().flat_map(modules).map(|(module, _)| module) {
        let name = module.rsplit("::").next().unwrap();
        assert!(
            !["utils", "common", "helpers", "types", "prelude", "misc"].contains(&name),
            "{module} is a drawer, not a room"
        );
    }
    // Spelt apart, so that this file does not find itself.
    let undone = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("#[ig", "nore"),
    ];
    for path in SOURCES
        .into_iter()
        .chain(["examples", "tests"])
        .flat_map(|directory| files_below(&root().join(directory), "rs"))
    {
        let text = fs::read_to_string(&path).unwrap();
        for mark in undone {
            assert!(!text.contains(mark), "{} holds {mark}", path.display());
        }
    }
}

/// Directories whose doc comments begin with the thing that they describe.
const PLAIN: [&str; 15] = [
    "crates",
    "tools",
    "examples",
    "benches",
    "fuzz/fuzz_targets",
    "src/admin",
    "src/cli",
    "src/config",
    "src/crypto",
    "src/model",
    "src/state",
    "src/store",
    "src/telemetry",
    "src/transport",
    "src/main.rs",
];

#[test]
fn doc_comments_begin_with_the_thing() {
    // With each folder goes the file that heads it, such as src/store.rs.
    let heads = PLAIN.iter().map(|directory| root().join(directory).with_extension("rs")).filter(|path| path.exists());
    let folders = PLAIN.iter().map(|directory| root().join(directory)).filter(|path| path.is_dir());
    for path in folders.flat_map(|directory| files_below(&directory, "rs")).chain(heads) {
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines().map(str::trim_start) {
            let comment = line.strip_prefix("/// ").or_else(|| line.strip_prefix("//! ")).unwrap_or_default();
            let first = comment.split(' ').next().unwrap();
            assert!(!["What", "Who", "Whom", "Whose"].contains(&first), "{}: {line}", path.display());
            assert!(!is_id(comment), "{}: {line}: a doc comment needs words", path.display());
        }
    }
}

/// Whether a comment is nothing but the id of a requirement, such as `JOS-20.` or `C34`.
fn is_id(comment: &str) -> bool {
    let (letters, rest) = comment.split_at(comment.bytes().take_while(u8::is_ascii_uppercase).count());
    let digits = rest.strip_prefix('-').unwrap_or(rest).trim_end_matches('.');
    (1..=4).contains(&letters.len()) && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[test]
fn every_dependency_says_why_it_is_there() {
    for path in files_below(&root().join("crates"), "toml").into_iter().chain([root().join("Cargo.toml")]) {
        let mut in_dependencies = false;
        for line in fs::read_to_string(&path).unwrap().lines() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies]");
            } else if in_dependencies && line.contains('=') {
                assert!(line.contains("# "), "{}: {line}", path.display());
            }
        }
    }
}

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

pub fn files_below(directory: &Path, ending: &str) -> Vec<PathBuf> {
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
fn modules_use_their_own_floor_and_those_below() {
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
fn no_file_imports_itself_through_others() {
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
fn module_names_are_specific_and_nothing_is_left_undone() {
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
const PLAIN: [&str; 7] = ["crates", "tools", "examples", "benches", "fuzz/fuzz_targets", "src", "tests"];

#[test]
fn doc_comments_begin_with_the_thing() {
    for path in PLAIN.iter().flat_map(|directory| files_below(&root().join(directory), "rs")) {
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines().map(str::trim_start) {
            let comment = line.strip_prefix("/// ").or_else(|| line.strip_prefix("//! ")).unwrap_or_default();
            let first = comment.split(' ').next().unwrap();
            assert!(!["What", "Who", "Whom", "Whose"].contains(&first), "{}: {line}", path.display());
        }
    }
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

/// The families of requirement ids that docs/requirements.md lists: three letters, a hyphen and two digits.
const FAMILIES: [&str; 28] = [
    "ATJ", "BRR", "CLI", "DPO", "ERR", "FAP", "FED", "GRT", "HTP", "IJR", "INT", "JCA", "JOS", "JWK", "LOG", "MET",
    "MTL", "OPS", "PRM", "RES", "REV", "ROT", "RSP", "SCP", "SEC", "SPF", "TOK", "TSL",
];
/// The families of one letter, with their first and last number. `C0`, `H2` and `P256` are no ids.
const LETTERS: [(char, u16, u16); 5] = [('C', 1, 34), ('H', 35, 72), ('L', 101, 112), ('M', 73, 100), ('V', 1, 7)];
/// Figures of docs/reliability.md, which the tools that measure them call by these names.
const FIGURES: [&str; 2] = ["H62", "M80"];

/// A requirement id among words in upper case.
fn id_among(words: &[&str]) -> Option<String> {
    let of_a_letter = |word: &&&str| {
        LETTERS.iter().any(|(letter, first, last)| {
            word.strip_prefix(*letter)
                .and_then(|number| number.parse().ok())
                .is_some_and(|number: u16| (*first..=*last).contains(&number))
        })
    };
    let of_a_family =
        |pair: &&[&str]| FAMILIES.contains(&pair[0]) && pair[1].len() == 2 && pair[1].parse::<u8>().is_ok();
    words
        .iter()
        .find(of_a_letter)
        .map(|word| (*word).to_owned())
        .or_else(|| words.windows(2).find(of_a_family).map(|pair| pair.join("-")))
}

/// The names of the tests in a source text: those with the attribute, and those that a macro stamps.
fn tests_in(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        if is_test && let Some((_, rest)) = line.split_once("fn ") {
            found.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            is_test = false;
        }
    }
    for stamp in ["on_both!(", "on_both_apis!("] {
        for (at, _) in text.match_indices(stamp) {
            let names = text[at + stamp.len()..].split(')').next().unwrap().split(',').map(str::trim);
            let is_name = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
            found.extend(names.filter(is_name).map(str::to_owned));
        }
    }
    found
}

/// The tests of each module, by the name that docs/requirements.md gives it.
fn tests_by_module() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    for (directory, prefix) in [
        ("tests/it", ""),
        ("src", ""),
        ("examples", ""),
        ("crates/jose/src", "jose::"),
        ("crates/grantd-verify/src", "grantd_verify::"),
        ("tools/kit/src", "kit::"),
        ("tools/bench/src", "bench::"),
        ("tools/chaos/src", "chaos::"),
    ] {
        for (module, text) in modules(directory) {
            found.entry(format!("{prefix}{module}")).or_default().extend(tests_in(&text));
        }
    }
    found
}

/// Each test with its module.
fn names_of_tests() -> Vec<(String, String)> {
    let of_module =
        |(module, names): (String, BTreeSet<String>)| names.into_iter().map(move |name| (module.clone(), name));
    tests_by_module().into_iter().flat_map(of_module).collect()
}

#[test]
fn names_of_tests_are_short_and_begin_with_the_thing() {
    for (module, name) in names_of_tests() {
        assert!(name.len() <= 80, "{module}::{name} has {} characters", name.len());
        let first = name.split('_').next().unwrap();
        let heads = ["what", "whatever", "who", "whoever", "whom", "whose"];
        assert!(!heads.contains(&first), "{module}::{name}: begin with the thing or the actor");
    }
}

#[test]
fn requirement_ids_stand_in_docs_requirements_alone() {
    for (module, name) in names_of_tests() {
        let upper = name.to_uppercase();
        let id = id_among(&upper.split('_').collect::<Vec<_>>());
        assert!(id.is_none(), "{module}::{name} holds {}: say it in words", id.unwrap_or_default());
    }
    for path in ["src", "crates", "tools", "examples", "tests", "fuzz/fuzz_targets"]
        .into_iter()
        .flat_map(|directory| files_below(&root().join(directory), "rs"))
    {
        for line in fs::read_to_string(&path).unwrap().lines() {
            let comment = line.trim_start().strip_prefix("//").or_else(|| line.split_once(" // ").map(|(_, it)| it));
            let words = comment.unwrap_or_default().split(|c: char| !c.is_alphanumeric());
            let id = id_among(&words.filter(|word| !FIGURES.contains(word)).collect::<Vec<_>>());
            assert!(id.is_none(), "{}: {line}: say {} in words", path.display(), id.unwrap_or_default());
        }
    }
}

#[test]
fn docs_requirements_names_tests_that_exist_in_order() {
    let tests = tests_by_module();
    let text = fs::read_to_string(root().join("docs/requirements.md")).unwrap();
    let rows = text.split_once("| id | requirement | tests |\n|---|---|---|\n").unwrap().1;
    let mut before = (String::new(), 0);
    for row in rows.lines() {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, sentence, held_by] = cells[..] else { panic!("not three cells: {row}") };
        assert!(sentence.ends_with('.'), "{id}: {sentence}");
        let (family, rest) = id.split_at(id.find(|c: char| !c.is_ascii_uppercase()).unwrap());
        let number = rest.trim_start_matches(['-', ' ']).split(' ').next().unwrap();
        let here = (family.to_owned(), number.parse::<u16>().unwrap());
        assert!(before < here, "{id} stands behind {before:?}");
        before = here;
        let is_id = id_among(&id.split('-').collect::<Vec<_>>()).is_some();
        assert!(is_id || family == "RFC", "{id} is of no family that tidy.rs knows");
        let names: Vec<&str> = held_by.split(", ").map(|name| name.trim_matches('`')).collect();
        assert!(names.iter().all(|name| !name.is_empty()), "{id} names no test");
        for name in names {
            let is_test = name
                .rsplit_once("::")
                .is_some_and(|(module, test)| tests.get(module).is_some_and(|tests| tests.contains(test)));
            let is_module = tests.iter().any(|(module, tests)| {
                let below = module.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
                below && !tests.is_empty()
            });
            assert!(is_test || is_module, "{id} names {name}, which is neither a test nor a module with tests");
        }
    }
}

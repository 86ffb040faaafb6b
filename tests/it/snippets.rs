//! Programs in the book that check tokens: a bound token is no bearer token to any of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every block of a page in one language.
fn blocks_of(page: &Path, language: &str) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let fence = format!("```{language}\n");
    let after = text.split(&fence).skip(1);
    after.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The README and the pages of the book.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directories = ["docs", "docs/guides", "docs/libraries"].map(|name| fs::read_dir(root.join(name)).unwrap());
    let files = directories.into_iter().flatten().map(|entry| entry.unwrap().path());
    let pages = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.chain([root.join("README.md")]).collect()
}

/// As much of `PyJWT` as the page uses. What it verifies is its own affair; here every token is good.
const PYJWT: &str = r#"
class InvalidTokenError(Exception):
    pass


class PyJWKClient:
    def __init__(self, *args, **kwargs):
        pass

    def get_signing_key_from_jwt(self, token):
        return self

    key = None


def decode_complete(token, *args, **kwargs):
    return {"header": {"typ": "at+jwt"}, "payload": {"scope": "invoices:read", **token}}
"#;

const CALLS: &str = r#"
assert verified({}, "invoices:read")["scope"] == "invoices:read"
for cnf in ({"jkt": "x"}, {"x5t#S256": "x"}, {}, None):
    try:
        verified({"cnf": cnf}, "invoices:read")
    except jwt.InvalidTokenError:
        continue
    raise SystemExit(f"a token with cnf {cnf} was taken as a bearer token")
"#;

#[test]
fn the_python_snippet_takes_no_bound_token_as_a_bearer_token() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/libraries/python.md");
    let blocks = blocks_of(&page, "python");
    let checking: Vec<String> = blocks.into_iter().filter(|block| block.contains("decode_complete")).collect();
    assert_eq!(checking.len(), 1);
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("jwt.py"), PYJWT).unwrap();
    fs::write(directory.path().join("page.py"), &checking[0]).unwrap();
    let program = format!("import jwt\nfrom page import verified\n{CALLS}");
    let done = Command::new("python3").arg("-c").arg(program).env("PYTHONPATH", directory.path()).output();
    let done = done.expect("python3 is there; script/test installs it");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn every_snippet_that_decodes_a_token_looks_at_cnf() {
    for language in ["python", "rust", "go", "js", "ts", "java"] {
        let blocks = pages().iter().flat_map(|page| blocks_of(page, language)).collect::<Vec<_>>();
        for block in blocks.iter().filter(|block| block.contains("decode") || block.contains("erif")) {
            assert!(block.contains("cnf"), "{block}");
        }
    }
}

//! Programs in the README that check tokens: a bound token is no bearer token to any of them.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Every block of the README in one language.
fn blocks(language: &str) -> Vec<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let fence = format!("```{language}\n");
    let after = readme.split(&fence).skip(1);
    after.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// As much of `PyJWT` as the README uses. What it verifies is its own affair; here every token is good.
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
    let checking: Vec<String> =
        blocks("python").into_iter().filter(|block| block.contains("decode_complete")).collect();
    assert_eq!(checking.len(), 1);
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("jwt.py"), PYJWT).unwrap();
    let program = format!("{}\n{CALLS}", checking[0]);
    let done = Command::new("python3").arg("-c").arg(program).env("PYTHONPATH", directory.path()).output();
    let done = done.expect("python3 is there; script/test installs it");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn every_snippet_that_decodes_a_token_looks_at_cnf() {
    for language in ["python", "rust", "go", "js", "ts", "java"] {
        for block in blocks(language).iter().filter(|block| block.contains("decode") || block.contains("verify")) {
            assert!(block.contains("cnf"), "{block}");
        }
    }
}

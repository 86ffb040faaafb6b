//! Arguments of commands: what can be set, what changes nothing, what is taken and could not work.

use serde_json::json;

use crate::assertion::Signer;
use crate::harness::Db;
use crate::process::daemon::Grantd;

on_both!(
    setting_nothing_is_wrong_usage_and_setting_the_same_changes_nothing,
    an_object_that_already_exists_is_named,
    claims_are_strings_or_json,
    migrate_lists_what_this_run_applied,
    a_client_whose_tokens_are_too_large_is_named
);

async fn setting_nothing_is_wrong_usage_and_setting_the_same_changes_nothing(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    for uri in ["https://b.test", "https://a.test"] {
        grantd.ok(&["resource", "create", uri, "--scope", "a b", "--token-ttl", "10m"]).await;
    }
    let both = ["--resource", "https://b.test", "--resource", "https://a.test", "--resource", "https://b.test"];
    let create = ["client", "create", "c", "--scope", "a b", "--default-scope", "a", "--claim", "team=x"];
    grantd.ok(&[&create[..], &both].concat()).await;
    for (what, id, options) in [
        ("client", "c", ["--scope", "--default-scope", "--token-ttl", "--claim-json", "--jwks-uri", "--auth-methods"]),
        (
            "resource",
            "https://a.test",
            ["--scope", "--alg", "--default-alg", "--token-ttl", "--introspect-by", "--introspect-by-none"],
        ),
    ] {
        let done = grantd.run(&[what, "set", id]).await;
        assert_eq!(done.status.code(), Some(2), "{done:?}");
        for option in options {
            assert!(done.stderr.contains(option), "{option}: {}", done.stderr);
        }
    }
    let revision = async || grantd.json(&["client", "show", "c", "--json"]).await;
    let before = revision().await;
    for same in [
        &["client", "set", "c", "--scope", "a b"][..],
        &["client", "set", "c", "--claim", "team=x", "--default-token-ttl", "--require-dpop", "false"],
        &["client", "set", "c", "--resource", "https://a.test", "--resource", "https://b.test"],
        &["client", "set", "c", "--any-auth-method", "--no-jwks-uri"],
        &["client", "enable", "c"],
        &["resource", "set", "https://a.test", "--token-ttl", "10m", "--introspect-by-none"],
    ] {
        let done = grantd.ok(same).await;
        assert!(done.stderr.contains("nothing changed: "), "{same:?}: {done:?}");
    }
    assert_eq!(revision().await, before);
    for other in [
        &["client", "set", "c", "--scope", "a b", "--token-ttl", "5m"][..],
        &["client", "set", "c", "--auth-methods", "private_key_jwt"],
        &["client", "disable", "c"],
        &["client", "enable", "c"],
        &["resource", "set", "https://a.test", "--introspect-by", "c", "--introspect-by", "c"],
    ] {
        let done = grantd.ok(other).await;
        assert!(!done.stderr.contains("nothing changed"), "{other:?}: {done:?}");
    }
}

async fn an_object_that_already_exists_is_named(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "billing", "--no-secret"]).await;
    grantd.ok(&["resource", "create", "https://api.test", "--scope", "a"]).await;
    let jwk = Signer::es256().named("k1").jwk();
    let other = Signer::es256().named("k0").jwk();
    let (file, set) = (db.file("k", &jwk.to_string()), db.file("set", &json!({"keys": [other, jwk]}).to_string()));
    grantd.ok(&["client", "key", "add", "billing", "--jwk", file.to_str().unwrap()]).await;
    let imported = grantd.run_with_input(&["client", "secret", "import", "billing"], SECRET).await;
    assert!(imported.status.success(), "{imported:?}");
    for (arguments, named) in [
        (&["client", "create", "billing"][..], "client \"billing\" already exists"),
        (&["client", "create", "billing", "--no-secret"], "client \"billing\" already exists"),
        (&["resource", "create", "https://api.test", "--scope", "b"], "resource \"https://api.test\" already exists"),
        (&["client", "key", "add", "billing", "--jwk", set.to_str().unwrap()], "client key \"k1\" already exists"),
        (&["client", "secret", "import", "billing"], "client secret \"0123456789\" already exists"),
    ] {
        let done = grantd.run_with_input(arguments, SECRET).await;
        assert_eq!(done.status.code(), Some(1), "{arguments:?}: {done:?}");
        assert!(done.stderr.contains(named), "{arguments:?}: {}", done.stderr);
    }
    // A seed says at least of what kind.
    db.file("seeds/1_twice.sql", "insert into client (client_id) values ('billing');");
    let seeded = grantd.with("GRANTD__DATABASE__SEEDS", db.directory.path().join("seeds").to_str().unwrap());
    let done = seeded.run(&["migrate"]).await;
    let named =
        if db.is_postgres() { "client \"billing\" already exists" } else { "a client with this id already exists" };
    assert!(done.stderr.contains("1_twice.sql") && done.stderr.contains(named), "{done:?}");
}

/// Of the form that names its own row.
const SECRET: &str = "gds_0123456789_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";

async fn claims_are_strings_or_json(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let done = grantd
        .ok(&[
            "client",
            "create",
            "c",
            "--claim",
            "team=finance",
            "--claim",
            "n=5",
            "--claim",
            "admin=true",
            "--claim-json",
            "level=3",
            "--claim-json",
            "roles=[\"a\",\"b\"]",
        ])
        .await;
    for (name, value) in [("n", "5"), ("admin", "true")] {
        let hint =
            format!("--claim {name}={value} sets a string; for the JSON value write --claim-json '{name}={value}'");
        assert!(done.stderr.contains(&hint), "{}", done.stderr);
    }
    assert!(!done.stderr.contains("team") && !done.stderr.contains("level"), "{}", done.stderr);
    let claims = async || grantd.json(&["client", "show", "c", "--json"]).await["claims"].clone();
    let expected = json!({"team": "finance", "n": "5", "admin": "true", "level": 3, "roles": ["a", "b"]});
    assert_eq!(claims().await, expected);
    grantd.ok(&["client", "set", "c", "--claim-json", "admin=true", "--claim", "team=x"]).await;
    assert_eq!(claims().await, json!({"team": "x", "admin": true}));
    for (arguments, code, part) in [
        (&["--claim-json", "n=abc"][..], 2, "cannot be read as a JSON value: not JSON"),
        (&["--claim-json", "n={\"a\":1,\"a\":2}"], 2, "a member stands twice"),
        (&["--claim-json", "n"], 2, "NAME=JSON"),
        (&["--claim-json", "n=1,\"iss\":\"x\""], 2, "more than one JSON value"),
        (&["--claim-json", "sub=\"x\""], 1, "grantd sets this claim itself"),
        (&["--claim-json", "n=1", "--claim", "n=2"], 1, "given twice"),
    ] {
        let done = grantd.run(&[&["client", "set", "c"], arguments].concat()).await;
        assert!(done.status.code() == Some(code) && done.stderr.contains(part), "{arguments:?}: {done:?}");
    }
    let many: Vec<String> = (0..65).map(|n| format!("--claim=c{n}=x")).collect();
    let many: Vec<&str> = ["client", "set", "c"].into_iter().chain(many.iter().map(String::as_str)).collect();
    let done = grantd.run(&many).await;
    assert!(done.status.code() == Some(1) && done.stderr.contains("at most 64"), "{done:?}");
}

async fn migrate_lists_what_this_run_applied(db: Db) {
    db.file("seeds/1_one.sql", "insert into client (client_id) values ('one');");
    let grantd = Grantd::new(&db);
    let grantd = grantd.with("GRANTD__DATABASE__SEEDS", db.directory.path().join("seeds").to_str().unwrap());
    let first = grantd.json(&["migrate", "--json"]).await;
    let of_schema = first.as_array().unwrap().len() - 1;
    assert!(of_schema >= 1 && first[of_schema]["name"] == "one", "{first}");
    db.file("seeds/2_two.sql", "insert into client (client_id) values ('two');");
    let second = grantd.ok(&["migrate"]).await;
    assert_eq!(second.stdout, "STATE    KIND  VERSION  NAME\napplied  seed  2        two\n");
    let third = grantd.ok(&["migrate"]).await;
    assert!(third.stdout.trim().is_empty() && third.stderr.contains("nothing to do"), "{third:?}");
    assert_eq!(grantd.json(&["migrate", "--json"]).await, json!([]));
    let status = grantd.json(&["migrate", "--status", "--json"]).await;
    assert_eq!(status.as_array().unwrap().len(), of_schema + 2);
    assert!(status.as_array().unwrap().iter().all(|one| one["applied"] == true), "{status}");
}

async fn a_client_whose_tokens_are_too_large_is_named(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let scopes = |count: usize| {
        (0..count).map(|n| format!("https://api.test/a/long/scope/{n:03}")).collect::<Vec<_>>().join(" ")
    };
    let (large, note) = (scopes(100), format!("note={}", "x".repeat(3000)));
    let done = grantd.ok(&["client", "create", "small", "--scope", &large]).await;
    assert!(!done.stderr.contains("warning"), "{done:?}");
    let done = grantd.ok(&["client", "set", "small", "--claim", &note]).await;
    assert!(done.stderr.contains("warning: client small: its tokens can have"), "{done:?}");
    let done = grantd.ok(&["client", "create", "large", "--scope", &large, "--claim", &note]).await;
    assert!(
        done.stderr.contains("warning: client large: its tokens can have") && done.stderr.contains("6144"),
        "{done:?}"
    );
    // With a resource that understands few of the scopes no token has them all.
    grantd.ok(&["resource", "create", "https://api.test", "--scope", &scopes(10)]).await;
    let done = grantd.ok(&["client", "set", "large", "--resource", "https://api.test"]).await;
    assert!(!done.stderr.contains("warning"), "{done:?}");
    let doctor = grantd.run(&["doctor"]).await;
    assert!(
        doctor.stdout.contains("client small: its tokens can have") && !doctor.stdout.contains("client large"),
        "{doctor:?}"
    );
    assert_eq!(doctor.status.code(), Some(1));
}

#[tokio::test]
async fn a_span_out_of_its_range_is_wrong_usage_that_says_the_range() {
    let grantd = Grantd::new(&Db::sqlite());
    for (arguments, part) in [
        (&["client", "secret", "add", "c", "--expires-in", "100000d"][..], "at most 36600d"),
        (&["client", "secret", "add", "c", "--expires-in", "0s"], "at least 1s"),
        (&["client", "secret", "add", "c", "--expires-in", "90"], "a number with a unit"),
        (&["client", "create", "c", "--expires-in", "100000d"], "at most 36600d"),
        (&["client", "create", "c", "--token-ttl", "25h"], "from 1s to 24h"),
        (&["client", "set", "c", "--token-ttl", "0s"], "from 1s to 24h"),
        (&["resource", "create", "https://a.test", "--scope", "a", "--token-ttl", "2d"], "from 1s to 24h"),
        (&["resource", "set", "https://a.test", "--token-ttl", "500ms"], "whole seconds"),
        (&["client", "key", "add", "c", "--jwk", "f", "--expires-in", "100000d"], "at most 36600d"),
        (&["client", "secret", "retire", "c", "s", "--if-unused", "30s"], "at least 1m"),
        (&["client", "secret", "rotate", "c", "--overlap", "99999999999999999999d"], "at most 36600d"),
        (&["client", "secret", "expiring", "--within", "soon"], "a number with a unit"),
    ] {
        let done = grantd.run(arguments).await;
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {done:?}");
        assert!(done.stderr.contains(part), "{arguments:?}: {}", done.stderr);
    }
    let done = grantd.run(&["config", "check", "--set", "token.ttl=100000d"]).await;
    assert!(done.status.code() == Some(78) && done.stderr.contains("at most 36600d"), "{done:?}");
}

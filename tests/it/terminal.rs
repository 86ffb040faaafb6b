//! Strings of strangers reach a terminal or a log only as visible text on the line they belong to.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd::telemetry::printable::is_printable;
use serde_json::{Value, json};

use crate::harness::Db;
use crate::process::daemon::{Done, Grantd};

on_both!(values_from_the_database_cannot_drive_a_terminal);

/// A cleared screen, a carriage return, a line of its own, a reversed text, a hidden one.
const HOSTILE: &str = "x\u{1b}[2J\r\nsecret forged  made \u{202e}\u{2066}\u{200b}\u{9b}31m\u{2028}end";

/// Nothing but visible text and the line ends that are ours.
fn assert_plain(done: &Done, what: &str) {
    for (name, text) in [("stdout", &done.stdout), ("stderr", &done.stderr)] {
        let hidden = text.chars().find(|character| *character != '\n' && !is_printable(*character));
        assert_eq!(hidden, None, "{what}: {name}: {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("secret forged")), "{what}: {name}: {text}");
    }
}

fn token(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.AAAA", part(header), part(claims))
}

async fn values_from_the_database_cannot_drive_a_terminal(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "c", "--scope", "a", "--claim", &format!("note={HOSTILE}")]).await;
    grantd.ok(&["client", "secret", "add", "c", "--label", HOSTILE, "--expires-in", "1d"]).await;
    grantd.ok(&["client", "cert", "add", "c", "--subject-dn", "CN=svc\u{202e}evil"]).await;
    for arguments in [
        &["client", "secret", "list", "c"][..],
        &["client", "secret", "expiring", "--within", "2d"],
        &["client", "show", "c"],
        &["client", "cert", "list"],
        &["client", "list"],
        &["doctor"],
    ] {
        assert_plain(&grantd.run(arguments).await, &format!("{arguments:?}"));
        let with_json = [arguments, &["--json"]].concat();
        let done = grantd.run(&with_json).await;
        assert_plain(&done, &format!("{with_json:?}"));
        serde_json::from_str::<Value>(&done.stdout).unwrap();
    }
    let listed = grantd.json(&["client", "secret", "list", "c", "--json"]).await;
    assert!(listed.as_array().unwrap().iter().any(|secret| secret["label"] == HOSTILE), "it reads back: {listed}");
    // Rows that cannot be understood are quoted by the error printer, by the lists and by doctor.
    let broken = HOSTILE.replace('\'', "''");
    let sql = format!("update client_certificate set value = '{broken}', kind = 'san_ip'");
    db.sql(&sql).await.unwrap();
    for arguments in [&["client", "list"][..], &["client", "show", "c"], &["client", "key", "list"], &["doctor"]] {
        assert_plain(&grantd.run(arguments).await, &format!("malformed: {arguments:?}"));
    }
}

#[tokio::test]
async fn a_token_cannot_drive_the_terminal_that_inspects_it() {
    let db = Db::sqlite();
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let hostile = token(
        &json!({"typ": HOSTILE, "alg": HOSTILE, "kid": HOSTILE, HOSTILE: 1}),
        &json!({"iss": HOSTILE, "client_id": HOSTILE, "nested": {HOSTILE: [HOSTILE]}, "exp": 1}),
    );
    for arguments in [&["token", "inspect"][..], &["token", "inspect", "--json"], &["token", "revoke"]] {
        let done = grantd.run_with_input(arguments, &hostile).await;
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        assert_plain(&done, &format!("{arguments:?}"));
        assert!(done.stderr.contains("\\u{1b}") || arguments[1] == "revoke", "{done:?}");
    }
}

#[tokio::test]
async fn arguments_and_names_of_files_are_escaped_too() {
    let db = Db::sqlite();
    let seed = format!("seeds/1_{}.sql", HOSTILE.replace('/', ""));
    db.file(&seed, "select 1;");
    let grantd = Grantd::new(&db);
    let seeded = grantd.with("GRANTD__DATABASE__SEEDS", db.directory.path().join("seeds").to_str().unwrap());
    for (grantd, arguments) in [
        (&seeded, &["migrate"][..]),
        (&seeded, &["migrate", "--status"]),
        (&grantd, &["client", "show", HOSTILE]),
        (&grantd, &[HOSTILE]),
        (&grantd, &["client", "create", "c", "--resource", HOSTILE]),
        (&grantd, &["key", "import", HOSTILE]),
        (&grantd, &["key", "remove", HOSTILE, "--now"]),
        (&grantd, &["migrate", "--config", HOSTILE]),
        (&grantd, &["migrate", "--set", &format!("issuer={HOSTILE}")]),
        (&grantd, &["health", "--url", HOSTILE]),
    ] {
        assert_plain(&grantd.run(arguments).await, &format!("{arguments:?}"));
    }
    let told = grantd.run(&["client", "show", "a b "]).await;
    assert!(told.status.code() == Some(2) && told.stderr.contains("'a b '"), "{told:?}");
}

#[tokio::test]
async fn the_text_log_of_a_daemon_is_escaped() {
    let db = Db::sqlite();
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let mut daemon = crate::process::daemon::Daemon::start(grantd.command(&["serve"]), false).await;
    daemon.token("c%E2%80%AE%1B[2J", "wrong-but-long-enough").await;
    daemon.stop_cleanly(std::time::Duration::from_secs(5)).await;
    let log = daemon.stdout.lock().unwrap().join("\n");
    assert!(log.contains("\\u202e") && log.chars().all(|c| c == '\n' || is_printable(c)), "{log:?}");
    // In the text format, of a command whose warnings carry a name.
    let broken = db.directory.path().join("broken\u{202e}name");
    std::fs::create_dir_all(&broken).unwrap();
    let fresh = Grantd::new(&db).with("GRANTD__DATA_DIR", broken.to_str().unwrap());
    let fresh = fresh.with("GRANTD__DATABASE__URL", "").with("GRANTD__KEYS__SEALING_KEY_FILE", "");
    let made = fresh.ok(&["client", "create", "c"]).await;
    assert!(made.stderr.contains("made a sealing key") && made.stderr.contains("\\u{202e}name"), "{made:?}");
    assert_plain(&made, "warnings");
}

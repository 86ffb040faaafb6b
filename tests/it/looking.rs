//! Commands that only look make no database, directory or key, and commands that change make none either.

use std::collections::BTreeSet;
use std::path::Path;

use crate::harness::Db;
use crate::process::daemon::{Daemon, Grantd};

/// A program with the embedded database of an empty directory, which does not exist yet.
fn fresh(db: &Db) -> (Grantd, std::path::PathBuf) {
    let data = db.directory.path().join("not/yet");
    let grantd = Grantd::new(db).with("GRANTD__DATA_DIR", data.to_str().unwrap());
    (grantd.with("GRANTD__DATABASE__URL", "").with("GRANTD__KEYS__SEALING_KEY_FILE", ""), data)
}

/// A JWT that nobody signed.
const TOKEN: &str = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJ4In0.AAAA";

const LOOKING: [&[&str]; 16] = [
    &["client", "list"],
    &["client", "show", "c"],
    &["client", "secret", "list", "c"],
    &["client", "secret", "expiring", "--within", "30d"],
    &["client", "key", "list"],
    &["client", "key", "list", "c"],
    &["client", "cert", "list"],
    &["resource", "list"],
    &["resource", "show", "https://api.test"],
    &["key", "list"],
    &["key", "tag", "list"],
    &["token", "inspect"],
    &["doctor"],
    &["migrate", "--status"],
    &["config", "check"],
    &["config", "print"],
];

const CHANGING: [&[&str]; 16] = [
    &["client", "enable", "c"],
    &["client", "disable", "c"],
    &["client", "delete", "c"],
    &["client", "revoke-tokens", "c"],
    &["client", "set", "c", "--scope", "a"],
    &["client", "secret", "add", "c"],
    &["client", "secret", "rotate", "c", "--overlap", "1d"],
    &["client", "secret", "revoke", "c", "s"],
    &["client", "secret", "retire", "c", "s", "--if-unused", "1h"],
    &["client", "cert", "remove", "c", "s"],
    &["resource", "delete", "https://api.test"],
    &["key", "rotate"],
    &["key", "remove", "k", "--now"],
    &["key", "tag", "rotate"],
    &["token", "revoke"],
    &["token", "revoke-all", "--now"],
];

#[tokio::test]
async fn without_a_database_nothing_is_made_and_the_file_is_named() {
    let db = Db::sqlite();
    let (grantd, data) = fresh(&db);
    let file = data.join("grantd.db");
    for arguments in LOOKING.into_iter().chain(CHANGING) {
        let done = grantd.run_with_input(arguments, TOKEN).await;
        assert!(!db.directory.path().join("not").exists(), "{arguments:?} made something: {done:?}");
        if arguments[0] != "config" {
            let told = done.stdout + &done.stderr;
            assert!(told.contains(file.to_str().unwrap()), "{arguments:?}: {told}");
            assert!(told.contains("grantd migrate") || arguments.contains(&"--status"), "{arguments:?}: {told}");
        }
        let code = match arguments[0] {
            "doctor" => 1,
            "migrate" | "config" => 0,
            _ => 78,
        };
        assert_eq!(done.status.code(), Some(code), "{arguments:?}");
    }
    let named = grantd.with("GRANTD__DATABASE__URL", "sqlite:/nonexistent/other.db").run(&["client", "list"]).await;
    assert!(named.stderr.contains("database.url") && named.stderr.contains("/nonexistent/other.db"), "{named:?}");
    let pending = grantd.ok(&["migrate", "--status"]).await;
    assert!(pending.stdout.contains("\nPENDING  schema  1 "), "{pending:?}");
}

#[tokio::test]
async fn commands_that_create_a_database_say_where() {
    for arguments in [
        &["migrate"][..],
        &["client", "create", "c"],
        &["resource", "create", "https://api.test", "--scope", "a"],
        &["key", "generate"],
    ] {
        let db = Db::sqlite();
        let (grantd, data) = fresh(&db);
        let done = grantd.ok(arguments).await;
        let told = format!("created a new, empty database: {}", data.join("grantd.db").display());
        assert!(done.stderr.contains(&told), "{arguments:?}: {done:?}");
        assert!(!grantd.ok(&["client", "list"]).await.stderr.contains("made"), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_database_without_a_sealing_key_is_looked_at_and_gets_none() {
    let db = Db::sqlite();
    let (grantd, data) = fresh(&db);
    grantd.ok(&["migrate"]).await;
    let before = names(&data);
    for arguments in LOOKING {
        grantd.run_with_input(arguments, TOKEN).await;
    }
    assert_eq!(names(&data), before);
    let inspected = grantd.run_with_input(&["token", "inspect"], TOKEN).await;
    assert!(inspected.stderr.contains("no key of this server has the kid"), "{inspected:?}");
}

#[tokio::test]
async fn commands_that_read_refuse_an_older_schema_and_leave_it_as_it_is() {
    let db = Db::sqlite();
    let (grantd, data) = fresh(&db);
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("grantd.db"), "").unwrap();
    let done = grantd.run(&["client", "list"]).await;
    assert!(done.status.code() == Some(1) && done.stderr.contains("run `grantd migrate`"), "{done:?}");
    let status = grantd.ok(&["migrate", "--status"]).await;
    assert!(status.stdout.contains("\nPENDING"), "{status:?}");
}

#[tokio::test]
async fn a_server_that_makes_a_database_says_where() {
    let db = Db::sqlite();
    let (grantd, data) = fresh(&db);
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let made = daemon.events("database.made");
    assert_eq!((made.len(), &made[0]["path"]), (1, &data.join("grantd.db").to_str().unwrap().into()));
    daemon.stop_cleanly(std::time::Duration::from_secs(5)).await;
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    assert!(daemon.events("database.made").is_empty());
    daemon.stop_cleanly(std::time::Duration::from_secs(5)).await;
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    // SQLite's own, which come and go with its connections.
    names.filter(|name| !name.ends_with("-shm") && !name.ends_with("-wal")).collect()
}

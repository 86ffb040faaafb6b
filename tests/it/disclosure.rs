//! Secrets that are shown once: none works that nobody has seen, and none is lost to a process that ends halfway.

use std::fs::OpenOptions;
use std::process::Stdio;
use std::time::Duration;

use grantd::model::time::Clock;
use serde_json::Value;
use tokio::process::Command;

use crate::harness::Db;
use crate::process::daemon::{Done, Grantd};

on_both!(
    a_secret_that_cannot_be_printed_is_revoked,
    rotating_adds_one_and_lets_the_others_expire,
    a_killed_create_leaves_no_file_of_that_name_without_a_client
);

/// Runs a command whose stdout cannot be written.
async fn with_full_stdout(mut command: Command) -> Done {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child = command.stdout(Stdio::from(full)).spawn().unwrap();
    let output = child.wait_with_output().await.unwrap();
    Done { status: output.status, stdout: String::new(), stderr: String::from_utf8(output.stderr).unwrap() }
}

async fn secrets(grantd: &Grantd, id: &str) -> Vec<Value> {
    grantd.json(&["client", "secret", "list", id, "--json"]).await.as_array().unwrap().clone()
}

async fn a_secret_that_cannot_be_printed_is_revoked(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    for (arguments, count) in [
        (&["client", "create", "c", "--scope", "a"][..], 1),
        (&["client", "secret", "add", "c"], 2),
        (&["client", "secret", "add", "c", "--json"], 3),
        (&["client", "secret", "rotate", "c", "--overlap", "0s"], 4),
    ] {
        let done = with_full_stdout(grantd.command(arguments)).await;
        assert_eq!(done.status.code(), Some(1), "{arguments:?}: {done:?}");
        for part in ["could not be shown and is lost", "it is revoked", "grantd client secret add c", "No space left"] {
            assert!(done.stderr.contains(part), "{arguments:?}: {}", done.stderr);
        }
        let all = secrets(&grantd, "c").await;
        assert_eq!(all.len(), count, "{all:?}");
        assert!(all.iter().all(|secret| secret["revoked_at"].is_i64()), "{arguments:?}: {all:?}");
    }
    // Before anything is committed, nothing is lost.
    let done = with_full_stdout(grantd.command(&["client", "create", "other", "--sql"])).await;
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let file = db.directory.path().join("sql.secret");
    let sql = ["client", "create", "other", "--sql", "--secret-file", file.to_str().unwrap()];
    assert_eq!(with_full_stdout(grantd.command(&sql)).await.status.code(), Some(1));
    assert!(beside(&file).is_empty(), "{:?}", beside(&file));
}

async fn rotating_adds_one_and_lets_the_others_expire(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let first = grantd.json(&["client", "create", "c", "--scope", "a", "--secret-expires-in", "90d", "--json"]).await;
    let soon = grantd.json(&["client", "secret", "add", "c", "--expires-in", "1d", "--json"]).await;
    let endless = grantd.json(&["client", "secret", "add", "c", "--json"]).await;
    let revoked = grantd.json(&["client", "secret", "add", "c", "--json"]).await;
    grantd.ok(&["client", "secret", "revoke", "c", revoked["secret_id"].as_str().unwrap()]).await;
    let again = grantd.ok(&["client", "secret", "revoke", "c", revoked["secret_id"].as_str().unwrap()]).await;
    assert!(again.stderr.contains("nothing changed") && again.stderr.contains("is revoked since"), "{again:?}");
    grantd.ok(&["client", "create", "other"]).await;

    let done = grantd.ok(&["client", "secret", "rotate", "c", "--overlap", "7d", "--label", "next", "--json"]).await;
    assert!(done.stderr.contains("2 other secrets of client c now expire at"), "{done:?}");
    let new: Value = serde_json::from_str(&done.stdout).unwrap();
    assert!(new["client_secret"].as_str().unwrap().starts_with("gds_") && new["expires_at"].is_null(), "{new}");
    let end = new["others_expire_at"].as_i64().unwrap();
    let all = secrets(&grantd, "c").await;
    let expiry =
        |of: &Value| all.iter().find(|one| one["secret_id"] == of["secret_id"]).unwrap()["expires_at"].as_i64();
    assert_eq!((expiry(&first), expiry(&endless), expiry(&new)), (Some(end), Some(end), None));
    assert!(expiry(&soon).unwrap() < end && expiry(&revoked).is_none(), "{all:?}");
    assert!(secrets(&grantd, "other").await[0]["expires_at"].is_null(), "another client's");
    let none = grantd.run(&["client", "secret", "rotate", "nobody", "--overlap", "7d"]).await;
    assert!(none.status.code() == Some(1) && none.stderr.contains("there is no client nobody"), "{none:?}");
    let (before, day) = (Clock::System.now().0, 86400);
    let done = grantd.json(&["client", "secret", "rotate", "c", "--json"]).await;
    let end = done["others_expire_at"].as_i64().unwrap();
    assert!((before + day..before + day + 60).contains(&end), "the overlap is a day unless it is chosen: {done}");
    assert!(secrets(&grantd, "c").await.iter().any(|one| one["expires_at"] == end), "the secret that had no end");
}

async fn a_killed_create_leaves_no_file_of_that_name_without_a_client(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "warm-up"]).await;
    let (mut killed, mut made) = (0, 0);
    for round in 0..24u64 {
        let (id, file) = (format!("c{round}"), db.directory.path().join(format!("{round}.secret")));
        let arguments = ["client", "create", &id, "--secret-file", file.to_str().unwrap()];
        let mut child = grantd.command(&arguments).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(10 + round * 12)).await;
        killed += u32::from(child.try_wait().unwrap().is_none());
        drop(child.start_kill());
        child.wait().await.unwrap();
        let there = grantd.run(&["client", "show", &id]).await.status.success();
        assert!(there || !file.exists(), "round {round}: a secret that never works has the name that was asked for");
        made += u32::from(file.exists());
        if there {
            assert!(!beside(&file).is_empty(), "round {round}: the secret of a client that was made is not lost");
        }
    }
    assert!(killed > 3, "{killed} were killed and {made} were made");
}

#[tokio::test]
async fn a_create_that_fails_leaves_no_file() {
    let db = Db::sqlite();
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let file = db.directory.path().join("c.secret");
    let path = file.to_str().unwrap();
    let refused =
        grantd.run(&["client", "create", "c", "--resource", "https://none.test", "--secret-file", path]).await;
    assert!(refused.status.code() == Some(1) && beside(&file).is_empty(), "{refused:?} {:?}", beside(&file));
    grantd.ok(&["client", "create", "c", "--secret-file", path]).await;
    assert_eq!(beside(&file), ["c.secret"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let secret = std::fs::read_to_string(&file).unwrap();
    let again = grantd.run(&["client", "create", "d", "--secret-file", path]).await;
    assert!(again.status.code() == Some(1) && again.stderr.contains("must not exist yet"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), secret);
    assert_eq!(grantd.run(&["client", "show", "d"]).await.status.code(), Some(1), "nothing was made");
    // A link that leads nowhere is a name that is taken, too.
    let link = db.directory.path().join("link");
    std::os::unix::fs::symlink("/nonexistent/target", &link).unwrap();
    let refused = grantd.run(&["client", "create", "d", "--secret-file", link.to_str().unwrap()]).await;
    assert!(refused.stderr.contains("must not exist yet"), "{refused:?}");
}

/// The files whose names begin like that of `file`.
fn beside(file: &std::path::Path) -> Vec<String> {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let entries = std::fs::read_dir(file.parent().unwrap()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|other| other.starts_with(&name)).collect()
}

//! Secrets that rotate and expire.

use std::collections::BTreeMap;

use grantd::model::credential::SecretOrigin;
use grantd::model::time::{Clock, UnixTime};
use grantd::store::secrets::Replacement;
use serde_json::{Value, json};

use crate::harness::{Db, client, new_secret};
use crate::process::daemon::Grantd;

on_both!(
    concurrent_rotations_leave_secrets_that_work,
    a_rotation_ends_no_secret_once_its_own_was_ended,
    a_new_secret_goes_to_a_file_that_did_not_exist,
    secrets_of_one_second_are_listed_in_one_order,
    new_secrets_expire_within_the_maximum_age,
    doctor_names_secrets_that_outlast_the_maximum_age,
);

const DAY: i64 = 86400;

async fn secrets(grantd: &Grantd, id: &str) -> BTreeMap<String, Value> {
    let listed = grantd.json(&["client", "secret", "list", id, "--json"]).await;
    let by_id = |secret: &Value| (secret["secret_id"].as_str().unwrap().to_owned(), secret.clone());
    listed.as_array().unwrap().iter().map(by_id).collect()
}

async fn concurrent_rotations_leave_secrets_that_work(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    for round in 0..8 {
        let (id, overlap) = (format!("c{round}"), if round % 2 == 0 { "7d" } else { "0s" });
        let first = grantd.json(&["client", "create", &id, "--json"]).await;
        let rotate = ["client", "secret", "rotate", &id, "--overlap", overlap, "--json"];
        let (one, other) = tokio::join!(grantd.run(&rotate), grantd.run(&rotate));
        let now = Clock::System.now().0;
        let all = secrets(&grantd, &id).await;
        assert_eq!(all.len(), 3, "{all:?}");
        let mut endless = 0;
        for done in [&one, &other] {
            let printed: Value = serde_json::from_str(&done.stdout).unwrap();
            let stored = &all[printed["secret_id"].as_str().unwrap()];
            assert!(stored["revoked_at"].is_null(), "{stored}");
            endless += u32::from(stored["expires_at"].is_null());
            let end = stored["expires_at"].as_i64().unwrap_or(i64::MAX);
            // The other command may have begun after this one had ended, and has then replaced its secret.
            assert!(overlap == "0s" || end > now + 6 * DAY, "{stored}");
            let says_so = done.stderr.contains("was made to expire at") || done.stderr.contains("now expire");
            assert!(says_so, "{done:?}");
        }
        assert!(endless > 0 && (one.status.success() || other.status.success()), "{one:?}\n{other:?}\n{all:?}");
        let end = all[first["secret_id"].as_str().unwrap()]["expires_at"].as_i64().unwrap();
        assert!(end <= now + if overlap == "7d" { 7 * DAY } else { 0 }, "{all:?}");
    }
}

async fn a_rotation_ends_no_secret_once_its_own_was_ended(db: Db) {
    let store = db.store().await;
    store
        .create_client(&client("c"), Some(&new_secret("old", "the old secret", SecretOrigin::Untagged)))
        .await
        .unwrap();
    let [first, second] =
        ["first", "second"].map(|id| new_secret(id, &format!("the {id} new secret"), SecretOrigin::Untagged));
    for new in [&first, &second] {
        store.add_secret("c", new).await.unwrap();
    }
    let expiry = async |id: &str| {
        let all = store.secrets("c").await.unwrap();
        all.into_iter().find(|secret| secret.secret_id == id).unwrap().expires_at.map(|at| at.0)
    };
    let replace = async |replaced: &[&str], new, at| {
        let replaced: Vec<String> = replaced.iter().map(|id| (*id).to_owned()).collect();
        store.replace_secrets("c", &replaced, new, UnixTime(at)).await.unwrap()
    };
    const LATER: i64 = 4_000_000_000;
    // Rotations that began at the same time replace the same secrets, and the earlier end stays.
    assert_eq!(replace(&["old"], &first, LATER).await, Replacement::Done(1));
    assert_eq!(replace(&["old"], &second, LATER + 9).await, Replacement::Done(0));
    assert_eq!((expiry("old").await, expiry("first").await, expiry("second").await), (Some(LATER), None, None));
    // One that began later has replaced the first new secret.
    assert_eq!(replace(&["old", "first"], &second, LATER - 1).await, Replacement::Done(2));
    assert_eq!(replace(&["old"], &first, LATER - 9).await, Replacement::Overtaken(Some(UnixTime(LATER - 1))));
    assert_eq!(expiry("old").await, Some(LATER - 1), "nothing is changed");
    assert!(store.revoke_secret("c", "second", UnixTime(1)).await.unwrap());
    assert_eq!(replace(&["first"], &second, 1).await, Replacement::Overtaken(None));
    assert_eq!(expiry("first").await, Some(LATER - 1));
}

async fn a_new_secret_goes_to_a_file_that_did_not_exist(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "c"]).await;
    for (command, more) in [("add", "expires_at"), ("rotate", "others_expire_at")] {
        let file = db.directory.path().join(command);
        let arguments = ["client", "secret", command, "c", "--json", "--secret-file", file.to_str().unwrap()];
        let printed = grantd.json(&arguments).await;
        assert!(printed.get("client_secret").is_none() && printed.get(more).is_some(), "{printed}");
        let secret = std::fs::read_to_string(&file).unwrap();
        assert!(secret.starts_with(&format!("gds_{}_", printed["secret_id"].as_str().unwrap())), "{printed}");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let before = secrets(&grantd, "c").await;
        let refused = grantd.run(&arguments).await;
        assert!(refused.status.code() == Some(1) && refused.stderr.contains("must not exist yet"), "{refused:?}");
        assert_eq!(secrets(&grantd, "c").await, before);
    }
}

async fn secrets_of_one_second_are_listed_in_one_order(db: Db) {
    let store = db.store().await;
    store.create_client(&client("c"), None).await.unwrap();
    for (id, created_at, label) in [("c", 9, "x"), ("d", 8, ""), ("b", 9, "x"), ("a", 9, "y"), ("e", 7, "")] {
        let mut secret = new_secret(id, "a secret long enough", SecretOrigin::Untagged);
        (secret.created_at, secret.label) = (UnixTime(created_at), label.to_owned());
        store.add_secret("c", &secret).await.unwrap();
    }
    let listed = Grantd::new(&db).json(&["client", "secret", "list", "c", "--json"]).await;
    let ids: Vec<&str> = listed.as_array().unwrap().iter().map(|one| one["secret_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["e", "d", "b", "c", "a"], "by second, label and id");
}

async fn new_secrets_expire_within_the_maximum_age(db: Db) {
    let grantd = Grantd::new(&db).with("GRANTD__SECRETS__MAX_AGE", "90d");
    grantd.ok(&["migrate"]).await;
    let now = Clock::System.now().0;
    let days = |expires_at: &Value| (expires_at.as_i64().unwrap() - now) / DAY;
    let create = ["client", "create", "c", "--scope", "a", "--json"];
    grantd.ok(&create).await;
    for (arguments, wanted) in [
        (&["client", "secret", "add", "c", "--json"][..], 90),
        (&["client", "secret", "add", "c", "--expires-in", "90d", "--json"], 90),
        (&["client", "secret", "add", "c", "--expires-in", "30d", "--json"], 30),
        (&["client", "secret", "rotate", "c", "--json"], 90),
        (&["client", "secret", "import", "c", "--json"], 90),
    ] {
        let done = grantd.run_with_input(arguments, "a secret chosen elsewhere\n").await;
        let made: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
        assert_eq!(days(&made["expires_at"]), wanted, "{arguments:?}: {made}");
    }
    let before = secrets(&grantd, "c").await;
    for arguments in [
        &["client", "secret", "add", "c", "--expires-in", "91d"][..],
        &["client", "secret", "rotate", "c", "--expires-in", "91d"],
        &["client", "secret", "import", "c", "--expires-in", "91d"],
        &["client", "create", "d", "--secret-expires-in", "91d"],
        &["client", "create", "d", "--secret-expires-in", "91d", "--sql"],
    ] {
        let done = grantd.run_with_input(arguments, "another secret chosen elsewhere\n").await;
        let says_so = done.stderr.contains("expires in 91d") && done.stderr.contains("secrets.max_age is 90d");
        assert!(done.status.code() == Some(1) && says_so, "{arguments:?}: {done:?}");
    }
    assert_eq!(secrets(&grantd, "c").await, before);
    assert_eq!(grantd.run(&["client", "show", "d"]).await.status.code(), Some(1));
    // Clients with their first secret: registered, as seeds, and from another server.
    db.sql(&grantd.ok(&["client", "create", "seed", "--sql"]).await.stdout).await.unwrap();
    let chosen = ["client", "create", "chosen", "--import-secret", "--sql"];
    db.sql(&grantd.run_with_input(&chosen, "a secret chosen elsewhere\n").await.stdout).await.unwrap();
    let hydra = json!([{"client_id": "moved", "client_secret": "a secret chosen elsewhere", "grant_types": ["client_credentials"]}]);
    let file = db.file("hydra.json", &hydra.to_string());
    grantd.ok(&["import", "hydra", file.to_str().unwrap()]).await;
    for id in ["c", "seed", "chosen", "moved"] {
        let all = secrets(&grantd, id).await;
        assert!(!all.is_empty() && all.values().all(|secret| days(&secret["expires_at"]) <= 90), "{id}: {all:?}");
    }
    let refused = grantd.run(&["config", "check", "--set", "secrets.max_age=0s"]).await;
    assert!(refused.status.code() == Some(78) && refused.stderr.contains("at least 1s"), "{refused:?}");
    assert_eq!(grantd.json(&["config", "print", "--json"]).await["secrets"]["max_age"], "90d");
}

async fn doctor_names_secrets_that_outlast_the_maximum_age(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let mut ids = Vec::new();
    for (id, expires_in) in [("endless", None), ("long", Some("91d")), ("short", Some("89d"))] {
        let create = ["client", "create", id, "--owner", "team", "--json"];
        let made = match expires_in {
            Some(span) => grantd.json(&[&create[..], &["--secret-expires-in", span]].concat()).await,
            None => grantd.json(&create).await,
        };
        ids.push(made["secret_id"].as_str().unwrap().to_owned());
    }
    let extra = grantd.json(&["client", "secret", "add", "short", "--json"]).await;
    grantd.ok(&["client", "secret", "revoke", "short", extra["secret_id"].as_str().unwrap()]).await;
    assert_eq!(grantd.json(&["doctor", "--json"]).await["advice"], json!([]));
    let report = grantd.with("GRANTD__SECRETS__MAX_AGE", "90d").json(&["doctor", "--json"]).await;
    let advice: Vec<&str> = report["advice"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(advice.len(), 2, "{advice:?}");
    let wanted = format!(
        "client endless: its secret {} never expires, and secrets.max_age is 90d; `grantd client secret rotate endless` replaces it",
        ids[0]
    );
    assert_eq!(advice[0], wanted);
    assert!(advice[1].starts_with(&format!("client long: its secret {} expires at ", ids[1])), "{advice:?}");
}

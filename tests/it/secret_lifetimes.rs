//! Secrets that rotate and expire, and notices of credentials that expire soon.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use grantd::model::client::Client;
use grantd::model::credential::SecretOrigin;
use grantd::model::time::{Clock, UnixTime};
use grantd::serve::expiry_notices::take_notices;
use grantd::store::secrets::Replacement;
use serde_json::{Value, json};

use crate::harness::{Db, Setup, client, new_secret};
use crate::process::daemon::{Daemon, Grantd, eventually};

on_both!(
    concurrent_rotations_leave_secrets_that_work,
    a_rotation_ends_no_secret_once_its_own_was_ended,
    a_new_secret_goes_to_a_file_that_did_not_exist,
    secrets_of_one_second_are_listed_in_one_order,
    new_secrets_expire_within_the_maximum_age,
    doctor_names_secrets_that_outlast_the_maximum_age,
    one_replica_takes_each_notice_of_a_credential_that_expires,
    credentials_of_clients_that_expire_are_logged_and_in_the_metric,
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
    const LATER: i64 = 4_000_000_000;
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

async fn one_replica_takes_each_notice_of_a_credential_that_expires(db: Db) {
    const START: i64 = 1_800_000_000;
    let mut setup = Setup::new(db).await;
    let (clock, hand) = Clock::fixed(START);
    setup.clock = clock;
    setup.client(client("c")).await;
    setup.client(client("revoked")).await;
    setup.client(Client { enabled: false, ..client("disabled") }).await;
    let end = START + 35 * DAY;
    let jwk = r#"{"kty":"EC","crv":"P-256","alg":"ES256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    let rows = format!(
        "update client_secret set expires_at = {end};
         update client_secret set revoked_at = 1 where client_id = 'revoked';
         insert into client_key (client_id, kid, jwk, expires_at) values ('c', 'the-key', '{jwk}', {end});
         insert into client_certificate (cert_id, client_id, kind, value, expires_at)
             values ('the-certificate', 'c', 'san_dns', 'c.test', {end});
         insert into client_federation (rule_id, client_id, issuer, subject, expires_at)
             values ('the-rule', 'c', 'https://ci.test', 'job', {end})"
    );
    setup.db.sql(&rows).await.unwrap();
    let server = setup.start().await;
    let replica = server.replica().await;
    let mut days: BTreeMap<(&str, String), Vec<i64>> = BTreeMap::new();
    for hour in (0..36 * 24).step_by(6) {
        hand.store(START + hour * 3600, Ordering::Relaxed);
        for (one, holder) in [(&server, "one"), (&replica, "other"), (&server, "one")] {
            let notices = take_notices(&one.store, &one.server, holder).await.unwrap();
            assert_eq!(notices.others, 0);
            for notice in notices.named {
                assert_eq!((notice.client_id.as_str(), notice.expires_at), ("c", UnixTime(end)));
                let id = notice.credential_id.to_string();
                days.entry((notice.kind, id)).or_default().push((end - START - hour * 3600 + DAY - 1) / DAY);
            }
        }
    }
    let kinds: Vec<&str> = days.keys().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, ["client_certificate", "client_key", "client_secret", "federation_rule"]);
    assert!(days.values().all(|days| *days == [30, 7, 1]), "{days:?}");
}

async fn credentials_of_clients_that_expire_are_logged_and_in_the_metric(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let made = grantd.json(&["client", "create", "c", "--secret-expires-in", "20d", "--json"]).await;
    let rule = ["client", "federation", "add", "c", "--issuer", "https://ci.test", "--subject", "job"];
    grantd.ok(&[&rule[..], &["--expires-in", "60d"]].concat()).await;
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let events = eventually(async || daemon.events("credential.expiring"), |events| !events.is_empty()).await;
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!(
        (&event["level"], &event["client_id"], &event["kind"], &event["credential_id"]),
        (&json!("WARN"), &json!("c"), &json!("client_secret"), &made["secret_id"])
    );
    let expires_at = UnixTime(secrets(&grantd, "c").await.values().next().unwrap()["expires_at"].as_i64().unwrap());
    assert_eq!(event["expires_at"], expires_at.to_string());
    let metrics = daemon.admin_get("/metrics").await.body;
    for (kind, days) in [("client_secret", 20), ("federation_rule", 60)] {
        let name = format!("grantd_credential_expires_seconds{{kind=\"{kind}\"}} ");
        let seconds = metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse::<i64>().unwrap();
        assert!((days * DAY - 600..=days * DAY).contains(&seconds), "{kind}: {seconds}");
    }
    daemon.stop_cleanly(Duration::from_secs(5)).await;
}

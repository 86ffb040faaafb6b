//! The lifecycle of clients: description, owner and end; lists by them, advice, and refusals after the end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use grantd::model::client::Client;
use grantd::model::resource::Resource;
use grantd::model::time::{Clock, Expiry, UnixTime};
use serde_json::{Value, json};

use crate::assertion::Signer;
use crate::harness::{Db, Setup, client};
use crate::process::daemon::{Daemon, Grantd, eventually};

on_both!(
    an_expired_client_looks_like_a_disabled_one,
    a_client_ends_by_the_databases_clock,
    commands_note_who_answers_for_a_client_and_when_it_ends,
    lists_filter_by_owner_end_and_use,
    doctor_advises_about_clients_without_owner_or_use,
    the_end_of_a_client_is_logged_and_in_the_metric,
    a_chosen_secret_is_imported_with_its_client,
    a_seed_carries_the_lifecycle,
    the_database_refuses_ends_in_milliseconds_and_long_texts,
);

const NOW: i64 = 1_800_000_000;
const API: &str = "https://api.test";

fn ending(id: &str, at: i64) -> Client {
    Client { expires_at: Expiry::new(UnixTime(at)), resources: [API.parse().unwrap()].into(), ..client(id) }
}

async fn an_expired_client_looks_like_a_disabled_one(db: Db) {
    let (clock, hand) = Clock::fixed(NOW);
    let mut setup = Setup::new(db).await;
    setup.clock = clock;
    let introspector = setup.client(client("rs1")).await;
    setup
        .save(Resource {
            identifier: API.parse().unwrap(),
            scope: "api:read api:write".parse().unwrap(),
            alg: None,
            token_ttl: None,
            token_typ: grantd::model::resource::TokenTyp::default(),
            status_list: false,
            introspectors: vec!["rs1".parse().unwrap()],
        })
        .await;
    let ends = setup.client(ending("ends", NOW + 60)).await;
    let disabled = setup.client(ending("disabled", NOW + 6000)).await;
    let signer = Signer::es256();
    setup.store.create_client(&ending("signs", NOW + 60), None).await.unwrap();
    setup.store.add_client_keys("signs", &[signer.stored()]).await.unwrap();
    let server = setup.start().await;
    let token = server.basic("ends", &ends, "").await.access_token();
    let other = server.basic("disabled", &disabled, "").await.access_token();
    assert_eq!(server.introspect("rs1", &introspector, &token).await.json()["active"], true);

    hand.store(NOW + 59, Ordering::Relaxed);
    server.basic("ends", &ends, "").await.access_token();
    hand.store(NOW + 60, Ordering::Relaxed);
    server.store.set_client_enabled("disabled", false).await.unwrap();
    server.refresh().await;
    let refused = server.basic("ends", &ends, "").await;
    assert_eq!(refused.face(), server.basic("disabled", &disabled, "").await.face());
    // The right credential and a wrong one look the same.
    assert_eq!(refused.face(), server.basic("ends", "no secret of this client", "").await.face());
    for token in [&token, &other] {
        server.introspect("rs1", &introspector, token).await.inactive();
    }

    // A later end revives the client, and its tokens with it, as `client enable` does.
    let later = |client: &mut Client, _: &mut _| {
        client.expires_at = Expiry::new(UnixTime(NOW + 600));
        Ok::<_, grantd::store::StoreError>(())
    };
    assert!(server.store.update_client("ends", later).await.unwrap().unwrap().1);
    server.refresh().await;
    server.basic("ends", &ends, "").await.access_token();
    assert_eq!(server.introspect("rs1", &introspector, &token).await.json()["active"], true);
}

/// The replica's own clock is an hour behind or ahead, and neither delays the end nor brings it forward.
async fn a_client_ends_by_the_databases_clock(db: Db) {
    let setup = Setup::new(db).await;
    let now = setup.store.now().await.unwrap().0;
    let over = setup.client(Client { resources: Box::default(), ..ending("over", now - 10) }).await;
    let lives = setup.client(Client { resources: Box::default(), ..ending("lives", now + 600) }).await;
    let server = setup.start().await;
    for shift in [-3600, 3600] {
        let replica = server.replica_at(Clock::Shifted(shift)).await;
        replica.basic("over", &over, "").await.unauthorized();
        replica.basic("lives", &lives, "").await.access_token();
    }
}

async fn commands_note_who_answers_for_a_client_and_when_it_ends(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let create = ["client", "create", "c", "--description", "Nightly invoices", "--owner", "team-billing"];
    grantd.ok(&[&create[..], &["--expires-in", "90d"]].concat()).await;
    let show = async || grantd.json(&["client", "show", "c", "--json"]).await;
    let shown = show().await;
    assert_eq!((&shown["description"], &shown["owner"]), (&json!("Nightly invoices"), &json!("team-billing")));
    let left = shown["expires_at"].as_i64().unwrap() - shown["created_at"].as_i64().unwrap();
    assert!((left - 90 * 86400).abs() <= 2, "{left}");
    assert_eq!(shown["secrets"][0]["expires_at"], Value::Null, "the secret does not end by itself");
    let text = grantd.ok(&["client", "show", "c"]).await.stdout;
    assert!(text.contains("owner                 team-billing\n"), "{text}");
    assert_eq!(grantd.json(&["client", "list", "--json"]).await[0]["owner"], "team-billing");

    // Options that are not given leave their value, and an empty one clears it.
    grantd.ok(&["client", "set", "c", "--scope", "a"]).await;
    assert_eq!(show().await["owner"], "team-billing");
    grantd.ok(&["client", "set", "c", "--owner", "", "--never-expires"]).await;
    let shown = show().await;
    assert_eq!((&shown["owner"], &shown["expires_at"]), (&json!(""), &Value::Null));
    assert_eq!(shown["description"], "Nightly invoices");
    let again = grantd.ok(&["client", "set", "c", "--owner", ""]).await;
    assert!(again.stderr.contains("nothing changed"), "{again:?}");
    let both = grantd.run(&["client", "set", "c", "--never-expires", "--expires-in", "1d"]).await;
    assert_eq!(both.status.code(), Some(2));
    let long = grantd.run(&["client", "set", "c", "--owner", &"x".repeat(129)]).await;
    assert!(long.status.code() == Some(1) && long.stderr.contains("owner: at most 128 characters"), "{long:?}");
    grantd.ok(&["client", "create", "short", "--no-secret", "--expires-in", "1s"]).await;
    let state = async || grantd.ok(&["client", "list"]).await.stdout;
    eventually(state, |text: &String| text.lines().any(|line| line.starts_with("short") && line.contains("EXPIRED")))
        .await;
}

async fn lists_filter_by_owner_end_and_use(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    for (id, owner, more) in [
        ("billing-1", "billing", &["--expires-in", "10d"][..]),
        ("billing-2", "billing", &["--expires-in", "100d"]),
        ("ops-1", "ops", &[]),
        ("nobodys", "", &[]),
    ] {
        grantd.ok(&[&["client", "create", id, "--owner", owner], more].concat()).await;
    }
    let now = db.store().await.now().await.unwrap().0;
    db.sql(&format!("update client set created_at = {}", now - 200 * 86400)).await.unwrap();
    db.sql(&format!(
        "insert into client_secret_use (secret_id, last_used_at) select secret_id, {} from client_secret where client_id = 'billing-1';
         insert into client_secret_use (secret_id, last_used_at) select secret_id, {} from client_secret where client_id = 'ops-1'",
        now - 60,
        now - 100 * 86400
    ))
    .await
    .unwrap();
    grantd.ok(&["client", "create", "young"]).await;
    grantd.ok(&["client", "set", "nobodys", "--jwks-uri", "https://c.test/jwks"]).await;
    let list = async |options: &[&str]| {
        let listed = grantd.json(&[&["client", "list", "--json"], options].concat()).await;
        let ids: Vec<String> =
            listed.as_array().unwrap().iter().map(|client| client["client_id"].as_str().unwrap().to_owned()).collect();
        ids.join(" ")
    };
    assert_eq!(list(&[]).await, "billing-1 billing-2 nobodys ops-1 young");
    assert_eq!(list(&["--owner", "billing"]).await, "billing-1 billing-2");
    assert_eq!(list(&["--owner", ""]).await, "nobodys young");
    assert_eq!(list(&["--expiring", "30d"]).await, "billing-1");
    assert_eq!(list(&["--expiring", "101d"]).await, "billing-1 billing-2");
    // Of keys that a client publishes no use is recorded, and a young client had no time to be used.
    assert_eq!(list(&["--unused", "90d"]).await, "billing-2 ops-1");
    assert_eq!(list(&["--unused", "150d"]).await, "billing-2");
    assert_eq!(list(&["--unused", "90d", "--owner", "ops"]).await, "ops-1");
    let unused = grantd.json(&["client", "list", "--json", "--unused", "90d", "--owner", "ops"]).await;
    assert_eq!(unused[0]["last_used_at"], now - 100 * 86400);
    assert_eq!(grantd.json(&["client", "list", "--json", "--owner", "nobody"]).await, json!([]));
}

async fn doctor_advises_about_clients_without_owner_or_use(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "noted", "--owner", "ops"]).await;
    assert_eq!(grantd.json(&["doctor", "--json"]).await["advice"], json!([]));
    grantd.ok(&["client", "create", "it's"]).await;
    db.sql("update client set created_at = 1700000000 where client_id = 'noted'").await.unwrap();
    let report = grantd.json(&["doctor", "--json"]).await;
    assert_eq!((&report["healthy"], &report["faults"]), (&json!(true), &json!([])));
    assert_eq!(
        report["advice"],
        json!([
            r"client it's: it has no owner; `grantd client set 'it'\''s' --owner TEAM` notes one",
            "client noted: none of its credentials was ever used; `grantd client disable noted` if nobody needs it",
        ])
    );
    let done = grantd.ok(&["doctor"]).await;
    assert!(done.stdout.ends_with("no faults\n") && done.stdout.lines().count() == 1, "{done:?}");
    assert!(done.stderr.contains("advice: client it's: it has no owner"), "{done:?}");
    // A client that is disabled needs no advice.
    grantd.ok(&["client", "disable", "noted"]).await;
    grantd.ok(&["client", "delete", "it's"]).await;
    assert_eq!(grantd.json(&["doctor", "--json"]).await["advice"], json!([]));
    let many: Vec<String> = (0..12).map(|n| format!("('c{n:02}')")).collect();
    db.sql(&format!("insert into client (client_id) values {}", many.join(","))).await.unwrap();
    let advice = grantd.json(&["doctor", "--json"]).await["advice"].clone();
    assert_eq!(advice[10], "client: 2 more clients have the same advice: it has no owner", "{advice:#}");
}

async fn the_end_of_a_client_is_logged_and_in_the_metric(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let create = ["client", "create", "c", "--scope", "a", "--default-scope", "a", "--json"];
    let secret = grantd.json(&create).await["client_secret"].as_str().unwrap().to_owned();
    grantd.ok(&["client", "create", "later", "--no-secret", "--expires-in", "30d"]).await;
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let (_, claims) = daemon.token("c", &secret).await.token();
    grantd.ok(&["client", "set", "c", "--expires-in", "1s"]).await;
    let status = async || daemon.token("c", &secret).await.status.as_u16();
    eventually(status, |status| *status == 401).await;
    let refused = eventually(async || daemon.events("token.refused"), |lines| !lines.is_empty()).await;
    assert_eq!(refused.last().unwrap()["reason"], "client_expired", "{refused:?}");
    let metric = async || {
        let text = daemon.admin_get("/metrics").await.body;
        let line =
            text.lines().find_map(|line| line.strip_prefix("grantd_credential_expires_seconds{kind=\"client\"} "));
        line.map_or(0.0, |seconds| seconds.parse::<f64>().unwrap())
    };
    // Of those that live, the next one.
    eventually(metric, |seconds| (29.0 * 86400.0..=30.0 * 86400.0).contains(seconds)).await;
    assert_eq!(claims["client_id"], "c");
    daemon.stop_cleanly(Duration::from_secs(3)).await;
}

async fn a_chosen_secret_is_imported_with_its_client(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let create = ["client", "create", "c", "--scope", "a", "--default-scope", "a", "--import-secret", "--json"];
    let done = grantd.run_with_input(&create, "chosen elsewhere, 2019\n").await;
    assert!(done.status.success(), "{done:?}");
    let value: Value = serde_json::from_str(&done.stdout).unwrap();
    let members: Vec<&String> = value.as_object().unwrap().keys().collect();
    assert_eq!(members, ["client_id", "secret_id"]);
    assert!(!done.stdout.contains("chosen") && !done.stderr.contains("chosen"));
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    daemon.token("c", "chosen elsewhere, 2019").await.token();
    daemon.stop_cleanly(Duration::from_secs(3)).await;
    // A secret that is refused creates no client.
    let weak = grantd.run_with_input(&["client", "create", "d", "--import-secret"], "short\n").await;
    assert!(weak.status.code() == Some(1) && weak.stderr.contains("at least 16 bytes"), "{weak:?}");
    assert_eq!(grantd.run(&["client", "show", "d"]).await.status.code(), Some(1));
    for other in [&["--no-secret"][..], &["--secret-file", "f"]] {
        let both = grantd.run(&[&["client", "create", "d", "--import-secret"], other].concat()).await;
        assert_eq!(both.status.code(), Some(2), "{other:?}");
    }
    let seed =
        grantd.run_with_input(&["client", "create", "d", "--import-secret", "--sql"], "chosen elsewhere\n").await;
    assert!(seed.stdout.contains("'$argon2id$") && !seed.stdout.contains("chosen elsewhere"), "{seed:?}");
    assert!(!seed.stderr.contains("chosen elsewhere"), "{seed:?}");
    db.sql(&seed.stdout).await.unwrap();
    assert_eq!(grantd.json(&["client", "show", "d", "--json"]).await["secrets"][0]["imported"], true);
}

async fn a_seed_carries_the_lifecycle(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let create = ["client", "create", "c", "--sql", "--description", "it's; -- new", "--owner", "ops"];
    let seed = grantd.ok(&[&create[..], &["--expires-in", "30d", "--secret-expires-in", "7d"]].concat()).await.stdout;
    db.sql(&seed).await.unwrap();
    let shown = grantd.json(&["client", "show", "c", "--json"]).await;
    assert_eq!((&shown["description"], &shown["owner"]), (&json!("it's; -- new"), &json!("ops")));
    let created = shown["created_at"].as_i64().unwrap();
    for (at, days) in [(&shown["expires_at"], 30), (&shown["secrets"][0]["expires_at"], 7)] {
        assert!((at.as_i64().unwrap() - created - days * 86400).abs() < 10, "{shown}");
    }
}

async fn the_database_refuses_ends_in_milliseconds_and_long_texts(db: Db) {
    db.store().await;
    for (column, value, part) in [
        ("expires_at", "1800000000000", "expires_at: seconds since 1970"),
        ("expires_at", "0", "expires_at: seconds since 1970"),
        ("owner", &format!("'{}'", "x".repeat(129)), "owner: at most 128 characters"),
        ("description", &format!("'{}'", "x".repeat(513)), "description: at most 512 characters"),
    ] {
        let sql = format!("insert into client (client_id, {column}) values ('c', {value})");
        let refused = db.sql(&sql).await.unwrap_err().to_string();
        assert!(refused.contains(part), "{refused}");
    }
}

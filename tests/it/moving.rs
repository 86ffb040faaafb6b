//! Moving in from Hydra and Keycloak, out by an export, and from one database to another.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::Db;
use crate::process::daemon::{Daemon, Done, Grantd};

on_both!(
    clients_of_hydra_are_registered_once,
    clients_of_a_keycloak_realm_are_registered_once,
    a_client_that_cannot_be_written_is_no_error_of_the_others,
    an_export_is_the_same_registry_on_the_other_database,
    a_copy_holds_everything_and_its_source_takes_no_more_writes,
    a_copy_refuses_a_target_that_holds_something_else,
    a_copy_killed_at_any_moment_completes_on_the_next_run,
);

const HYDRA: &str = include_str!("moving/hydra.json");
const KEYCLOAK: &str = include_str!("moving/keycloak.json");

/// A database of the other kind.
async fn other(db: &Db) -> Db {
    if db.is_postgres() { Db::sqlite() } else { Db::postgres().await }
}

/// The clients of a plan, by id.
fn planned(done: &Done) -> BTreeMap<String, Value> {
    let plan: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"));
    let clients = plan["clients"].as_array().unwrap().iter();
    clients.map(|client| (client["client_id"].as_str().unwrap().to_owned(), client.clone())).collect()
}

/// Whether a client is in the plan with this action, and a text in it.
#[track_caller]
fn is_planned(plan: &BTreeMap<String, Value>, id: &str, action: &str, part: &str) {
    let client = plan.get(id).unwrap_or_else(|| panic!("{id} in {plan:#?}"));
    assert_eq!(client["action"], action, "{client:#}");
    assert!(client.to_string().contains(part), "{part} in {client:#}");
}

async fn clients_of_hydra_are_registered_once(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let path = db.file("clients.json", HYDRA);
    let import = ["import", "hydra", path.to_str().unwrap()];
    let rehearsal = grantd.run(&[&import[..], &["--dry-run", "--json"]].concat()).await;
    assert_eq!(rehearsal.status.code(), Some(1), "one cannot be registered: {rehearsal:?}");
    assert_eq!(grantd.json(&["client", "list", "--json"]).await, json!([]), "a rehearsal changes nothing");
    let nightly = "2f0b5a1c-8a0e-4f5e-9f0e-7a2a5d1f6c11";
    let plan = planned(&rehearsal);
    is_planned(&plan, nightly, "create", "its secret is hashed");
    is_planned(&plan, "reporting", "create", "needs a new secret: the file has none");
    is_planned(&plan, "signer", "create", "key 2 of its jwks is left out");
    is_planned(&plan, "publisher", "create", "keys at its jwks_uri");
    is_planned(&plan, "webapp", "skip", "its grant_types do not have client_credentials");
    is_planned(&plan, "cli-tool", "skip", "public client");
    is_planned(&plan, "bad-scope", "fail", "scope: ");

    let done = grantd.run(&import).await;
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(
        done.stderr.contains("registered: 4, left as they are: 0, skipped: 2, failed: 1; new secrets needed: 1"),
        "{done:?}"
    );
    assert!(
        done.stdout
            .contains("create  resource https://invoices.example.com  invoices:read invoices:write ledger:post\n"),
        "{done:?}"
    );
    let show = async |id: &str| grantd.json(&["client", "show", id, "--json"]).await;
    let client = show(nightly).await;
    assert_eq!(client["description"], "Nightly invoices");
    assert_eq!(client["owner"], "team-billing");
    assert_eq!(client["scope"], "invoices:read invoices:write");
    assert_eq!(client["default_scope"], "", "Hydra grants nothing that is not asked for");
    assert_eq!((&client["token_ttl"], &client["resources"]), (&json!(900), &json!(["https://invoices.example.com"])));
    let signer = show("signer").await;
    assert_eq!((&signer["keys"][0]["kid"], signer["keys"].as_array().unwrap().len()), (&json!("signer-1"), 1));
    assert_eq!(show("publisher").await["jwks_uri"], "https://publisher.example.com/jwks.json");
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let form = "grant_type=client_credentials&scope=invoices:read".to_owned();
    let basic = crate::harness::basic(nightly, "Zq3-hydra.Secret~2024");
    let (_, claims) = daemon.post("/token", &[("authorization", &basic)], form).await.token();
    assert_eq!((&claims["aud"], &claims["client_id"]), (&json!("https://invoices.example.com"), &json!(nightly)));
    daemon.stop_cleanly(Duration::from_secs(3)).await;

    let before = grantd.ok(&["export"]).await.stdout;
    let again = grantd.run(&import).await;
    assert!(again.stderr.contains("registered: 0, left as they are: 4, skipped: 2, failed: 1"), "{again:?}");
    assert_eq!(grantd.ok(&["export"]).await.stdout, before, "a second import changes nothing");

    // The form of the admin API, and what is no list of clients.
    let items: Value = serde_json::from_str(HYDRA).unwrap();
    let array = db.file("array.json", &format!("\u{feff}{}", items["items"]));
    let done = grantd.run(&["import", "hydra", array.to_str().unwrap()]).await;
    assert!(done.stderr.contains("left as they are: 4"), "{done:?}");
    for (text, part) in [("{}", "array"), ("[", "not JSON"), ("\"x\"", "array")] {
        let wrong = db.file("wrong.json", text);
        let done = grantd.run(&["import", "hydra", wrong.to_str().unwrap()]).await;
        assert!(done.status.code() == Some(1) && done.stderr.contains(part), "{text}: {done:?}");
    }
}

async fn clients_of_a_keycloak_realm_are_registered_once(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let path = db.file("realm.json", KEYCLOAK);
    let import = ["import", "keycloak", path.to_str().unwrap(), "--json"];
    let done = grantd.run(&import).await;
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let plan = planned(&done);
    is_planned(&plan, "account", "skip", "public client");
    is_planned(&plan, "realm-management", "skip", "bearer-only");
    is_planned(&plan, "https://wiki.example.com/saml", "skip", "openid-connect");
    is_planned(&plan, "payroll", "create", "its secret is hashed");
    is_planned(&plan, "payroll", "create", "its claim iss is left out");
    is_planned(&plan, "reports", "create", "needs a new secret: the file has it masked or hashed");
    is_planned(&plan, "reports", "create", "audience reports-api is left out");
    is_planned(&plan, "ledger-sync", "create", "live a day here");
    is_planned(&plan, "turbines", "create", "is a pattern");
    is_planned(&plan, "no-key", "fail", "authenticates by a key");
    let show = async |id: &str| grantd.json(&["client", "show", id, "--json"]).await;

    let payroll = show("payroll").await;
    assert_eq!(payroll["description"], "Exports salaries each night");
    assert_eq!(
        (&payroll["scope"], &payroll["default_scope"]),
        (&json!("payroll:read payroll:write"), &json!("payroll:read"))
    );
    assert_eq!(payroll["claims"], json!({"department": "finance", "limits": {"daily": 500}}));
    assert_eq!((&payroll["token_ttl"], &payroll["resources"]), (&json!(600), &json!(["https://payroll.example.com"])));
    assert_eq!(show("reports").await["token_ttl"], 300, "the realm's");
    let sync = show("ledger-sync").await;
    assert_eq!((&sync["token_ttl"], &sync["keys"][0]["alg"]), (&json!(86400), &json!("ES256")));
    assert_eq!(sync["resources"], json!(["https://ledger.example.com"]), "by a mapper of its scope");
    let feed = show("ledger-feed").await;
    assert_eq!((&feed["scope"], &feed["default_scope"]), (&json!("ledger:post"), &json!("")));
    assert_eq!(feed["jwks_uri"], "https://feed.example.com/jwks");
    assert_eq!(show("ledger-key").await["keys"].as_array().unwrap().len(), 1);
    let turbine = show("turbine-17").await;
    assert_eq!(turbine["certificates"][0]["value"], "CN=turbine-17,OU=Plant,O=Acme,C=DE");
    assert_eq!((&turbine["require_mtls_binding"], &turbine["claims"]), (&json!(true), &json!({"plant": "north"})));
    assert_eq!(show("retired").await["enabled"], false, "disabled stays disabled");
    assert_eq!(show("retired").await["secrets"].as_array().unwrap().len(), 1);

    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let (_, claims) = daemon.token("payroll", "9hT2kXcVbN8mQ4rL7wZsY1uJ").await.token();
    assert_eq!((&claims["scope"], &claims["department"]), (&json!("payroll:read"), &json!("finance")));
    assert_eq!(daemon.token("retired", "u7W1eR5tY9iO3pA6sD0fG2hJ").await.status, 401);
    daemon.stop_cleanly(Duration::from_secs(3)).await;

    let before = grantd.ok(&["export"]).await.stdout;
    let again = grantd.run(&import).await;
    assert!(again.stderr.contains("registered: 0, left as they are: 8"), "{again:?}");
    assert_eq!(grantd.ok(&["export"]).await.stdout, before);
}

async fn a_client_that_cannot_be_written_is_no_error_of_the_others(db: Db) {
    let grantd = Grantd::new(&db);
    // A rehearsal needs no database.
    let clients = json!([
        {"client_id": "a", "grant_types": ["client_credentials"], "scope": "x"},
        {"client_id": "a", "grant_types": ["client_credentials"], "scope": "y"},
        {"client_id": " b", "grant_types": ["client_credentials"]},
        {"client_id": "c", "grant_types": "client_credentials"},
        {"client_id": "d", "grant_types": ["client_credentials"], "client_secret": "short"},
    ]);
    let path = db.file("clients.json", &clients.to_string());
    let fresh = grantd.with("GRANTD__DATABASE__URL", &format!("sqlite:{}/new.db", db.directory.path().display()));
    let import = ["import", "hydra", path.to_str().unwrap(), "--json"];
    let rehearsal = fresh.run(&[&import[..], &["--dry-run"]].concat()).await;
    assert!(!db.directory.path().join("new.db").exists());
    grantd.ok(&["migrate"]).await;
    let done = grantd.run(&import).await;
    for done in [&rehearsal, &done] {
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        let plan: Value = serde_json::from_str(&done.stdout).unwrap();
        let actions: Vec<&str> =
            plan["clients"].as_array().unwrap().iter().map(|client| client["action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["create", "fail", "fail", "fail", "create"], "{plan:#}");
        assert!(plan["clients"][1]["reason"].as_str().unwrap().contains("another client with this id"), "{plan:#}");
        assert!(plan["clients"][4]["credentials"].as_str().unwrap().contains("at least 16 bytes"), "{plan:#}");
    }
    assert_eq!(grantd.json(&["client", "show", "a", "--json"]).await["scope"], "x");
}

/// Fills a database with everything that administrators register, and returns the secret of the client `billing`.
async fn fill(db: &Db, grantd: &Grantd) -> String {
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["resource", "create", "https://a.test", "--scope", "a b", "--alg", "EdDSA", "--token-ttl", "5m"]).await;
    let create = ["client", "create", "billing", "--scope", "a b", "--default-scope", "a", "--owner", "it's", "--json"];
    let more = ["--description", "line 1\nline 2 — \u{1f511}", "--expires-in", "90d", "--claim", "name=Zoë"];
    let created = grantd.json(&[&create[..], &more].concat()).await;
    grantd.ok(&["client", "secret", "add", "billing", "--label", "o'next", "--expires-in", "30d"]).await;
    grantd.run_with_input(&["client", "secret", "import", "billing"], "chosen elsewhere, 2019\n").await;
    grantd.ok(&["client", "create", "rs1", "--resource", "https://a.test", "--require-dpop", "--no-secret"]).await;
    grantd.ok(&["resource", "set", "https://a.test", "--introspect-by", "rs1"]).await;
    grantd.ok(&["client", "cert", "add", "rs1", "--subject-dn", "CN=rs1,O=Test"]).await;
    let realm = db.file("realm.json", KEYCLOAK);
    grantd.run(&["import", "keycloak", realm.to_str().unwrap()]).await;
    grantd.ok(&["client", "create", "gone"]).await;
    grantd.ok(&["client", "delete", "gone"]).await;
    grantd.ok(&["client", "revoke-tokens", "rs1"]).await;
    created["client_secret"].as_str().unwrap().to_owned()
}

async fn an_export_is_the_same_registry_on_the_other_database(db: Db) {
    let grantd = Grantd::new(&db);
    let secret = fill(&db, &grantd).await;
    let seed = grantd.ok(&["export"]).await.stdout;
    assert!(seed.contains("$argon2id$") && !seed.contains("signing_key"), "{seed}");
    assert_eq!(grantd.json(&["export", "--json"]).await["sql"].as_str().unwrap(), seed);
    let registry = async |grantd: &Grantd| {
        let mut all =
            vec![grantd.json(&["client", "list", "--json"]).await, grantd.json(&["resource", "list", "--json"]).await];
        for client in all[0].as_array().unwrap().clone() {
            all.push(grantd.json(&["client", "show", client["client_id"].as_str().unwrap(), "--json"]).await);
        }
        all
    };
    let registered = registry(&grantd).await;
    // There, and back again.
    let (mut from, mut seed) = (other(&db).await, seed);
    for _ in 0..2 {
        let there = Grantd::new(&from);
        from.file("seeds/1_registry.sql", &seed);
        let seeds = from.directory.path().join("seeds");
        there.ok(&["migrate", "--set", &format!("database.seeds={}", seeds.display())]).await;
        let exported = there.ok(&["export"]).await.stdout;
        assert_eq!(exported, seed);
        assert_eq!(registry(&there).await, registered);
        let mut daemon = Daemon::start(there.command(&["serve"]), false).await;
        daemon.token("billing", &secret).await.token();
        daemon.token("billing", "chosen elsewhere, 2019").await.token();
        daemon.stop_cleanly(Duration::from_secs(3)).await;
        // Tokens were issued since, so only the registry is taken on.
        (from, seed) = (other(&from).await, exported);
    }
}

async fn a_copy_holds_everything_and_its_source_takes_no_more_writes(db: Db) {
    let grantd = Grantd::new(&db);
    let secret = fill(&db, &grantd).await;
    db.file("seeds/1_client.sql", "insert into client (client_id) values ('seeded');");
    let seeds = format!("database.seeds={}", db.directory.path().join("seeds").display());
    grantd.ok(&["migrate", "--set", &seeds]).await;
    let mut daemon = Daemon::start(grantd.command(&["serve", "--set", "issuer=http://127.0.0.1:8080"]), false).await;
    let token = daemon.token("billing", &secret).await.access_token();
    let revoked = daemon.token("billing", &secret).await.access_token();
    let basic = crate::harness::basic("billing", &secret);
    let revoke = async |daemon: &Daemon, token: &str| {
        daemon.post("/revoke", &[("authorization", &basic)], format!("token={token}")).await.status.as_u16()
    };
    assert_eq!(revoke(&daemon, &revoked).await, 200);
    // The lease of the sweep tells that a server runs.
    let leased = format!("insert into lease (work, holder, until) values ('sweep', 'x', {})", i64::from(u32::MAX));
    db.sql(&format!("delete from lease; {leased}")).await.unwrap();

    let target = other(&db).await;
    let to = grantd.with("GRANTD__DATABASE__URL", &target.url);
    let copy = ["database", "copy", "--from", &db.url, "--to", &target.url];
    let copied = grantd.ok(&[&copy[..], &["--json"]].concat()).await;
    assert!(copied.stderr.contains("a server runs on"), "{copied:?}");
    let report: Value = serde_json::from_str(&copied.stdout).unwrap();
    assert_eq!(report["was_complete"], false);
    let rows = |name: &str| {
        let table = report["tables"].as_array().unwrap().iter().find(|table| table["table"] == name);
        table.unwrap_or_else(|| panic!("{name} in {report:#}"))["rows"].as_u64().unwrap()
    };
    let keys = rows("signing_key");
    assert!(keys >= 1 && report["verified_keys"].as_array().unwrap().len() as u64 == keys, "{report:#}");
    assert_eq!((rows("revoked_token"), rows("deleted_client"), rows("_grantd_seeds")), (1, 1, 1));
    assert_eq!(rows("client_secret"), 5);

    // The server on the source goes on with what it knows, and refuses what it would have to write.
    daemon.token("billing", &secret).await.token();
    assert_eq!(revoke(&daemon, &token).await, 503);
    let refused = grantd.run(&["client", "disable", "billing"]).await;
    assert!(refused.status.code() == Some(69) && refused.stderr.contains("database is frozen"), "{refused:?}");
    grantd.ok(&["client", "list"]).await;
    daemon.stop_cleanly(Duration::from_secs(5)).await;

    // Run again, it finds everything there.
    let again = grantd.ok(&copy).await;
    assert!(again.stderr.contains("nothing to do"), "{again:?}");
    // The token of before verifies, and the revoked one stays revoked.
    let inspect = async |grantd: &Grantd, token: &str| {
        grantd.run_with_input(&["token", "inspect", "--set", "issuer=http://127.0.0.1:8080"], token).await
    };
    assert!(inspect(&to, &token).await.status.success());
    let inspected = inspect(&to, &revoked).await;
    assert!(inspected.status.code() == Some(1) && inspected.stdout.contains("revoked"), "{inspected:?}");
    assert_eq!(to.ok(&["export"]).await.stdout, grantd.ok(&["export"]).await.stdout);
    let status = to.ok(&["migrate", "--status", "--set", &seeds]).await.stdout;
    assert!(!status.contains("pending"), "{status}");
    let mut daemon = Daemon::start(to.command(&["serve", "--set", "issuer=http://127.0.0.1:8080"]), false).await;
    daemon.token("billing", &secret).await.token();
    assert_eq!(revoke(&daemon, &token).await, 200);
    daemon.stop_cleanly(Duration::from_secs(3)).await;

    // The way back.
    let thawed = grantd.ok(&["database", "unfreeze", "--url", &db.url]).await;
    assert!(thawed.stderr.contains("takes writes again"), "{thawed:?}");
    grantd.ok(&["client", "disable", "billing"]).await;
    assert!(grantd.ok(&["database", "unfreeze", "--url", &db.url]).await.stderr.contains("nothing changed"));
}

async fn a_copy_refuses_a_target_that_holds_something_else(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "a", "--scope", "x"]).await;
    let target = other(&db).await;
    let to = grantd.with("GRANTD__DATABASE__URL", &target.url);
    to.ok(&["migrate"]).await;
    to.ok(&["client", "create", "b", "--no-secret"]).await;
    let copy = ["database", "copy", "--from", &db.url, "--to", &target.url];
    let refused = grantd.run(&copy).await;
    assert!(
        refused.status.code() == Some(1) && refused.stderr.contains("the target holds something else"),
        "{refused:?}"
    );
    assert_eq!(to.json(&["client", "list", "--json"]).await[0]["client_id"], "b");
    // The source goes on.
    grantd.ok(&["client", "create", "c", "--no-secret"]).await;
    let same = grantd.run(&["database", "copy", "--from", &db.url, "--to", &db.url]).await;
    assert!(same.stderr.contains("the same database"), "{same:?}");
    let none = grantd.run(&["database", "copy", "--from", "sqlite:/nonexistent/x.db", "--to", &target.url]).await;
    assert!(none.status.code() == Some(1) && none.stderr.contains("no database at /nonexistent/x.db"), "{none:?}");
    let shown = grantd.run(&["database", "copy", "--from", &db.url, "--to", "postgres://u:hunter2@h/d"]).await;
    assert!(shown.stderr.contains("--to-file") && !shown.stderr.contains("hunter2"), "{shown:?}");
    let file = db.file("url", "postgres://u:hunter2@127.0.0.1:1/d\n");
    let away = grantd.run(&["database", "copy", "--from", &db.url, "--to-file", file.to_str().unwrap()]).await;
    assert!(away.status.code() == Some(69) && !away.stderr.contains("hunter2"), "{away:?}");
    // Under another sealing key the copy would be of no use.
    let other_key = db.file("other.key", grantd::crypto::seal::SealingKey::generate_base64().unwrap().as_str());
    grantd.ok(&["key", "generate"]).await;
    let sealed = grantd.with("GRANTD__KEYS__SEALING_KEY_FILE", other_key.to_str().unwrap());
    let empty = other(&db).await;
    let refused = sealed.run(&["database", "copy", "--from", &db.url, "--to", &empty.url]).await;
    assert!(refused.status.code() == Some(1) && refused.stderr.contains("signing key"), "{refused:?}");
    grantd.ok(&["client", "create", "d", "--no-secret"]).await;
}

async fn a_copy_killed_at_any_moment_completes_on_the_next_run(db: Db) {
    let grantd = Grantd::new(&db);
    fill(&db, &grantd).await;
    let many: Vec<String> = (0..6000).map(|n| format!("('many-{n:05}', 'a b c', 'a')")).collect();
    for rows in many.chunks(2000) {
        db.sql(&format!("insert into client (client_id, scope, default_scope) values {}", rows.join(",")))
            .await
            .unwrap();
    }
    let source = grantd.ok(&["export"]).await.stdout;
    let target = other(&db).await;
    let to = grantd.with("GRANTD__DATABASE__URL", &target.url);
    to.ok(&["migrate"]).await;
    let copy = ["database", "copy", "--from", &db.url, "--to", &target.url];
    let (mut killed, mut patience) = (0, Duration::from_millis(20));
    loop {
        let mut command = grantd.command(&copy);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        match tokio::time::timeout(patience, child.wait()).await {
            Ok(status) => {
                assert!(status.unwrap().success(), "after {killed} times");
                break;
            }
            Err(_) => {
                child.kill().await.unwrap();
                killed += 1;
                // Everything or nothing.
                let held = to.json(&["client", "list", "--json"]).await.as_array().unwrap().len();
                assert!(held == 0 || held > 6000, "{held} after {patience:?}");
            }
        }
        patience = patience * 3 / 2;
    }
    assert!(killed >= 3, "{killed}");
    assert_eq!(to.ok(&["export"]).await.stdout, source);
    assert_eq!(grantd.ok(&["export"]).await.stdout, source, "the source keeps everything");
    assert!(grantd.ok(&copy).await.stderr.contains("nothing to do"));
}

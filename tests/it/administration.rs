//! Administration: one client is read as it is among all, refusals have types, concurrent changes stay, and lists and checks
//! go through registries of several ranges.

use std::sync::Arc;
use std::time::Duration;

use grantd::model::client::Client;
use grantd::model::credential::SecretOrigin;
use grantd::model::time::Clock;
use grantd::store::last_used::LastUsedTimes;
use grantd::store::ranges::{RANGE, RangeReader};
use grantd::store::{Refusal, StoreError};
use serde_json::Value;
use sqlx::Connection as _;

use crate::assertion::Signer;
use crate::client_certificates::register;
use crate::harness::{Db, Setup, client, new_secret, set_auth_methods, set_jwks_uri};
use crate::process::daemon::{Done, Grantd};

on_both!(
    reading_one_client_gives_the_same_as_reading_all,
    a_refusal_is_typed_on_both_databases,
    changes_of_two_administrators_at_the_same_time_are_both_made,
    a_list_of_several_ranges_has_each_client_once_and_in_order,
    credentials_of_several_ranges_are_listed_with_their_last_uses,
    secrets_that_expire_are_listed_in_the_order_of_their_expiry,
    doctor_shows_ten_faults_of_a_kind_and_counts_the_others,
);

async fn reading_one_client_gives_the_same_as_reading_all(db: Db) {
    let setup = Setup::new(db).await;
    for uri in ["https://b.test", "https://a.test"] {
        setup.resource(uri, "api:read").await;
    }
    let resources = ["https://b.test".parse().unwrap(), "https://a.test".parse().unwrap()].into();
    let claims = r#"{"team":"Zo\u00eb"}"#.parse().unwrap();
    let token_ttl = Some("10m".parse().unwrap());
    setup.client(Client { resources, claims, token_ttl, ..client("all") }).await;
    setup.imported(client("bare"), "a secret from elsewhere").await;
    let store = &setup.store;
    for (id, chosen) in [("s1", "another from elsewhere"), ("s2", "a third from elsewhere")] {
        store.add_secret("all", &new_secret(id, chosen, SecretOrigin::Imported)).await.unwrap();
    }
    store
        .add_client_keys("all", &[Signer::es256().named("k2").stored(), Signer::es256().named("k1").stored()])
        .await
        .unwrap();
    register(store, "all", "subject_dn", "CN=all").await.unwrap();
    store.set_client_enabled("bare", false).await.unwrap();
    let mut reader = store.reader().await.unwrap();
    let everything = RangeReader::default().next(&mut reader).await.unwrap().clients;
    reader.close().await;
    assert_eq!(everything.len(), 2);
    for (id, whole) in everything {
        let (whole, one) = (whole.unwrap(), store.client(&id).await.unwrap().unwrap());
        // A hash of all rows, in their order.
        assert_eq!((one.fingerprint, one.enabled), (whole.fingerprint, whole.enabled), "{id}");
        assert_eq!(one.secrets.len() + one.keys.len() + one.certificates.len(), if id == "all" { 6 } else { 1 });
    }
    assert!(store.client("nobody").await.unwrap().is_none());
}

async fn a_refusal_is_typed_on_both_databases(db: Db) {
    let setup = Setup::new(db).await;
    setup.resource("https://a.test", "api:read").await;
    let (store, signer) = (&setup.store, Signer::es256());
    let nowhere = Client { resources: ["https://none.test".parse().unwrap()].into(), ..client("c") };
    let of_a = Client { resources: ["https://a.test".parse().unwrap()].into(), ..client("c") };
    let secret = |id: &str| new_secret(id, "a secret from elsewhere", SecretOrigin::Imported);
    let refusal = |done: Result<(), StoreError>| match done {
        Err(StoreError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(store.add_secret("c", &secret("s1")).await), Refusal::NoSuchClient);
    assert_eq!(refusal(store.add_client_keys("c", &[signer.stored()]).await), Refusal::NoSuchClient);
    assert_eq!(refusal(register(store, "c", "san_dns", "c.test").await), Refusal::NoSuchClient);
    assert_eq!(refusal(store.create_client(&nowhere, None).await), Refusal::NoSuchResource);
    store.create_client(&of_a, None).await.unwrap();
    let (identifier, clients) = ("https://a.test".to_owned(), vec!["c".to_owned()]);
    let in_use = store.delete_resource("https://a.test").await.map(drop);
    assert_eq!(refusal(in_use), Refusal::ResourceInUse { identifier, clients });
    for id in ["s1", "s2"] {
        store.add_secret("c", &secret(id)).await.unwrap();
    }
    assert_eq!(refusal(store.add_secret("c", &secret("s3")).await), Refusal::TooManyImported("c".to_owned()));
    store.add_client_keys("c", &[signer.stored()]).await.unwrap();
    let uri = set_jwks_uri(store, "c", Some("https://c.test/jwks")).await.map(drop);
    assert_eq!(refusal(uri), Refusal::KeysOrJwksUri);
    register(store, "c", "san_dns", "c.test").await.unwrap();
    assert_eq!(refusal(register(store, "c", "san_dns", "d.test").await), Refusal::SecondCertificateName);
    let other = set_auth_methods(store, "c", Some("password")).await.map(drop);
    assert!(matches!(refusal(other), Refusal::Constraint(name) if name.starts_with("auth_methods: ")));
}

/// Keeps writers of `client` and `resource` out for a second, as another session that is about to commit does.
async fn keep_writers_out(db: &Db) {
    let pause = tokio::time::sleep(Duration::from_secs(1));
    if db.is_postgres() {
        let mut other = sqlx::PgConnection::connect(&db.url).await.unwrap();
        let lock = "begin; select 1 from client for update; select 1 from resource for update";
        sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
        pause.await;
        sqlx::raw_sql("commit").execute(&mut other).await.unwrap();
    } else {
        let mut other = sqlx::SqliteConnection::connect(&db.url).await.unwrap();
        sqlx::raw_sql("begin immediate").execute(&mut other).await.unwrap();
        pause.await;
        sqlx::raw_sql("commit").execute(&mut other).await.unwrap();
    }
}

async fn changes_of_two_administrators_at_the_same_time_are_both_made(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    for uri in ["https://a.test", "https://b.test"] {
        grantd.ok(&["resource", "create", uri, "--scope", "api:read"]).await;
    }
    grantd.ok(&["client", "create", "c", "--no-secret", "--resource", "https://a.test"]).await;
    // Each has read what it changes before the first can write.
    let change = async |arguments: &[&str]| {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let done = grantd.ok(arguments).await;
        assert!(done.stderr.contains("is changed"), "{done:?}");
    };
    tokio::join!(
        keep_writers_out(&db),
        change(&["client", "set", "c", "--token-ttl", "10m"]),
        change(&["client", "set", "c", "--require-dpop", "true", "--resource", "https://b.test"]),
        change(&["resource", "set", "https://a.test", "--token-ttl", "10m"]),
        change(&["resource", "set", "https://a.test", "--introspect-by", "c"]),
    );
    let client = grantd.json(&["client", "show", "c", "--json"]).await;
    assert!(client["token_ttl"] == 600 && client["require_dpop"] == true, "{client}");
    assert_eq!(client["resources"], serde_json::json!(["https://b.test"]));
    let resource = grantd.json(&["resource", "show", "https://a.test", "--json"]).await;
    assert!(resource["token_ttl"] == 600 && resource["introspect_by"][0] == "c", "{resource}");
    for unchanged in [
        &["client", "set", "c", "--require-dpop", "true"][..],
        &["resource", "set", "https://a.test", "--token-ttl", "10m"],
    ] {
        assert!(grantd.ok(unchanged).await.stderr.starts_with("nothing changed"), "{unchanged:?}");
    }
}

/// Inserts clients `c00001`, `c00002`, …, as a bulk load by SQL does.
async fn insert_clients(db: &Db, count: usize) {
    let id = if db.is_postgres() { "'c' || lpad(n::text, 5, '0')" } else { "printf('c%05d', n)" };
    let numbers =
        format!("with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < {count})");
    db.sql(&format!("{numbers} insert into client (client_id) select {id} from numbers")).await.unwrap();
}

fn ids(items: &Value) -> Vec<&str> {
    items.as_array().unwrap().iter().map(|item| item["client_id"].as_str().unwrap()).collect()
}

async fn a_list_of_several_ranges_has_each_client_once_and_in_order(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    assert_eq!(grantd.ok(&["client", "list", "--json"]).await.stdout, "[]\n");
    let count = RANGE + 100;
    insert_clients(&db, count).await;
    let expected: Vec<String> = (1..=count).map(|n| format!("c{n:05}")).collect();
    let json = grantd.ok(&["client", "list", "--json"]).await.stdout;
    let listed: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(ids(&listed), expected);
    assert_eq!(json, format!("{listed}\n"), "one compact document");
    let text = grantd.ok(&["client", "list"]).await.stdout;
    let (heading, rows) = text.split_once('\n').unwrap();
    assert!(heading.starts_with("CLIENT  STATE "), "{heading}");
    assert_eq!(rows.lines().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>(), expected);
    assert!(rows.starts_with("c00001  no credential  "), "{}", &rows[..60]);
    // A reader that stops early is no fault to report.
    let mut listing = grantd.command(&["client", "list"]).spawn().unwrap();
    drop(listing.stdout.take());
    let done = listing.wait_with_output().await.unwrap();
    assert_eq!((done.status.code(), done.stderr), (Some(1), Vec::new()));
}

async fn credentials_of_several_ranges_are_listed_with_their_last_uses(db: Db) {
    let (grantd, store) = (Grantd::new(&db), db.store().await);
    let last = format!("c{:05}", RANGE + 100);
    insert_clients(&db, RANGE + 100).await;
    for id in ["c00001", last.as_str()] {
        register(&store, id, "subject_dn", "CN=svc").await.unwrap();
        store.add_client_keys(id, &[Signer::es256().named("k1").stored()]).await.unwrap();
    }
    let of_last = grantd.json(&["client", "cert", "list", &last, "--json"]).await;
    assert_eq!(ids(&of_last), [&last]);
    let cert_id: Arc<str> = of_last[0]["cert_id"].as_str().unwrap().into();
    let at = Clock::System.now();
    let uses = LastUsedTimes {
        keys: vec![(last.clone(), "k1".into(), at)],
        certificates: vec![(cert_id, at)],
        ..LastUsedTimes::default()
    };
    store.record_last_used(&uses).await.unwrap();
    for kind in ["cert", "key"] {
        let all = grantd.json(&["client", kind, "list", "--json"]).await;
        assert_eq!(ids(&all), ["c00001", last.as_str()], "{kind}");
        assert_eq!((&all[0]["last_used_at"], &all[1]["last_used_at"]), (&Value::Null, &at.0.into()), "{kind}");
        let text = grantd.ok(&["client", kind, "list"]).await.stdout;
        assert_eq!(text.lines().filter(|line| line.matches("never").count() == 2).count(), 1, "{text}");
    }
    // A client that cannot be read is left out, and named.
    db.sql(&format!("update client_certificate set kind = 'san_ip' where client_id = '{last}'")).await.unwrap();
    let done = grantd.ok(&["client", "cert", "list", "--json"]).await;
    assert_eq!(ids(&serde_json::from_str(&done.stdout).unwrap()), ["c00001"]);
    assert!(done.stderr.starts_with(&format!("left out: client {last}")), "{done:?}");
}

async fn secrets_that_expire_are_listed_in_the_order_of_their_expiry(db: Db) {
    let setup = Setup::new(db).await;
    let now = Clock::System.now().0;
    for (id, expires_at, revoked_at) in [
        ("later", Some(now + 7200), None),
        ("sooner", Some(now + 3600), None),
        ("same", Some(now + 3600), None),
        ("never", None, None),
        ("expired", Some(now - 5), None),
        ("revoked", Some(now + 3600), Some(now)),
        ("far", Some(now + 999_999), None),
    ] {
        setup.imported(client(id), "a secret from elsewhere").await;
        let value = |at: Option<i64>| at.map_or_else(|| "null".to_owned(), |at| at.to_string());
        let (expires_at, revoked_at) = (value(expires_at), value(revoked_at));
        let sql = format!(
            "update client_secret set created_at = 1, expires_at = {expires_at}, revoked_at = {revoked_at} where client_id = '{id}'"
        );
        setup.db.sql(&sql).await.unwrap();
    }
    let (now, until) = (Clock::System.now(), Clock::System.now().plus("1d".parse().unwrap()));
    let part = setup.store.expiring_secrets(now, until, None).await.unwrap();
    let expected = ["same", "sooner", "later"];
    assert_eq!(part.iter().map(|secret| secret.client_id.as_str()).collect::<Vec<_>>(), expected);
    // The part that follows a secret begins behind it.
    let rest = setup.store.expiring_secrets(now, until, Some(&part[0])).await.unwrap();
    assert_eq!(rest.iter().map(|secret| secret.client_id.as_str()).collect::<Vec<_>>(), expected[1..]);
    let listed = Grantd::new(&setup.db).json(&["client", "secret", "expiring", "--within", "1d", "--json"]).await;
    assert_eq!(ids(&listed), expected);
}

async fn doctor_shows_ten_faults_of_a_kind_and_counts_the_others(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    insert_clients(&db, 5000).await;
    let sql =
        "insert into client_certificate (client_id, kind, value) select client_id, 'san_dns', 'svc.test' from client";
    db.sql(sql).await.unwrap();
    let count = |done: &Done, what: &str| done.stdout.lines().filter(|line| line.contains(what)).count();
    let done = grantd.run(&["doctor"]).await;
    assert_eq!(count(&done, "which no CA verifies"), 11, "{done:?}");
    assert_eq!(done.stdout.lines().count(), 22, "two kinds: {done:?}");
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(lines[0].starts_with("client c00001: it authenticates by a name in its certificate"), "{done:?}");
    assert!(lines[18].starts_with("client c00010: it authenticates by a name in its certificate"), "{done:?}");
    assert!(lines[19].starts_with("client: 4990 more clients have this fault: it authenticates by a name"), "{done:?}");
    assert!(done.status.code() == Some(1) && done.stderr.contains("10000 faults"), "{done:?}");
    let json: Value = serde_json::from_str(&grantd.run(&["doctor", "--json"]).await.stdout).unwrap();
    assert!(json["healthy"] == false && json["faults"].as_array().unwrap().len() == 22, "{json}");
}

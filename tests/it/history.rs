//! Databases with another past: restores, failovers that lost changes, files of another time.

use std::time::{Duration, Instant};

use grantd::model::time::UnixTime;
use grantd::store::Store;
use serde_json::Value;

use crate::harness::{Answer, Db, Server, Setup, client};

on_both!(
    a_restore_is_noticed_whatever_its_revision_is,
    a_revocation_survives_a_restored_database_and_is_written_again,
    an_empty_key_set_replaces_nothing,
    a_change_that_nothing_announced_is_found_by_a_whole_load,
);

/// Changes the database as `sql` says, and gives it another past in which its revision is `by` further than before.
async fn rewrite_the_past(server: &Server, sql: &str, by: i64) {
    let revision = server.server.registry.snapshot().revision + by;
    let id = grantd::crypto::secret::new_secret_id().unwrap();
    let past = format!(
        "begin; {sql}; update registry_revision set revision = {revision}; update registry_revision set history = '{id}';
         delete from registry_history; insert into registry_history (revision, history) values ({revision}, '{id}'); commit"
    );
    server.db.sql(&past).await.unwrap();
}

async fn within_seconds(what: &str, asked: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !asked().await {
        // A poll comes after a second, and PostgreSQL notifies of no rewritten past.
        assert!(started.elapsed() < Duration::from_secs(5), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn active(answer: &Answer) -> bool {
    answer.json()["active"] == Value::Bool(true)
}

async fn a_restore_is_noticed_whatever_its_revision_is(db: Db) {
    let setup = Setup::new(db).await;
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    server.basic("basic-client", &secret, "").await.ok();
    for (by, enabled, status) in [(0, 0, 401), (0, 1, 200), (7, 0, 401), (-3, 1, 200)] {
        let changes = server.server.registry.history_changes.get();
        rewrite_the_past(&server, &format!("update client set enabled = {enabled}"), by).await;
        within_seconds(&format!("the revision {by} further on"), async || {
            server.basic("basic-client", &secret, "").await.status.as_u16() == status
        })
        .await;
        assert_eq!(server.server.registry.history_changes.get(), changes + 1, "{by}");
    }
    // An ordinary change is none.
    server.store.set_client_enabled("basic-client", false).await.unwrap();
    server.refresh().await;
    assert_eq!(server.server.registry.history_changes.get(), 4);
}

async fn a_revocation_survives_a_restored_database_and_is_written_again(db: Db) {
    let setup = Setup::new(db).await;
    let mut introspector = client("api");
    introspector.resources = Box::default();
    let api = setup.client(introspector).await;
    setup
        .save(grantd::model::resource::Resource {
            identifier: "https://api.test".parse().unwrap(),
            scope: "api:read api:write".parse().unwrap(),
            alg: None,
            token_ttl: None,
            token_typ: grantd::model::resource::TokenTyp::default(),
            status_list: false,
            introspectors: vec!["api".parse().unwrap()],
        })
        .await;
    let mut caller = client("basic-client");
    caller.resources = ["https://api.test".parse().unwrap()].into();
    let secret = setup.client(caller).await;
    let server = setup.start().await;
    let (one, other) = (
        server.basic("basic-client", &secret, "").await.access_token(),
        server.basic("basic-client", &secret, "").await.access_token(),
    );
    assert_eq!(server.revoke("basic-client", &secret, &one).await.status, 200);
    server.refresh().await;
    let removed = server.store.keys().await.unwrap().remove(0);
    assert!(active(&server.introspect("api", &api, &other).await));
    // A failover to a standby that had not heard of the revocation.
    rewrite_the_past(&server, "delete from revoked_token", -1).await;
    within_seconds("it is written again", async || count(&server.store).await == 1).await;
    server.introspect("api", &api, &one).await.inactive();
    server.replica().await.introspect("api", &api, &one).await.inactive();
    assert!(active(&server.introspect("api", &api, &other).await), "what was not revoked works on");
    // The same with a cut-off.
    let now = server.store.now().await.unwrap();
    assert!(server.store.revoke_tokens_of("basic-client", now).await.unwrap());
    server.refresh().await;
    server.introspect("api", &api, &other).await.inactive();
    rewrite_the_past(&server, "update client set not_before = 0", -1).await;
    within_seconds("the cut-off is written again", async || {
        let replica = server.replica().await;
        replica.server.registry.snapshot().client("basic-client").unwrap().not_before == now
    })
    .await;
    // And with a signing key that was removed.
    let successor = grantd::store::keys::new_key(
        "ES256".parse().unwrap(),
        &grantd::crypto::seal::SealingKey::from_base64(&server.sealing_key).unwrap(),
        UnixTime(now.0),
        grantd::model::time::Span::from_secs(0),
    )
    .unwrap();
    server.db.sql("create table dump as select * from signing_key").await.unwrap();
    assert!(server.store.remove_key(&removed.kid, Some(&successor)).await.unwrap());
    server.refresh().await;
    rewrite_the_past(&server, "insert into signing_key select * from dump", -1).await;
    within_seconds("the key is removed again", async || {
        !server.store.has_key(&removed.kid).await.unwrap() && !server.get("/jwks").await.body.contains(&removed.kid)
    })
    .await;
}

async fn count(store: &Store) -> usize {
    let mut reader = store.reader().await.unwrap();
    let revoked = reader.all_but_clients().await.unwrap().revoked.len();
    reader.close().await;
    revoked
}

async fn an_empty_key_set_replaces_nothing(db: Db) {
    let setup = Setup::new(db).await;
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    let keys = server.store.keys().await.unwrap();
    let published = server.get("/jwks").await.body;
    rewrite_the_past(&server, "delete from signing_key", 5).await;
    let ready = || server.server.readiness().into_iter().all(|(_, item)| item.is_ok());
    within_seconds("it is not ready", async || !ready()).await;
    // Known clients are served by what is held, and no key is made that nobody knows.
    server.basic("basic-client", &secret, "").await.ok();
    assert_eq!(server.get("/jwks").await.body, published);
    assert!(server.store.keys().await.unwrap().is_empty());
    for key in &keys {
        server.store.add_key(key).await.unwrap();
    }
    within_seconds("it is ready again", async || ready()).await;
    assert_eq!(server.get("/jwks").await.body, published);
}

async fn a_change_that_nothing_announced_is_found_by_a_whole_load(db: Db) {
    let mut setup = Setup::new(db).await;
    setup.settings.registry.reload = "10s".into();
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    server.basic("basic-client", &secret, "").await.ok();
    server.verifiers_written().await;
    let position = server.server.registry.snapshot().position();
    // As a subscriber of logical replication changes, whose triggers do not fire.
    let unannounced = format!(
        "begin; update client set enabled = 0; delete from registry_history;
         update registry_revision set revision = {0}; update registry_revision set history = '{1}';
         delete from registry_history; insert into registry_history (revision, history) values ({0}, '{1}'); commit",
        position.revision, position.history
    );
    server.db.sql(&unannounced).await.unwrap();
    let started = Instant::now();
    while server.server.registry.differences.get() == 0 {
        assert!(started.elapsed() < Duration::from_secs(20), "found by the next whole load");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(server.server.registry.differences.get(), 1);
    server.basic("basic-client", &secret, "").await.unauthorized();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_at_the_start_is_not_believed_to_be_current() {
    let setup = Setup::new(Db::postgres().await).await;
    let secret = setup.client(client("basic-client")).await;
    // A first start makes the keys.
    let server = setup.start().await;
    let name = server.db.url.rsplit('/').next().unwrap().to_owned();
    server
        .db
        .sql(&format!(
            "alter database {name} set default_transaction_read_only = on;
             select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and pid <> pg_backend_pid()"
        ))
        .await
        .unwrap();
    let replica = server.replica_that_may_fail().await;
    assert!(replica.server.registry.is_behind());
    // The primary may have rotated since: the token ends before a replaced key does, and no cache keeps the key set.
    assert_eq!(replica.basic("basic-client", &secret, "").await.ok()["expires_in"], 3600 - (900 - 330));
    assert_eq!(replica.get("/jwks").await.header("cache-control"), "public, max-age=0");
    assert_eq!(replica.basic("nobody", &secret, "").await.status, 503, "the primary may know it");
}

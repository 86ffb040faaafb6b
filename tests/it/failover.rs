//! The database below a running server: it fails over, is pooled, has several hosts, lacks connections, or is a file that
//! is replaced.

use std::time::{Duration, Instant};

use grantd::model::time::UnixTime;
use grantd::store::migrations::MigrationError;
use grantd::store::spent::{ReplayCheck, SingleUseId, SingleUseKind};
use grantd::store::{Store, StoreError};
use sqlx::Connection as _;

use crate::assertion::{Signer, ask};
use crate::cluster::{Cluster, Pooler, Switch};
use crate::harness::{Db, Server, Setup, client};
use crate::process::daemon::{Daemon, Grantd};

async fn eventually(what: &str, asked: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !asked().await {
        assert!(started.elapsed() < Duration::from_secs(5), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn url(ports: &[u16], parameters: &str) -> String {
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("postgres://postgres@{}/grantd{parameters}", hosts.join(","))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_cuts_no_connection_moves_the_feed_too() {
    let primary = Cluster::start().await;
    let standby = primary.standby();
    let switch = Switch::to(primary.port).await;
    let setup = Setup::new(Db::at(&url(&[switch.port], ""), "session")).await;
    // A generated secret gets a verifier, and the connection of that write would lead to the former primary.
    let secret = "a secret from elsewhere".to_owned();
    setup.imported(client("basic-client"), &secret).await;
    let server = setup.start().await;
    let token = server.basic("basic-client", &secret, "").await.access_token();
    standby.catch_up(&primary).await;
    standby.promote();
    switch.turn(standby.port);
    // On the new primary only. The feed still has its connection to the former one.
    standby.sql("grantd", "update client set enabled = 0").await;
    server.basic("basic-client", &secret, "").await.ok();
    // Whatever connects next meets the other timeline.
    assert_eq!(server.revoke("basic-client", &secret, &token).await.status, 200);
    eventually("the feed follows", async || server.basic("basic-client", &secret, "").await.status == 401).await;
    assert_eq!(standby.ask("select count(*)::text from revoked_token").await, "1");
}

/// Such a replica makes no connection that could tell it. The one that sweeps makes one twice a minute, and renews its lease on
/// the new primary from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_writes_nothing_follows_a_failover_by_the_lease() {
    let primary = Cluster::start().await;
    let standby = primary.standby();
    let switch = Switch::to(primary.port).await;
    let db = Db::at(&url(&[switch.port], ""), "session");
    let grantd = Grantd::new(&db).with("GRANTD__ISSUER", "https://as.test");
    grantd.ok(&["migrate"]).await;
    let secret = grantd.json(&["client", "create", "billing", "--scope", "a", "--default-scope", "a", "--json"]).await
        ["client_secret"]
        .as_str()
        .unwrap()
        .to_owned();
    let lease =
        "insert into lease (work, holder, until) values ('sweep', 'another', extract(epoch from now())::bigint + 30)";
    primary.sql("grantd", lease).await;
    let replica = Daemon::start(grantd.command(&["serve"]), false).await;
    assert_eq!(replica.token("billing", &secret).await.status, 200);
    // It asks for the lease within ten seconds, and then reads until when another has it.
    tokio::time::sleep(Duration::from_secs(12)).await;
    standby.catch_up(&primary).await;
    standby.promote();
    switch.turn(standby.port);
    standby.sql("grantd", "update client set enabled = 0").await;
    standby.sql("grantd", "update lease set until = until + 3600").await;
    let started = Instant::now();
    while replica.token("billing", &secret).await.status != 401 {
        assert!(started.elapsed() < Duration::from_mins(1), "it stays on the former primary");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let held_by = "select holder from lease where work = 'sweep'";
    assert_eq!((primary.ask(held_by).await, standby.ask(held_by).await), ("another".into(), "another".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_hosts_the_one_that_takes_writes_is_used() {
    let primary = Cluster::start().await;
    let standby = primary.standby();
    for (parameters, until_promoted) in [("", "read-only"), ("?target_session_attrs=read-write", "read-only")] {
        let several = Db::at(&url(&[standby.port, primary.port], parameters), "session");
        let store = several.store().await;
        assert!(store.now().await.is_ok());
        let store = Store::open(&Db::at(&url(&[standby.port], parameters), "session").database, 1);
        standby.catch_up(&primary).await;
        let fault = store.try_write().await.unwrap_err();
        assert!(matches!(fault, StoreError::ReadOnly) && fault.to_string().contains(until_promoted), "{fault}");
    }
    // A standby alone is better than nothing, unless the URL says otherwise.
    let alone = |parameters| Store::open(&Db::at(&url(&[standby.port], parameters), "session").database, 1);
    alone("").schema().await.unwrap();
    assert!(matches!(alone("?target_session_attrs=primary").schema().await, Err(StoreError::ReadOnly)));

    let hosts = url(&[primary.port, standby.port], "?target_session_attrs=read-write");
    let (server, secret) = Setup::with_basic_client(Db::at(&hosts, "session")).await;
    let token = server.basic("basic-client", &secret, "").await.access_token();
    standby.catch_up(&primary).await;
    primary.stop();
    server.basic("basic-client", &secret, "").await.ok();
    assert_eq!(server.revoke("basic-client", &secret, &token).await.status, 503);
    standby.promote();
    eventually("writes go to the other host", async || {
        server.revoke("basic-client", &secret, &token).await.status == 200
    })
    .await;
    standby.sql("grantd", "update client set enabled = 0").await;
    eventually("the feed follows", async || server.basic("basic-client", &secret, "").await.status == 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_silent_costs_its_share_of_the_deadline() {
    let primary = Cluster::start().await;
    // Nobody accepts here, and the queue of connections is full.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let store = Store::open(&Db::at(&url(&[port, primary.port], "?connect_timeout=1"), "session").database, 1);
    let started = Instant::now();
    store.schema().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    // The host that answered comes first from now on.
    let started = Instant::now();
    store.schema().await.unwrap();
    store.now().await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
}

/// Tokens, assertions, revocations and changes, behind a PgBouncer.
async fn works_behind(pool_mode: &str) -> (Server, Pooler, Cluster) {
    let cluster = Cluster::start().await;
    let pooler = Pooler::start(cluster.port, pool_mode).await;
    let mut setup = Setup::new(Db::at(&url(&[cluster.port], ""), "session")).await;
    setup.db = Db::at(&url(&[pooler.port], ""), pool_mode);
    setup.store = Store::open(&setup.db.database, 4);
    let (secret, signer) = (setup.client(client("basic-client")).await, Signer::es256());
    setup.store.create_client(&client("jwt-client"), None).await.unwrap();
    setup.store.add_client_keys("jwt-client", &[signer.stored()]).await.unwrap();
    let server = setup.start().await;
    let mut asked = tokio::task::JoinSet::new();
    let server = std::sync::Arc::new(server);
    for _ in 0..40 {
        let (server, assertion) = (std::sync::Arc::clone(&server), signer.fresh("jwt-client"));
        asked.spawn(async move {
            ask(&server, &assertion).await.ok();
            ask(&server, &assertion).await.unauthorized();
        });
    }
    while let Some(done) = asked.join_next().await {
        done.unwrap();
    }
    let token = server.basic("basic-client", &secret, "").await.access_token();
    for _ in 0..3 {
        assert_eq!(server.revoke("basic-client", &secret, &token).await.status, 200);
    }
    assert_eq!(cluster.ask("select count(*)::text from revoked_token").await, "1");
    assert!(server.server.registry.trouble().is_none() && server.store.health.trouble().is_none());
    assert!(server.store.sweep_spent(UnixTime(1)).await.is_ok() && server.store.try_write().await.is_ok());
    cluster.sql("grantd", "update client set enabled = 0 where client_id = 'basic-client'").await;
    eventually("a change shows", async || server.basic("basic-client", &secret, "").await.status == 401).await;
    let Some(server) = std::sync::Arc::into_inner(server) else { unreachable!("every request has ended") };
    (server, pooler, cluster)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_of_sessions_is_like_none() {
    let (server, _pooler, _cluster) = works_behind("session").await;
    assert!(server.store.can_listen());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooler_of_transactions_nothing_outlives_a_transaction() {
    let (server, _pooler, cluster) = works_behind("transaction").await;
    assert!(!server.store.can_listen());
    let left =
        "select (count(*) filter (where setting <> boot_val))::text from pg_settings where name = 'row_security'";
    assert_eq!(cluster.ask(left).await, "0");
    let refused = server.store.migrate(&server.db.database, None).await.unwrap_err();
    assert!(matches!(&refused, MigrationError::Store(StoreError::Schema(_))), "{refused}");
    let told = refused.to_string();
    assert!(told.contains("--set database.pooling=session --set database.url="), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_has_a_connection_where_connections_are_scarce() {
    let cluster = Cluster::start().await;
    let (server, secret) = Setup::with_basic_client(Db::at(&url(&[cluster.port], ""), "session")).await;
    server.basic("basic-client", &secret, "").await.ok();
    cluster
        .sql(
            "grantd",
            "create role scarce login superuser; alter role scarce nosuperuser connection limit 2;
             grant all on all tables in schema public to scarce",
        )
        .await;
    let scarce = format!("postgres://scarce@127.0.0.1:{}/grantd", cluster.port);
    let store = Store::open(&Db::at(&scarce, "session").database, 5);
    // The pool takes both.
    let (one, other) = tokio::join!(store.now(), store.now());
    assert!(one.is_ok() && other.is_ok());
    let mut feed = store.change_reader().await.expect("the pool gives one up");
    feed.poll().await.unwrap();
    store.now().await.expect("and keeps the other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_replaced_is_read_and_one_that_is_gone_is_not_made_anew() {
    let (server, secret) = Setup::with_basic_client(Db::sqlite()).await;
    server.basic("basic-client", &secret, "").await.ok();
    let path = server.db.directory.path().join("grantd.db");
    let beside = |name: &str| server.db.directory.path().join(name);
    server.db.sql(&format!("vacuum into '{}'", beside("backup.db").display())).await.unwrap();
    let backup = sqlx::sqlite::SqliteConnectOptions::new().filename(beside("backup.db"));
    let pool = sqlx::SqlitePool::connect_with(backup).await.unwrap();
    sqlx::raw_sql("update client set enabled = 0").execute(&pool).await.unwrap();
    pool.close().await;

    std::fs::rename(beside("backup.db"), &path).unwrap();
    eventually("the other file is read", async || server.basic("basic-client", &secret, "").await.status == 401).await;
    assert!(server.server.registry.incomplete().is_none());
    // What a command changes, the server sees, and the other way round.
    server.db.sql("update client set enabled = 1").await.unwrap();
    eventually("a change shows", async || server.basic("basic-client", &secret, "").await.status == 200).await;
    let token = server.basic("basic-client", &secret, "").await.access_token();
    assert_eq!(server.revoke("basic-client", &secret, &token).await.status, 200);
    let written = sqlx::SqlitePool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let (count,): (i64,) = sqlx::query_as("select count(*) from revoked_token").fetch_one(&written).await.unwrap();
    assert_eq!(count, 1);
    written.close().await;

    std::fs::rename(&path, beside("away.db")).unwrap();
    eventually("it is not ready", async || server.server.registry.incomplete().is_some()).await;
    let reason = server.server.registry.incomplete().unwrap();
    assert!(reason.contains("no database file") && reason.contains("put it back"), "{reason}");
    server.basic("basic-client", &secret, "").await.ok();
    assert_eq!(server.revoke("basic-client", &secret, &token).await.status, 503);
    assert!(matches!(server.store.now().await, Err(fault) if fault.is_outage()));
    assert!(!path.exists(), "a running server makes no database");
    std::fs::rename(beside("away.db"), &path).unwrap();
    eventually("it is ready again", async || server.server.registry.incomplete().is_none()).await;
}

on_both!(an_id_spent_here_stays_spent_when_the_database_forgets_it);

async fn an_id_spent_here_stays_spent_when_the_database_forgets_it(db: Db) {
    let store = db.store().await;
    let now = store.now().await.unwrap();
    let one = |jti: u8| SingleUseId {
        kind: SingleUseKind::Assertion,
        owner: "jwt-client".into(),
        jti: [jti; 32],
        expires_at: UnixTime(now.0 + 200),
    };
    assert_eq!(store.spend(vec![one(1)]).await.unwrap(), ReplayCheck::New);
    // An asynchronous failover to a standby that had not heard of it.
    db.sql("delete from spent_jti").await.unwrap();
    assert_eq!(store.spend(vec![one(1)]).await.unwrap(), ReplayCheck::Replayed(SingleUseKind::Assertion));
    assert_eq!(store.spend(vec![one(2), one(1)]).await.unwrap(), ReplayCheck::Replayed(SingleUseKind::Assertion));
    assert_eq!(
        store.spend(vec![one(2)]).await.unwrap(),
        ReplayCheck::New,
        "what was refused along with it is not spent"
    );
    store.sweep_spent(UnixTime(now.0 + 400)).await.unwrap();
    db.sql("delete from spent_jti").await.unwrap();
    assert_eq!(store.spend(vec![one(1)]).await.unwrap(), ReplayCheck::New, "what has expired is forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_left_open_holds_revocations_and_nothing_else() {
    let setup = Setup::new(Db::postgres().await).await;
    let (secret, signer) = (setup.client(client("basic-client")).await, Signer::es256());
    setup.store.create_client(&client("jwt-client"), None).await.unwrap();
    setup.store.add_client_keys("jwt-client", &[signer.stored()]).await.unwrap();
    let server = setup.start().await;
    let token = server.basic("basic-client", &secret, "").await.access_token();
    server.verifiers_written().await;
    let mut administrator = sqlx::PgConnection::connect(&server.db.url).await.unwrap();
    sqlx::raw_sql("begin; update client set token_ttl = 60 where client_id = 'basic-client'")
        .execute(&mut administrator)
        .await
        .unwrap();
    let started = Instant::now();
    for _ in 0..20 {
        ask(&server, &signer.fresh("jwt-client")).await.ok();
        server.basic("basic-client", &secret, "").await.ok();
    }
    assert!(started.elapsed() < Duration::from_secs(1), "assertions and secrets wait for nobody");
    assert_eq!(server.revoke("basic-client", &secret, &token).await.status, 503);
    let reason = server.store.health.trouble().unwrap();
    assert!(reason.contains("held by another session"), "{reason}");
    sqlx::raw_sql("commit").execute(&mut administrator).await.unwrap();
    assert_eq!(server.revoke("basic-client", &secret, &token).await.status, 200);
}

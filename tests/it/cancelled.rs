//! Cancelled work: calls that are killed halfway, and the connection that carries notifications.

use std::process::Stdio;
use std::time::{Duration, Instant};

use grantd::model::time::Span;
use sqlx::{Connection as _, Row as _};

use crate::harness::{Db, Setup, client};
use crate::process::daemon::{Daemon, Grantd};

/// Killed calls leave no open transaction behind, and nothing that the next caller trips over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_killed_halfway_poison_no_connection() {
    let db = Db::postgres().await;
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "c", "--scope", "a", "--default-scope", "a"]).await;
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    for round in 0..60_u64 {
        let mut command = grantd.command(&["client", "secret", "add", "c", "--label", "killed"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // From before it connects to after it has committed.
        tokio::time::sleep(Duration::from_millis(round * 7 % 60)).await;
        child.kill().await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let pool = sqlx::PgPool::connect(&db.url).await.unwrap();
    let idle: i64 = sqlx::query(
        "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'",
    )
    .fetch_one(&pool)
    .await
    .unwrap()
    .get(0);
    assert_eq!(idle, 0, "transactions that nobody will end");
    for _ in 0..5 {
        let added = grantd.json(&["client", "secret", "add", "c", "--json"]).await;
        let secret = added["client_secret"].as_str().unwrap().to_owned();
        let started = Instant::now();
        while daemon.token("c", &secret).await.status != 200 {
            assert!(started.elapsed() < Duration::from_secs(2), "an acknowledged secret is not in force");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    grantd.ok(&["doctor"]).await;
    daemon.stop_cleanly(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_notified_and_a_cut_connection_is_noticed() {
    let db = Db::postgres().await;
    let store = db.store().await;
    let mut reader = store.change_reader().await.unwrap();
    assert!(reader.is_listening());
    let soon = Duration::from_secs(5);
    db.sql("insert into client (client_id) values ('c')").await.unwrap();
    tokio::time::timeout(soon, reader.notified()).await.expect("the triggers notify").unwrap();
    reader.poll().await.expect("statements and notifications have one connection");
    db.sql("update client set enabled = 0").await.unwrap();
    reader.poll().await.unwrap();
    assert!(!reader.take_notifications().is_empty(), "one that came with an answer is kept");
    db.sql(&cut_feeds(&db)).await.unwrap();
    let ended = tokio::time::timeout(soon, reader.notified()).await.expect("a cut connection is noticed");
    assert!(ended.is_err());
    // The embedded database notifies nobody.
    let sqlite = Db::sqlite();
    let store = sqlite.store().await;
    assert!(!store.can_listen() && !store.change_reader().await.unwrap().is_listening());
}

/// SQL that ends the connections of feeds.
fn cut_feeds(db: &Db) -> String {
    let name = db.url.rsplit('/').next().unwrap();
    format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and pid <> pg_backend_pid()
         and (query ilike '%listen%' or query ilike '%registry_revision%')"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_notifications_the_poll_finds_every_change() {
    let setup = Setup::new(Db::postgres().await).await;
    setup.client(client("basic-client")).await;
    let server = setup.start().await;
    let silence = "do $do$ begin execute replace(pg_get_functiondef('grantd_raise_revision'::regproc),
        $$pg_notify('grantd', now_at::text)$$, '1'); end $do$";
    server.db.sql(silence).await.unwrap();
    for round in 0..10 {
        if round < 5 {
            server.db.sql(&cut_feeds(&server.db)).await.unwrap();
        }
        server
            .db
            .sql(&format!("update client set token_ttl = {} where client_id = 'basic-client'", 60 + round))
            .await
            .unwrap();
        server.refresh().await;
        let ttl = server.server.registry.snapshot().client("basic-client").unwrap().token_ttl.unwrap();
        assert_eq!(Span::from(ttl).seconds(), 60 + round);
    }
}

/// The change is there once its commit has returned, whichever exchange comes next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_changes_are_announced_every_second_poll_is_no_statement() {
    let setup = Setup::new(Db::postgres().await).await;
    let (registry, mut feed) = setup.feed();
    // Reads everything, makes the first key, and reads that.
    for _ in 0..3 {
        feed.step().await.unwrap();
    }
    let before = setup.store.queries.get();
    for _ in 0..10 {
        let asked_at = Instant::now();
        feed.step().await.unwrap();
        assert!(registry.age().unwrap() <= asked_at.elapsed());
    }
    assert_eq!(setup.store.queries.get() - before, 5);
    let mut admin = sqlx::PgConnection::connect(&setup.db.url).await.unwrap();
    for round in 0..10 {
        let sql = format!("insert into client (client_id) values ('c{round}')");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
        let before = setup.store.queries.get();
        feed.step().await.unwrap();
        assert!(registry.snapshot().client(&format!("c{round}")).is_some());
        // One that polls and reads, or a poll and a reading.
        assert!((1..=2).contains(&(setup.store.queries.get() - before)));
        // The next step waits for notifications in every second round.
        for _ in 0..round % 2 {
            feed.step().await.unwrap();
        }
    }
    // Each change was announced.
    let before = setup.store.queries.get();
    for _ in 0..10 {
        feed.step().await.unwrap();
    }
    assert_eq!(setup.store.queries.get() - before, 5);
}

/// The pool believes a connection that was in use just now, and asks one that has rested.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_that_was_lost_fails_no_request() {
    let db = Db::postgres().await;
    let store = db.store().await;
    let (one, two, three) = tokio::join!(store.now(), store.now(), store.now());
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    let name = db.url.rsplit('/').next().unwrap();
    let cut = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and pid <> pg_backend_pid()"
    );
    db.sql(&cut).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..4 {
        store.now().await.unwrap();
    }
}

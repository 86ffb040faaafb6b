//! How many sessions of PostgreSQL the program takes.

use std::time::{Duration, Instant};

use grantd::store::Store;
use sqlx::Connection as _;

use crate::harness::Db;

/// Waits until the database has as many sessions besides that of `admin`. One that was closed is listed until its process has
/// ended.
async fn sessions_become(admin: &mut sqlx::PgConnection, count: i64) {
    let sql = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    let started = Instant::now();
    loop {
        let present = sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *admin).await.unwrap();
        if present == count {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{present} sessions instead of {count}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_session_serves_all_transactions_of_a_command() {
    let db = Db::postgres().await;
    db.store().await.close().await;
    let mut admin = sqlx::PgConnection::connect(&db.url).await.unwrap();
    for (store, kept) in [(Store::open(&db.database, 1), 0), (Store::open(&db.database, 1).of_command(), 1)] {
        for _ in 0..2 {
            store.schema().await.unwrap();
            assert!(store.client("nobody").await.unwrap().is_none());
        }
        sessions_become(&mut admin, kept).await;
    }
}

#[tokio::test]
async fn one_connection_serves_statements_that_follow_each_other() {
    let db = Db::postgres().await;
    db.store().await.close().await;
    let mut admin = sqlx::PgConnection::connect(&db.url).await.unwrap();
    sessions_become(&mut admin, 0).await;
    let store = Store::open(&db.database, 4);
    for _ in 0..20 {
        store.now().await.unwrap();
        store.set_client_enabled("nobody", true).await.unwrap();
    }
    sessions_become(&mut admin, 1).await;
}

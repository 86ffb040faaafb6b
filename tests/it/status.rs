//! `grantd status`: the state of a running server, on one screen and as JSON.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::harness::Db;
use crate::process::daemon::{Daemon, Grantd, Mode, Proxy, eventually};

on_both!(the_state_of_a_server_stands_on_one_screen);

async fn the_state_of_a_server_stands_on_one_screen(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let create = ["client", "create", "c", "--scope", "a", "--default-scope", "a", "--json"];
    let created = grantd.json(&create).await;
    let secret = created["client_secret"].as_str().unwrap();
    grantd.ok(&["client", "secret", "add", "c", "--expires-in", "30d"]).await;
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let url = format!("http://{}", daemon.admin);
    daemon.token("c", secret).await.ok();
    daemon.token("c", "wrong, and long enough").await.unauthorized();
    grantd.ok(&["key", "rotate"]).await;
    let status = ["status", "--admin-url", &url];
    let json = || async { grantd.json(&[&status[..], &["--json"]].concat()).await };
    let looked = eventually(json, |looked| looked["signing_keys"].as_array().unwrap().len() == 2).await;
    assert_eq!((&looked["ready"], &looked["clients"], &looked["tokens_issued"]), (&true.into(), &1.into(), &1.into()));
    assert_eq!(looked["refused"], serde_json::json!({"wrong_secret": 1}));
    assert_eq!(looked["version"], env!("CARGO_PKG_VERSION"));
    assert!(looked["tokens_per_second"].is_f64() && looked["uptime_seconds"].as_i64() < Some(600), "{looked}");
    let ends = looked["expires_seconds"]["client_secret"].as_i64().unwrap();
    assert!((29 * 86400..=30 * 86400).contains(&ends), "{looked}");
    let of_keys: Vec<&str> =
        looked["signing_keys"].as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert!(of_keys.contains(&"active") && of_keys.contains(&"next"), "{looked}");

    let screen = grantd.ok(&status).await.stdout;
    println!("{screen}");
    for part in [
        ": ready\n",
        "registry   1 clients, confirmed by the database ",
        "agrees with the database's",
        "writes succeed, 0 failed",
        "signs; the next key does in ",
        "next; signs in ",
        "1 since the start",
        "1 wrong_secret in the last 5 min; `grantd explain` says why",
        "client_secret in 29 days",
    ] {
        assert!(screen.contains(part), "{part}: {screen}");
    }
    assert!(!screen.contains('\u{1b}'), "no escape sequence outside a terminal: {screen:?}");

    // Redrawn until it is ended, one document a line.
    let mut watching = grantd.command(&[&status[..], &["--watch", "--json"]].concat()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await.unwrap().unwrap().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["ready"], true);
    }
    watching.kill().await.unwrap();
    daemon.stop_cleanly(Duration::from_secs(10)).await;
    let gone = grantd.run(&status).await;
    assert!(gone.status.code() == Some(1) && gone.stderr.contains("is the server running there?"), "{gone:?}");
}

#[tokio::test]
async fn a_server_without_its_database_is_told_from_a_ready_one() {
    let db = Db::postgres().await;
    let proxy = Proxy::start(&db.url).await;
    let grantd = Grantd::new(&db).with("GRANTD__DATABASE__URL", &proxy.url).with("GRANTD__REGISTRY__MAX_STALE", "1s");
    grantd.ok(&["migrate"]).await;
    let daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    proxy.set(Mode::Refuse);
    let url = format!("http://{}", daemon.admin);
    let screen = async || grantd.ok(&["status", "--admin-url", &url]).await.stdout;
    let screen = eventually(screen, |screen| screen.contains("NOT READY")).await;
    assert!(screen.contains("registry: "), "the reason stands below: {screen}");
}

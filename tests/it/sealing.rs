//! The sealing key: its sources, and its change under running servers.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::StatusCode;
use grantd::crypto::seal::SealingKey;
use grantd::model::time::UnixTime;
use grantd::store::Store;
use grantd::store::tag_keys::SealedTagKey;
use hyper::Request;
use serde_json::json;
use tokio::sync::RwLock;
use tokio::task::JoinHandle;

use crate::configuration::{refused, with};
use crate::dpop::Prover;
use crate::harness::{Answer, Db, ISS, basic};
use crate::process::daemon::{Daemon, Done, Grantd, eventually, send};

on_both!(
    a_server_refuses_rows_under_an_unknown_sealing_key_and_names_them,
    doctor_counts_the_rows_under_each_sealing_key,
    reseal_goes_on_where_it_was_killed,
);

const FILE: &str = "GRANTD__KEYS__SEALING_KEY_FILE";
const COMMAND: &str = "GRANTD__KEYS__SEALING_KEY_COMMAND";
const PREVIOUS: &str = "GRANTD__KEYS__SEALING_KEY_PREVIOUS_FILE";

/// Two or more sealing keys, each in a file: the first is that of [`Grantd::new`].
struct Keys {
    files: Vec<String>,
}

impl Keys {
    fn new(db: &Db, number: usize) -> Self {
        drop(Grantd::new(db));
        let mut files = vec![db.directory.path().join("sealing.key").display().to_string()];
        for other in 1..number {
            let file = db.file(&format!("sealing-{other}.key"), &SealingKey::generate_base64().unwrap());
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            files.push(file.display().to_string());
        }
        Self { files }
    }

    fn key(&self, at: usize) -> SealingKey {
        SealingKey::from_base64(&std::fs::read_to_string(&self.files[at]).unwrap()).unwrap()
    }

    /// The environment with one key as the current one, and another as the previous one.
    fn environment(&self, db: &Db, current: usize, previous: Option<usize>) -> Grantd {
        let previous = previous.map_or("", |at| &self.files[at]);
        Grantd::new(db).with(FILE, &self.files[current]).with(PREVIOUS, previous)
    }
}

/// The number of rows under `under`, and the number of all.
async fn sealed(store: &Store, under: &SealingKey) -> (usize, usize) {
    let (keys, tag_keys) = (store.keys().await.unwrap(), store.tag_keys().await.unwrap());
    let all: Vec<&Vec<u8>> = keys.iter().map(|key| &key.sealed).chain(tag_keys.iter().map(|key| &key.sealed)).collect();
    (all.iter().filter(|sealed| under.is_key_of(sealed)).count(), all.len())
}

fn ended(done: &Done, code: i32, parts: &[&str]) {
    assert_eq!(done.status.code(), Some(code), "{done:?}");
    for part in parts {
        assert!(done.stderr.contains(part), "wanted `{part}` in {done:?}");
    }
}

async fn a_server_refuses_rows_under_an_unknown_sealing_key_and_names_them(db: Db) {
    let keys = Keys::new(&db, 3);
    let old = keys.environment(&db, 0, None);
    old.ok(&["migrate"]).await;
    old.ok(&["key", "generate"]).await;
    old.ok(&["key", "tag", "rotate"]).await;
    let kid = old.json(&["key", "list", "--json"]).await[0]["kid"].as_str().unwrap().to_owned();
    let tag = old.json(&["key", "tag", "list", "--json"]).await[0]["kid"].as_str().unwrap().to_owned();
    let [here, there] = [0, 1].map(|at| keys.key(at).fingerprint());
    let started = keys.environment(&db, 1, None).run(&["serve"]).await;
    ended(&started, 78, &["keys.sealing_key_file", "keys.sealing_key_previous_file", &kid, &tag, &there]);
    let started = keys.environment(&db, 1, Some(2)).run(&["serve"]).await;
    ended(&started, 78, &[&kid, &tag]);
    // A command that needs the key names both as well.
    let inspected = keys.environment(&db, 1, None).run(&["key", "reseal"]).await;
    ended(&inspected, 1, &[&kid, &tag, &here, "keys.sealing_key_previous_file"]);
    assert!(inspected.stdout.contains("moved 0 rows"), "{inspected:?}");

    for environment in [keys.environment(&db, 1, Some(0)), keys.environment(&db, 0, Some(1))] {
        let mut daemon = Daemon::start(environment.command(&["serve"]), false).await;
        daemon.stop_cleanly(Duration::from_secs(10)).await;
    }
    // A key that is gone is no reason: no token needs it.
    let newer = keys.environment(&db, 1, Some(0));
    newer.ok(&["key", "tag", "remove", &tag]).await;
    let next = newer.json(&["key", "rotate", "--json"]).await["kid"].as_str().unwrap().to_owned();
    let sql = format!(
        "update signing_key set active_at = 1000 where kid = '{kid}';
         update signing_key set active_at = 2000 where kid = '{next}'"
    );
    db.sql(&sql).await.unwrap();
    let mut daemon = Daemon::start(keys.environment(&db, 1, None).command(&["serve"]), false).await;
    daemon.stop_cleanly(Duration::from_secs(10)).await;

    let same = keys.environment(&db, 0, Some(0)).run(&["serve"]).await;
    ended(&same, 78, &["keys.sealing_key_previous_file", "the sealing key itself"]);
    let missing = Grantd::new(&db).with(PREVIOUS, "/nonexistent/key").run(&["config", "check"]).await;
    ended(&missing, 78, &["keys.sealing_key_previous_file", "/nonexistent/key", "never made"]);
}

async fn doctor_counts_the_rows_under_each_sealing_key(db: Db) {
    let keys = Keys::new(&db, 2);
    let (old, changing) = (keys.environment(&db, 0, None), keys.environment(&db, 1, Some(0)));
    old.ok(&["migrate"]).await;
    old.ok(&["key", "generate"]).await;
    let created = ["client", "create", "c", "--scope", "a", "--owner", "billing", "--json"];
    old.ok(&created).await;
    let advice = async |grantd: &Grantd| {
        let found = grantd.json(&["doctor", "--json"]).await;
        assert_eq!((&found["healthy"], &found["faults"]), (&true.into(), &json!([])), "{found}");
        let advice = found["advice"].as_array().unwrap();
        advice.iter().map(|line| line.as_str().unwrap().to_owned()).find(|line| line.starts_with("sealing key"))
    };
    assert_eq!(advice(&old).await, None, "there is one key");
    let [before, after] = [0, 1].map(|at| keys.key(at).fingerprint());
    let told = advice(&changing).await.unwrap();
    let none = format!("sealing key {after}: 0 signing keys, 0 tag keys, 0 verifiers; ");
    let all = format!("previous key {before}: 1 signing key, 1 tag key, 1 verifier; ");
    assert!(told.contains(&none) && told.contains(&all) && told.contains("`grantd key reseal`"), "{told}");

    let moved = changing.json(&["key", "reseal", "--json"]).await;
    let one_each = json!({"signing_keys": 1, "tag_keys": 1});
    assert_eq!(moved, json!({"sealing_key": after, "moved": one_each, "sealed": one_each, "unmoved": []}));
    let told = advice(&changing).await.unwrap();
    assert!(told.contains(&format!("previous key {before}: 0 signing keys, 0 tag keys, 1 verifier; ")), "{told}");
    assert!(told.contains("next use"), "{told}");
    let again = changing.ok(&["key", "reseal"]).await;
    assert_eq!(again.stdout, format!("moved 0 rows to sealing key {after}, which seals 2 of 2\n"));
    keys.environment(&db, 1, None).ok(&["doctor"]).await;
}

async fn reseal_goes_on_where_it_was_killed(db: Db) {
    const TAG_KEYS: usize = 300;
    let keys = Keys::new(&db, 2);
    keys.environment(&db, 0, None).ok(&["migrate"]).await;
    let (old, new, store) = (keys.key(0), keys.key(1), db.store().await);
    for at in 0..TAG_KEYS {
        let key = SealedTagKey::generate(&old, UnixTime(i64::try_from(at).unwrap())).unwrap();
        store.add_tag_key(&key, false).await.unwrap();
    }
    keys.environment(&db, 0, None).ok(&["key", "generate"]).await;
    let all = TAG_KEYS + 1;
    let both = keys.key(1).with_previous(keys.key(0));
    let changing = keys.environment(&db, 1, Some(0));
    let (mut moved, mut interrupted) = (0, 0);
    let last = loop {
        let mut child = changing.command(&["key", "reseal", "--json"]).stdin(Stdio::null()).spawn().unwrap();
        // Killed as soon as it has moved a row more: wherever it is then.
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if sealed(&store, &new).await.0 > moved {
                child.kill().await.unwrap();
                break None;
            }
        };
        let (now, rows) = sealed(&store, &new).await;
        assert!(rows == all && now >= moved, "{now} of {rows}, {moved} before");
        for key in store.tag_keys().await.unwrap() {
            key.open(&both).unwrap();
        }
        if let Some(status) = status {
            assert!(status.success());
            let output = child.wait_with_output().await.unwrap().stdout;
            break serde_json::from_slice::<serde_json::Value>(&output).unwrap();
        }
        interrupted += usize::from(now < all);
        // The last rounds are for the command alone, so that it ends.
        moved = if interrupted > 5 { all } else { now };
    };
    assert!(interrupted >= 1, "it was never killed halfway");
    assert_eq!(last["sealed"], json!({"signing_keys": 1, "tag_keys": TAG_KEYS}));
    assert_eq!(sealed(&store, &new).await, (all, all));
    for key in store.tag_keys().await.unwrap() {
        key.open(&new).unwrap();
    }
    store.keys().await.unwrap()[0].open(&new).unwrap();
    assert!(last["moved"]["tag_keys"].as_u64().unwrap() < TAG_KEYS as u64, "{last}: the interrupted runs moved some");
}

/// Servers behind a balancer: each request goes to the next one in rotation.
struct Balancer {
    servers: RwLock<Vec<std::net::SocketAddr>>,
    turn: AtomicUsize,
    over: AtomicBool,
    answered: [AtomicUsize; 2],
}

impl Balancer {
    /// Sends a request, whose server stays in rotation until it has answered.
    async fn send(&self, request: impl Fn() -> Request<Body>) -> Answer {
        let servers = self.servers.read().await;
        loop {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let answer = send(servers[turn % servers.len()], request()).await;
            // A machine that is busy sheds load, and says to come again in a second.
            if answer.status != StatusCode::SERVICE_UNAVAILABLE || answer.header("retry-after") != "1" {
                return answer;
            }
        }
    }

    /// Waits until each client has had `more` answers.
    async fn answers(&self, more: usize) {
        let before = [0, 1].map(|at| self.answered[at].load(Ordering::Relaxed));
        let enough = async || [0, 1].map(|at| self.answered[at].load(Ordering::Relaxed) >= before[at] + more);
        eventually(enough, |enough| *enough == [true; 2]).await;
    }
}

/// A client that asks for tokens until it is told to stop. With a prover, its tokens are bound. Returns the number of
/// demands for a nonce.
fn client(balancer: &Arc<Balancer>, secret: &str, prover: Option<Prover>) -> JoinHandle<usize> {
    let (balancer, authorization) = (Arc::clone(balancer), basic("c", secret));
    tokio::spawn(async move {
        let (mut nonce, mut demands) = (None::<String>, 0);
        while !balancer.over.load(Ordering::Relaxed) {
            let answer = balancer.send(|| {
                let request = Request::post("/token")
                    .header("content-type", "application/x-www-form-urlencoded")
                    .header("authorization", &authorization);
                let proof = prover.as_ref().map(|prover| match &nonce {
                    Some(nonce) => prover.proof_with("nonce", nonce.as_str()),
                    None => prover.proof(),
                });
                let request = proof.into_iter().fold(request, |request, proof| request.header("dpop", proof));
                request.body(Body::from("grant_type=client_credentials")).unwrap()
            });
            let answer = answer.await;
            if let Some(next) = answer.headers.get("dpop-nonce") {
                nonce = Some(next.to_str().unwrap().to_owned());
            }
            if answer.status == StatusCode::BAD_REQUEST && answer.json()["error"] == "use_dpop_nonce" {
                demands += 1;
                continue;
            }
            answer.ok_of_type(if prover.is_some() { "DPoP" } else { "Bearer" });
            balancer.answered[usize::from(prover.is_some())].fetch_add(1, Ordering::Relaxed);
        }
        demands
    })
}

/// Restarts each server in turn, out of rotation, with another environment.
async fn roll(balancer: &Balancer, daemons: &mut [Daemon], environment: &Grantd) {
    for daemon in daemons {
        balancer.servers.write().await.retain(|address| *address != daemon.public);
        daemon.stop_cleanly(Duration::from_secs(20)).await;
        *daemon = Daemon::start(environment.command(&["serve"]), false).await;
        eventually(async || daemon.admin_get("/readyz").await.status, |status| *status == StatusCode::OK).await;
        balancer.servers.write().await.push(daemon.public);
        balancer.answers(10).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_change_their_sealing_key_and_refuse_no_request() {
    let db = Db::postgres().await;
    let keys = Keys::new(&db, 2);
    let environment = |current, previous| {
        let environment = keys.environment(&db, current, previous);
        environment.with("GRANTD__ISSUER", ISS).with("GRANTD__DPOP__REQUIRE_NONCE", "true")
    };
    let old = environment(0, None);
    old.ok(&["migrate"]).await;
    let created = old.json(&["client", "create", "c", "--scope", "a", "--default-scope", "a", "--json"]).await;
    let secret = created["client_secret"].as_str().unwrap();
    let mut daemons = Vec::new();
    for _ in 0..3 {
        daemons.push(Daemon::start(old.command(&["serve"]), false).await);
    }
    let published = daemons[0].get("/jwks").await.body;
    let balancer = Arc::new(Balancer {
        servers: RwLock::new(daemons.iter().map(|daemon| daemon.public).collect()),
        turn: AtomicUsize::new(0),
        over: AtomicBool::new(false),
        answered: <[AtomicUsize; 2]>::default(),
    });
    let clients = [client(&balancer, secret, None), client(&balancer, secret, Some(Prover::new()))];
    balancer.answers(10).await;

    roll(&balancer, &mut daemons, &environment(0, Some(1))).await;
    let changing = environment(1, Some(0));
    roll(&balancer, &mut daemons, &changing).await;
    let (store, new) = (db.store().await, keys.key(1));
    let moved = changing.json(&["key", "reseal", "--json"]).await;
    assert_eq!(moved["moved"], json!({"signing_keys": 1, "tag_keys": 1}));
    assert_eq!(sealed(&store, &new).await, (2, 2));
    balancer.answers(10).await;
    // The secret is in use, so its verifier follows by itself.
    let advice = async || changing.ok(&["doctor"]).await.stderr;
    eventually(advice, |advice| advice.contains("0 signing keys, 0 tag keys, 0 verifiers; to change the key")).await;
    roll(&balancer, &mut daemons, &environment(1, None)).await;
    std::fs::remove_file(&keys.files[0]).unwrap();

    balancer.answers(10).await;
    balancer.over.store(true, Ordering::Relaxed);
    let [by_secret, by_proof] = clients.map(|client| async { client.await.unwrap() });
    assert_eq!((by_secret.await, by_proof.await), (0, 1), "the first proof had no nonce, every other one had");
    for daemon in &mut daemons {
        assert_eq!(daemon.get("/jwks").await.body, published, "the signing key is the same");
        daemon.stop_cleanly(Duration::from_secs(20)).await;
    }
    environment(1, None).ok(&["doctor"]).await;
}

#[test]
fn a_sealing_key_has_one_source() {
    let command = |rest: &str| format!("keys.sealing_key_command = {rest}");
    refused(
        &format!("{}\nkeys.sealing_key_file = \"/x\"", command("[\"cat\", \"/y\"]")),
        &[],
        &["keys.sealing_key_command", "not both"],
    );
    refused(&command("\"cat /y\""), &[], &["keys.sealing_key_command"]);
    let url = "database.url = \"postgres://db.test/grantd?sslmode=verify-full\"";
    with(&format!("{url}\n{}", command("[\"cat\", \"/y\"]")), &[], &[]).unwrap();
    let config = with("", &[(COMMAND, "cat,/y")], &[]).unwrap();
    assert!(config.sealing.file().is_none(), "{config:?}");
}

/// A script that is the command of a configuration, with a canary that it prints on stdout.
fn script(db: &Db, name: &str, text: &str) -> Grantd {
    let file = db.file(name, &format!("#!/bin/sh\n{text}\n"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700)).unwrap();
    Grantd::new(db).with(FILE, "").with(COMMAND, file.to_str().unwrap())
}

#[tokio::test]
async fn a_command_prints_the_sealing_key_and_is_run_only_where_it_is_needed() {
    let db = Db::sqlite();
    let keys = Keys::new(&db, 1);
    let asked = db.directory.path().join("asked");
    let grantd = script(
        &db,
        "kms",
        &format!("echo asked >> {}; cat {}; read line && exit 9; exit 0", asked.display(), keys.files[0]),
    );
    let calls = || std::fs::read_to_string(&asked).unwrap_or_default().lines().count();
    grantd.ok(&["config", "check"]).await;
    grantd.ok(&["config", "print"]).await;
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "c", "--scope", "a", "--default-scope", "a", "--no-secret"]).await;
    grantd.ok(&["client", "list"]).await;
    assert_eq!(calls(), 0, "no command needed the key");
    let secret = grantd.json(&["client", "secret", "add", "c", "--json"]).await;
    assert_eq!(calls(), 1);
    grantd.ok(&["key", "generate"]).await;
    // What was sealed opens under the key in the file.
    let listed = Grantd::new(&db).ok(&["key", "list"]).await;
    assert!(!listed.stderr.contains("warning"), "{listed:?}");
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    daemon.token("c", secret["client_secret"].as_str().unwrap()).await.ok();
    daemon.stop_cleanly(Duration::from_secs(10)).await;
    grantd.ok(&["doctor"]).await;
}

#[tokio::test]
async fn a_command_that_gives_no_key_is_named_by_its_exit_code_and_never_quoted() {
    const CANARY: &str = "Y2FuYXJ5Y2FuYXJ5";
    let db = Db::sqlite();
    Grantd::new(&db).ok(&["migrate"]).await;
    let missing = Grantd::new(&db).with(FILE, "").with(COMMAND, "/nonexistent/kms");
    let unprintable = script(&db, "unprintable", "printf '\\377\\376'");
    let cases = [
        (missing, 78, "cannot be started"),
        (script(&db, "short", &format!("echo {CANARY}")), 78, "32 bytes in base64"),
        (script(&db, "long", &format!("yes {CANARY} | head -c 300000")), 78, "32 bytes in base64"),
        (script(&db, "silent", "exit 0"), 78, "32 bytes in base64"),
        (unprintable, 78, "32 bytes in base64"),
        (
            script(&db, "failing", &format!("echo {CANARY}; echo permission denied >&2; exit 3")),
            69,
            "permission denied",
        ),
        (script(&db, "coded", &format!("echo {CANARY}; exit 3")), 69, "exit code 3"),
        (script(&db, "killed", &format!("echo {CANARY}; kill -9 $$")), 69, "signal 9"),
    ];
    for (grantd, code, part) in cases {
        for arguments in [&["serve"][..], &["key", "generate"]] {
            let done = grantd.run(arguments).await;
            ended(&done, code, &["keys.sealing_key_command", part]);
            assert!(!format!("{done:?}").contains(CANARY), "{done:?}");
        }
        let doctor = grantd.run(&["doctor"]).await;
        assert!(!format!("{doctor:?}").contains(CANARY), "{doctor:?}");
    }
    // The end of what it complains of is shown, on one line.
    let noisy = script(&db, "noisy", "i=0; while [ $i -lt 900 ]; do echo line $i >&2; i=$((i+1)); done; exit 1");
    let done = noisy.run(&["key", "generate"]).await;
    ended(&done, 69, &["line 899"]);
    assert!(!done.stderr.contains("line 100\\") && done.stderr.lines().count() == 1, "{done:?}");
}

/// Whether a process runs: one that has ended and that nobody waits for does not.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn a_command_leaves_no_process_behind_and_has_ten_seconds() {
    let db = Db::sqlite();
    let keys = Keys::new(&db, 1);
    Grantd::new(&db).ok(&["migrate"]).await;
    let left = |name: &str| db.directory.path().join(name);
    let pid = |name: &str| std::fs::read_to_string(left(name)).unwrap();
    let text = format!("sleep 300 >&2 & echo $! > {}; cat {}", left("done.pid").display(), keys.files[0]);
    script(&db, "daemonising", &text).ok(&["key", "generate"]).await;
    assert!(!runs(&pid("done.pid")), "it outlived the command");

    let begun = Instant::now();
    let text = format!("echo waiting for the vault >&2; sleep 300 & echo $! > {}; wait", left("slow.pid").display());
    let slow = script(&db, "slow", &text).run(&["key", "generate"]).await;
    ended(&slow, 69, &["not done after 10 seconds", "waiting for the vault"]);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(30), "{took:?}");
    assert!(!runs(&pid("slow.pid")), "it outlived its deadline");
}

#[tokio::test]
async fn a_signal_ends_the_command_with_the_process_that_waits_for_it() {
    let db = Db::sqlite();
    Grantd::new(&db).ok(&["migrate"]).await;
    let pid = db.directory.path().join("pid");
    let grantd = script(&db, "slow", &format!("echo $$ > {}; sleep 300", pid.display()));
    for (arguments, signal, code) in [(&["key", "generate"][..], "-INT", 130), (&["serve"], "-TERM", 0)] {
        drop(std::fs::remove_file(&pid));
        let mut child = grantd.command(arguments).spawn().unwrap();
        let written = async || std::fs::read_to_string(&pid).unwrap_or_default();
        let command = eventually(written, |written| written.ends_with('\n')).await;
        let id = child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([signal, &id]).status().unwrap().success());
        assert_eq!(child.wait().await.unwrap().code(), Some(code), "{arguments:?}");
        eventually(async || runs(&command), |runs| !runs).await;
    }
}

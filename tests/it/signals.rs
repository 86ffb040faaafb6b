//! Signals at every moment, messages to the service manager, and the limit on open files.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::harness::Db;
use crate::process::daemon::{Daemon, Grantd, eventually};
use crate::transport::{one_answer, rest};

fn kill(child: &Child, signal: &str) {
    let pid = child.id().expect("it runs").to_string();
    assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

/// A database that takes connections and never answers.
async fn silent_database() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://grantd@{}/grantd?sslmode=disable", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test]
async fn a_signal_during_the_start_ends_every_command_that_waits() {
    let db = Db::sqlite();
    for (arguments, signal, code) in [
        (&["serve"][..], "-TERM", 0),
        (&["serve", "--set", "database.auto_migrate=true"], "-INT", 0),
        (&["migrate"], "-TERM", 143),
        (&["client", "list"], "-INT", 130),
        (&["key", "list"], "-TERM", 143),
        (&["doctor"], "-TERM", 143),
    ] {
        let (database, url) = silent_database().await;
        let grantd = Grantd::new(&db).with("GRANTD__DATABASE__URL", &url);
        let mut child = grantd.command(arguments).spawn().unwrap();
        // It waits for the database now.
        let _held = tokio::time::timeout(Duration::from_secs(20), database.accept()).await.unwrap().unwrap();
        let told = Instant::now();
        kill(&child, signal);
        let status = tokio::time::timeout(Duration::from_secs(10), child.wait()).await.expect("it ends").unwrap();
        // Without a handler there is no code, and process 1 of a container would not have ended at all.
        assert_eq!(status.code(), Some(code), "{arguments:?} {signal}");
        assert!(told.elapsed() < Duration::from_millis(2500), "{arguments:?}: {:?}", told.elapsed());
    }
}

#[tokio::test]
async fn signals_of_log_rotation_are_ignored_with_a_line() {
    let db = Db::sqlite();
    let mut daemon = Daemon::start(Grantd::new(&db).command(&["serve"]), false).await;
    for signal in ["-USR1", "-USR2"] {
        daemon.signal(signal);
    }
    let ignored = eventually(async || daemon.events("signal.ignored"), |events| events.len() == 2).await;
    let names: Vec<_> = ignored.iter().map(|event| event["signal"].as_str().unwrap()).collect();
    assert!(names.contains(&"SIGUSR1") && names.contains(&"SIGUSR2"), "{ignored:?}");
    assert_eq!(daemon.admin_get("/readyz").await.status, 200);
    daemon.stop_cleanly(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn draining_closes_answers_reloads_on_sighup_and_ends_early_on_a_second_signal() {
    let db = Db::sqlite();
    let grantd = Grantd::new(&db).with("GRANTD__SERVER__DEADLINES__DRAIN_DELAY", "60s");
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let mut kept = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(daemon.public).await.unwrap();
        stream.write_all(b"GET /jwks HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(!one_answer(&mut stream).await.contains("connection: close"));
        kept.push(stream);
    }
    daemon.terminate();
    eventually(async || daemon.events("stopping").len(), |stopping| *stopping == 1).await;
    daemon.reload();
    eventually(async || daemon.events("reload").len(), |reloads| *reloads == 1).await;
    let readyz = daemon.admin_get("/readyz").await;
    assert_eq!((readyz.status.as_u16(), readyz.header("connection")), (503, "close"));
    for mut stream in kept {
        let request = "POST /token HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 29\r\n\r\ngrant_type=client_credentials";
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("\r\nconnection: close\r\n"), "{answer:?}");
    }
    daemon.terminate();
    daemon.stop_cleanly(Duration::from_secs(15)).await;
}

#[tokio::test]
async fn the_service_manager_is_told_of_ready_reloading_and_stopping() {
    let db = Db::sqlite();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let name = format!("grantd-test-{}", std::process::id());
    let sockets = [
        (UnixDatagram::bind(&path).unwrap(), path.display().to_string()),
        (UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(), format!("@{name}")),
    ];
    for (socket, address) in sockets {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let heard = || {
            let mut message = [0; 512];
            let length = socket.recv(&mut message).unwrap();
            String::from_utf8(message[..length].to_vec()).unwrap()
        };
        let mut daemon =
            Daemon::start(Grantd::new(&db).with("NOTIFY_SOCKET", &address).command(&["serve"]), false).await;
        assert!(heard().starts_with("READY=1\n"));
        daemon.reload();
        let reloading = heard();
        let micros = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).map(str::parse::<u64>);
        assert!(reloading.starts_with("RELOADING=1\n") && matches!(micros, Some(Ok(1..))), "{reloading}");
        assert!(heard().starts_with("READY=1\n"));
        daemon.terminate();
        assert!(heard().starts_with("STOPPING=1\n"));
        eventually(async || daemon.events("stopping").len(), |stopping| *stopping == 1).await;
        daemon.stop_cleanly(Duration::from_secs(10)).await;
    }
}

/// The program under limits on open files.
fn limited(grantd: &Grantd, soft: u32, hard: u32) -> Command {
    let plain = grantd.command(&["serve"]);
    let mut command = Command::new("sh");
    let program = plain.as_std().get_program().to_str().unwrap();
    // Only the soft limit can be lowered and raised again, so it comes first.
    command.args(["-c", &format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec {program} serve")]);
    command.env_clear().envs(plain.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.kill_on_drop(true).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_take_neither_the_last_descriptor_nor_the_health_check() {
    let own = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: own.maximum, maximum: own.maximum }).unwrap();
    for (soft, hard, public) in [(1024, 4096, 3493), (1024, 1024, 677)] {
        let db = Db::sqlite();
        let grantd = Grantd::new(&db);
        grantd.ok(&["migrate"]).await;
        let mut daemon = Daemon::start(limited(&grantd, soft, hard), false).await;
        let listening = daemon.events("listening");
        let cap = listening.iter().find(|event| event["listener"] == "public").unwrap();
        assert_eq!(cap["max_connections"], public, "{cap}");
        assert_eq!(daemon.events("listener.capped").len(), 1, "fewer than server.max_connections");
        let mut idle = Vec::new();
        for _ in 0..1500 {
            idle.push(TcpStream::connect(daemon.public).await.unwrap());
        }
        let asked = Instant::now();
        assert_eq!(daemon.admin_get("/livez").await.status, 200);
        assert!(asked.elapsed() < Duration::from_secs(5), "{hard}: {:?}", asked.elapsed());
        let answer =
            tokio::time::timeout(Duration::from_secs(40), daemon.token("nobody", "wrong-but-long-enough")).await;
        assert_eq!(answer.expect("an answer in time").status, 401);
        if hard > 1500 {
            assert!(asked.elapsed() < Duration::from_secs(8), "there is room for all: {:?}", asked.elapsed());
        }
        assert!(daemon.events("listener.accept_failed").is_empty());
        drop(idle);
        daemon.stop_cleanly(Duration::from_secs(15)).await;
    }
}

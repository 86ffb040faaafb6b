//! Exit codes and streams of every command: good and bad input, a database that cannot be reached, output that cannot be
//! written, a directory that cannot be written, no HOME (the harness sets none), SIGINT.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use grantd::crypto::jwk::Alg;
use grantd::crypto::jws::SigningKey;
use grantd::model::time::Clock;
use serde_json::{Map, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Child;

use crate::harness::Db;
use crate::process::daemon::{Daemon, Done, Grantd, eventually};

on_both!(every_command_ends_with_the_documented_code_on_good_and_bad_input);

/// The program that a command talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Database,
    /// A running server, over HTTP.
    Server,
    /// A configuration that can be used, or nothing.
    Nothing,
}

/// A command with arguments that work and arguments that do not. `{name}` stands for a value of [`Room::values`].
#[derive(Clone, Copy)]
struct Row {
    command: &'static str,
    good: &'static str,
    /// Wrong arguments, and the code that they end with.
    bad: (&'static str, i32),
    input: &'static str,
    prints: bool,
    needs: Needs,
}

const fn prints(command: &'static str, good: &'static str, bad: (&'static str, i32)) -> Row {
    Row { command, good, bad, input: "", prints: true, needs: Needs::Database }
}

const fn silent(command: &'static str, good: &'static str, bad: (&'static str, i32)) -> Row {
    Row { prints: false, ..prints(command, good, bad) }
}

const fn reading(input: &'static str, row: Row) -> Row {
    Row { input, ..row }
}

const fn with(needs: Needs, row: Row) -> Row {
    Row { needs, ..row }
}

/// Every command but those that serve. In this order all of them work on one database.
const ROWS: [Row; 69] = [
    silent("migrate", "", ("--lock-timeout x", 2)),
    prints("doctor", "", ("x", 2)),
    prints("client create", "new --scope a", ("c", 1)),
    prints("client list", "", ("x", 2)),
    prints("client show", "c", ("nobody", 1)),
    silent("client enable", "c", ("nobody", 1)),
    silent("client disable", "spare", ("nobody", 1)),
    silent("client revoke-tokens", "spare", ("nobody", 1)),
    silent("client set", "c --token-ttl 5m", ("c", 2)),
    prints("client secret add", "c", ("nobody", 1)),
    reading("a secret chosen elsewhere\n", prints("client secret import", "c", ("nobody", 1))),
    prints("client secret rotate", "spare --overlap 1d", ("nobody", 1)),
    prints("client secret list", "c", ("nobody", 1)),
    prints("client secret expiring", "--within 30d", ("--within x", 2)),
    silent("client secret retire", "c {old_secret} --if-unused 1m", ("c none --if-unused 1m", 1)),
    silent("client secret revoke", "c {secret}", ("c none", 1)),
    prints("client key add", "c --jwk {public}", ("c --jwk /nonexistent", 1)),
    prints("client key list", "c", ("nobody", 1)),
    silent("client key remove", "c {key}", ("c none", 1)),
    prints("client cert add", "c --self-signed {certificate}", ("c", 2)),
    prints("client cert list", "c", ("nobody", 1)),
    silent("client cert remove", "c {cert}", ("c none", 1)),
    silent("client delete", "spare", ("nobody", 1)),
    prints("trusted-issuer create", "https://new.test --kind oidc --offline", ("https://new.test --kind x", 2)),
    prints("trusted-issuer list", "", ("x", 2)),
    prints("trusted-issuer show", "https://ci.test", ("https://none.test", 1)),
    silent("trusted-issuer set", "https://ci.test --max-lifetime 30m", ("https://ci.test", 2)),
    silent("trusted-issuer enable", "https://ci.test", ("https://none.test", 1)),
    reading("{federated}", prints("federation test", "", ("--at x", 2))),
    silent("trusted-issuer disable", "https://ci.test", ("https://none.test", 1)),
    silent("trusted-issuer delete", "https://spare.test", ("https://none.test", 1)),
    prints("client federation add", "c --issuer https://ci.test --subject other", ("c", 2)),
    prints("client federation list", "c", ("nobody", 1)),
    silent("client federation remove", "c {rule}", ("c none", 1)),
    prints("resource create", "https://new.test --scope a", ("https://api.test --scope a", 1)),
    prints("resource list", "", ("x", 2)),
    prints("resource show", "https://api.test", ("https://none.test", 1)),
    silent("resource set", "https://api.test --token-ttl 5m", ("https://api.test", 2)),
    silent("resource delete", "https://api.test", ("https://none.test", 1)),
    prints("key list", "", ("x", 2)),
    prints("key show", "{kid}", ("none", 1)),
    reading("{token}", prints("token inspect", "", ("--issuer x", 2))),
    reading("{token}", silent("token revoke", "", ("x", 2))),
    silent("token revoke-all", "--now", ("", 2)),
    prints("key generate", "--alg EdDSA", ("--alg HS256", 2)),
    prints("key rotate", "", ("--alg x", 2)),
    prints("key reseal", "", ("x", 2)),
    prints("key import", "{private}", ("/nonexistent", 1)),
    silent("key remove", "{kid} --now", ("none --now", 1)),
    prints("key tag list", "", ("x", 2)),
    prints("key tag rotate", "", ("x", 2)),
    silent("key tag remove", "{tag}", ("x", 2)),
    prints("import hydra", "{hydra}", ("/nonexistent", 1)),
    prints("import keycloak", "{keycloak}", ("/nonexistent", 1)),
    prints("export", "", ("x", 2)),
    with(
        Needs::Nothing,
        prints("database copy", "--from {source} --to {target}", ("--from {source} --to {source}", 1)),
    ),
    with(Needs::Nothing, silent("database unfreeze", "--url {source}", ("", 2))),
    with(Needs::Server, prints("explain", "--admin-url {admin}", ("--since x", 2))),
    with(Needs::Server, prints("status", "--admin-url {admin}", ("--admin-url http://127.0.0.1:1/", 1))),
    with(
        Needs::Server,
        prints("token get", "--issuer {issuer} --client c --secret-file {secret_file}", ("--client c", 2)),
    ),
    with(Needs::Server, silent("health", "--url {readyz}", ("--url http://127.0.0.1:1/", 1))),
    with(Needs::Nothing, reading("a secret chosen elsewhere\n", prints("hash-secret", "", ("x", 2)))),
    with(Needs::Nothing, silent("config check", "", ("--set nonsense=1", 78))),
    with(Needs::Nothing, prints("config print", "", ("--set nonsense=1", 78))),
    with(Needs::Nothing, prints("completions", "bash", ("x", 2))),
    with(Needs::Nothing, prints("completions", "zsh", ("", 2))),
    with(Needs::Nothing, prints("completions", "fish", ("bash x", 2))),
    with(Needs::Nothing, prints("man", "", ("x", 2))),
    with(Needs::Nothing, prints("help", "", ("nonsense", 2))),
];

/// Commands that run until they are told to stop, with wrong arguments.
const SERVING: [(&str, &str, i32); 2] = [("serve", "--set nonsense=1", 78), ("dev", "--listen x", 2)];

/// A database in which each row finds what it names, with a server on a copy of it.
struct Room {
    db: Db,
    values: BTreeMap<&'static str, String>,
    _server: Daemon,
    /// The database of the server, where it is a copy.
    _beside: Option<Db>,
}

impl Room {
    async fn new(db: Db) -> Self {
        let grantd = environment(&db);
        grantd.ok(&["migrate"]).await;
        grantd.ok(&["resource", "create", "https://api.test", "--scope", "a"]).await;
        let file = |name: &str| db.directory.path().join(name).display().to_string();
        let create =
            ["client", "create", "c", "--scope", "a b", "--default-scope", "b", "--secret-file", &file("c.secret")];
        grantd.ok(&create).await;
        let text = |value: &serde_json::Value, name: &str| value[name].as_str().unwrap().to_owned();
        let ending = ["client", "secret", "add", "c", "--expires-in", "10d", "--json"];
        let secret = text(&grantd.json(&ending).await, "secret_id");
        let old_secret = text(&grantd.json(&["client", "secret", "add", "c", "--json"]).await, "secret_id");
        let past = format!("update client_secret set created_at = 1700000000 where secret_id = '{old_secret}'");
        db.sql(&past).await.unwrap();
        grantd.ok(&["client", "create", "spare", "--scope", "a"]).await;
        let pair = || rcgen::KeyPair::generate().unwrap();
        let (key, other, signing) = (pair(), pair(), pair());
        db.file("key.pem", &key.public_key_pem());
        db.file("public.pem", &other.public_key_pem());
        db.file("private.pem", &signing.serialize_pem());
        for (name, key) in [("cert.pem", &key), ("other.pem", &other)] {
            let made = crate::mutual_tls::named("c").self_signed(key).unwrap();
            db.file(name, &made.pem());
        }
        let added = grantd.json(&["client", "key", "add", "c", "--jwk", &file("key.pem"), "--json"]).await;
        let cert = grantd.json(&["client", "cert", "add", "c", "--self-signed", &file("cert.pem"), "--json"]).await;
        let (signer, _) = SigningKey::generate(Alg::Es256).unwrap();
        db.file("jwks.json", &json!({"keys": [signer.verifying().jwk()]}).to_string());
        let trust = ["trusted-issuer", "create", "https://ci.test", "--kind", "oidc", "--audience", "grantd"];
        grantd.ok(&[&trust[..], &["--jwks", &file("jwks.json")]].concat()).await;
        grantd.ok(&["trusted-issuer", "create", "https://spare.test", "--kind", "oidc", "--offline"]).await;
        let add = ["client", "federation", "add", "c", "--issuer", "https://ci.test", "--subject", "job", "--json"];
        let rule = text(&grantd.json(&add).await, "rule_id");
        let now = Clock::System.now();
        let claims = json!({"iss": "https://ci.test", "sub": "job", "aud": "grantd", "jti": "1", "iat": now, "exp": now.0 + 600});
        let federated = signer.sign_with(Map::new(), claims.to_string().as_bytes()).unwrap();
        db.file("hydra.json", r#"[{"client_id": "h", "grant_types": ["client_credentials"], "scope": "a"}]"#);
        let keycloak =
            r#"{"realm": "r", "clients": [{"clientId": "k", "enabled": true, "serviceAccountsEnabled": true}]}"#;
        db.file("keycloak.json", keycloak);
        let source = format!("sqlite:{}", file("source.db"));
        environment(&db).with("GRANTD__DATABASE__URL", &source).ok(&["migrate"]).await;
        grantd.ok(&["key", "generate"]).await;
        grantd.ok(&["key", "tag", "rotate"]).await;
        let kid = text(&grantd.json(&["key", "list", "--json"]).await[0], "kid");
        let tag = grantd.json(&["key", "tag", "list", "--json"]).await[0]["kid"].clone();

        // A server of the same registry: on PostgreSQL the same database, on SQLite a copy of the file.
        let beside = if db.is_postgres() { None } else { Some(copy(&db)) };
        let serving = environment(beside.as_ref().unwrap_or(&db));
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("http://{}", socket.local_addr().unwrap());
        drop(socket);
        let listen = issuer.trim_start_matches("http://").to_owned();
        let serving = serving.with("GRANTD__SERVER__LISTEN", &listen).with("GRANTD__ISSUER", &issuer);
        let server = Daemon::start(serving.command(&["serve"]), false).await;
        let get = ["token", "get", "--issuer", &issuer, "--client", "c", "--secret-file", &file("c.secret")];
        let token = eventually(async || grantd.run(&get).await, |done| done.status.success()).await.stdout;
        let values = BTreeMap::from([
            ("issuer", issuer),
            ("readyz", format!("http://{}/readyz", server.admin)),
            ("admin", format!("http://{}/", server.admin)),
            ("rule", rule),
            ("federated", federated),
            ("hydra", file("hydra.json")),
            ("keycloak", file("keycloak.json")),
            ("source", source),
            ("target", format!("sqlite:{}", file("target.db"))),
            ("token", token),
            ("secret", secret),
            ("old_secret", old_secret),
            ("secret_file", file("c.secret")),
            ("key", text(&added["keys"][0], "kid")),
            ("cert", text(&cert, "cert_id")),
            ("kid", kid),
            ("tag", tag.as_str().map_or_else(|| tag.to_string(), str::to_owned)),
            ("public", file("public.pem")),
            ("private", file("private.pem")),
            ("certificate", file("other.pem")),
        ]);
        Self { db, values, _server: server, _beside: beside }
    }

    fn filled(&self, text: &str) -> String {
        self.values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    }

    fn arguments(&self, command: &str, arguments: &str) -> Vec<String> {
        format!("{command} {arguments}").split_whitespace().map(|word| self.filled(word)).collect()
    }

    async fn run(&self, grantd: &Grantd, row: &Row, arguments: &str) -> Done {
        let arguments = self.arguments(row.command, arguments);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let done = grantd.run_with_input(&arguments, &self.filled(row.input)).await;
        check(&done, &format!("{arguments:?}"));
        done
    }

    /// The environment of commands for this database, whose tokens are of the server's issuer.
    fn grantd(&self, db: &Db) -> Grantd {
        environment(db).with("GRANTD__ISSUER", &self.values["issuer"])
    }
}

/// Certificates come by a proxy, so that `doctor` has nothing against the one that is registered.
fn environment(db: &Db) -> Grantd {
    Grantd::new(db)
        .with("GRANTD__SERVER__CLIENT_CERT_HEADER", "true")
        .with("GRANTD__SERVER__TRUSTED_PROXIES", "127.0.0.1")
        .with("GRANTD__DATABASE__AUTO_MIGRATE", "true")
}

/// A copy of an embedded database that no process has open, with its sealing key.
fn copy(db: &Db) -> Db {
    let copied = Db::sqlite();
    for file in ["grantd.db", "grantd.db-wal", "sealing.key"] {
        let from = db.directory.path().join(file);
        if from.exists() {
            fs::copy(from, copied.directory.path().join(file)).unwrap();
        }
    }
    copied
}

/// Holds that a process has ended by one of the documented codes, without a panic.
fn check(done: &Done, named: &str) {
    let code = done.status.code().unwrap_or_else(|| panic!("{named} was killed: {done:?}"));
    assert!(documented().contains(&code), "{named} ended with {code}: {done:?}");
    assert!(!done.stderr.contains("panic"), "{named}: {done:?}");
    // Every failure says something, but for the reader that has gone away and `health`, `doctor` by exit code.
    assert!(code == 0 || !done.stderr.is_empty(), "{named} failed without a word: {done:?}");
}

/// The codes of the table in the reference.
fn documented() -> BTreeSet<i32> {
    let page = include_str!("../../docs/reference/cli.md");
    let table = page.split_once("| exit code | meaning |\n|---|---|\n").unwrap().1.split_once("\n\n").unwrap().0;
    table.lines().map(|row| row.split('|').nth(1).unwrap().trim().parse().unwrap()).collect()
}

/// The commands of the reference that have no commands below them.
fn commands() -> BTreeSet<String> {
    let page = include_str!("../../docs/reference/cli.md");
    let all: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## grantd ")).collect();
    let is_leaf = |name: &&&str| !all.iter().any(|other| other.starts_with(&format!("{name} ")));
    all.iter().filter(is_leaf).map(|name| (*name).to_owned()).collect()
}

/// The number of rows of each table.
async fn counts(db: &Db) -> BTreeMap<String, i64> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(db.directory.path().join("grantd.db"));
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let names: Vec<String> =
        sqlx::query_scalar("select name from sqlite_master where type = 'table'").fetch_all(&pool).await.unwrap();
    let mut found = BTreeMap::new();
    for name in names {
        let sql = sqlx::AssertSqlSafe(format!("select count(*) from \"{name}\""));
        found.insert(name, sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap());
    }
    pool.close().await;
    found
}

#[test]
fn every_command_of_the_reference_has_a_row() {
    let rows = ROWS.iter().map(|row| row.command).filter(|command| *command != "help");
    let rows: BTreeSet<String> = rows.chain(SERVING.map(|(command, ..)| command)).map(str::to_owned).collect();
    assert_eq!(rows, commands(), "a new command needs a row in ROWS of tests/it/exits.rs");
}

async fn every_command_ends_with_the_documented_code_on_good_and_bad_input(db: Db) {
    let room = Room::new(db).await;
    let grantd = room.grantd(&room.db);
    for row in &ROWS {
        let (arguments, code) = row.bad;
        let done = room.run(&grantd, row, arguments).await;
        assert_eq!(done.status.code(), Some(code), "{} {arguments}: {done:?}", row.command);
        assert!(done.stdout.is_empty(), "{} {arguments}: {done:?}", row.command);
        let done = room.run(&grantd, row, row.good).await;
        assert_eq!(done.status.code(), Some(0), "{} {}: {done:?}", row.command, row.good);
        assert_eq!(!done.stdout.is_empty(), row.prints, "{} {}: {done:?}", row.command, row.good);
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_told_by_69_alone() {
    let room = Room::new(Db::sqlite()).await;
    // Nothing listens on port 1.
    let grantd = room.grantd(&room.db).with("GRANTD__DATABASE__URL", "postgres://u@127.0.0.1:1/x");
    for row in &ROWS {
        let expected = if row.needs == Needs::Database { 69 } else { 0 };
        let done = room.run(&grantd, row, row.good).await;
        assert_eq!(done.status.code(), Some(expected), "{}: {done:?}", row.command);
    }
}

#[tokio::test]
async fn output_that_cannot_be_written_is_told_and_leaves_no_half_change() {
    let room = Room::new(Db::sqlite()).await;
    let before = counts(&room.db).await;
    for row in &ROWS {
        let whole = copy(&room.db);
        room.run(&room.grantd(&whole), row, row.good).await;
        let changed = counts(&whole).await;
        for closed in [false, true] {
            let db = copy(&room.db);
            let arguments = room.arguments(row.command, row.good);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let stdout: Stdio = if closed {
                std::io::pipe().unwrap().1.into()
            } else {
                OpenOptions::new().write(true).open("/dev/full").unwrap().into()
            };
            let mut child = room.grantd(&db).command(&arguments).stdin(Stdio::piped()).stdout(stdout).spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            drop(stdin.write_all(room.filled(row.input).as_bytes()).await);
            drop(stdin);
            let output = child.wait_with_output().await.unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            let named = format!("{arguments:?}, closed: {closed}");
            assert_eq!(output.status.code(), Some(i32::from(row.prints)), "{named}: {stderr}");
            assert!(!stderr.contains("panic"), "{named}: {stderr}");
            let shows_secret = stderr.contains("could not be shown");
            assert_eq!(row.prints && !closed, stderr.contains("No space left"), "{named}: {stderr}");
            assert!(!closed || shows_secret || !stderr.contains("closed"), "{named}: {stderr}");
            let after = counts(&db).await;
            assert!(after == before || after == changed || shows_secret, "{named}: {before:?} {after:?} {changed:?}");
        }
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_bad_configuration() {
    let room = Room::new(Db::sqlite()).await;
    // Nobody makes files there, root neither.
    let grantd = room.grantd(&room.db).with("GRANTD__DATA_DIR", "/proc/self/nowhere");
    let grantd = grantd.with("GRANTD__DATABASE__URL", "").with("GRANTD__KEYS__SEALING_KEY_FILE", "");
    for row in &ROWS {
        let expected = match row.command {
            "doctor" => 1,
            "config check" => 78,
            _ if row.needs == Needs::Database => 78,
            _ => 0,
        };
        let done = room.run(&grantd, row, row.good).await;
        assert_eq!(done.status.code(), Some(expected), "{}: {done:?}", row.command);
        assert!(expected == 0 || (done.stderr + &done.stdout).contains("/proc/self/nowhere"), "{}", row.command);
    }
}

/// The code of an ended process, as a shell reports it.
async fn shell_code(mut child: Child) -> i32 {
    // Open until the end: a command that reads it would otherwise see its end before the signal.
    let _stdin = child.stdin.take();
    let status = tokio::time::timeout(Duration::from_secs(20), child.wait()).await.expect("it ends").unwrap();
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

fn interrupt(child: &Child) {
    if let Some(pid) = child.id() {
        // It may have ended meanwhile.
        drop(std::process::Command::new("kill").args(["-INT", &pid.to_string()]).stderr(Stdio::null()).status());
    }
}

#[tokio::test]
async fn sigint_ends_every_command_that_waits() {
    let room = Room::new(Db::sqlite()).await;
    for row in &ROWS {
        // It takes connections and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let database = format!("postgres://grantd@{address}/grantd?sslmode=disable");
        let good = row
            .good
            .replace("{issuer}", &format!("http://{address}"))
            .replace("{readyz}", &format!("http://{address}/"))
            .replace("{admin}", &format!("http://{address}/"));
        let arguments = room.arguments(row.command, &good);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let grantd = room.grantd(&room.db).with("GRANTD__DATABASE__URL", &database);
        let mut command = grantd.command(&arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        // The end of stdin never comes, where a command reads it.
        let waits = row.needs != Needs::Nothing || !row.input.is_empty();
        let held = tokio::time::timeout(
            Duration::from_secs(if row.input.is_empty() && waits { 20 } else { 1 }),
            silent.accept(),
        )
        .await;
        assert!(!row.input.is_empty() || held.is_ok() == waits, "{arguments:?} does not wait as expected");
        // A command that waits for nothing ends by itself.
        if waits {
            assert!(child.try_wait().unwrap().is_none(), "{arguments:?} did not wait");
            interrupt(&child);
        }
        assert_eq!(shell_code(child).await, if waits { 130 } else { 0 }, "{arguments:?}");
    }
}

#[tokio::test]
async fn sigint_in_the_middle_leaves_no_half_change() {
    let room = Room::new(Db::sqlite()).await;
    let before = counts(&room.db).await;
    let mut ended_early = 0;
    for (number, row) in ROWS.iter().filter(|row| row.needs == Needs::Database).enumerate() {
        let whole = copy(&room.db);
        room.run(&room.grantd(&whole), row, row.good).await;
        let changed = counts(&whole).await;
        for round in 0..3_u64 {
            let db = copy(&room.db);
            let arguments = room.arguments(row.command, row.good);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let mut child = room.grantd(&db).command(&arguments).stdin(Stdio::piped()).spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            drop(stdin.write_all(room.filled(row.input).as_bytes()).await);
            drop(stdin);
            tokio::time::sleep(Duration::from_millis(15 + round * 15 + u64::try_from(number % 13).unwrap())).await;
            interrupt(&child);
            let code = shell_code(child).await;
            assert!([0, 130].contains(&code), "{arguments:?}: {code}");
            ended_early += u32::from(code == 130);
            let after = counts(&db).await;
            assert!(after == before || after == changed, "{arguments:?}: {before:?} {after:?} {changed:?}");
        }
    }
    assert!(ended_early > 10, "{ended_early} were ended early");
}

#[tokio::test]
async fn servers_refuse_bad_arguments_and_stop_with_0_also_when_stdout_is_full() {
    for (command, bad, code) in SERVING {
        let db = Db::sqlite();
        let grantd = environment(&db);
        let arguments: Vec<&str> = [command].into_iter().chain(bad.split(' ')).collect();
        let done = grantd.run(&arguments).await;
        check(&done, command);
        assert_eq!(done.status.code(), Some(code), "{command} {bad}: {done:?}");
        for full in [false, true] {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let admin = socket.local_addr().unwrap().to_string();
            drop(socket);
            let mut process = grantd.with("GRANTD__ADMIN__LISTEN", &admin).command(&[command]);
            process.stderr(Stdio::null()).stdout(Stdio::null());
            if full {
                process.stdout(OpenOptions::new().write(true).open("/dev/full").unwrap());
            }
            let child = process.spawn().unwrap();
            let url = format!("http://{admin}/readyz");
            eventually(async || grantd.run(&["health", "--url", &url]).await.status.code(), |code| *code == Some(0))
                .await;
            interrupt(&child);
            assert_eq!(shell_code(child).await, 0, "{command}, full: {full}");
        }
    }
}

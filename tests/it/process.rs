//! The program as a process: commands, start, stop, and a database that goes away.

mod credentials;
pub mod daemon;

use std::time::{Duration, Instant};

use grantd::model::time::{Clock, UnixTime};
use serde_json::Value;

use crate::harness::Db;
use daemon::{Daemon, Grantd, Mode, Proxy, eventually};

on_both!(
    the_command_line_registers_and_a_running_server_follows,
    a_migration_printed_by_sql_is_a_seed_that_works,
    three_migrations_at_once_apply_everything_once,
    a_migration_killed_at_any_moment_completes_on_the_next_run,
    keys_rotate_and_tokens_are_explained,
    doctor_names_every_fault,
);

#[tokio::test]
async fn dev_prints_a_line_that_works_as_printed() {
    let grantd = Grantd::new(&Db::sqlite());
    let mut daemon = Daemon::start(grantd.command(&["dev"]), true).await;
    let curl = daemon.stdout_line(|line| line.trim_start().starts_with("curl ")).await;
    let answer = tokio::process::Command::new("sh").args(["-c", &curl]).output().await.unwrap();
    let json: Value = serde_json::from_slice(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    assert_eq!(
        (&json["token_type"], &json["expires_in"], &json["scope"]),
        (&"Bearer".into(), &3600.into(), &"read:data write:data".into())
    );
    daemon.stop_cleanly(Duration::from_secs(3)).await;

    // The next start has another secret, and the old one is gone; what database is configured does not matter.
    let elsewhere = grantd.with("GRANTD__DATABASE__URL", "").with("DATABASE_URL", "postgres://db.test/x");
    let elsewhere = elsewhere.with("GRANTD__KEYS__SEALING_KEY_FILE", "");
    let mut daemon = Daemon::start(elsewhere.command(&["dev", "--json"]), true).await;
    let line: Value = serde_json::from_str(&daemon.stdout_line(|line| line.starts_with('{')).await).unwrap();
    let members: Vec<&String> = line.as_object().unwrap().keys().collect();
    assert_eq!(members, ["client_id", "client_secret", "issuer", "scope", "token_endpoint"]);
    assert!(!curl.contains(line["client_secret"].as_str().unwrap()));
    let answer = daemon.token("demo", line["client_secret"].as_str().unwrap()).await;
    assert_eq!(answer.token().1["iss"], line["issuer"]);
    let health = grantd.run(&["health", "--url", &format!("http://{}/readyz", daemon.admin)]).await;
    assert_eq!(health.status.code(), Some(0), "{health:?}");
    daemon.stop_cleanly(Duration::from_secs(3)).await;
    let health = grantd.run(&["health", "--url", &format!("http://{}/readyz", daemon.admin)]).await;
    assert_eq!(health.status.code(), Some(1));
    let refused = grantd
        .run(&[
            "dev",
            "--set",
            "server.listen=0.0.0.0:0",
            "--set",
            "server.cleartext=behind-proxy",
            "--set",
            "issuer=https://a.test",
        ])
        .await;
    assert!(refused.stderr.contains("loopback only") && refused.status.code() == Some(1), "{refused:?}");
}

#[tokio::test]
async fn exit_codes_and_messages_say_what_to_do() {
    let db = Db::sqlite();
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let cases: [(&[&str], i32, &str); 9] = [
        (&["serve", "--config", "/nonexistent.toml"], 78, "/nonexistent.toml"),
        (&["config", "check", "--set", "issuer=http://as.test"], 78, "https"),
        (&["config", "check", "--set", "nonsense=1"], 78, "unknown key `nonsense`"),
        (&["frobnicate"], 2, "unrecognized subcommand"),
        (&["client", "create", " a"], 2, "1 to 255"),
        (&["client", "create", "a", "--scope", "x  y"], 2, "single spaces"),
        (&["client", "show", "nobody"], 1, "client list"),
        (&["client", "create", "a", "--claim", "aud=x"], 1, "grantd sets this claim itself"),
        (&["client", "create", "a", "--resource", "https://none.test"], 1, "no such resource"),
    ];
    for (arguments, code, part) in cases {
        let done = grantd.run(arguments).await;
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {done:?}");
        assert!(done.stderr.contains(part), "{arguments:?}: {}", done.stderr);
    }
    // The first command on a fresh machine works, and its files are its owner's alone.
    let fresh = db.directory.path().join("not/yet");
    let fresh = grantd.with("GRANTD__DATA_DIR", fresh.to_str().unwrap());
    let fresh = fresh.with("GRANTD__DATABASE__URL", "").with("GRANTD__KEYS__SEALING_KEY_FILE", "");
    assert!(fresh.run(&["doctor"]).await.stdout.contains("run `grantd migrate`"));
    assert!(!db.directory.path().join("not").exists(), "doctor makes nothing");
    fresh.ok(&["client", "create", "first"]).await;
    let again = fresh.run(&["client", "create", "first"]).await;
    assert!(again.stderr.contains("client \"first\" already exists"), "{again:?}");
    assert!(fresh.run(&["client", "secret", "add", "nobody"]).await.stderr.contains("grantd client list"));
    fresh.ok(&["doctor"]).await;
    for file in ["grantd.db", "sealing.key"] {
        let metadata = std::fs::metadata(db.directory.path().join("not/yet").join(file)).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777, 0o600, "{file}");
    }
    let unchecked = grantd
        .with("GRANTD__KEYS__SEALING_KEY_FILE", "/nonexistent/key")
        .with("GRANTD__DATABASE__URL", "postgres://h/d");
    assert_eq!(unchecked.run(&["config", "check"]).await.status.code(), Some(78));
    // No command takes a secret as an argument.
    for arguments in [
        &["client", "secret", "import", "a", "secret"][..],
        &["hash-secret", "secret"],
        &["serve", "--set", "database.url=postgres://u:p@h/d"],
    ] {
        assert!([Some(2), Some(78)].contains(&grantd.run(arguments).await.status.code()), "{arguments:?}");
    }
    // Nothing listens on port 1.
    let away = "postgres://u:hunter2@127.0.0.1:1/x";
    let done = grantd
        .with("GRANTD__DATABASE__URL", away)
        .with("GRANTD__KEYS__SEALING_KEY_FILE", "/dev/null")
        .run(&["client", "list"])
        .await;
    assert_eq!(done.status.code(), Some(69), "{done:?}");
    assert!(!done.stderr.contains("hunter2"), "{}", done.stderr);
    assert_eq!(done.stderr.matches("refused").count(), 1, "said once: {}", done.stderr);
    let printed = grantd
        .with("GRANTD__DATABASE__URL", away)
        .with("GRANTD__KEYS__SEALING_KEY_FILE", "/dev/null")
        .run(&["config", "print", "--json"])
        .await;
    assert!(printed.stdout.contains("[redacted]@127.0.0.1:1/x") && !printed.stdout.contains("hunter2"), "{printed:?}");
    for arguments in
        [&["--version"][..], &["--help"], &["client", "secret", "--help"], &["completions", "bash"], &["man"]]
    {
        let done = grantd.run(arguments).await;
        assert!(done.status.success() && !done.stdout.is_empty(), "{arguments:?}");
    }
    let hash = grantd.run_with_input(&["hash-secret"], "some secure & non-standard secret\n").await;
    let hash: grantd::crypto::secret::SecretHash = hash.stdout.trim().parse().unwrap();
    assert!(hash.verify("some secure & non-standard secret", &mut grantd::crypto::secret::HashMemory::default()));
    assert_eq!(grantd.run_with_input(&["hash-secret"], "short").await.status.code(), Some(1));
}

async fn the_command_line_registers_and_a_running_server_follows(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    grantd
        .ok(&["resource", "create", "https://api.test", "--scope", "a b", "--token-ttl", "10m", "--alg", "EdDSA"])
        .await;
    let arguments = [
        "client",
        "create",
        "billing",
        "--scope",
        "a b",
        "--default-scope",
        "a",
        "--resource",
        "https://api.test",
        "--claim",
        "tenant=acme",
        "--json",
    ];
    let created = grantd.json(&arguments).await;
    let secret = created["client_secret"].as_str().unwrap().to_owned();
    let members: Vec<&String> = created.as_object().unwrap().keys().collect();
    assert_eq!(members, ["client_id", "client_secret", "secret_id"]);
    let followed = Instant::now();
    let answer = eventually(async || daemon.token("billing", &secret).await, |answer| answer.status == 200).await;
    assert!(followed.elapsed() < Duration::from_secs(2), "{:?}", followed.elapsed());
    let (header, claims) = answer.token();
    assert_eq!(
        (&header["alg"], &claims["aud"], &claims["tenant"]),
        (&"EdDSA".into(), &"https://api.test".into(), &"acme".into())
    );
    assert_eq!(answer.ok()["expires_in"], 600);

    let second =
        grantd.json(&["client", "secret", "add", "billing", "--expires-in", "90d", "--label", "next", "--json"]).await;
    let (second_id, second_secret) = (second["secret_id"].as_str().unwrap(), second["client_secret"].as_str().unwrap());
    assert!(second["expires_at"].as_i64().unwrap() > 1_700_000_000);
    let refused = |answer: &crate::harness::Answer| answer.status == 401;
    let issued = |answer: &crate::harness::Answer| answer.status == 200;
    eventually(async || daemon.token("billing", second_secret).await, issued).await;
    daemon.token("billing", &secret).await.ok();
    grantd.ok(&["client", "secret", "revoke", "billing", created["secret_id"].as_str().unwrap()]).await;
    eventually(async || daemon.token("billing", &secret).await, refused).await;
    daemon.token("billing", second_secret).await.ok();
    let imported = grantd
        .run_with_input(&["client", "secret", "import", "billing", "--label", "old"], "a secret chosen elsewhere\n")
        .await;
    assert!(imported.status.success(), "{imported:?}");
    eventually(async || daemon.token("billing", "a+secret+chosen+elsewhere").await, issued).await;
    let expiring = grantd.json(&["client", "secret", "expiring", "--within", "91d", "--json"]).await;
    assert_eq!((expiring.as_array().unwrap().len(), &expiring[0]["secret_id"]), (1, &second_id.into()));
    assert_eq!(
        grantd.json(&["client", "secret", "expiring", "--within", "89d", "--json"]).await,
        serde_json::json!([])
    );

    grantd.ok(&["client", "disable", "billing"]).await;
    eventually(async || daemon.token("billing", second_secret).await, refused).await;
    grantd.ok(&["client", "enable", "billing"]).await;
    eventually(async || daemon.token("billing", second_secret).await, issued).await;
    grantd
        .ok(&["client", "set", "billing", "--scope", "b", "--default-scope", "b", "--token-ttl", "5m", "--no-claims"])
        .await;
    let answer = eventually(
        async || daemon.token("billing", second_secret).await,
        |answer| answer.body.contains("\"scope\":\"b\""),
    )
    .await;
    assert_eq!(answer.ok()["expires_in"], 300);
    assert!(answer.token().1.get("tenant").is_none());

    let shown = grantd.ok(&["client", "show", "billing"]).await;
    assert!(
        shown.stdout.contains("REVOKED") && shown.stdout.contains("  next  ") && shown.stdout.contains("imported"),
        "{}",
        shown.stdout
    );
    let everything_shown = shown.stdout
        + &grantd.ok(&["client", "show", "billing", "--json"]).await.stdout
        + &grantd.ok(&["client", "list"]).await.stdout;
    for secret in [secret.as_str(), second_secret, "$argon2id", "chosen elsewhere"] {
        assert!(!everything_shown.contains(secret), "a secret is shown once");
    }
    assert!(grantd.run(&["resource", "delete", "https://api.test"]).await.stderr.contains("used by billing"));
    grantd
        .ok(&["resource", "set", "https://api.test", "--scope", "b c", "--default-alg", "--introspect-by", "billing"])
        .await;
    assert_eq!(
        grantd.json(&["resource", "show", "https://api.test", "--json"]).await["introspect_by"],
        serde_json::json!(["billing"])
    );
    assert_eq!(grantd.json(&["resource", "list", "--json"]).await.as_array().unwrap().len(), 1);
    grantd.ok(&["client", "delete", "billing"]).await;
    eventually(async || daemon.token("billing", second_secret).await, refused).await;
    grantd.ok(&["resource", "delete", "https://api.test"]).await;

    let metrics = daemon.admin_get("/metrics").await;
    for name in [
        "grantd_token_requests_total{result=\"issued\",reason=\"ok\",method=\"client_secret_post\"}",
        "grantd_token_request_seconds_bucket",
        "grantd_argon2_verifications_total",
        "grantd_argon2_queue_depth",
        "grantd_registry_age_seconds",
        "grantd_registry_clients 0",
        "grantd_database_queries_total",
        "grantd_signing_seconds_count",
    ] {
        assert!(metrics.body.contains(name), "{name} is not in\n{}", metrics.body);
    }
    assert_eq!(daemon.admin_get("/livez").await.status, 200);
    assert_eq!(daemon.admin_get("/readyz").await.json()["ready"], true);
    daemon.stop_cleanly(Duration::from_secs(5)).await;
    let events: Vec<Value> = daemon.events("token.issued");
    assert!(events.len() >= 7);
    for name in [
        "timestamp",
        "client_id",
        "auth_method",
        "credential_id",
        "scope",
        "aud",
        "jti",
        "kid",
        "reason",
        "remote_addr",
        "request_id",
        "duration_us",
    ] {
        assert!(events[0].get(name).is_some(), "{name} is not in {}", events[0]);
    }
    assert!(daemon.events("client.changed").len() >= 7 && daemon.events("stopped").len() == 1);
}

async fn a_migration_printed_by_sql_is_a_seed_that_works(db: Db) {
    let grantd = Grantd::new(&db);
    let secret_file = db.directory.path().join("secret");
    let seeds = db.directory.path().join("seeds");
    std::fs::create_dir(&seeds).unwrap();
    std::fs::write(
        seeds.join("1_resource.sql"),
        "insert into resource (identifier, scope) values ('https://api.test', 'a b');",
    )
    .unwrap();
    let arguments = [
        "client",
        "create",
        "it-s.me",
        "--sql",
        "--scope",
        "a b",
        "--default-scope",
        "a",
        "--resource",
        "https://api.test",
        "--claim",
        "motto=it's; drop table client; --",
        "--token-ttl",
        "15m",
        "--secret-file",
        secret_file.to_str().unwrap(),
    ];
    let printed = grantd.ok(&arguments).await;
    assert!(printed.stderr.is_empty(), "{}", printed.stderr);
    std::fs::write(seeds.join("2_client.sql"), &printed.stdout).unwrap();
    let secret = std::fs::read_to_string(&secret_file).unwrap().trim().to_owned();
    assert!(!printed.stdout.contains(&secret));
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&secret_file).unwrap().permissions()) & 0o777,
        0o600
    );
    let again = grantd.run(&arguments).await;
    assert!(again.stderr.contains("must not exist yet"), "{again:?}");
    let shown = grantd.ok(&["client", "create", "other", "--sql", "--scope", "a"]).await;
    assert!(
        shown.stderr.trim().starts_with("gds_") && !shown.stdout.contains(shown.stderr.trim()),
        "without a file the secret is on stderr"
    );

    let grantd = grantd.with("GRANTD__DATABASE__SEEDS", seeds.to_str().unwrap());
    let status = grantd.ok(&["migrate"]).await.stdout;
    assert_eq!(status.matches("applied").count(), schema_files() + 2, "{status}");
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let (_, claims) = daemon.token("it-s.me", &secret).await.token();
    assert_eq!((&claims["motto"], &claims["aud"]), (&"it's; drop table client; --".into(), &"https://api.test".into()));
    daemon.stop_cleanly(Duration::from_secs(5)).await;
}

/// How many migrations the schema has.
pub fn schema_files() -> usize {
    std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres")).unwrap().count()
}

async fn three_migrations_at_once_apply_everything_once(db: Db) {
    let grantd = Grantd::new(&db);
    for number in 1..=20 {
        db.file(
            &format!("seeds/{number}_client.sql"),
            &format!("insert into client (client_id) values ('c{number}');"),
        );
    }
    let grantd = grantd.with("GRANTD__DATABASE__SEEDS", db.directory.path().join("seeds").to_str().unwrap());
    let at_once = ["migrate"];
    let (a, b, c) = tokio::join!(grantd.run(&at_once), grantd.run(&at_once), grantd.run(&at_once));
    let mut applied = 0;
    for done in [a, b, c] {
        assert!(done.status.success(), "{done:?}");
        applied += done.stdout.lines().filter(|line| line.starts_with("applied")).count();
    }
    assert_eq!(applied, schema_files() + 20, "each file is in the list of the one run that applied it");
    assert_eq!(grantd.json(&["client", "list", "--json"]).await.as_array().unwrap().len(), 20);
}

async fn a_migration_killed_at_any_moment_completes_on_the_next_run(db: Db) {
    let grantd = Grantd::new(&db);
    for number in 1..=60 {
        let rows: Vec<String> = (0..20).map(|row| format!("('c{number}.{row}')")).collect();
        db.file(
            &format!("seeds/{number}_clients.sql"),
            &format!("insert into client (client_id) values {};", rows.join(", ")),
        );
    }
    let grantd = grantd.with("GRANTD__DATABASE__SEEDS", db.directory.path().join("seeds").to_str().unwrap());
    let mut killed = 0;
    for round in 0..25u64 {
        let mut child = grantd.command(&["migrate"]).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(10 + round * 7)).await;
        killed += u32::from(child.try_wait().unwrap().is_none());
        drop(child.start_kill());
        child.wait().await.unwrap();
    }
    assert!(killed > 3, "only {killed} were killed while they worked");
    grantd.ok(&["migrate"]).await;
    assert_eq!(grantd.json(&["client", "list", "--json"]).await.as_array().unwrap().len(), 1200);
    grantd.ok(&["doctor"]).await;
}

async fn keys_rotate_and_tokens_are_explained(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let created = grantd.json(&["client", "create", "c", "--scope", "a", "--default-scope", "a", "--json"]).await;
    let secret = created["client_secret"].as_str().unwrap().to_owned();
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let answer = daemon.token("c", &secret).await;
    let token = answer.ok()["access_token"].as_str().unwrap().to_owned();
    let explained = grantd.run_with_input(&["token", "inspect", "--json"], &token).await;
    let explained: Value = serde_json::from_str(&explained.stdout).unwrap();
    assert_eq!((&explained["valid"], &explained["claims"]["sub"]), (&true.into(), &"c".into()));
    let (before, after) = (&token[..token.len() - 5], &token[token.len() - 4..]);
    let altered = format!("{before}{}{after}", if token.as_bytes()[token.len() - 5] == b'A' { 'B' } else { 'A' });
    for (wrong, part) in
        [(altered.as_str(), "signature does not verify"), ("a.b", "has 2 parts"), ("!.e30.x", "not base64url")]
    {
        let done = grantd.run_with_input(&["token", "inspect"], wrong).await;
        assert!(done.status.code() == Some(1) && done.stderr.contains(part), "{wrong}: {done:?}");
    }

    let next = grantd.json(&["key", "rotate", "--json"]).await;
    let keys = grantd.json(&["key", "list", "--json"]).await;
    let states: Vec<&str> = keys.as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["active", "next"]);
    eventually(async || daemon.get("/jwks").await, |answer| answer.body.contains(next["kid"].as_str().unwrap())).await;
    assert_eq!(daemon.token("c", &secret).await.token().0["kid"], keys[0]["kid"], "published, not yet signing");
    let pem = db.directory.path().join("key.pem");
    for (arguments, alg) in [
        (&["genpkey", "-algorithm", "ed25519"][..], "EdDSA"),
        (&["ecparam", "-name", "prime256v1", "-genkey", "-noout"], "ES256"),
        (&["genrsa", "-traditional", "2048"], "PS256"),
    ] {
        let made = tokio::process::Command::new("openssl").args(arguments).output().await.unwrap();
        std::fs::write(&pem, made.stdout).unwrap();
        let imported = grantd.json(&["key", "import", pem.to_str().unwrap(), "--alg", alg, "--json"]).await;
        assert_eq!(imported["alg"], alg);
    }
    assert!(
        grantd
            .run(&["key", "import", pem.to_str().unwrap(), "--alg", "ES256"])
            .await
            .stderr
            .contains("ES256 takes P-256")
    );
    assert_eq!(
        grantd.run(&["key", "remove", keys[0]["kid"].as_str().unwrap()]).await.status.code(),
        Some(2),
        "--now is asked for"
    );
    let removed = grantd.ok(&["key", "remove", keys[0]["kid"].as_str().unwrap(), "--now"]).await;
    let follows = format!("the next key {} signs from now on", next["kid"].as_str().unwrap());
    assert!(removed.stderr.contains(&follows), "{removed:?}");
    let gone = keys[0]["kid"].as_str().unwrap();
    eventually(async || daemon.token("c", &secret).await, |answer| answer.token().0["kid"] != gone).await;
    assert!(!daemon.get("/jwks").await.body.contains(gone));
    let done = grantd.run_with_input(&["token", "inspect"], &token).await;
    assert!(done.stderr.contains("no key of this server has the kid"), "{done:?}");

    // A key that was rotated out long ago does not come back when its successor is removed.
    grantd.ok(&["key", "generate", "--alg", "RS256"]).await;
    grantd.ok(&["key", "rotate", "--alg", "RS256"]).await;
    let keys = grantd.json(&["key", "list", "--json"]).await;
    let kids: Vec<&str> = keys
        .as_array()
        .unwrap()
        .iter()
        .filter(|key| key["alg"] == "RS256")
        .map(|key| key["kid"].as_str().unwrap())
        .collect();
    for (kid, ago) in kids.iter().zip([300_000, 200_000]) {
        let long_ago = UnixTime(Clock::System.now().0 - ago).0;
        db.sql(&format!("update signing_key set active_at = {long_ago} where kid = '{kid}'")).await.unwrap();
    }
    let removed = grantd.ok(&["key", "remove", kids[1], "--now"]).await;
    assert!(removed.stderr.contains("no next key was published, so a new one was made"), "{removed:?}");
    let keys = grantd.json(&["key", "list", "--json"]).await;
    assert!(keys.as_array().unwrap().iter().all(|key| key["kid"] != kids[0]), "{keys}");
    daemon.stop_cleanly(Duration::from_secs(5)).await;
}

async fn doctor_names_every_fault(db: Db) {
    let grantd = Grantd::new(&db);
    let done = grantd.run(&["doctor"]).await;
    assert!(done.status.code() == Some(1) && done.stdout.contains("grantd migrate"), "{done:?}");
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["key", "generate"]).await;
    let healthy = grantd.ok(&["doctor"]).await;
    assert!(healthy.stdout.contains("no faults"), "{healthy:?}");
    std::fs::write(
        db.directory.path().join("sealing.key"),
        grantd::crypto::seal::SealingKey::generate_base64().unwrap().as_str(),
    )
    .unwrap();
    let done = grantd.run(&["doctor", "--json"]).await;
    let faults: Value = serde_json::from_str(&done.stdout).unwrap();
    let faults =
        faults["faults"].as_array().unwrap().iter().map(|fault| fault.as_str().unwrap()).collect::<Vec<_>>().join("\n");
    assert!(faults.contains("sealed under sealing key"), "{faults}");
    let listed = grantd.ok(&["key", "list"]).await;
    let warning = "warning: its public key is left out: ";
    assert!(listed.stderr.contains(warning) && listed.stderr.contains("sealed under sealing key"), "{listed:?}");
    // A server whose keys do not open refuses to start, and says why and what to do.
    let started = grantd.run(&["serve"]).await;
    assert!(started.status.code() == Some(78) && started.stderr.contains("sealing key"), "{started:?}");
}

#[tokio::test]
async fn serve_refuses_an_older_schema_and_names_the_command() {
    let db = Db::postgres().await;
    let grantd = Grantd::new(&db);
    let done = grantd.run(&["serve"]).await;
    assert!(done.status.code() == Some(1) && done.stderr.contains("grantd migrate"), "{done:?}");
    let denied = db.url.replacen("postgres@", "nosuchrole@", 1);
    if denied != db.url {
        let done = grantd.with("GRANTD__DATABASE__URL", &denied).run(&["serve"]).await;
        assert!(done.status.code() == Some(78) && done.stderr.contains("nosuchrole"), "{done:?}");
    }
    let mut daemon =
        Daemon::start(grantd.with("GRANTD__DATABASE__AUTO_MIGRATE", "true").command(&["serve"]), false).await;
    daemon.stop_cleanly(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn sigterm_drains_and_exits_0_despite_hanging_connections() {
    let db = Db::sqlite();
    let mut daemon = Daemon::start(Grantd::new(&db).command(&["serve"]), false).await;
    assert!(daemon.events("database.embedded").is_empty(), "a database was named");
    let mut held = Vec::new();
    for number in 0..200 {
        let mut stream = tokio::net::TcpStream::connect(daemon.public).await.unwrap();
        if number % 2 == 0 {
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"POST /token HTTP/1.1\r\nhost:").await.unwrap();
        }
        held.push(stream);
    }
    daemon.terminate();
    let admin = daemon.admin;
    eventually(
        async || daemon::get(admin, "/readyz").await,
        |answer| answer.status == 503 && answer.body.contains("told to stop"),
    )
    .await;
    daemon.stop_cleanly(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn auto_migration_runs_once_the_database_appears() {
    let db = Db::postgres().await;
    db.file("seeds/1_client.sql", "insert into client (client_id, scope) values ('seeded', 'a');");
    let proxy = Proxy::start(&db.url).await;
    proxy.set(Mode::Refuse);
    let grantd =
        Grantd::new(&db).with("GRANTD__DATABASE__URL", &proxy.url).with("GRANTD__DATABASE__AUTO_MIGRATE", "true");
    let grantd = grantd.with("GRANTD__DATABASE__SEEDS", db.directory.path().join("seeds").to_str().unwrap());
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    proxy.set(Mode::Pass);
    eventually(async || daemon.admin_get("/readyz").await, |answer| answer.status == 200).await;
    assert!(daemon.admin_get("/metrics").await.body.contains("grantd_registry_clients 1"));
    daemon.stop_cleanly(Duration::from_secs(5)).await;
}

/// Down at start, lost, frozen, read-only, too long away; never 401, and back without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_trouble_is_never_a_bad_credential() {
    let db = Db::postgres().await;
    let direct = Grantd::new(&db);
    direct.ok(&["migrate"]).await;
    let created = direct.json(&["client", "create", "c", "--scope", "a", "--default-scope", "a", "--json"]).await;
    let secret = created["client_secret"].as_str().unwrap().to_owned();
    let proxy = Proxy::start(&db.url).await;
    proxy.set(Mode::Refuse);
    let through = direct.with("GRANTD__DATABASE__URL", &proxy.url).with("GRANTD__REGISTRY__MAX_STALE", "8s");
    let mut daemon = Daemon::start(through.command(&["serve"]), false).await;
    let unavailable = |answer: &crate::harness::Answer| answer.status == 503;

    for path in ["/jwks", "/.well-known/oauth-authorization-server"] {
        let answer = daemon.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("cache-control")),
            (503, "no-store"),
            "an empty {path} would be kept for minutes"
        );
    }
    let answer = daemon.token("c", &secret).await;
    answer.refusal(axum::http::StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(daemon.admin_get("/livez").await.status, 200, "alive, not ready");
    let readyz = daemon.admin_get("/readyz").await;
    assert!(readyz.status == 503 && readyz.body.contains("unavailable"), "{readyz:?}");
    proxy.set(Mode::Pass);
    eventually(async || daemon.token("c", &secret).await, |answer| answer.status == 200).await;
    assert_eq!(daemon.admin_get("/readyz").await.status, 200);

    for mode in [Mode::Refuse, Mode::Freeze] {
        proxy.set(mode);
        // What is known wrong may be called wrong until it might be new.
        let guesses = std::sync::atomic::AtomicU32::new(0);
        let guess = async || {
            // Each for another client, or the guesser would be slowed down.
            let number = guesses.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            daemon.token(&format!("nobody{number}"), "wrong-but-long-enough").await
        };
        eventually(guess, unavailable).await;
        for _ in 0..5 {
            daemon.token("c", &secret).await.ok();
            assert_eq!(daemon.token("nobody", &secret).await.status, 503);
        }
        if mode == Mode::Freeze {
            eventually(async || daemon.token("c", &secret).await, unavailable).await;
            assert_eq!(daemon.admin_get("/readyz").await.status, 503, "older than registry.max_stale");
        }
        proxy.set(Mode::Pass);
        let back = Instant::now();
        eventually(async || daemon.token("nobody", &secret).await, |answer| answer.status == 401).await;
        assert!(back.elapsed() < Duration::from_secs(5), "{mode:?}: {:?}", back.elapsed());
        daemon.token("c", &secret).await.ok();
    }

    let name = db.url.rsplit('/').next().unwrap();
    let end_sessions = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and pid <> pg_backend_pid()"
    );
    db.sql(&format!("alter database {name} set default_transaction_read_only = on; {end_sessions}")).await.unwrap();
    eventually(async || daemon.token("nobody", &secret).await, unavailable).await;
    daemon.token("c", &secret).await.ok();
    assert!(daemon.admin_get("/readyz").await.body.contains("read-only"));
    db.sql(&format!(
        "set transaction read write; alter database {name} reset default_transaction_read_only; {end_sessions}"
    ))
    .await
    .unwrap();
    eventually(async || daemon.token("nobody", &secret).await, |answer| answer.status == 401).await;

    daemon.stop_cleanly(Duration::from_secs(8)).await;
    let refused = daemon.events("token.refused");
    assert!(
        refused.iter().any(|event| event["reason"] == "registry_unusable")
            && refused.iter().any(|event| event["reason"] == "database_unavailable")
    );
    assert!(!refused.iter().any(|event| event["client_id"] == "c" && event["reason"] == "unknown_client"));
}

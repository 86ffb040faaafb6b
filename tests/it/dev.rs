//! `grantd dev`: what it tells a person, and what it offers to integration tests of other programs.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::Db;
use crate::process::daemon::{Daemon, Done, Grantd, eventually};
use crate::token_get::free_address;

/// Runs a command as a reader who has pasted it into a shell in `directory`. The program is not on the path.
async fn paste(directory: &Path, command: &str) -> Done {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).env_clear().env("PATH", std::env::var("PATH").unwrap()).current_dir(directory);
    let output = shell.output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Done { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The indented lines of a text: its commands.
fn commands(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_prefix("    ")).map(|line| line.trim().to_owned()).collect()
}

#[tokio::test]
async fn each_request_is_one_line_and_the_next_steps_work_as_printed() {
    let db = Db::sqlite();
    let directory = db.directory.path();
    let (public, admin) = (free_address(), free_address());
    let program = Path::new(env!("CARGO_BIN_EXE_grantd"));
    let mut dev = Command::new(program);
    let listen = [format!("server.listen={public}"), format!("admin.listen={admin}")];
    dev.args(["dev", "--set", &listen[0], "--set", &listen[1]]).env_clear().current_dir(directory).kill_on_drop(true);
    let log = std::fs::File::create(directory.join("log")).unwrap();
    let shown = std::fs::File::create(directory.join("shown")).unwrap();
    let mut dev = dev.stdin(Stdio::null()).stdout(shown).stderr(log).spawn().unwrap();
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let welcome = eventually(async || read("shown"), |text| text.contains("Stop with Ctrl-C")).await;
    let curl = welcome.lines().find(|line| line.trim_start().starts_with("curl ")).unwrap().trim().to_owned();
    let token = paste(directory, &curl).await;
    assert!(token.stdout.contains("access_token"), "{token:?}");

    let lesson = eventually(async || read("shown"), |text| text.contains("grantd token get")).await;
    let (_, lesson) = lesson.split_once("\nThat was the first token.").unwrap();
    let log = read("log");
    let last = log.lines().last().unwrap();
    let issued = format!(
        "POST /token 200: demo got a token for http://{public}, with read:data write:data  (client_secret_post from 127.0.0.1, "
    );
    assert!(last.contains(&issued) && last.ends_with(" ms)"), "{log}");
    let [inspect, create, get] = commands(lesson).try_into().unwrap();
    let inspected = paste(directory, &inspect).await;
    assert!(inspected.status.success() && inspected.stdout.starts_with("valid\n"), "{inspect}: {inspected:?}");
    let created = paste(directory, &create).await;
    assert!(created.status.success(), "{create}: {created:?}");
    let got = eventually(async || paste(directory, &get).await, |done| !done.stderr.contains("invalid_client")).await;
    assert!(got.status.success() && got.stdout.split('.').count() == 3, "{get}: {got:?}");

    let wrong = paste(directory, &curl.replace("client_secret=gds_", "client_secret=other_")).await;
    assert!(wrong.stdout.contains("invalid_client"), "{wrong:?}");
    // The new client may have been refused before, until the server knew it.
    let log = eventually(async || read("log"), |text| text.contains("POST /token 401 invalid_client: demo, ")).await;
    let line = log.lines().rfind(|line| line.contains("POST /token 401 invalid_client: demo, ")).unwrap();
    assert!(line.contains(" What to do: "), "{line}");
    assert_eq!(read("shown").matches("Two next steps").count(), 1);
    assert!(!log.contains("gds_"), "no secret is in the log: {log}");
    assert!(log.contains("GET /jwks 200") && log.contains("client billing was created or changed"), "{log}");

    let pid = dev.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    let status = tokio::time::timeout(Duration::from_secs(10), dev.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn tests_of_others_choose_the_client_its_secret_scope_and_resources() {
    let db = Db::sqlite();
    let address = free_address();
    let file = db.file("secret", "chosen by 'a' test & fixed\n").display().to_string();
    let grantd = Grantd::new(&db).with("container", "docker");
    let port = address.port().to_string();
    let grantd = grantd.with("GRANTD__SERVER__LISTEN", &format!("127.0.0.1:{port}"));
    let options = ["dev", "--json", "--listen", "0.0.0.0", "--client-id", "it's me", "--client-secret-file", &file];
    for (scope, resources) in [("a", &["https://one.test"][..]), ("a b:c", &["https://one.test", "https://two.test"])] {
        let resources = resources.iter().flat_map(|uri| ["--resource", uri]);
        let arguments: Vec<&str> = options.into_iter().chain(["--scope", scope]).chain(resources).collect();
        let mut daemon = Daemon::start(grantd.command(&arguments), true).await;
        assert_eq!(daemon.public.to_string(), format!("0.0.0.0:{port}"));
        let line: Value = serde_json::from_str(&daemon.stdout_line(|line| line.starts_with('{')).await).unwrap();
        let issuer = format!("http://127.0.0.1:{port}");
        let expected = json!({"issuer": issuer, "token_endpoint": format!("{issuer}/token"), "client_id": "it's me",
            "client_secret": "chosen by 'a' test & fixed", "scope": scope});
        assert_eq!(line, expected);
        let get = [
            "token",
            "get",
            "--issuer",
            &issuer,
            "--client",
            "it's me",
            "--secret-file",
            &file,
            "--json",
            "--resource",
            "https://one.test",
        ];
        let answer = grantd.json(&get).await;
        assert_eq!(answer["scope"], scope);
        daemon.stop_cleanly(Duration::from_secs(5)).await;
        // Without --json, the line for curl works too.
        let plain: Vec<&str> = arguments.iter().copied().filter(|argument| *argument != "--json").collect();
        let mut daemon = Daemon::start(grantd.command(&plain), true).await;
        let curl = daemon.stdout_line(|line| line.trim_start().starts_with("curl ")).await;
        let token = paste(db.directory.path(), &curl).await;
        assert!(token.stdout.contains("access_token") && !curl.contains("chosen by"), "{curl}: {token:?}");
        daemon.stop_cleanly(Duration::from_secs(5)).await;
    }
    let short = db.file("short", "short\n").display().to_string();
    let refused = grantd.run(&["dev", "--client-secret-file", &short]).await;
    assert!(refused.status.code() == Some(1) && refused.stderr.contains("at least 16 bytes"), "{refused:?}");
}

#[tokio::test]
async fn all_addresses_are_for_containers_and_asked_for() {
    let db = Db::sqlite();
    let grantd = Grantd::new(&db);
    let everywhere = grantd.with("GRANTD__SERVER__LISTEN", "0.0.0.0:0").with("container", "podman");
    for arguments in [&["dev"][..], &["dev", "--listen", "127.0.0.1", "--set", "admin.listen=0.0.0.0:0"]] {
        let refused = everywhere.run(arguments).await;
        assert!(refused.status.code() == Some(1) && refused.stderr.contains("loopback only"), "{refused:?}");
        assert!(refused.stderr.contains("grantd dev --listen 0.0.0.0"), "{refused:?}");
    }
    let without_port = grantd.with("container", "podman").run(&["dev", "--listen", "0.0.0.0"]).await;
    assert!(
        without_port.status.code() == Some(1) && without_port.stderr.contains("GRANTD__ISSUER"),
        "{without_port:?}"
    );
    // On a machine that is no container; Docker marks its containers by this file.
    if !Path::new("/.dockerenv").exists() && std::env::var_os("container").is_none() {
        let refused = grantd.run(&["dev", "--listen", "0.0.0.0"]).await;
        assert!(refused.status.code() == Some(1) && refused.stderr.contains("this process is in none"), "{refused:?}");
    }
}

/// The service `grantd` of the Compose file in the guide, without containers: the program with its arguments, its variables
/// and its secret.
#[tokio::test]
async fn the_compose_file_of_the_guide_gives_the_token_that_it_promises() {
    let page = include_str!("../../docs/guides/integration-tests.md");
    let block = |language: &str| page.split(&format!("```{language}\n")).nth(1).unwrap().split("```").next().unwrap();
    let compose = block("yaml");
    let command = compose.lines().find_map(|line| line.trim().strip_prefix("command: ")).unwrap();
    let arguments: Vec<String> = serde_json::from_str(command).unwrap();
    let mounted = "/run/secrets/client_secret";
    assert!(
        arguments.iter().any(|argument| argument == mounted) && compose.contains("file: client.secret"),
        "{compose}"
    );
    assert!(compose.contains("network_mode: service:grantd"), "the tests reach the issuer by its own URL");
    let db = Db::sqlite();
    let secret = db.file("client.secret", "only-for-tests-0123\n").display().to_string();
    assert!(page.contains("only-for-tests-0123"), "{page}");
    let address = free_address();
    // As in the image: both listeners on all addresses.
    let grantd = Grantd::new(&db).with("container", "docker");
    let grantd = grantd.with("GRANTD__SERVER__LISTEN", &format!("0.0.0.0:{}", address.port()));
    let grantd = grantd.with("GRANTD__ADMIN__LISTEN", "0.0.0.0:0");
    let arguments: Vec<&str> =
        arguments.iter().map(|argument| if argument == mounted { secret.as_str() } else { argument }).collect();
    let mut daemon = Daemon::start(grantd.command(&arguments), true).await;
    let issuer = format!("http://127.0.0.1:{}", address.port());
    let answer = grantd
        .json(&["token", "get", "--issuer", &issuer, "--client", "tester", "--secret-file", &secret, "--json"])
        .await;
    assert_eq!((&answer["scope"], &answer["token_type"]), (&"orders:read orders:write".into(), &"Bearer".into()));
    let inspected = grantd.run_with_input(&["token", "inspect", "--issuer", &issuer], &answer.to_string()).await;
    assert!(inspected.stdout.contains("aud        https://orders.example.com\n"), "{inspected:?}");
    daemon.stop_cleanly(Duration::from_secs(5)).await;
}

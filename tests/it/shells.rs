//! Manners of the command line: confirmation, the nearest id, the next step, completion, progress.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::assertion::Signer;
use crate::harness::Db;
use crate::process::daemon::{Daemon, Done, Grantd, eventually};
use crate::pseudoterminal::Terminal;

on_both!(
    a_deletion_asks_on_a_terminal_and_a_script_is_not_asked,
    a_mistyped_id_offers_the_nearest,
    the_nearest_id_is_found_among_many,
    the_next_step_works_as_it_is_printed,
    ids_are_completed_in_bash,
    completion_is_silent_when_it_fails,
);

async fn a_deletion_asks_on_a_terminal_and_a_script_is_not_asked(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["resource", "create", "https://api.test", "--scope", "a"]).await;
    for id in ["one", "two", "three", "four"] {
        grantd.ok(&["client", "create", id, "--scope", "a"]).await;
    }
    let exists = async |id: &str| grantd.run(&["client", "show", id]).await.status.success();
    for no in ["\n", "n\n", "one\n", "\u{4}"] {
        let shown = Terminal::new(80).run(grantd.command(&["client", "delete", "one"]), no).await;
        assert_eq!(shown.status.code(), Some(1), "{shown:?}");
        assert!(shown.text.contains("delete client one with 1 secret, and revoke its tokens? [y/N]"), "{shown:?}");
        assert!(shown.text.contains("nothing is deleted") && exists("one").await, "{shown:?}");
    }
    let shown = Terminal::new(80).run(grantd.command(&["client", "rm", "one"]), "y\n").await;
    assert!(shown.status.success() && shown.text.contains("client one is deleted"), "{shown:?}");
    let shown = Terminal::new(80).run(grantd.command(&["client", "delete", "two", "--yes"]), "").await;
    assert!(shown.status.success() && !shown.text.contains("[y/N]"), "{shown:?}");
    grantd.ok(&["client", "delete", "three"]).await;
    assert!(!exists("one").await && !exists("two").await && !exists("three").await && exists("four").await);
    // A client that does not exist is not asked about, and one whose rows cannot be read can be deleted.
    let shown = Terminal::new(80).run(grantd.command(&["client", "delete", "fuor"]), "y\n").await;
    assert!(shown.status.code() == Some(1) && shown.text.contains("did you mean four?"), "{shown:?}");
    grantd.ok(&["client", "cert", "add", "four", "--san-dns", "a.test"]).await;
    db.sql("update client_certificate set value = 'x', kind = 'san_ip'").await.unwrap();
    let shown = Terminal::new(80).run(grantd.command(&["client", "delete", "four"]), "yes\n").await;
    assert!(shown.status.success() && shown.text.contains("delete client four with its credentials"), "{shown:?}");

    let arguments = ["resource", "delete", "https://api.test"];
    let shown = Terminal::new(80).run(grantd.command(&arguments), "n\n").await;
    assert!(shown.status.code() == Some(1) && shown.text.contains("delete resource https://api.test?"), "{shown:?}");
    let shown = Terminal::new(80).run(grantd.command(&arguments), "Y\n").await;
    assert!(shown.status.success(), "{shown:?}");

    let issuer = "https://ci.test";
    grantd.ok(&["trusted-issuer", "create", issuer, "--kind", "oidc", "--offline"]).await;
    let arguments = ["trusted-issuer", "delete", issuer, "--with-rules"];
    let shown = Terminal::new(80).run(grantd.command(&arguments), "n\n").await;
    let asked = "delete issuer https://ci.test with its rules (0)? [y/N]";
    assert!(shown.status.code() == Some(1) && shown.text.contains(asked), "{shown:?}");
    grantd.ok(&[&arguments[..], &["--yes"]].concat()).await;
}

fn offers(done: &Done, nearest: &str) {
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(done.stderr.contains(&format!("; did you mean {nearest}? `grantd ")), "{done:?}");
}

async fn a_mistyped_id_offers_the_nearest(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["resource", "create", "https://api.example.com", "--scope", "a"]).await;
    let created = grantd.json(&["client", "create", "billing", "--scope", "a", "--json"]).await;
    let secret = created["secret_id"].as_str().unwrap();
    let file = db.file("k", &Signer::es256().named("2026-01").jwk().to_string());
    grantd.ok(&["client", "key", "add", "billing", "--jwk", file.to_str().unwrap()]).await;
    let cert = grantd.json(&["client", "cert", "add", "billing", "--san-dns", "a.test", "--json"]).await;
    let cert = cert["cert_id"].as_str().unwrap();
    let key = grantd.json(&["key", "generate", "--json"]).await;
    let kid = key["kid"].as_str().unwrap();
    for arguments in [
        &["client", "show", "biling"][..],
        &["client", "show", "Billing"],
        &["client", "delete", "bliling"],
        &["client", "disable", "illing"],
        &["client", "set", "billingg", "--scope", "a"],
        &["client", "secret", "add", "bill"],
        &["client", "secret", "list", "billimg"],
        &["client", "secret", "revoke", "billimg", "x"],
        &["client", "key", "list", "biling"],
    ] {
        offers(&grantd.run(arguments).await, "billing");
    }
    // The first six characters of an id, and one that lacks its last.
    for (arguments, nearest) in [
        (&["client", "secret", "revoke", "billing", &secret[..6]][..], secret),
        (&["client", "secret", "retire", "billing", &secret[1..], "--if-unused", "1h"], secret),
        (&["client", "key", "remove", "billing", "2026-02"], "2026-01"),
        (&["client", "cert", "rm", "billing", &cert[..cert.len() - 1]], cert),
        (&["resource", "show", "https://api.exmaple.com"], "https://api.example.com"),
        (&["resource", "rm", "https://api.example.co"], "https://api.example.com"),
        (&["key", "show", &kid[..10]], kid),
        (&["key", "rm", &kid[1..], "--now"], kid),
    ] {
        offers(&grantd.run(arguments).await, nearest);
    }
    for arguments in [&["client", "show", "payroll"][..], &["key", "show", "nothing-like-it"]] {
        let done = grantd.run(arguments).await;
        assert!(done.status.code() == Some(1) && !done.stderr.contains("did you mean"), "{done:?}");
    }
    assert!(grantd.run(&["client", "show", "billing"]).await.status.success(), "nothing was deleted");
}

async fn the_nearest_id_is_found_among_many(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let numbers = if db.is_postgres() {
        "select 'p' || g as id from generate_series(1, 20000) g"
    } else {
        "with recursive n(g) as (select 1 union all select g + 1 from n where g < 20000) select 'p' || g as id from n"
    };
    db.sql(&format!("insert into client (client_id) select id from ({numbers}) as t")).await.unwrap();
    db.sql("insert into client (client_id) values ('payroll')").await.unwrap();
    // The ids that share a beginning with the first are all far away in order, so exact lookups find it.
    for typed in ["pyroll", "ayroll", "apyroll", "paytoll", "payrolll", "payro"] {
        let started = Instant::now();
        let done = grantd.run(&["client", "show", typed]).await;
        offers(&done, "payroll");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
}

async fn the_next_step_works_as_it_is_printed(db: Db) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let issuer = format!("http://127.0.0.1:{port}");
    let grantd =
        Grantd::new(&db).with("GRANTD__SERVER__LISTEN", &issuer["http://".len()..]).with("GRANTD__ISSUER", &issuer);
    grantd.ok(&["migrate"]).await;
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let directory = db.directory.path();
    let next = |done: &Done| {
        let (what, command) = done.stderr.split_once(":\n").unwrap_or_else(|| panic!("{done:?}"));
        assert!(what.starts_with("next: ") && command.starts_with("  ") && command.lines().count() == 1, "{done:?}");
        command.trim().to_owned()
    };
    let paste = async |command: &str, input: &str| {
        // The program is not on the path. Without a terminal curl reads the secret from stdin.
        let mut shell = with_environment(&grantd.with("PATH", &std::env::var("PATH").unwrap()), "setsid");
        shell.args(["sh", "-c", command]).current_dir(directory).stdin(Stdio::piped());
        let mut child = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read its input closes it.
        drop(stdin.write_all(input.as_bytes()).await);
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command}: {text} {}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let is_token = |answer: &String| answer.contains("\"access_token\"");
    let resource = grantd.ok(&["resource", "create", "https://api.test", "--scope", "a b"]).await;
    let made = paste(&next(&resource), "").await;
    assert!(made.contains("client_id      my-client\n"), "{made}");

    let arguments = ["client", "create", "billing", "--scope", "a b", "--resource", "https://api.test"];
    let created = grantd.ok(&arguments).await;
    let line = created.stdout.lines().find(|line| line.starts_with("client_secret")).unwrap();
    let secret = line.split_whitespace().nth(1).unwrap();
    let token = eventually(async || paste(&next(&created), &format!("{secret}\n")).await, is_token).await;
    assert!(token.contains("\"scope\":\"a b\""), "{token}");
    assert!(!created.stderr.contains(secret), "{created:?}");

    let file = directory.join("it's a file");
    let with_file = ["--default-scope", "a", "--secret-file", file.to_str().unwrap()];
    let created = grantd.ok(&[&["client", "create", "filed", "--scope", "a b"][..], &with_file].concat()).await;
    let token = eventually(async || paste(&next(&created), "").await, is_token).await;
    assert!(token.contains("\"scope\":\"a\""), "{token}");

    let created = grantd.ok(&["client", "create", "keyed", "--no-secret"]).await;
    let added = paste(&next(&created), "").await;
    assert!(added.contains("ES256"), "{added}");
    for id in ["it's", "-x"] {
        let created = grantd.ok(&["client", "create", "--scope", "a", "--", id]).await;
        assert!(next(&created).contains(" client show "), "{created:?}");
        assert!(paste(&next(&created), "").await.contains(&format!("client_id             {id}\n")));
    }
    let quiet = grantd.ok(&["client", "create", "quiet", "--json"]).await;
    assert!(quiet.stderr.is_empty(), "{quiet:?}");
    daemon.stop_cleanly(Duration::from_secs(5)).await;
}

/// Another program with the environment of grantd.
fn with_environment(grantd: &Grantd, program: &str) -> Command {
    let mut command = Command::new(program);
    let ours = grantd.command(&[]);
    command.env_clear().envs(ours.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// The words that bash offers behind a line, by the function that the script registers.
async fn offered(grantd: &Grantd, line: &str) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_grantd");
    let script = format!(
        r#"source <("{program}" completions bash)
        COMP_LINE={line:?}; COMP_LINE="{program}${{COMP_LINE#grantd}}"; COMP_POINT=${{#COMP_LINE}}; COMP_WORDBREAKS=$' \t\n"><=;|&(:'
        read -ra COMP_WORDS <<<"$COMP_LINE"; [[ $COMP_LINE != *' ' ]] || COMP_WORDS+=("")
        COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        _grantd_ids "${{COMP_WORDS[0]}}" "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
        printf '%s\n' "${{COMPREPLY[@]}}""#
    );
    let mut shell = with_environment(grantd, "bash");
    shell.args(["--norc", "-c", &script]);
    let output = shell.output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
    String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

async fn ids_are_completed_in_bash(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    for uri in ["https://api.test/a", "https://api.test/b"] {
        grantd.ok(&["resource", "create", uri, "--scope", "a"]).await;
    }
    for id in ["billing", "bill-of-fare", "payroll", "a space"] {
        grantd.ok(&["client", "create", id, "--scope", "a", "--no-secret"]).await;
    }
    let secret = grantd.json(&["client", "secret", "add", "billing", "--json"]).await;
    let file = db.file("k", &Signer::es256().named("-2026").jwk().to_string());
    grantd.ok(&["client", "key", "add", "payroll", "--jwk", file.to_str().unwrap()]).await;
    let key = grantd.json(&["key", "generate", "--json"]).await;
    let secret_id = secret["secret_id"].as_str().unwrap();
    for (line, words) in [
        ("grantd client show bi", &["bill-of-fare", "billing"][..]),
        ("grantd client rm pa", &["payroll"]),
        ("grantd client show ", &["a\\ space", "bill-of-fare", "billing", "payroll"]),
        ("grantd client secret revoke billing ", &[secret_id]),
        ("grantd client key remove payroll ", &["-2026"]),
        ("grantd key show ", &[key["kid"].as_str().unwrap()]),
        // Bash completes what follows the colon.
        ("grantd resource show https://api.test/", &["//api.test/a", "//api.test/b"]),
        ("grantd client set billing --resource https://api.test/a", &["//api.test/a"]),
        ("grantd client show nobody", &[]),
        // The words of clap's script, where no id is expected.
        ("grantd client dis", &["disable"]),
        ("grantd client show --ut", &["--utc"]),
    ] {
        assert_eq!(offered(&grantd, line).await, words, "{line}");
    }
    // A file of configuration that the line names is used.
    let other = db.file("other.toml", "[database]\nurl = \"sqlite:/nonexistent/other.db\"\n");
    let elsewhere = grantd.with("GRANTD__DATABASE__URL", "");
    let line = format!("grantd --config {} client show bi", other.display());
    assert!(offered(&elsewhere, &line).await.is_empty());
    assert_eq!(offered(&grantd, "grantd --json client show billi").await, ["billing"]);
    // A bounded number of ids is offered, and none of them is a secret.
    let values: Vec<String> = (0..300).map(|n| format!("('many{n:03}')")).collect();
    db.sql(&format!("insert into client (client_id) values {}", values.join(", "))).await.unwrap();
    let many = grantd.ok(&["complete", "--", "client", "show", "many"]).await;
    assert_eq!((many.stdout.lines().count(), many.stdout.lines().next()), (100, Some("many000")), "{many:?}");
    let all = grantd.ok(&["complete", "--", "client", "secret", "revoke", "billing", ""]).await;
    assert!(!all.stdout.contains("gds_") && !all.stdout.contains(secret["client_secret"].as_str().unwrap()), "{all:?}");
}

async fn completion_is_silent_when_it_fails(db: Db) {
    let away = Grantd::new(&db).with("GRANTD__DATABASE__URL", "postgres://u:p@127.0.0.1:1/x");
    let missing = Grantd::new(&db).with("GRANTD__DATABASE__URL", "sqlite:/nonexistent/grantd.db");
    let wrong = Grantd::new(&db).with("GRANTD__NONSENSE", "1");
    // Without a schema.
    let empty = Grantd::new(&db);
    for grantd in [away, missing, wrong, empty] {
        for words in
            [&["client", "show", "b"][..], &["nonsense", ""], &[], &["--config"], &["client", "show", "\u{1b}"]]
        {
            let done = grantd.ok(&[&["complete", "--"], words].concat()).await;
            assert!(done.stdout.is_empty() && done.stderr.is_empty(), "{words:?}: {done:?}");
        }
    }
    assert!(!std::path::Path::new("/nonexistent").exists());
}

#[tokio::test]
async fn a_command_that_takes_longer_than_a_second_tells_its_progress() {
    let db = Db::postgres().await;
    db.file("seeds/1_slow.sql", "do $$ begin perform pg_sleep(2.2); end $$;");
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let seeded = grantd.with("GRANTD__DATABASE__SEEDS", db.directory.path().join("seeds").to_str().unwrap());
    let shown = Terminal::new(80).run_with_stderr(seeded.command(&["migrate"])).await;
    assert!(shown.status.success() && shown.text.contains("migrating (1 s)"), "{shown:?}");
    assert!(shown.text.ends_with("\r\u{1b}[K"), "the line is cleared: {shown:?}");
    // Nothing of it is seen when it is fast, or without a terminal.
    let shown = Terminal::new(80).run_with_stderr(seeded.command(&["migrate"])).await;
    assert!(!shown.text.contains(" s)"), "{shown:?}");
}

#[tokio::test]
async fn help_has_examples_and_global_options_of_their_own() {
    let grantd = Grantd::new(&Db::sqlite());
    let help = grantd.ok(&["client", "create", "--help"]).await.stdout;
    for part in
        ["\nTokens:\n", "\nFirst secret:\n", "\nGlobal options:\n", "\nExamples:\n  grantd client create billing "]
    {
        assert!(help.contains(part), "{part}: {help}");
    }
    let help = grantd.ok(&["client", "--help"]).await.stdout;
    assert!(help.contains("[alias: ls]") && help.contains("[alias: rm]") && !help.contains("complete"), "{help}");
}
